#include "plan.h"

#include <errno.h>
#include <string.h>

static const struct {
    const char *name, *stage, *signature;
} table[] = {
#define STEP(name, stage, signature) {#name, #stage, signature},
#include "steps.def"
#undef STEP
};

_Static_assert(sizeof table / sizeof *table == NSX_OP_COUNT, "one row per step");

const char *nsx_step_signature(uint32_t op)
{
    return op < NSX_OP_COUNT ? table[op].signature : "";
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
    return offset < size && memchr(bytes + offset, 0, (size_t)(size - offset)) != NULL;
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
        return -EINVAL;
    if (blob->nsteps == 0 || blob->nsteps > NSX_MAX_STEPS)
        return -EINVAL;
    if (!range_ok(sizeof *blob, (uint64_t)blob->nsteps * sizeof(struct nsx_step), size))
        return -EINVAL;
    if (blob->new_flags & ~NSX_CLONE_NEW_ALL)
        return -EINVAL;
    if (!range_ok(blob->uid_map, blob->uid_map_size, size) ||
        !range_ok(blob->gid_map, blob->gid_map_size, size))
        return -EINVAL;
    /* Maps that the parent writes and the gate behind which the child waits for
     * them come together: one without the other is a race or a hang. */
    if ((blob->step[0].op == NSX_OP_gate) != (blob->uid_map_size || blob->gid_map_size))
        return -EINVAL;
    for (uint32_t i = 0; i < blob->nsteps; i++) {
        uint32_t op = blob->step[i].op;
        int last = i == blob->nsteps - 1;
        if (!step_ok(&blob->step[i], bytes, size))
            return -EINVAL;
        /* The program starts in the last step and in no other. */
        if ((op == NSX_OP_exec || op == NSX_OP_call) != last)
            return -EINVAL;
        if (op == NSX_OP_gate && i != 0)
            return -EINVAL;
    }
    return 0;
}
