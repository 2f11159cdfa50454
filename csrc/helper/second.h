/* A second process, which goes on with the steps in the same memory. */
#ifndef NSX_SECOND_H
#define NSX_SECOND_H

#include "../child/child.h"

struct nsx_second {
    struct nsx_plan *plan;
    struct nsx_hold *hold;
    uint32_t step;                            /* that clones it */
    long (*begin)(const struct nsx_second *); /* its part of that step: 0 or -errno */
    int first;                                /* for begin: its init is a PID 1 */
    int group;                                /* for begin: it leads a process group */
};

/* Its pid, or -errno.  It runs on the caller's stack, NSX_SECOND_GAP below where
 * that is now, and reads *second there: the caller must not return. */
#define NSX_SECOND_GAP 8192
long nsx_helper_clone(long flags, uint32_t *parent_tid, uint32_t *child_tid,
                      struct nsx_second *second);

/* The same, born in the cgroup of a directory's descriptor: clone3(2). */
long nsx_helper_clone_into(uint64_t flags, int cgroup, uint32_t *parent_tid,
                           struct nsx_second *second);

#endif
