/* Into a cgroup by writing to it: where no clone has borne the child there. */
#include "child.h"

NSX_CHILD_CODE long nsx_child_enter_cgroup(struct nsx_child *child)
{
    child->aux = NSX_PART_OPEN;
    long fd = sys_openat(child->plan->cgroup_fd, "cgroup.procs", NSX_O_WRONLY | NSX_O_CLOEXEC);
    if (fd < 0)
        return fd;
    child->aux = NSX_PART_WRITE;
    long error = sys_write(fd, "0", 1); /* 0: the writer */
    sys_close(fd);
    return error < 0 ? error : 0;
}

NSX_CHILD_CODE long step_cgroup(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    (void)step;
    if (plan->cgroup_fd < 0)
        return -9; /* EBADF */
    long error = plan->flags & NSX_BORN_IN_CGROUP ? 0 : nsx_child_enter_cgroup(child);
    sys_close(plan->cgroup_fd);
    plan->cgroup_fd = -1; /* the number may be another's from here on */
    return error;
}
