/* What the kernel alone takes: clone(VM | VFORK), exec, wait, in plain C.
 *
 * A shared library that the benchmark calls through ctypes, once for each
 * sample, so that it runs in the same process as the contenders, with the same
 * memory, descriptors and caches.  The clock is read here: what ctypes costs is
 * not in the sample.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stddef.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

#define STACK_SIZE ((size_t)16 << 10)

extern char **environ;

/* Kept, as a caller in C would: a fresh mapping costs 10 us in page faults. */
static _Thread_local _Alignas(64) char stack[STACK_SIZE];

struct program {
    const char *path;
    int unshare_flags; /* what clone(2) cannot say */
    int twice;         /* exec once more on the way */
};

static int child(void *arg)
{
    const struct program *program = arg;
    char *argv[] = {(char *)program->path, program->twice ? (char *)program->path : NULL, NULL};
    if (program->unshare_flags && unshare(program->unshare_flags) < 0)
        _exit(126);
    execve(program->path, argv, environ);
    _exit(127);
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int spawn_and_wait(struct program *program, int flags)
{
    siginfo_t info;
    int pid = clone(child, stack + STACK_SIZE, flags | CLONE_VM | CLONE_VFORK | SIGCHLD, program);
    if (pid < 0)
        return -errno;
    if (waitid(P_PID, (id_t)pid, &info, WEXITED) < 0)
        return -errno;
    if (info.si_code != CLD_EXITED)
        return -EINTR;
    return info.si_status == 126 ? -EPERM : info.si_status == 127 ? -ENOEXEC : info.si_status;
}

/* Returns 0 and how long it took, or -errno, or a status other than 0. */
int reference_run(const char *path, int flags, int twice, int64_t *ns)
{
    struct program program = {
        .path = path, .unshare_flags = flags & CLONE_NEWTIME, .twice = twice};
    const int64_t start = now();
    const int error = spawn_and_wait(&program, flags & ~CLONE_NEWTIME);
    *ns = now() - start;
    return error;
}
