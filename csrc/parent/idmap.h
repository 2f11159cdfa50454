/* Id maps that only the parent may write.  See user_namespaces(7). */
#ifndef NSX_IDMAP_H
#define NSX_IDMAP_H

#include "../plan.h"

#include <sys/types.h>

enum nsx_idmap_part { NSX_PART_PROC = 1, NSX_PART_SETGROUPS, NSX_PART_GID_MAP, NSX_PART_UID_MAP };

/* Writes the blob's maps for the child, which waits at its gate.  0 or -errno;
 * *part says where. */
int nsx_parent_write_maps(const struct nsx_blob *blob, pid_t child, int *part);

/* The calling thread's effective set; 0 where the kernel does not tell. */
uint64_t nsx_parent_capabilities(void);

#endif
