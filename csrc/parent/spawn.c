#define _GNU_SOURCE
#include "spawn.h"
#include "../child/entry.h"
#include "../sys.h"
#include "clone.h"
#include "fd.h"
#include "idmap.h"
#include "wait.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define SECOND 1000000000ll
#define PF_EXITING 0x4u
#define PF_FORKNOEXEC 0x40u

static const struct nsx_blob *blob_of(struct nsx_plan *plan)
{
    return (const struct nsx_blob *)((const char *)plan + plan->blob);
}

static const struct nsx_step *find(struct nsx_plan *plan, uint32_t op)
{
    const struct nsx_blob *blob = blob_of(plan);
    for (uint32_t i = 0; i < blob->nsteps; i++)
        if (blob->step[i].op == op)
            return &blob->step[i];
    return NULL;
}

/* At a gate the child waits until we have written its id maps. */
static int is_gated(struct nsx_plan *plan)
{
    return find(plan, NSX_OP_gate) != NULL;
}

/* Does the child wait for us somewhere, so that it must see us die? */
static int waits_for_us(struct nsx_plan *plan)
{
    const struct nsx_step *init = find(plan, NSX_OP_init);
    return is_gated(plan) || find(plan, NSX_OP_relay) || find(plan, NSX_OP_checkpoint) ||
           find(plan, NSX_OP_parent_death) || (init && init->arg[0] & NSX_INIT_PARENT);
}

/* An init goes on in its helper, with the plan mapped. */
static int has_init(struct nsx_plan *plan)
{
    return find(plan, NSX_OP_init) != NULL;
}

/* May the child use our table of descriptors, and be spared a copy, until its step
 * fds?  Only where it keeps stdio alone and no step before touches a descriptor;
 * and where the caller, who may close what he gave us, waits for it. */
static int may_share_fds(const struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    const struct nsx_blob *blob = blob_of(plan);
    if (spawn->slot->kind != NSX_SLOT_INLINE || spawn->returns_early)
        return 0;
    if (plan->nfds || !(plan->flags & NSX_CLOSE_FDS))
        return 0;
    for (uint32_t i = 0; i < blob->nsteps; i++) {
        switch (blob->step[i].op) {
        case NSX_OP_fds:
            return 1;
        case NSX_OP_hostname:
        case NSX_OP_domainname:
        case NSX_OP_propagation:
        case NSX_OP_mount_proc:
            break;
        default:
            return 0;
        }
    }
    return 0;
}

/* Is what this init maps of the plan of no use to its program?  So it is where the
 * program has our own user namespace, ids and privileges, and nothing confines it;
 * and where all that it has started ends with the init, a PID 1. */
static int is_trusted(struct nsx_plan *plan)
{
    const struct nsx_blob *blob = blob_of(plan);
    const uint32_t kinds = blob->new_flags & (NSX_CLONE_NEWPID | NSX_CLONE_NEWUSER);
    if (kinds != NSX_CLONE_NEWPID || plan->njoins)
        return 0;
    for (uint32_t i = 0; i < blob->nsteps; i++) {
        switch (blob->step[i].op) {
        case NSX_OP_helper:
        case NSX_OP_hostname:
        case NSX_OP_domainname:
        case NSX_OP_loopback:
        case NSX_OP_propagation:
        case NSX_OP_mount_proc:
        case NSX_OP_init:
        case NSX_OP_fds:
        case NSX_OP_setsid:
        case NSX_OP_setpgid:
        case NSX_OP_rlimit:
        case NSX_OP_affinity:
        case NSX_OP_nice:
        case NSX_OP_chdir:
        case NSX_OP_umask:
        case NSX_OP_default_signals:
        case NSX_OP_exec:
            break;
        default:
            return 0;
        }
    }
    return 1;
}

static void close_own(struct nsx_spawn *spawn)
{
    if (spawn->parent_pidfd >= 0)
        close(spawn->parent_pidfd);
    spawn->parent_pidfd = -1;
}

