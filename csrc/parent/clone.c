#define _GNU_SOURCE
#include "clone.h"
#include "../sys.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>

const int nsx_clone_blocks = !NSX_ARCH_RAW;

#if NSX_ARCH_RAW
__asm__(NSX_ARCH_CLONE3_ASM);
__asm__(NSX_ARCH_CLONE2_ASM);

__attribute__((visibility("hidden"))) long nsx_arch_clone3(const struct nsx_clone_args *args,
                                                           size_t size, int (*fn)(void *),
                                                           void *arg);
__attribute__((visibility("hidden"))) long nsx_arch_clone2(uint64_t flags, void *top, int *pidfd,
                                                           uint32_t *child_tid, int (*fn)(void *),
                                                           void *arg);

static long clone_new(const struct nsx_clone *how)
{
    struct nsx_clone_args args = {
        .flags = how->flags | NSX_CLONE_PIDFD | NSX_CLONE_CHILD_CLEARTID,
        .pidfd = (uint64_t)(uintptr_t)how->pidfd,
        .child_tid = (uint64_t)(uintptr_t)how->child_tid,
        .exit_signal = SIGCHLD,
        .stack = (uint64_t)(uintptr_t)how->stack,
        .stack_size = how->stack_size,
    };
    if (how->cgroup >= 0) {
        args.flags |= NSX_CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)how->cgroup;
    }
    return nsx_arch_clone3(&args, sizeof args, how->fn, how->arg);
}

/* clone3 takes the lowest address and the size, clone(2) the top. */
static long clone_old(const struct nsx_clone *how)
{
    const uint64_t flags = how->flags | NSX_CLONE_PIDFD | NSX_CLONE_CHILD_CLEARTID | SIGCHLD;
    return nsx_arch_clone2(flags, (char *)how->stack + how->stack_size, how->pidfd, how->child_tid,
                           how->fn, how->arg);
}
#else
static long clone_new(const struct nsx_clone *how)
{
    (void)how;
    return -ENOSYS;
}

/* The C library's wrapper makes one system call and takes no lock.  musl's refuses
 * CLONE_CHILD_CLEARTID: a child in our memory has left it when this returns, and one in a
 * copy says itself that it starts. */
static long clone_old(const struct nsx_clone *how)
{
    const int shares = (how->flags & NSX_CLONE_VM) != 0;
    const uint64_t blocks = nsx_clone_blocks && shares ? NSX_CLONE_VFORK : 0;
    const int flags = (int)(how->flags | blocks | NSX_CLONE_PIDFD | SIGCHLD);
    void *top = (char *)how->stack + how->stack_size;
    int pid = clone(how->fn, top, flags, how->arg, how->pidfd);
    if (pid < 0)
        return -errno;
    if (shares)
        __atomic_store_n(how->child_tid, 0, __ATOMIC_RELEASE);
    return pid;
}
#endif

long nsx_parent_clone(const struct nsx_clone *how, int old)
{
    return old ? clone_old(how) : clone_new(how);
}
