/* The step that leaves the parent's memory for the helper's.
 *
 * What has to live through that exec: the descriptors of the table and our own
 * (close-on-exec goes off, in this process's table only), and capabilities,
 * which an exec with a nonzero uid would drop.
 */
#include "child.h"

#define F_GETFD_ 1
#define F_SETFD_ 2
#define FD_CLOEXEC_ 1
#define AT_EMPTY_PATH_ 0x1000
#define EPERM_ 1
#define ENOENT_ 2
#define EACCES_ 13
#define EINVAL_ 22

#define PR_CAPBSET_READ_ 23
#define PR_GET_SECUREBITS_ 27
#define SECBIT_NOROOT_ 1
#define SECBIT_NO_CAP_AMBIENT_RAISE_ 64
#define PR_CAP_AMBIENT_ 47
#define PR_CAP_AMBIENT_IS_SET_ 1
#define PR_CAP_AMBIENT_RAISE_ 2
#define CAPABILITY_VERSION_3 0x20080522u

/* Otherwise the child's number of a descriptor. */
enum { PART_OURS = -1, PART_CAPABILITIES = -2, PART_EXEC = -3 };

struct capability_header {
    uint32_t version;
    int32_t pid;
};

struct capability_sets {
    uint32_t effective, permitted, inheritable;
};

NSX_CHILD_CODE static long ambient(long what, long number)
{
    return nsx_syscall(__NR_prctl, PR_CAP_AMBIENT_, what, number, 0, 0, 0);
}

/* What is permitted and no longer bounding no exec brings along: lost as well. */
NSX_CHILD_CODE static void without_unbound(struct capability_sets *sets, const uint32_t *before)
{
    for (int number = 0; number < 64; number++) {
        const uint32_t bit = 1u << number % 32;
        if (sets[number / 32].inheritable & bit & ~before[number / 32] &&
            sys_prctl(PR_CAPBSET_READ_, (uint64_t)number, 0) != 1)
            sets[number / 32].inheritable &= ~bit;
    }
}

/* Root gets capabilities from an exec by being root, perhaps more than it had; others
 * keep theirs by ambient ones.  The helper goes back to what is noted here at once. */
NSX_CHILD_CODE static long keep_capabilities(struct nsx_plan *plan)
{
    struct capability_header header = {CAPABILITY_VERSION_3, 0};
    struct capability_sets sets[2];
    long error = sys_capget(&header, sets);
    if (error < 0)
        return error;
    for (int i = 0; i < 2; i++) {
        plan->effective[i] = sets[i].effective;
        plan->permitted[i] = sets[i].permitted;
        plan->inheritable[i] = sets[i].inheritable;
    }
    const long bits = sys_prctl(PR_GET_SECUREBITS_, 0, 0);
    if (sys_geteuid() == 0 && (bits < 0 || !(bits & SECBIT_NOROOT_)))
        return 0;
    if (!(sets[0].permitted | sets[1].permitted))
        return 0;
    if (bits > 0 && bits & SECBIT_NO_CAP_AMBIENT_RAISE_)
        return 0; /* lost, and what needs them fails then */
    for (int number = 0; number < 64; number++) {
        error = ambient(PR_CAP_AMBIENT_IS_SET_, number);
        if (error < 0 && error != -EINVAL_) /* which this kernel does not know */
            return error;
        if (error == 1)
            plan->ambient[number / 32] |= 1u << number % 32;
    }
    sets[0].inheritable |= sets[0].permitted;
    sets[1].inheritable |= sets[1].permitted;
    error = sys_capset(&header, sets);
    if (error == -EPERM_) {
        without_unbound(sets, plan->inheritable);
        error = sys_capset(&header, sets);
    }
    if (error < 0)
        return error;
    plan->flags |= NSX_RAISED;
    for (int number = 0; number < 64; number++) {
        if (!((sets[number / 32].permitted & sets[number / 32].inheritable) >> number % 32 & 1))
            continue;
        error = ambient(PR_CAP_AMBIENT_RAISE_, number);
        if (error < 0 && error != -EINVAL_)
            return error;
    }
    return 0;
}

NSX_CHILD_CODE static long keep_fds(struct nsx_child *child)
{
    struct nsx_plan *plan = child->plan;
    struct nsx_fd *fd = child_at(plan, plan->fds);
    for (uint32_t i = 0; i < plan->nfds; i++) {
        child->aux = fd[i].child;
        long flags = sys_fcntl(fd[i].parent, F_GETFD_, 0);
        if (flags < 0)
            return flags;
        fd[i].cloexec = flags & FD_CLOEXEC_;
    }
    long error = 0;
    for (uint32_t i = 0; i < plan->nfds && error >= 0; i++) {
        child->aux = fd[i].child;
        if (fd[i].cloexec)
            error = sys_fcntl(fd[i].parent, F_SETFD_, 0);
    }
    if (error < 0)
        return error;
    const struct nsx_join *join = child_at(plan, plan->joins);
    child->aux = PART_OURS;
    for (uint32_t i = 0; i < plan->njoins && error >= 0; i++)
        error = sys_fcntl(join[i].fd, F_SETFD_, 0);
    if (error >= 0)
        error = sys_fcntl(plan->plan_fd, F_SETFD_, 0);
    if (error >= 0 && plan->parent_pidfd >= 0)
        error = sys_fcntl(plan->parent_pidfd, F_SETFD_, 0);
    if (error >= 0 && plan->cgroup_fd >= 0)
        error = sys_fcntl(plan->cgroup_fd, F_SETFD_, 0);
    return error;
}

NSX_CHILD_CODE long step_helper(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    char number[12];
    const uintptr_t argv[3] = {(uintptr_t)"nsext-helper", (uintptr_t)number, 0};
    const uintptr_t envp[1] = {0};
    uint32_t value = (uint32_t)plan->plan_fd;
    int at = (int)sizeof number - 1;
    (void)step;

    long error = keep_fds(child);
    if (error < 0)
        return error;
    child->aux = PART_CAPABILITIES;
    error = keep_capabilities(plan);
    if (error < 0)
        return error;

    number[at] = 0;
    do {
        number[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    for (int i = 0; at < (int)sizeof number; i++, at++)
        number[i] = number[at];

    child->aux = PART_EXEC;
    error = sys_execveat(plan->helper_fd, "", argv, envp, AT_EMPTY_PATH_);
    /* TOMOYO (Debian's 5.10) wants /dev/fd for this; vm.memfd_noexec refuses it. */
    if ((error == -ENOENT_ || error == -EACCES_) && plan->helper_path)
        error = sys_execve(child_at(plan, plan->helper_path), argv, envp);
    return error;
}
