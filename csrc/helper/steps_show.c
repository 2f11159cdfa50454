/* The step that shows the parent where the child is, by descriptors of its namespaces
 * and of its root: what has joined a user namespace is not to be looked at from outside
 * by an ordinary user, not even by its parent.  Its memory is of the user namespace
 * where the helper was executed, in which the parent has no capability, and is not
 * dumpable.  See ptrace(2), "Ptrace access mode checking".
 */
#include "../sys_mount.h"
#include "send.h"

#define EINVAL_ 22

#define ROOT (NSX_O_PATH | NSX_O_DIRECTORY | NSX_O_CLOEXEC)

enum { PART_ROOT = 9, PART_SEND = 10 }; /* before it, of the namespaces: 1 to 8 */

static const char namespaces[][24] = {
    "/proc/self/ns/mnt", "/proc/self/ns/uts", "/proc/self/ns/ipc",    "/proc/self/ns/user",
    "/proc/self/ns/pid", "/proc/self/ns/net", "/proc/self/ns/cgroup", "/proc/self/ns/time",
};
#define COUNT (sizeof namespaces / sizeof *namespaces)
_Static_assert(COUNT + 1 == NSX_SEND_MAX, "one more for the root");

/* The socket is the last one of the table of joins. */
NSX_CHILD_CODE long step_show(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    const struct nsx_join *join = child_at(plan, plan->joins);
    if (!plan->njoins)
        return -EINVAL_;
    const int32_t socket = join[plan->njoins - 1].fd;
    int32_t fds[NSX_SEND_MAX];
    uint32_t count = 0;
    long error = 0;
    (void)step;

    for (; count < COUNT && error >= 0; count++) {
        child->aux = (int32_t)count + 1;
        error = child_open_proc(plan, namespaces[count], NSX_O_RDONLY | NSX_O_CLOEXEC);
        fds[count] = (int32_t)error;
    }
    if (error >= 0) {
        child->aux = PART_ROOT;
        fds[count++] = (int32_t)(error = sys_openat(NSX_AT_FDCWD, "/", ROOT));
    }
    if (error >= 0) {
        child->aux = PART_SEND;
        error = nsx_helper_send(socket, fds, count);
    }
    for (uint32_t i = 0; i < count; i++)
        if (fds[i] >= 0)
            sys_close(fds[i]);
    sys_close(socket);
    return error < 0 ? error : 0;
}
