/* clone(2), with the child on a stack of its own. */
#ifndef NSX_CLONE_H
#define NSX_CLONE_H

#include "../abi.h"

struct nsx_clone {
    uint64_t flags; /* CLONE_*; exit signal apart; CLEARTID and PIDFD are added */
    int *pidfd;
    int cgroup;          /* directory of the cgroup that it is born in, by clone3(2); -1: ours */
    uint32_t *child_tid; /* cleared and woken when a CLONE_VM child leaves */
    void *stack;         /* lowest address */
    size_t stack_size;
    int (*fn)(void *);
    void *arg;
};

/* Does this build block the parent while the child is in its memory? */
extern const int nsx_clone_blocks;

/* Runs in the parent, with all signals blocked.  Returns the pid or -errno.
 * old: use clone(2) in place of clone3(2); then CLEAR_SIGHAND must be off. */
long nsx_parent_clone(const struct nsx_clone *how, int old);

#endif
