#define _GNU_SOURCE
#include "wait.h"
#include "../sys.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ALL_CHILDREN 0x40000000 /* __WALL */

int64_t nsx_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#define REAPING 100 /* ms */

/* Whoever ignores SIGCHLD, or calls waitpid(-1), takes our status.  Since Linux
 * 6.15 the kernel keeps it as long as a pidfd does, from a moment after waitid(2)
 * knows the process no more: then the pidfd hangs up. */
static void status_after_reap(int pidfd, struct nsx_end *end)
{
    struct nsx_pidfd_info info;
    *end = (struct nsx_end){.exited = 1};
    for (int tries = 0;; tries++) {
        struct pollfd hangs_up = {.fd = pidfd};
        info = (struct nsx_pidfd_info){.mask = NSX_PIDFD_INFO_EXIT};
        if (sys_ioctl(pidfd, (long)NSX_PIDFD_GET_INFO, &info) < 0)
            return;
        if (info.mask & NSX_PIDFD_INFO_EXIT)
            break;
        /* Somebody else's child, perhaps, that he has not waited for. */
        if (tries || poll(&hangs_up, 1, REAPING) != 1)
            return;
    }
    end->status_known = 1;
    end->exited = WIFEXITED(info.exit_code);
    end->status = end->exited ? WEXITSTATUS(info.exit_code) : WTERMSIG(info.exit_code);
}

/* 1: ended; 0: not yet (WNOHANG). */
static int ask(int pidfd, int options, struct nsx_end *end, struct nsx_usage *usage)
{
    siginfo_t info;
    info.si_pid = 0;
    long error =
        nsx_syscall(__NR_waitid, NSX_P_PIDFD, pidfd, NSX_P(&info), WEXITED | ALL_CHILDREN | options,
                    usage ? NSX_P(&usage->rusage) : 0, 0);
    if (error == -ECHILD) {
        /* Not ours to wait for, but perhaps not over yet either: a pidfd is
         * readable once the process has ended. */
        if (sys_is_readable(pidfd) <= 0) {
            if (options & WNOHANG)
                return 0;
            struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
            if (poll(&poll_fd, 1, -1) < 0)
                return -errno;
        }
        status_after_reap(pidfd, end);
        return 1;
    }
    if (error < 0)
        return (int)error;
    if (info.si_pid == 0)
        return 0;
    *end = (struct nsx_end){.exited = info.si_code == CLD_EXITED, .status = info.si_status};
    end->status_known = 1;
    if (usage) {
        end->measured = 1;
        usage->ended = nsx_now();
    }
    return 1;
}

int nsx_parent_wait(int pidfd, int64_t timeout, int reap, struct nsx_end *end,
                    struct nsx_usage *usage)
{
    const int keep = reap ? 0 : WNOWAIT;
    if (timeout == NSX_FOREVER)
        return ask(pidfd, keep, end, usage);
    if (timeout > 0) {
        struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
        const struct timespec limit = {.tv_sec = (time_t)(timeout / 1000000000),
                                       .tv_nsec = (long)(timeout % 1000000000)};
        if (ppoll(&poll_fd, 1, &limit, NULL) < 0)
            return -errno;
    }
    return ask(pidfd, keep | WNOHANG, end, usage);
}

int nsx_parent_reap(int pidfd, int64_t timeout)
{
    const int64_t deadline = nsx_now() + timeout;
    for (;;) {
        struct nsx_end end;
        const int64_t left = deadline - nsx_now();
        int done = nsx_parent_wait(pidfd, left > 0 ? left : 0, 1, &end, NULL);
        if (done != 0 && done != -EINTR)
            return 1;
        if (left <= 0)
            return 0;
    }
}

int nsx_parent_signal(int pidfd, int signal)
{
    return (int)nsx_syscall(__NR_pidfd_send_signal, pidfd, signal, 0, 0, 0, 0);
}
