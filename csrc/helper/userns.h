/* The id maps of a user namespace within the helper's own: each id is itself. */
#ifndef NSX_USERNS_H
#define NSX_USERNS_H

#include "../child/child.h"

/* 340 lines of three numbers of ten digits: user_namespaces(7). */
struct nsx_map_text {
    char text[340 * 33 + 1];
    size_t size;
};

struct nsx_maps {
    struct nsx_map_text uid, gid;
};

/* Parts of step relay; before them are those of nsx_child_enter_cgroup(). */
enum {
    NSX_RELAY_READ_GIDS = 3,
    NSX_RELAY_READ_UIDS,
    NSX_RELAY_WRITE_GIDS,
    NSX_RELAY_WRITE_UIDS,
};

/* Before the clone: what then is written for it.  0 or -errno; aux says where. */
long nsx_helper_read_maps(struct nsx_child *child, struct nsx_maps *maps);
long nsx_helper_write_maps(struct nsx_child *child, long pid, const struct nsx_maps *maps);

#endif
