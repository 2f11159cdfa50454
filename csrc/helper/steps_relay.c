/* The step that goes on in a second clone: into a pid namespace that was joined
 * one only comes by being born there, and new namespaces belong inside joined
 * ones.  CLONE_PARENT makes it the caller's child, for the caller to reap; we end,
 * and that tells the caller to come and hold its pidfd.
 */
#include "second.h"

#define CLONE_PARENT_SETTID_ 0x00100000
#define ESRCH_ 3

NSX_CHILD_CODE static long begin(const struct nsx_second *second)
{
    struct nsx_plan *plan = second->plan;
    struct nsx_record *record = &plan->record;
    const long slice[2] = {0, 50 * 1000 * 1000};
    while (!__atomic_load_n(&record->relay, __ATOMIC_ACQUIRE)) {
        sys_futex(&record->relay, NSX_FUTEX_WAIT, 0, slice);
        if (sys_is_readable(plan->parent_pidfd) > 0)
            return -ESRCH_;
    }
    return nsx_child_hold(plan, second->hold);
}

NSX_CHILD_CODE long step_relay(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    struct nsx_second second = {.plan = plan, .hold = child->hold, .begin = begin};
    second.step = plan->record.step;
    /* With our table of descriptors, not a copy: we end, and touch it no more. */
    const long flags =
        (long)step->arg[0] | NSX_CLONE_PARENT | CLONE_PARENT_SETTID_ | NSX_CLONE_FILES;
    const long pid = nsx_helper_clone(flags, &plan->record.relay_pid, NULL, &second);
    if (pid < 0)
        return pid;
    nsx_syscall(__NR_exit_group, 0, 0, 0, 0, 0, 0);
    __builtin_trap();
}
