/* Hostile bytes as a blob and as a plan: what the checks let through must be safe
 * to read as the helper reads it.  For libFuzzer, with the sanitizers.
 *
 * The first byte says which of the two it is. */
#include "../../csrc/plan.h"

#include <stdlib.h>
#include <string.h>

static volatile size_t sink;

static void read_string(const char *bytes, uint64_t offset)
{
    sink += strlen(bytes + offset);
}

/* All that steps and parent read of a blob that was accepted. */
static void read_blob(const struct nsx_blob *blob)
{
    const char *bytes = (const char *)blob;
    for (uint32_t i = 0; i < blob->nsteps; i++) {
        const uint64_t *arg = blob->step[i].arg;
        for (const char *kind = nsx_step_signature(blob->step[i].op); *kind; kind++, arg++) {
            if (*kind == 's') {
                read_string(bytes, *arg);
            } else if (*kind == 'b') {
                for (uint64_t at = 0; at < arg[1]; at++)
                    sink += (unsigned char)bytes[arg[0] + at];
                arg++;
            }
        }
    }
    for (uint32_t at = 0; at < blob->uid_map_size; at++)
        sink += (unsigned char)bytes[blob->uid_map + at];
    for (uint32_t at = 0; at < blob->gid_map_size; at++)
        sink += (unsigned char)bytes[blob->gid_map + at];
    sink += nsx_blob_helper_step(blob);
}

static void read_array(const struct nsx_plan *plan, uint32_t array, uint32_t count)
{
    const uintptr_t *entry = (const void *)((const char *)plan + array);
    for (uint32_t i = 0; i < count; i++)
        read_string((const char *)plan, entry[i]);
    if (entry[count])
        abort();
}

static void read_plan(const struct nsx_plan *plan)
{
    read_blob((const void *)((const char *)plan + plan->blob));
    read_array(plan, plan->argv, plan->argc);
    read_array(plan, plan->envp, plan->envc);
    read_array(plan, plan->execs, plan->nexecs);
    const struct nsx_fd *fd = (const void *)((const char *)plan + plan->fds);
    for (uint32_t i = 0; i < plan->nfds; i++)
        sink += (size_t)fd[i].child + (size_t)fd[i].moved;
    const struct nsx_join *join = (const void *)((const char *)plan + plan->joins);
    for (uint32_t i = 0; i < plan->njoins; i++)
        sink += (size_t)join[i].fd + join[i].done;
    if (plan->cwd)
        read_string((const char *)plan, plan->cwd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    const int whole = data[0] & 1;
    /* Of just this size, for the sanitizer to see one byte too far. */
    void *copy = malloc(size - 1 ? size - 1 : 1);
    if (!copy)
        return 0;
    memcpy(copy, data + 1, size - 1);
    if (whole && nsx_plan_check(copy, size - 1) == 0)
        read_plan(copy);
    else if (!whole && nsx_blob_check(copy, size - 1) == 0)
        read_blob(copy);
    free(copy);
    return 0;
}
