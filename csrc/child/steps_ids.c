/* Steps of a new user namespace's id maps.  See user_namespaces(7). */
#include "child.h"

NSX_CHILD_CODE static size_t put_decimal(char *out, uint64_t value)
{
    char digits[20];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    for (size_t i = 0; i < count; i++)
        out[i] = digits[count - 1 - i];
    return count;
}

/* One line that maps the caller's own id is the map that an unprivileged
 * process may write for itself; so no parent is needed, and no gate. */
NSX_CHILD_CODE static long map_own_id(struct nsx_child *child, const char *path, uint64_t inside,
                                      uint32_t own)
{
    char line[48];
    size_t size = put_decimal(line, inside == UINT64_MAX ? own : inside);
    line[size++] = ' ';
    size += put_decimal(line + size, own);
    line[size++] = ' ';
    line[size++] = '1';
    return nsx_child_write_proc(child, path, line, size);
}

/* A gated child outlives its parent's death by a slice at most: it asks the
 * parent's pidfd, since getppid() is 0 in a new pid namespace and PDEATHSIG
 * would come too late where the parent died before it was set. */
NSX_CHILD_CODE long step_gate(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    const long slice[2] = {0, 50L * 1000 * 1000};
    (void)step;
    while (!__atomic_load_n(&plan->record.gate, __ATOMIC_ACQUIRE)) {
        sys_futex(&plan->record.gate, NSX_FUTEX_WAIT, 0, slice);
        if (sys_is_readable(plan->parent_pidfd) > 0)
            return -3; /* ESRCH: nobody is left to open the gate */
    }
    return 0;
}

NSX_CHILD_CODE long step_setgroups_deny(struct nsx_child *child, const struct nsx_step *step)
{
    (void)step;
    return nsx_child_write_proc(child, "/proc/self/setgroups", "deny", 4);
}

NSX_CHILD_CODE long step_gid_map(struct nsx_child *child, const struct nsx_step *step)
{
    return map_own_id(child, "/proc/self/gid_map", step->arg[0], child->plan->egid);
}

NSX_CHILD_CODE long step_uid_map(struct nsx_child *child, const struct nsx_step *step)
{
    return map_own_id(child, "/proc/self/uid_map", step->arg[0], child->plan->euid);
}

NSX_CHILD_CODE long step_time_offsets(struct nsx_child *child, const struct nsx_step *step)
{
    const char *lines = child_string(child, step->arg[0]);
    return nsx_child_write_proc(child, "/proc/self/timens_offsets", lines, child_strlen(lines));
}
