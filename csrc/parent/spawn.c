#define _GNU_SOURCE
#include "spawn.h"
#include "../child/entry.h"
#include "../sys.h"
#include "clone.h"
#include "idmap.h"
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SECOND 1000000000ll
#define PF_FORKNOEXEC 0x40u

static const struct nsx_blob *blob_of(struct nsx_plan *plan)
{
    return (const struct nsx_blob *)((const char *)plan + plan->blob);
}

static int is_gated(struct nsx_plan *plan)
{
    return blob_of(plan)->step[0].op == NSX_OP_gate;
}

/* What is the child's no longer goes back to the pool. */
static void release(struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    if (plan->parent_pidfd >= 0)
        close(plan->parent_pidfd);
    nsx_slot_put(spawn->pool, spawn->slot);
    spawn->slot = NULL;
}

static enum nsx_state fail(struct nsx_spawn *spawn, struct nsx_failure failure)
{
    release(spawn);
    spawn->failure = failure;
    return NSX_FAILED;
}

static enum nsx_state started(struct nsx_spawn *spawn)
{
    release(spawn);
    return NSX_STARTED;
}

/* Reap a child that is dying.  One that does not die keeps its stack and plan,
 * in limbo: the one exception to "leaves nothing behind". */
static void bury(struct nsx_spawn *spawn)
{
    if (nsx_parent_reap(spawn->pidfd, SECOND)) {
        close(spawn->pidfd);
        release(spawn);
        return;
    }
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    if (plan->parent_pidfd >= 0)
        close(plan->parent_pidfd);
    nsx_slot_limbo(spawn->pool, spawn->slot, spawn->pidfd);
    spawn->slot = NULL;
}

/* clone3, and clone(2) where a filter or the architecture refuses it.  ENOSYS is
 * final and remembered.  EPERM may be an old container profile's way to refuse
 * clone3 or the true answer: clone(2) tells which. */
static long clone_child(struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    const uint64_t memory = plan->flags & NSX_ANNOUNCE ? 0 : NSX_CLONE_VM;
    char *stack = (char *)spawn->slot - spawn->slot->stack_size;
    struct nsx_clone how = {
        .flags = memory | blob_of(plan)->new_flags,
        .pidfd = &spawn->pidfd,
        .child_tid = &plan->record.ctid,
        .stack = stack,
        .stack_size = spawn->slot->stack_size,
        .fn = nsx_child_main,
        .arg = plan,
    };
    long pid = -ENOSYS;
    if (!__atomic_load_n(spawn->clone3_missing, __ATOMIC_RELAXED)) {
        how.flags |= NSX_CLONE_CLEAR_SIGHAND;
        pid = nsx_parent_clone(&how, 0);
        how.flags &= ~NSX_CLONE_CLEAR_SIGHAND;
        if (pid == -ENOSYS)
            __atomic_store_n(spawn->clone3_missing, 1, __ATOMIC_RELAXED);
    }
    if (pid == -ENOSYS || pid == -EPERM) {
        plan->flags |= NSX_RESET_SIGNALS;
        pid = nsx_parent_clone(&how, 1);
    }
    return pid;
}

/* An internal descriptor at 0, 1 or 2 would be taken for a standard stream. */
static int above_stdio(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    return moved;
}

