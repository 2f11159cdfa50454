/* What the steps of the terminal share. */
#ifndef NSX_CHILD_TTY_H
#define NSX_CHILD_TTY_H

#include "child.h"

/* The number that a descriptor of the child has before step fds; itself where the table
 * does not name it. */
static inline __attribute__((always_inline)) long child_before_table(struct nsx_plan *plan,
                                                                     uint64_t number)
{
    const struct nsx_fd *fd = child_at(plan, plan->fds);
    for (uint32_t i = 0; i < plan->nfds; i++)
        if ((uint64_t)fd[i].child == number)
            return fd[i].parent;
    return (long)number;
}

#endif