/* What is the child's no longer goes back to the pool. */
static void release(struct nsx_spawn *spawn)
{
    close_own(spawn);
    if (spawn->has_init) /* what the init leaves behind may map it for a moment yet */
        nsx_slot_strip(spawn->pool, spawn->slot);
    else
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
    close_own(spawn);
    if (spawn->relayed) {
        struct nsx_report report;
        nsx_parent_report(spawn, &report);
        spawn->inner_pid = report.inner_pid;
    }
    if (!spawn->has_init)
        release(spawn);
    return NSX_STARTED;
}

/* Reap a child that is dying.  One that does not die keeps its stack and plan,
 * in limbo: the one exception to "leaves nothing behind". */
static void bury(struct nsx_spawn *spawn, int killed)
{
    int gone = nsx_parent_reap(spawn->pidfd, SECOND);
    if (!gone && !killed) {
        /* It has said that it fails, and goes on: a stopped or a hostile init. */
        nsx_parent_signal(spawn->pidfd, SIGKILL);
        gone = nsx_parent_reap(spawn->pidfd, SECOND);
    }
    if (gone) {
        if (!spawn->lent)
            close(spawn->pidfd);
        release(spawn);
        return;
    }
    close_own(spawn);
    if (spawn->lent)
        spawn->pidfd = fcntl(spawn->pidfd, F_DUPFD_CLOEXEC, 3);
    if (spawn->pidfd >= 0) /* else its memory stays for good */
        nsx_slot_limbo(spawn->pool, spawn->slot, spawn->pidfd);
    spawn->slot = NULL;
}

/* clone3, and clone(2) where a filter or the architecture refuses it.  ENOSYS is
 * final and remembered.  EPERM may be an old container profile's way to refuse
 * clone3 or the true answer: clone(2) tells which. */
static long clone_child(struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    const uint64_t memory = spawn->slot->kind == NSX_SLOT_SHARED ? 0 : NSX_CLONE_VM;
    char *stack = (char *)spawn->slot - spawn->slot->stack_size;
    struct nsx_clone how = {
        .flags = memory | blob_of(plan)->new_flags,
        .pidfd = &spawn->pidfd,
        .cgroup = -1,
        .child_tid = &plan->record.ctid,
        .stack = stack,
        .stack_size = spawn->slot->stack_size,
        .fn = nsx_child_main,
        .arg = plan,
    };
    if (may_share_fds(spawn)) {
        plan->flags |= NSX_SHARED_FDS;
        how.flags |= NSX_CLONE_FILES;
    }
    /* Only with memory of its own: see step_relay(). */
    if (spawn->slot->kind == NSX_SLOT_SHARED && find(plan, NSX_OP_cgroup)) {
        how.cgroup = plan->cgroup_fd;
        plan->flags |= NSX_BORN_IN_CGROUP;
    }
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
        plan->flags &= ~(uint32_t)NSX_BORN_IN_CGROUP;
        pid = nsx_parent_clone(&how, 1);
    }
    return pid;
}

/* The helper's hold carries its tid as it sees it, and it waits on nobody for
 * it: whoever comes first, we or it, writes the word. */
