/* The helper's second clone shares its memory, as the helper itself shared its
 * parent's, until it execs or ends: a copy of even this little memory, and the
 * page faults after it, cost 60 us.  Only the caller's stack is shared as well,
 * and each has a part of it.
 */
#include "second.h"

NSX_CHILD_CODE static void second_main(void *arg) __attribute__((noreturn));
NSX_CHILD_CODE static void second_main(void *arg)
{
    const struct nsx_second *second = arg;
    const long error = second->begin(second);
    if (error < 0)
        nsx_child_failed(second->plan, error, 0);
    else
        nsx_child_run(second->plan, second->step + 1, second->hold);
    nsx_syscall(__NR_exit_group, 127, 0, 0, 0, 0, 0);
    __builtin_trap(); /* a filter refuses even that */
}

NSX_CHILD_CODE long nsx_helper_clone(long flags, uint32_t *parent_tid, uint32_t *child_tid,
                                     struct nsx_second *second)
{
    const uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    void *top = (void *)((here - NSX_SECOND_GAP) & ~(uintptr_t)15);
    return nsx_arch_clone(flags | NSX_CLONE_VM | NSX_SIGCHLD, top, parent_tid, child_tid,
                          second_main, second);
}

NSX_CHILD_CODE long nsx_helper_clone_into(uint64_t flags, int cgroup, uint32_t *parent_tid,
                                          struct nsx_second *second)
{
    const uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    const struct nsx_clone_args args = {
        .flags = flags | NSX_CLONE_VM | NSX_CLONE_INTO_CGROUP,
        .parent_tid = (uint64_t)(uintptr_t)parent_tid,
        /* exit_signal: with CLONE_PARENT it is ours */
        .stack = ((here - NSX_SECOND_GAP) & ~(uintptr_t)15) - 16,
        .stack_size = 16, /* the top is all that counts */
        .cgroup = (uint64_t)cgroup,
    };
    return nsx_arch_clone3_inline(&args, sizeof args, second_main, second);
}
