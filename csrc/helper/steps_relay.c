/* The step that goes on in a second clone: into a pid namespace that was joined
 * one only comes by being born there, and new namespaces belong inside joined
 * ones.  CLONE_PARENT makes it the caller's child, for the caller to reap; we end,
 * and that tells the caller to come and hold its pidfd.
 */
#include "../child/child.h"

#define CLONE_PARENT_SETTID_ 0x00100000
#define ESRCH_ 3

NSX_CHILD_CODE long step_relay(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    struct nsx_record *record = &plan->record;
    const long slice[2] = {0, 50 * 1000 * 1000};
    const long flags = (long)step->arg[0] | NSX_CLONE_PARENT | CLONE_PARENT_SETTID_ | NSX_SIGCHLD;

    long pid = nsx_syscall(__NR_clone, flags, 0, NSX_P(&record->relay_pid), 0, 0, 0);
    if (pid < 0)
        return pid;
    if (pid > 0) {
        nsx_syscall(__NR_exit_group, 0, 0, 0, 0, 0, 0);
        __builtin_trap();
    }
    while (!__atomic_load_n(&record->relay, __ATOMIC_ACQUIRE)) {
        sys_futex(&record->relay, NSX_FUTEX_WAIT, 0, slice);
        if (sys_is_readable(plan->parent_pidfd))
            return -ESRCH_;
    }
    nsx_child_hold(plan, child->hold);
    return 0;
}