static void guess_hold(struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    const uint32_t tid = blob_of(plan)->new_flags & NSX_CLONE_NEWPID ? 1 : (uint32_t)spawn->pid;
    uint32_t none = 0;
    __atomic_compare_exchange_n(&plan->record.hold, &none, tid | NSX_FUTEX_WAITERS, 0,
                                __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

void nsx_parent_open_gate(struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    spawn->gated = 0;
    __atomic_store_n(&plan->record.gate, 1, __ATOMIC_RELEASE);
    sys_futex(&plan->record.gate, NSX_FUTEX_WAKE, 1, NULL);
}

/* PF_* of a process, also of one that is a zombie; 0: not to be had. */
static unsigned int flags_of(pid_t pid)
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
    return flags;
}

/* Within timeout ns?  Whatever signals come. */
static int nsx_parent_has_ended(int pidfd, int64_t timeout, struct nsx_end *end)
{
    const int64_t deadline = nsx_now() + timeout;
    int done;
    do {
        const int64_t left = deadline - nsx_now();
        done = nsx_parent_wait(pidfd, left > 0 ? left : 0, 0, end, NULL);
    } while (done == -EINTR);
    return done == 1;
}

/* Is it a zombie, or about to be?  Its memory is gone before it is one. */
static int is_dying(const struct nsx_spawn *spawn)
{
    struct nsx_end end;
    return (flags_of(spawn->pid) & PF_EXITING) || nsx_parent_has_ended(spawn->pidfd, 0, &end);
}

static enum nsx_state write_maps(struct nsx_spawn *spawn)
{
    const struct nsx_blob *blob = blob_of(nsx_slot_plan(spawn->slot));
    struct nsx_failure failure = {.step = spawn->gate};
    if (spawn->maps_by_caller) {
        spawn->gated = 1;
        return NSX_GATED;
    }
    int error = nsx_parent_write_maps(blob, spawn->pid, &failure.aux);
    /* What has no memory belongs to root, in /proc: an ordinary user gets EACCES.  That it
     * was killed is what there is to say. */
    if (error && failure.aux != NSX_PART_PROC && is_dying(spawn))
        return NSX_BUSY;
    if (error) {
        failure.error = -error;
        nsx_parent_abort(spawn, NULL);
        spawn->failure = failure;
        return NSX_FAILED;
    }
    nsx_parent_open_gate(spawn);
    return NSX_BUSY;
}

/* By pid, where there is no descriptor for it: our child, unreaped, hence the same. */
static void kill_unheld(pid_t pid)
{
    kill(pid, SIGKILL);
    while (syscall(SYS_wait4, pid, NULL, 0x40000000 /* __WALL */, NULL) < 0 && errno == EINTR)
        ;
}

enum nsx_state nsx_parent_start(struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    uint64_t all = ~0ull;

    plan->record = (struct nsx_record){.ctid = 1};
    if (find(plan, NSX_OP_uid_map) || find(plan, NSX_OP_gid_map) || find(plan, NSX_OP_mapped_id)) {
        plan->euid = (uint32_t)geteuid();
        plan->egid = (uint32_t)getegid();
    }
    plan->size = (uint32_t)spawn->slot->used;
    plan->page_size = (uint32_t)sysconf(_SC_PAGESIZE);
    plan->plan_fd = spawn->slot->memfd;
    if (spawn->slot->kind != NSX_SLOT_INLINE || spawn->returns_early)
        plan->flags |= spawn->slot->kind == NSX_SLOT_MEMFD ? NSX_IN_HELPER : NSX_ANNOUNCE;
    struct rlimit core;
    if (spawn->slot->kind == NSX_SLOT_INLINE && getrlimit(RLIMIT_CORE, &core) == 0 &&
        core.rlim_cur > 1) {
        plan->flags |= NSX_CORE_GUARD;
        plan->core[0] = core.rlim_cur;
        plan->core[1] = core.rlim_max;
    }
    spawn->pidfd = spawn->parent_pidfd = -1;
    spawn->owner = nsx_pool_process(spawn->pool);
    const struct nsx_step *gate = find(plan, NSX_OP_gate);
    spawn->nsteps = blob_of(plan)->nsteps;
    spawn->has_init = has_init(plan);
    spawn->trusted = spawn->has_init && is_trusted(plan);
    const struct nsx_step *relay = find(plan, NSX_OP_relay);
    spawn->has_relay = relay != NULL;
    spawn->relay_has_ids = relay && relay->arg[1] & NSX_RELAY_IDS;
    spawn->relay_has_gate = relay && gate && gate > relay;
    spawn->gate_is_late = gate && find(plan, NSX_OP_outer_userns);
    spawn->has_filter = find(plan, NSX_OP_seccomp) != NULL;
    spawn->gate = gate ? (int)(gate - blob_of(plan)->step) : -1;
    nsx_pool_sweep(spawn->pool);
    if (is_gated(plan) && nsx_clone_blocks) /* nobody would be awake to open the gate */
        return fail(spawn, (struct nsx_failure){.step = 0, .error = ENOSYS});
    if (waits_for_us(plan)) {
        int self = (int)syscall(__NR_pidfd_open, getpid(), 0);
        spawn->parent_pidfd = nsx_above_stdio(self);
        if (spawn->parent_pidfd < 0)
            return fail(spawn, (struct nsx_failure){.step = -1, .error = errno});
    }
    plan->parent_pidfd = spawn->parent_pidfd;
    plan->proc_fd = plan->landlock_fd = -1;

    /* All 64, also those that the C library keeps to itself: until the child
     * has default handlers, no signal may run code in it. */
    sys_rt_sigprocmask(SIG_SETMASK, &all, &plan->sigmask);
    long pid = clone_child(spawn);
    sys_rt_sigprocmask(SIG_SETMASK, &plan->sigmask, NULL);
    if (pid < 0)
        return fail(spawn, (struct nsx_failure){.step = -1, .error = (int)-pid});
    spawn->pid = (pid_t)pid;

    int fd = nsx_above_stdio(spawn->pidfd);
    if (fd < 0) {
        /* No descriptor left above 2: the low one is gone, so by pid; it is our
         * child and unreaped, hence still the same process. */
        struct nsx_failure failure = {.step = -1, .error = errno};
        kill_unheld(spawn->pid);
        return fail(spawn, failure);
    }
    spawn->pidfd = fd;
    if (plan->flags & NSX_IN_HELPER)
        guess_hold(spawn);

    if (spawn->gate >= 0 && !spawn->relay_has_gate && !spawn->gate_is_late)
        return write_maps(spawn);
    return NSX_BUSY;
}

/* An inline child has left in its last step: killed, or has the program taken over?
 * The kernel clears PF_FORKNOEXEC when it does.  We are woken before there is a
 * zombie to ask about, but after PF_EXITING is set.  /proc costs as much as a tenth
 * of a spawn: so it is asked at once only where a filter may well kill at execve;
 * without one a kill is what it is with subprocess, a program that was killed.  An
 * init has no exec, or the helper's only: what it is tells nothing of its program. */
static int died_before_exec(const struct nsx_spawn *spawn)
{
    struct nsx_end end = {0};
    if (spawn->has_init)
        return 0;
    const unsigned int both = PF_EXITING | PF_FORKNOEXEC;
    if (spawn->has_filter && (flags_of(spawn->pid) & both) == both)
        return 1;
    return nsx_parent_wait(spawn->pidfd, 0, 0, &end, NULL) == 1 && !end.exited &&
           end.status_known && (flags_of(spawn->pid) & PF_FORKNOEXEC) != 0;
}

/* The helper has handed over to a second clone, our child as well, which waits
 * until we hold it: its pid stays its own as long as nobody reaps it. */
static int take_over(struct nsx_spawn *spawn)
{
    struct nsx_record *record = &nsx_slot_plan(spawn->slot)->record;
    const uint32_t pid = __atomic_load_n(&record->relay_pid, __ATOMIC_ACQUIRE);
    if (!spawn->has_relay || spawn->relayed || !pid)
        return 0;
    /* The first one's descriptor makes room for this one's. */
    nsx_parent_reap(spawn->pidfd, SECOND);
    close(spawn->pidfd);
    spawn->pidfd = -1;
    int fd = nsx_above_stdio((int)syscall(__NR_pidfd_open, (pid_t)pid, 0));
    if (fd < 0) {
        /* It must not wait for us for ever on a plan that others will use. */
        const int error = errno;
        kill_unheld((pid_t)pid);
        return -error;
    }
    spawn->pid = (pid_t)pid;
    spawn->pidfd = fd;
    spawn->relayed = 1;
    return 1;
}

static enum nsx_state go_on_with_relay(struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    __atomic_store_n(&plan->record.hold, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&plan->record.relay, 1, __ATOMIC_RELEASE);
    sys_futex(&plan->record.relay, NSX_FUTEX_WAKE, 1, NULL);
    return spawn->relay_has_gate ? write_maps(spawn) : NSX_BUSY;
}

/* The child has left our memory: what did it do? */
static enum nsx_state child_left(struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    /* Copied once, then checked: see nsx_parent_report(). */
    struct nsx_record record;
    memcpy(&record, &plan->record, sizeof record);
    __asm__ volatile("" ::: "memory"); /* and not read again */
    /* The second clone is nothing without the maps that the first one writes. */
    const int unmapped = spawn->relay_has_ids && !spawn->relayed && !record.relay_mapped;
    struct nsx_end first = {.exited = 1};
    if (unmapped && !record.failed)
        nsx_parent_has_ended(spawn->pidfd, SECOND, &first);
    const int taken = take_over(spawn);
    if (taken < 0)
        return fail(spawn, (struct nsx_failure){.step = -1, .error = -taken});
    if (taken && !record.failed && !unmapped)
        return go_on_with_relay(spawn);
    if (taken)
        nsx_parent_signal(spawn->pidfd, SIGKILL);
    if (record.step >= spawn->nsteps)
        record.step = spawn->nsteps - 1;
    const int last = record.step + 1 == spawn->nsteps;
    const int copy = spawn->slot->kind == NSX_SLOT_SHARED;
    if (record.error <= 0 || record.error > 4095)
        record.error = 71; /* EPROTO */
    struct nsx_failure failure = {
        .step = (int)record.step, .error = record.error, .aux = record.aux};

    if (!record.failed) {
        struct nsx_end end = {0};
        if (last && copy && !record.ctid) /* it has announced itself */
            return started(spawn);
        if (last && !copy && !died_before_exec(spawn))
            return started(spawn);
        if (nsx_parent_wait(spawn->pidfd, SECOND, 0, &end, NULL) != 1) {
            end.status = 0;
        } else if (end.exited) {
            /* An init that has lost its program: it knows the signal, but only by now. */
            struct nsx_report report;
            nsx_parent_report(spawn, &report);
            end.status = report.ended ? report.status & 0x7f : 0;
        }
        failure.error = 0;
        failure.signal = !taken ? end.status : first.exited ? 0 : first.status;
    }
    if (record.failed) {
        memcpy(spawn->text, plan->text, sizeof spawn->text - 1);
        spawn->text[sizeof spawn->text - 1] = 0;
    }
    if (spawn->has_init) /* stopped, or hostile and only saying so: it goes */
        nsx_parent_signal(spawn->pidfd, SIGKILL);
    bury(spawn, 0);
    spawn->failure = failure;
    return NSX_FAILED;
}

/* Has the child left the memory where it ran the steps?  The word says so: ctid
 * is cleared by the kernel when a child leaves ours; hold gets OWNER_DIED when it
 * leaves the helper's, or from the child itself where it came to no helper. */
static int has_left(const struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    if (spawn->slot->kind == NSX_SLOT_MEMFD)
        return (__atomic_load_n(&plan->record.hold, __ATOMIC_ACQUIRE) & NSX_FUTEX_OWNER_DIED) != 0;
    return __atomic_load_n(&plan->record.ctid, __ATOMIC_ACQUIRE) == 0;
}

static int is_paused(const struct nsx_spawn *spawn, struct nsx_plan *plan)
{
    return !spawn->resumed && __atomic_load_n(&plan->record.paused, __ATOMIC_ACQUIRE);
}

/* Has it come to the user namespace whose maps it now waits for? */
static int is_at_gate(const struct nsx_spawn *spawn, struct nsx_plan *plan)
{
    return spawn->gate_is_late && __atomic_load_n(&plan->record.unshared, __ATOMIC_ACQUIRE);
}

enum nsx_state nsx_parent_poll(struct nsx_spawn *spawn, int64_t ns)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    uint32_t *word = spawn->slot->kind == NSX_SLOT_MEMFD ? &plan->record.hold : &plan->record.ctid;
    const long limit[2] = {(long)(ns / SECOND), (long)(ns % SECOND)};
    const uint32_t value = __atomic_load_n(word, __ATOMIC_ACQUIRE);

    if (!has_left(spawn)) {
        if (is_paused(spawn, plan))
            return NSX_PAUSED;
        if (is_at_gate(spawn, plan)) {
            spawn->gate_is_late = 0;
            return write_maps(spawn);
        }
        sys_futex(word, NSX_FUTEX_WAIT, value, limit);
        if (!has_left(spawn)) {
            if (is_paused(spawn, plan))
                return NSX_PAUSED;
            /* No word is written for a copy's death, for one before the helper
             * has set its robust list, and for one by a core dump before 5.16. */
            struct nsx_end end;
            if (nsx_parent_wait(spawn->pidfd, 0, 0, &end, NULL) != 1)
                return NSX_BUSY;
        }
    }
    return child_left(spawn);
}

