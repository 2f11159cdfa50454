/* Steps on the process itself: session, limits, working directory. */
#include "child.h"

#define EINVAL_ 22
#define IOPRIO_WHO_PROCESS_ 1
#define PR_SET_DUMPABLE_ 4
#define PR_SET_TIMERSLACK_ 29

NSX_CHILD_CODE long step_setsid(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child, (void)step;
    return sys_setsid();
}

NSX_CHILD_CODE long step_setpgid(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child;
    return sys_setpgid(0, (long)step->arg[0]);
}

NSX_CHILD_CODE long step_rlimit(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    const uint64_t limit[2] = {step->arg[1], step->arg[2]};
    long error = sys_prlimit64(0, (long)step->arg[0], limit);
    if (error >= 0 && step->arg[0] == NSX_RLIMIT_CORE && plan->flags & NSX_CORE_GUARD) {
        plan->core[0] = limit[0];
        plan->core[1] = limit[1];
        child_guard_core(plan);
    }
    return error;
}

NSX_CHILD_CODE long step_affinity(struct nsx_child *child, const struct nsx_step *step)
{
    return sys_sched_setaffinity(0, step->arg[1], child_string(child, step->arg[0]));
}

NSX_CHILD_CODE long step_nice(struct nsx_child *child, const struct nsx_step *step)
{
    const long prio_process = 0;
    (void)child;
    return sys_setpriority(prio_process, 0, (long)step->arg[0]);
}

NSX_CHILD_CODE long step_ionice(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child;
    return sys_ioprio_set(IOPRIO_WHO_PROCESS_, 0, (long)step->arg[0]);
}

NSX_CHILD_CODE long step_scheduler(struct nsx_child *child, const struct nsx_step *step)
{
    const int priority = (int)step->arg[1];
    (void)child;
    return sys_sched_setscheduler(0, (long)step->arg[0], &priority);
}

/* Of the task, not of the memory; the old one is the value. */
NSX_CHILD_CODE long step_personality(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child;
    const long old = sys_personality((long)step->arg[0]);
    return old < 0 ? old : 0;
}

NSX_CHILD_CODE long step_timer_slack(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child;
    return sys_prctl(PR_SET_TIMERSLACK_, (long)step->arg[0], 0);
}

/* Of the memory: never of one that is shared with the parent. */
NSX_CHILD_CODE long step_dumpable(struct nsx_child *child, const struct nsx_step *step)
{
    if (!child->plan->entry)
        return -EINVAL_;
    return sys_prctl(PR_SET_DUMPABLE_, (long)step->arg[0], 0);
}

/* A descriptor that is passed on leads out of a new root; its directory is no place
 * to start in. */
NSX_CHILD_CODE long step_chdir(struct nsx_child *child, const struct nsx_step *step)
{
    const long error = sys_chdir(child_string(child, step->arg[0]));
#ifdef NSX_HELPER
    const struct nsx_blob *blob = child_at(child->plan, child->plan->blob);
    for (uint32_t i = 0; error >= 0 && i < child->plan->record.step; i++)
        if (blob->step[i].op == NSX_OP_pivot)
            return child_check_cwd();
#endif
    return error;
}

NSX_CHILD_CODE long step_umask(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child;
    sys_umask((long)step->arg[0]);
    return 0;
}
