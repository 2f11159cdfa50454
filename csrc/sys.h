/* Raw system calls for code that runs in the child: each returns its value or
 * -errno and is inlined, so that every syscall instruction of a child lies in
 * the child's own section.  The parent may use them too.
 */
#ifndef NSX_SYS_H
#define NSX_SYS_H

#include "abi.h"

#if defined(NSX_FORCE_GENERIC)
#include "arch/generic.h"
#elif defined(__x86_64__) && defined(__LP64__)
#include "arch/x86_64.h"
#elif defined(__aarch64__) && defined(__LP64__)
#include "arch/aarch64.h"
#else
#include "arch/generic.h"
#endif

#define NSX_SYS static inline __attribute__((always_inline))
#define NSX_P(pointer) ((long)(intptr_t)(pointer))

#define NSX_AT_FDCWD (-100L)
#define NSX_O_RDONLY 0L
#define NSX_O_WRONLY 1L
#define NSX_O_CLOEXEC 02000000L

NSX_SYS long sys_openat(long dirfd, const char *path, long flags)
{
    return nsx_syscall(__NR_openat, dirfd, NSX_P(path), flags, 0, 0, 0);
}

NSX_SYS long sys_close(long fd)
{
    return nsx_syscall(__NR_close, fd, 0, 0, 0, 0, 0);
}

NSX_SYS long sys_write(long fd, const void *data, size_t size)
{
    return nsx_syscall(__NR_write, fd, NSX_P(data), (long)size, 0, 0, 0);
}

NSX_SYS long sys_dup3(long from, long to, long flags)
{
    return nsx_syscall(__NR_dup3, from, to, flags, 0, 0, 0);
}

NSX_SYS long sys_fcntl(long fd, long command, long value)
{
    return nsx_syscall(__NR_fcntl, fd, command, value, 0, 0, 0);
}

NSX_SYS long sys_close_range(unsigned int first, unsigned int last)
{
    return nsx_syscall(__NR_close_range, (long)first, (long)last, 0, 0, 0, 0);
}

/* As the other, in a copy of the table that only what is below first comes into. */
NSX_SYS long sys_close_range_unshare(unsigned int first)
{
    return nsx_syscall(__NR_close_range, (long)first, 0xffffffffL, NSX_CLOSE_RANGE_UNSHARE, 0, 0,
                       0);
}

NSX_SYS long sys_getdents64(long fd, void *entries, size_t size)
{
    return nsx_syscall(__NR_getdents64, fd, NSX_P(entries), (long)size, 0, 0, 0);
}

NSX_SYS long sys_chdir(const char *path)
{
    return nsx_syscall(__NR_chdir, NSX_P(path), 0, 0, 0, 0, 0);
}

NSX_SYS long sys_umask(long mask)
{
    return nsx_syscall(__NR_umask, mask, 0, 0, 0, 0, 0);
}

NSX_SYS long sys_setsid(void)
{
    return nsx_syscall(__NR_setsid, 0, 0, 0, 0, 0, 0);
}

NSX_SYS long sys_setpgid(long pid, long group)
{
    return nsx_syscall(__NR_setpgid, pid, group, 0, 0, 0, 0);
}

NSX_SYS long sys_setpriority(long which, long who, long nice)
{
    return nsx_syscall(__NR_setpriority, which, who, nice, 0, 0, 0);
}

NSX_SYS long sys_ioprio_set(long which, long who, long priority)
{
    return nsx_syscall(__NR_ioprio_set, which, who, priority, 0, 0, 0);
}

/* parameters: struct sched_param, one int. */
NSX_SYS long sys_sched_setscheduler(long pid, long policy, const int *parameters)
{
    return nsx_syscall(__NR_sched_setscheduler, pid, policy, NSX_P(parameters), 0, 0, 0);
}

NSX_SYS long sys_personality(long persona)
{
    return nsx_syscall(__NR_personality, persona, 0, 0, 0, 0, 0);
}

NSX_SYS long sys_sched_setaffinity(long pid, size_t size, const void *mask)
{
    return nsx_syscall(__NR_sched_setaffinity, pid, (long)size, NSX_P(mask), 0, 0, 0);
}

NSX_SYS long sys_prlimit64(long pid, long resource, const uint64_t new_limit[2])
{
    return nsx_syscall(__NR_prlimit64, pid, resource, NSX_P(new_limit), 0, 0, 0);
}

NSX_SYS long sys_sethostname(const char *name, size_t size)
{
    return nsx_syscall(__NR_sethostname, NSX_P(name), (long)size, 0, 0, 0, 0);
}

NSX_SYS long sys_setdomainname(const char *name, size_t size)
{
    return nsx_syscall(__NR_setdomainname, NSX_P(name), (long)size, 0, 0, 0, 0);
}

NSX_SYS long sys_mount(const char *source, const char *target, const char *fstype, long flags)
{
    return nsx_syscall(__NR_mount, NSX_P(source), NSX_P(target), NSX_P(fstype), flags, 0, 0);
}

