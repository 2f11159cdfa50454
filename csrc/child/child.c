/* The child: entry point, and the loop over the steps. */
#include "child.h"

NSX_CHILD_CODE static long run_step(struct nsx_child *child, const struct nsx_step *step)
{
    switch (step->op) {
#ifndef NSX_HELPER
#define HELPER_STEP(name, stage, signature)
#endif
#define STEP(name, stage, signature)                                                               \
    case NSX_OP_##name:                                                                            \
        return step_##name(child, step);
#include "../steps.def"
#undef STEP
    default:
        return -38; /* ENOSYS; nsx_blob_check() lets no such op through */
    }
}

NSX_CHILD_CODE static void relocate(struct nsx_plan *plan, uint32_t array, uint32_t count)
{
    uintptr_t *entry = child_at(plan, array);
    for (uint32_t i = 0; i < count; i++)
        entry[i] += (uintptr_t)plan;
}

NSX_CHILD_CODE void nsx_child_relocate(struct nsx_plan *plan)
{
    relocate(plan, plan->argv, plan->argc);
    relocate(plan, plan->envp, plan->envc);
    relocate(plan, plan->execs, plan->nexecs);
}

NSX_CHILD_CODE long nsx_child_write_proc(struct nsx_child *child, const char *path,
                                         const char *text, size_t size)
{
    child->aux = NSX_PART_OPEN;
    long fd = child_open_proc(child->plan, path, NSX_O_WRONLY | NSX_O_CLOEXEC);
    if (fd < 0)
        return fd;
    /* The kernel takes an id map in one write or not at all. */
    child->aux = NSX_PART_WRITE;
    long written = sys_write(fd, text, size);
    sys_close(fd);
    return written < 0 ? written : 0;
}

NSX_CHILD_CODE void nsx_child_announce(struct nsx_plan *plan)
{
    uint32_t *word;
    uint32_t value = 0;
    if (plan->flags & NSX_IN_HELPER) {
        word = &plan->record.hold;
        value = NSX_FUTEX_OWNER_DIED;
    } else if (plan->flags & NSX_ANNOUNCE) {
        word = &plan->record.ctid;
    } else {
        return;
    }
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
    sys_futex(word, NSX_FUTEX_WAKE, 1, NULL);
}

NSX_CHILD_CODE void nsx_child_failed(struct nsx_plan *plan, long error, int32_t aux)
{
    plan->record.error = (int32_t)-error;
    plan->record.aux = aux;
    __atomic_store_n(&plan->record.failed, 1, __ATOMIC_RELEASE);
}

NSX_CHILD_CODE void nsx_child_run(struct nsx_plan *plan, uint32_t first, struct nsx_hold *hold)
{
    struct nsx_child child = {.plan = plan, .blob = child_at(plan, plan->blob), .hold = hold};
    const struct nsx_blob *blob = child_at(plan, plan->blob);

    for (uint32_t i = first; i < blob->nsteps; i++) {
        __atomic_store_n(&plan->record.step, i, __ATOMIC_RELAXED);
        child.aux = 0;
        long error = run_step(&child, &blob->step[i]);
        if (error < 0) {
            nsx_child_failed(plan, error, child.aux);
            return;
        }
    }
}

/* Runs in the parent's memory, on a stack of its own, or in a copy of it. */
NSX_CHILD_CODE int nsx_child_main(void *arg)
{
    struct nsx_plan *plan = arg;
    if (!(plan->flags & NSX_IN_HELPER))
        nsx_child_relocate(plan);
    if (plan->flags & NSX_CORE_GUARD)
        child_guard_core(plan);
    nsx_child_run(plan, 0, NULL);
    nsx_child_announce(plan);
    return 127;
}
