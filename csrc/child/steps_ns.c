/* Steps inside the new namespaces: uts, time, net, mnt. */
#include "child.h"

enum { PART_OPEN = 1, PART_ENTER = 2 };

#define EPERM_ 1
#define ENOENT_ 2
#define PR_SET_DUMPABLE_ 4
#define F_SETFD_ 2
#define FD_CLOEXEC_ 1
#define O_PATH_CLOEXEC (010000000 | 02000000)
#define PROC_SUPER_MAGIC_ 0x9fa0

/* A pidfd is for several kinds at once; where that fails, one by one: which? */
NSX_CHILD_CODE static long enter(struct nsx_child *child, const struct nsx_join *join)
{
    child->aux = (int32_t)join->kind;
    long error = sys_setns(join->fd, join->kind);
    if (error >= 0 || !(join->kind & (join->kind - 1)))
        return error;
    for (uint32_t kind = 1; kind; kind <<= 1) {
        if (!(join->kind & kind))
            continue;
        child->aux = (int32_t)kind;
        error = sys_setns(join->fd, kind);
        if (error < 0)
            return error;
    }
    return 0;
}

NSX_CHILD_CODE static long join_one(struct nsx_child *child, struct nsx_join *join)
{
    /* Not closed: the table may pass it on.  What it does not name, goes there. */
    child->aux = (int32_t)join->kind;
    long error = sys_fcntl(join->fd, F_SETFD_, FD_CLOEXEC_);
    if (error >= 0)
        error = enter(child, join);
    if (error >= 0)
        join->done = 1;
    return error;
}

/* Writes to /proc go to the caller's own from here on. */
NSX_CHILD_CODE static long keep_proc(struct nsx_plan *plan)
{
    uint64_t status[16];
    long fd = sys_openat(NSX_AT_FDCWD, "/proc", O_PATH_CLOEXEC);
    if (fd < 0)
        return fd;
    long error = nsx_syscall(__NR_fstatfs, fd, NSX_P(status), 0, 0, 0, 0);
    if (error >= 0 && status[0] != PROC_SUPER_MAGIC_)
        error = -ENOENT_;
    if (error < 0)
        sys_close(fd);
    else
        plan->proc_fd = (int32_t)fd;
    return error;
}

/* Who owns what decides the order, and only the kernel knows: what may be joined
 * with the capabilities of now comes first, then the user namespace, then what
 * needs the capabilities in it. */
NSX_CHILD_CODE long step_join(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    struct nsx_join *join = child_at(plan, plan->joins);
    long error = 0;
    (void)step;

    child->aux = 0;
    if (plan->flags & NSX_IN_HELPER) {
        /* Nobody in there shall take our descriptors from us. */
        error = sys_prctl(PR_SET_DUMPABLE_, 0, 0);
        if (error >= 0)
            error = keep_proc(plan);
        if (error < 0)
            return error;
    }
    for (int pass = 0; pass < 3; pass++) {
        for (uint32_t i = 0; i < plan->njoins; i++) {
            const int is_user = join[i].kind == NSX_CLONE_NEWUSER;
            if (join[i].done || !join[i].kind || is_user != (pass == 1))
                continue;
            error = join_one(child, &join[i]);
            if (error < 0 && !(pass == 0 && error == -EPERM_))
                return error;
        }
    }
    return 0;
}

NSX_CHILD_CODE long step_unshare(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child;
    return sys_unshare((long)step->arg[0]);
}

/* A child with memory of its own may enter before exec; one that shares the
 * parent's may not (EUSERS: its vvar page is the parent's too), and exec moves
 * it, since Linux 6.2. */
NSX_CHILD_CODE long step_enter_time(struct nsx_child *child, const struct nsx_step *step)
{
    (void)step;
    child->aux = PART_OPEN;
    long fd = child_open_proc(child->plan, "/proc/self/ns/time_for_children",
                              NSX_O_RDONLY | NSX_O_CLOEXEC);
    if (fd < 0)
        return fd;
    child->aux = PART_ENTER;
    long error = sys_setns(fd, NSX_CLONE_NEWTIME);
    sys_close(fd);
    return error;
}

NSX_CHILD_CODE long step_hostname(struct nsx_child *child, const struct nsx_step *step)
{
    const char *name = child_string(child, step->arg[0]);
    return sys_sethostname(name, child_strlen(name));
}

NSX_CHILD_CODE long step_domainname(struct nsx_child *child, const struct nsx_step *step)
{
    const char *name = child_string(child, step->arg[0]);
    return sys_setdomainname(name, child_strlen(name));
}

/* struct ifreq, as SIOCGIFFLAGS and SIOCSIFFLAGS use it: netdevice(7). */
struct interface_flags {
    char name[16];
    int16_t flags;
    char rest[22];
};

#define AF_INET_ 2
#define SOCK_DGRAM_CLOEXEC 02000002
#define SIOCGIFFLAGS_ 0x8913
#define SIOCSIFFLAGS_ 0x8914
#define IFF_UP_ 1

enum { PART_SOCKET = 1, PART_GET = 2, PART_SET = 3 };

NSX_CHILD_CODE long step_loopback(struct nsx_child *child, const struct nsx_step *step)
{
    struct interface_flags lo = {.name = "lo"};
    (void)step;
    child->aux = PART_SOCKET;
    long fd = sys_socket(AF_INET_, SOCK_DGRAM_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    child->aux = PART_GET;
    long error = sys_ioctl(fd, SIOCGIFFLAGS_, &lo);
    if (error >= 0) {
        lo.flags = (int16_t)(lo.flags | IFF_UP_);
        child->aux = PART_SET;
        error = sys_ioctl(fd, SIOCSIFFLAGS_, &lo);
    }
    sys_close(fd);
    return error;
}

#define MS_NOSUID_NODEV_NOEXEC (2 | 4 | 8)
#define MS_REC_ 16384

NSX_CHILD_CODE long step_propagation(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child;
    return sys_mount("none", "/", NULL, MS_REC_ | (long)step->arg[0]);
}

NSX_CHILD_CODE long step_mount_proc(struct nsx_child *child, const struct nsx_step *step)
{
    return sys_mount("proc", child_string(child, step->arg[0]), "proc", MS_NOSUID_NODEV_NOEXEC);
}
