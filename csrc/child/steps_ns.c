/* Steps inside the new namespaces: uts, time, net, mnt. */
#include "child.h"

enum { PART_OPEN = 1, PART_ENTER = 2 };

NSX_CHILD_CODE long step_unshare(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child;
    return sys_unshare((long)step->arg[0]);
}

/* A child with memory of its own may enter before exec; one that shares the
 * parent's may not (EUSERS: its vvar page is the parent's too), and exec moves
 * it, since Linux 6.3. */
NSX_CHILD_CODE long step_enter_time(struct nsx_child *child, const struct nsx_step *step)
{
    (void)step;
    child->aux = PART_OPEN;
    long fd =
        sys_openat(NSX_AT_FDCWD, "/proc/self/ns/time_for_children", NSX_O_RDONLY | NSX_O_CLOEXEC);
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