void nsx_parent_resume(struct nsx_spawn *spawn)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    spawn->resumed = 1;
    __atomic_store_n(&plan->record.resume, 1, __ATOMIC_RELEASE);
    sys_futex(&plan->record.resume, NSX_FUTEX_WAKE, 1, NULL);
}

void nsx_parent_report(struct nsx_spawn *spawn, struct nsx_report *report)
{
    /* Written by a process that the program may be root over: each value is read
     * once, and checked. */
    struct nsx_record *record = &nsx_slot_plan(spawn->slot)->record;
    const int32_t pid = __atomic_load_n(&record->inner_pid, __ATOMIC_RELAXED);
    const uint32_t ended = __atomic_load_n(&record->ended, __ATOMIC_ACQUIRE);
    const int32_t status = __atomic_load_n(&record->status, __ATOMIC_RELAXED);
    report->inner_pid = pid > 0 ? pid : 0;
    /* exited, or killed; nothing else is an end */
    const int signal = status & 0x7f;
    report->ended = ended == 1 && ((status & ~0xff00) == 0 ||
                                   ((status & ~0xff) == 0 && signal > 0 && signal < 0x7f));
    report->status = report->ended ? status : 0;
}

void nsx_parent_forget(struct nsx_spawn *spawn)
{
    close_own(spawn);
    if (spawn->over && spawn->trusted && spawn->owner == nsx_pool_process(spawn->pool))
        nsx_slot_put(spawn->pool, spawn->slot);
    else
        nsx_slot_strip(spawn->pool, spawn->slot);
    spawn->slot = NULL;
}

void nsx_parent_abort(struct nsx_spawn *spawn, int *step_reached)
{
    struct nsx_plan *plan = nsx_slot_plan(spawn->slot);
    if (step_reached) {
        const uint32_t step = __atomic_load_n(&plan->record.step, __ATOMIC_RELAXED);
        *step_reached = (int)(step < spawn->nsteps ? step : spawn->nsteps - 1);
    }
    nsx_parent_signal(spawn->pidfd, SIGKILL);
    /* What the helper has cloned meanwhile goes as well. */
    if (spawn->has_relay && !spawn->relayed) {
        struct nsx_end end;
        if (!nsx_parent_has_ended(spawn->pidfd, SECOND, &end)) {
            bury(spawn, 1); /* to limbo, with the plan that the second one may use */
            return;
        }
        const int taken = take_over(spawn);
        if (taken < 0) {
            release(spawn);
            return;
        }
        if (taken)
            nsx_parent_signal(spawn->pidfd, SIGKILL);
    }
    bury(spawn, 1);
}
