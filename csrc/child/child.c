/* The child: entry point, and the loop over the steps. */
#include "child.h"

NSX_CHILD_CODE static long run_step(struct nsx_child *child, const struct nsx_step *step)
{
    switch (step->op) {
#define STEP(name, stage, signature)                                                               \
    case NSX_OP_##name:                                                                            \
        return step_##name(child, step);
#include "../steps.def"
#undef STEP
    default:
        return -38; /* ENOSYS; nsx_blob_check() lets no such op through */
    }
}

/* Arrays of offsets become arrays of pointers, at the address where the plan is
 * mapped here. */
NSX_CHILD_CODE static void relocate(struct nsx_plan *plan, uint32_t array, uint32_t count)
{
    uintptr_t *entry = child_at(plan, array);
    for (uint32_t i = 0; i < count; i++)
        entry[i] += (uintptr_t)plan;
}

NSX_CHILD_CODE void nsx_child_announce(struct nsx_plan *plan)
{
    if (!(plan->flags & NSX_ANNOUNCE))
        return;
    __atomic_store_n(&plan->record.ctid, 0, __ATOMIC_RELEASE);
    sys_futex(&plan->record.ctid, NSX_FUTEX_WAKE, 1, NULL);
}

NSX_CHILD_CODE int nsx_child_main(void *arg)
{
    struct nsx_plan *plan = arg;
    struct nsx_child child = {.plan = plan, .blob = child_at(plan, plan->blob)};
    const struct nsx_blob *blob = child_at(plan, plan->blob);

    relocate(plan, plan->argv, plan->argc);
    relocate(plan, plan->envp, plan->envc);
    relocate(plan, plan->execs, plan->nexecs);

    for (uint32_t i = 0; i < blob->nsteps; i++) {
        __atomic_store_n(&plan->record.step, i, __ATOMIC_RELAXED);
        child.aux = 0;
        long error = run_step(&child, &blob->step[i]);
        if (error < 0) {
            plan->record.error = (int32_t)-error;
            plan->record.aux = child.aux;
            plan->record.failed = 1;
            break;
        }
    }
    nsx_child_announce(plan);
    return 127;
}