enum nsx_state nsx_parent_start(struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    uint64_t all = ~0ull;

    plan->record = (struct nsx_record){.ctid = 1};
    plan->euid = (uint32_t)geteuid();
    plan->egid = (uint32_t)getegid();
    plan->parent_pidfd = -1;
    spawn->pidfd = -1;
    nsx_pool_sweep(spawn->pool);
    if (is_gated(plan)) {
        if (nsx_clone_blocks) /* nobody would be awake to open the gate */
            return fail(spawn, (struct nsx_failure){.step = 0, .error = ENOSYS});
        plan->parent_pidfd = above_stdio((int)syscall(__NR_pidfd_open, getpid(), 0));
        if (plan->parent_pidfd < 0)
            return fail(spawn, (struct nsx_failure){.step = -1, .error = errno});
    }

    /* All 64, also those that the C library keeps to itself: until the child
     * has default handlers, no signal may run code in it. */
    sys_rt_sigprocmask(SIG_SETMASK, &all, &plan->sigmask);
    long pid = clone_child(spawn);
    sys_rt_sigprocmask(SIG_SETMASK, &plan->sigmask, NULL);
    if (pid < 0)
        return fail(spawn, (struct nsx_failure){.step = -1, .error = (int)-pid});
    spawn->pid = (pid_t)pid;

    int fd = above_stdio(spawn->pidfd);
    if (fd < 0) {
        /* No descriptor left above 2: the low one is gone, so by pid; it is our
         * child and unreaped, hence still the same process. */
        struct nsx_failure failure = {.step = -1, .error = errno};
        kill(spawn->pid, SIGKILL);
        syscall(SYS_wait4, spawn->pid, NULL, 0x40000000 /* __WALL */, NULL);
        return fail(spawn, failure);
    }
    spawn->pidfd = fd;

    if (is_gated(plan)) {
        struct nsx_failure failure = {.step = 0};
        int error = nsx_parent_write_maps(blob_of(plan), spawn->pid, &failure.aux);
        if (error) {
            failure.error = -error;
            nsx_parent_abort(spawn, NULL);
            spawn->failure = failure;
            return NSX_FAILED;
        }
        __atomic_store_n(&plan->record.gate, 1, __ATOMIC_RELEASE);
        sys_futex(&plan->record.gate, NSX_FUTEX_WAKE, 1, NULL);
    }
    return NSX_BUSY;
}

/* Killed in its last step: before or after the program took over?  The kernel
 * clears PF_FORKNOEXEC when it does. */
static int never_executed(pid_t pid)
{
    char path[32], text[512];
    unsigned int flags = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size <= 0)
        return 0;
    text[size] = 0;
    const char *after = strrchr(text, ')');
    if (!after || sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) != 1)
        return 0;
    return (flags & PF_FORKNOEXEC) != 0;
}

/* The child has left our memory: what did it do? */
static enum nsx_state child_left(struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    const struct nsx_record record = plan->record;
    const int last = record.step + 1 == blob_of(plan)->nsteps;
    struct nsx_failure failure = {
        .step = (int)record.step, .error = record.error, .aux = record.aux};

    if (!record.failed) {
        struct nsx_end end = {0};
        if (last) {
            if (nsx_parent_wait(spawn->pidfd, 0, 0, &end) != 1 || end.exited || !end.status_known ||
                !never_executed(spawn->pid))
                return started(spawn);
        } else if (nsx_parent_wait(spawn->pidfd, SECOND, 0, &end) != 1 || end.exited) {
            end.status = 0;
        }
        failure.error = end.status ? 0 : ECHILD;
        failure.signal = end.status;
    }
    bury(spawn);
    spawn->failure = failure;
    return NSX_FAILED;
}

enum nsx_state nsx_parent_poll(struct nsx_spawn *spawn, int64_t ns)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    uint32_t *ctid = &plan->record.ctid;
    const long limit[2] = {(long)(ns / SECOND), (long)(ns % SECOND)};

    if (__atomic_load_n(ctid, __ATOMIC_ACQUIRE)) {
        sys_futex(ctid, NSX_FUTEX_WAIT, 1, limit);
        if (__atomic_load_n(ctid, __ATOMIC_ACQUIRE)) {
            /* A copy's death, and that of one killed while dumping core before
             * Linux 5.16, clears no word. */
            struct nsx_end end;
            if (nsx_parent_wait(spawn->pidfd, 0, 0, &end) != 1)
                return NSX_BUSY;
        }
    }
    return child_left(spawn);
}

void nsx_parent_abort(struct nsx_spawn *spawn, int *step_reached)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    if (step_reached)
        *step_reached = (int)__atomic_load_n(&plan->record.step, __ATOMIC_RELAXED);
    nsx_parent_signal(spawn->pidfd, SIGKILL);
    bury(spawn);
}
