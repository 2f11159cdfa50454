/* The step that goes on in a second clone: into a pid namespace that was joined
 * one only comes by being born there, and new namespaces belong inside joined
 * ones.  CLONE_PARENT makes it the caller's child, for the caller to reap; we end,
 * and that tells the caller to come and hold its pidfd.
 *
 * A child of the caller's own memory is never in another cgroup than the caller:
 * an OOM there would kill all who share its memory.  So it is this clone that is
 * born into one.
 */
#include "second.h"
#include "userns.h"

#define CLONE_PARENT_SETTID_ 0x00100000
#define EBADF_ 9
#define ENOSYS_ 38
#define EPERM_ 1
#define ESRCH_ 3

NSX_CHILD_CODE static long begin(const struct nsx_second *second)
{
    struct nsx_plan *plan = second->plan;
    struct nsx_record *record = &plan->record;
    const long slice[2] = {0, 50L * 1000 * 1000};
    while (!__atomic_load_n(&record->relay, __ATOMIC_ACQUIRE)) {
        sys_futex(&record->relay, NSX_FUTEX_WAIT, 0, slice);
        if (sys_is_readable(plan->parent_pidfd) > 0)
            return -ESRCH_;
    }
    const long error = nsx_child_hold(plan, second->hold);
    if (plan->cgroup_fd >= 0)
        sys_close(plan->cgroup_fd);
    return error;
}

/* Where clone3 is refused we go there ourselves: the clone is born where we are.
 * EPERM may be its true answer; then clone(2) says so, too. */
NSX_CHILD_CODE static long clone_into_cgroup(struct nsx_child *child, uint64_t flags,
                                             struct nsx_second *second)
{
    struct nsx_plan *plan = child->plan;
    const int cgroup = plan->cgroup_fd;
    uint32_t *pid = &plan->record.relay_pid;
    if (cgroup < 0)
        return -EBADF_;
    long error = nsx_helper_clone_into(flags, cgroup, pid, second);
    if (error == -ENOSYS_ || error == -EPERM_) {
        error = nsx_child_enter_cgroup(child);
        if (error < 0)
            return error;
        child->aux = 0;
        error = nsx_helper_clone((long)flags, pid, NULL, second);
    }
    return error;
}

NSX_CHILD_CODE static void end(void) __attribute__((noreturn));
NSX_CHILD_CODE static void end(void)
{
    nsx_syscall(__NR_exit_group, 0, 0, 0, 0, 0, 0);
    __builtin_trap(); /* a filter refuses even that */
}

/* Into a user namespace within ours, whose id maps only we may write.  Where we fail
 * then, the caller ends the second one.  On the stack, and that before it comes to
 * be: it has what is below of it. */
NSX_CHILD_CODE __attribute__((noinline)) static long clone_with_ids(struct nsx_child *child,
                                                                    uint64_t flags,
                                                                    struct nsx_second *second)
{
    struct nsx_plan *plan = child->plan;
    struct nsx_maps maps;
    long error = nsx_helper_read_maps(child, &maps);
    if (error < 0)
        return error;
    const long pid = nsx_helper_clone((long)flags, &plan->record.relay_pid, NULL, second);
    if (pid < 0)
        return pid;
    error = nsx_helper_write_maps(child, pid, &maps);
    if (error < 0)
        nsx_child_failed(plan, error, child->aux);
    else
        __atomic_store_n(&plan->record.relay_mapped, 1, __ATOMIC_RELEASE);
    end();
}

/* arg 0: CLONE_NEW*; arg 1: NSX_RELAY_*. */
NSX_CHILD_CODE long step_relay(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    struct nsx_second second = {.plan = plan, .hold = child->hold, .begin = begin};
    second.step = plan->record.step;
    /* With our table of descriptors, not a copy: we end, and leave it as it is. */
    const uint64_t flags = step->arg[0] | NSX_CLONE_PARENT | CLONE_PARENT_SETTID_ | NSX_CLONE_FILES;
    long pid;
    if (step->arg[1] & NSX_RELAY_IDS)
        pid = clone_with_ids(child, flags, &second);
    else if (step->arg[1] & NSX_RELAY_CGROUP)
        pid = clone_into_cgroup(child, flags, &second);
    else
        pid = nsx_helper_clone((long)flags, &plan->record.relay_pid, NULL, &second);
    if (pid < 0)
        return pid;
    end();
}