NSX_SYS long sys_unshare(long flags)
{
    return nsx_syscall(__NR_unshare, flags, 0, 0, 0, 0, 0);
}

NSX_SYS long sys_setns(long fd, long nstype)
{
    return nsx_syscall(__NR_setns, fd, nstype, 0, 0, 0, 0);
}

NSX_SYS long sys_socket(long family, long type, long protocol)
{
    return nsx_syscall(__NR_socket, family, type, protocol, 0, 0, 0);
}

NSX_SYS long sys_ioctl(long fd, long request, void *arg)
{
    return nsx_syscall(__NR_ioctl, fd, request, NSX_P(arg), 0, 0, 0);
}

NSX_SYS long sys_execve(const char *path, const uintptr_t *argv, const uintptr_t *envp)
{
    return nsx_syscall(__NR_execve, NSX_P(path), NSX_P(argv), NSX_P(envp), 0, 0, 0);
}

NSX_SYS long sys_execveat(long fd, const char *path, const uintptr_t *argv, const uintptr_t *envp,
                          long flags)
{
    return nsx_syscall(__NR_execveat, fd, NSX_P(path), NSX_P(argv), NSX_P(envp), flags, 0);
}

NSX_SYS long sys_prctl(long option, long a, long b)
{
    return nsx_syscall(__NR_prctl, option, a, b, 0, 0, 0);
}

NSX_SYS long sys_capget(void *header, void *data)
{
    return nsx_syscall(__NR_capget, NSX_P(header), NSX_P(data), 0, 0, 0, 0);
}

NSX_SYS long sys_capset(void *header, const void *data)
{
    return nsx_syscall(__NR_capset, NSX_P(header), NSX_P(data), 0, 0, 0, 0);
}

NSX_SYS long sys_keyctl(long operation, long a, long b)
{
    return nsx_syscall(__NR_keyctl, operation, a, b, 0, 0, 0);
}

NSX_SYS long sys_setgroups(size_t count, const void *gids)
{
    return nsx_syscall(__NR_setgroups, (long)count, NSX_P(gids), 0, 0, 0, 0);
}

/* Both return the id from before, whatever happens. */
NSX_SYS long sys_setfsuid(long uid)
{
    return nsx_syscall(__NR_setfsuid, uid, 0, 0, 0, 0, 0);
}

NSX_SYS long sys_setfsgid(long gid)
{
    return nsx_syscall(__NR_setfsgid, gid, 0, 0, 0, 0, 0);
}

NSX_SYS long sys_setresgid(long gid)
{
    return nsx_syscall(__NR_setresgid, gid, gid, gid, 0, 0, 0);
}

NSX_SYS long sys_setresuid(long uid)
{
    return nsx_syscall(__NR_setresuid, uid, uid, uid, 0, 0, 0);
}

NSX_SYS long sys_geteuid(void)
{
    return nsx_syscall(__NR_geteuid, 0, 0, 0, 0, 0, 0);
}

NSX_SYS long sys_getegid(void)
{
    return nsx_syscall(__NR_getegid, 0, 0, 0, 0, 0, 0);
}

NSX_SYS long sys_gettid(void)
{
    return nsx_syscall(__NR_gettid, 0, 0, 0, 0, 0, 0);
}

NSX_SYS long sys_set_robust_list(const void *head, size_t size)
{
    return nsx_syscall(__NR_set_robust_list, NSX_P(head), (long)size, 0, 0, 0, 0);
}

/* set and old are 64-bit masks, as the kernel has them. */
NSX_SYS long sys_rt_sigprocmask(long how, const uint64_t *set, uint64_t *old)
{
    return nsx_syscall(__NR_rt_sigprocmask, how, NSX_P(set), NSX_P(old), NSX_SIGSET_BYTES, 0, 0);
}

NSX_SYS long sys_rt_sigaction(long signal, const void *action, void *old)
{
    return nsx_syscall(__NR_rt_sigaction, signal, NSX_P(action), NSX_P(old), NSX_SIGSET_BYTES, 0,
                       0);
}

/* timeout: {seconds, nanoseconds} as this ABI's long, relative; NULL: none. */
NSX_SYS long sys_futex(uint32_t *word, long operation, uint32_t value, const long *timeout)
{
    return nsx_syscall(__NR_futex, NSX_P(word), operation, (long)value, NSX_P(timeout), 0, 0);
}

/* 1 if fd can be read at once: a pidfd, its process has ended.  0, or -errno. */
NSX_SYS long sys_is_readable(int fd)
{
    struct {
        int fd;
        short events, revents;
    } poll = {fd, 1, 0};
    const long now[2] = {0, 0};
    return nsx_syscall(__NR_ppoll, NSX_P(&poll), 1, NSX_P(now), 0, 0, 0);
}

#endif
