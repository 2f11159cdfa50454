#include "plan.h"

#define EINVAL_ 22

static const struct {
    const char *name, *stage, *signature;
    int helper_only;
} table[] = {
#define STEP(name, stage, signature) {#name, #stage, signature, 0},
#define HELPER_STEP(name, stage, signature) {#name, #stage, signature, 1},
#include "steps.def"
#undef STEP
};

_Static_assert(sizeof table / sizeof *table == NSX_OP_COUNT, "one row per step");

const char *nsx_step_signature(uint32_t op)
{
    return op < NSX_OP_COUNT ? table[op].signature : "";
}

int nsx_step_helper_only(uint32_t op)
{
    return op < NSX_OP_COUNT && table[op].helper_only;
}

const char *nsx_step_name(uint32_t op)
{
    return op < NSX_OP_COUNT ? table[op].name : "?";
}

const char *nsx_step_stage(uint32_t op)
{
    return op < NSX_OP_COUNT ? table[op].stage : "plan";
}

static int range_ok(uint64_t offset, uint64_t length, uint64_t size)
{
    return offset <= size && length <= size - offset;
}

static int string_ok(const char *bytes, uint64_t offset, uint64_t size)
{
    for (uint64_t at = offset; at < size; at++)
        if (!bytes[at])
            return 1;
    return 0;
}

uint32_t nsx_blob_helper_step(const struct nsx_blob *blob)
{
    uint32_t i = 0;
    while (i < blob->nsteps && blob->step[i].op != NSX_OP_helper)
        i++;
    return i;
}

static int step_ok(const struct nsx_step *step, const char *bytes, uint64_t size)
{
    if (step->op >= NSX_OP_COUNT)
        return 0;
    const uint64_t *arg = step->arg;
    for (const char *kind = table[step->op].signature; *kind; kind++) {
        if (*kind == 's' && !string_ok(bytes, *arg, size))
            return 0;
        if (*kind == 'b') {
            if (!range_ok(arg[0], arg[1], size))
                return 0;
            arg++;
        }
        arg++;
    }
    return 1;
}

int nsx_blob_check(const void *bytes, size_t size)
{
    const struct nsx_blob *blob = bytes;
    if (size < sizeof *blob || blob->magic != NSX_BLOB_MAGIC || blob->size != size)
        return -EINVAL_;
    if (blob->nsteps == 0 || blob->nsteps > NSX_MAX_STEPS)
        return -EINVAL_;
    if (!range_ok(sizeof *blob, (uint64_t)blob->nsteps * sizeof(struct nsx_step), size))
        return -EINVAL_;
    if (blob->new_flags & ~NSX_CLONE_NEW_ALL)
        return -EINVAL_;
    if (!range_ok(blob->uid_map, blob->uid_map_size, size) ||
        !range_ok(blob->gid_map, blob->gid_map_size, size))
        return -EINVAL_;
    /* Maps that the parent writes are nothing without the gate behind which the child
     * waits for them.  The gate alone is for maps that its caller has others write. */
    int helpers = 0, gates = 0;
    for (uint32_t i = 0; i < blob->nsteps; i++) {
        uint32_t op = blob->step[i].op;
        int last = i == blob->nsteps - 1;
        if (!step_ok(&blob->step[i], bytes, size))
            return -EINVAL_;
        /* The program starts in the last step and in no other. */
        if ((op == NSX_OP_exec || op == NSX_OP_call) != last)
            return -EINVAL_;
        /* First, or the first thing in a user namespace that was made later. */
        if (op == NSX_OP_gate && i && blob->step[i - 1].op != NSX_OP_relay &&
            blob->step[i - 1].op != NSX_OP_cgroup && blob->step[i - 1].op != NSX_OP_outer_userns)
            return -EINVAL_;
        gates += op == NSX_OP_gate;
        helpers += op == NSX_OP_helper;
        if (table[op].helper_only && !helpers)
            return -EINVAL_;
    }
    if (helpers > 1 || gates > 1 || gates < (blob->uid_map_size || blob->gid_map_size))
        return -EINVAL_;
    return 0;
}

static int array_ok(const struct nsx_plan *plan, uint32_t array, uint32_t count, uint64_t size)
{
    const uintptr_t *entry = (const uintptr_t *)(const void *)((const char *)plan + array);
    if (array % sizeof *entry || !range_ok(array, ((uint64_t)count + 1) * sizeof *entry, size))
        return 0;
    for (uint32_t i = 0; i < count; i++)
        if (!string_ok((const char *)plan, entry[i], size))
            return 0;
    return entry[count] == 0;
}

int nsx_plan_check(const struct nsx_plan *plan, size_t size)
{
    if (size < sizeof *plan || plan->size < sizeof *plan || plan->size > size)
        return -EINVAL_;
    const uint64_t used = plan->size;
    if (!range_ok(plan->blob, sizeof(struct nsx_blob), used) || plan->blob % 8)
        return -EINVAL_;
    const struct nsx_blob *blob = (const void *)((const char *)plan + plan->blob);
    if (blob->size > used - plan->blob || nsx_blob_check(blob, blob->size) < 0)
        return -EINVAL_;
    if (!array_ok(plan, plan->argv, plan->argc, used) ||
        !array_ok(plan, plan->envp, plan->envc, used) ||
        !array_ok(plan, plan->execs, plan->nexecs, used))
        return -EINVAL_;
    if (plan->joins % 8 ||
        !range_ok(plan->joins, (uint64_t)plan->njoins * sizeof(struct nsx_join), used))
        return -EINVAL_;
    if (plan->cwd && !string_ok((const char *)plan, plan->cwd, used))
        return -EINVAL_;
    if (plan->fds % 8 || !range_ok(plan->fds, (uint64_t)plan->nfds * sizeof(struct nsx_fd), used))
        return -EINVAL_;
    return 0;
}
