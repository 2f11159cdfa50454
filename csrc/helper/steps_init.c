/* init=True: this process stays, as PID 1 or as a subreaper, and the program is
 * its child.  It reaps what is orphaned, passes signals on, and ends with the
 * program, whose true wait status it leaves in the record.
 *
 * All signals stay blocked here for good: a blocked signal is never ignored, not
 * even by a PID 1 without handlers, and sigtimedwait(2) or, where there is a pidfd
 * to watch as well, a signalfd hands each out in turn.
 */
#include "../child/capabilities.h"
#include "second.h"

#define PR_SET_CHILD_SUBREAPER_ 36
#define PR_SET_DUMPABLE_ 4
#define PR_SET_NAME_ 15
#define PR_SET_NO_NEW_PRIVS_ 38
#define PR_SET_PDEATHSIG_ 1
#define ESRCH_ 3
#define ECHILD_ 10
#define SIGCHLD_ NSX_SIGCHLD
#define SIGKILL_ 9
#define SIGSTOP_ 19
#define SFD_CLOEXEC_NONBLOCK (02000000 | 04000)
#define P_ALL_ 0
#define WNOHANG_ 1
#define WSTOPPED_ 2
#define WEXITED_ 4
#define ALL_CHILDREN 0x40000000 /* __WALL */
#define CLD_EXITED_ 1
#define CLD_DUMPED_ 3
#define CLD_STOPPED_ 5
#define SI_KERNEL_ 0x80
#define CORE_FLAG 0x80

/* struct signalfd_siginfo and siginfo_t, of which the first three are of use. */
struct signal_event {
    uint32_t number;
    int32_t error;
    int32_t code;
    uint32_t rest[29];
};
_Static_assert(sizeof(struct signal_event) == 128, "struct signalfd_siginfo");

/* siginfo_t of waitid(2), on 64-bit ABIs. */
struct child_event {
    int32_t number, error, code, padding;
    int32_t pid, uid, status;
    uint32_t rest[25];
};

struct init {
    struct nsx_plan *plan;
    int32_t program;
    int32_t target; /* what signals go to: the program, or minus its group */
    int signals;
    int parent; /* pidfd of the parent; -1: its death is of no concern */
    int first;  /* this is PID 1 */
    uint32_t plan_size, page_size;
    uint32_t shared; /* cleared by the kernel when the program has left our memory */
};

NSX_CHILD_CODE static long send(long pid, long number)
{
    return nsx_syscall(__NR_kill, pid, number, 0, 0, 0, 0);
}

/* Whoever is PID 1 takes the namespace along.  A subreaper ends what is left of
 * the program's group; what left that group goes on, as after any program. */
NSX_CHILD_CODE static void leave(const struct init *init, int status) __attribute__((noreturn));
NSX_CHILD_CODE static void leave(const struct init *init, int status)
{
    if (!init->first && init->target < 0)
        send(init->target, SIGKILL_);
    nsx_syscall(__NR_exit_group, status, 0, 0, 0, 0, 0);
    __builtin_trap(); /* a filter refuses even that */
}

NSX_CHILD_CODE static void program_ended(const struct init *init, const struct child_event *event)
{
    struct nsx_record *record = &init->plan->record;
    const int code = event->status & 0xff;
    if (event->code == CLD_EXITED_) {
        record->status = code << 8;
    } else {
        record->status = code | (event->code == CLD_DUMPED_ ? CORE_FLAG : 0);
    }
    __atomic_store_n(&record->ended, 1, __ATOMIC_RELEASE);
    leave(init, event->code == CLD_EXITED_ ? code : 128 + code);
}

NSX_CHILD_CODE static void reap(const struct init *init)
{
    for (;;) {
        struct child_event event;
        event.pid = 0;
        long error = nsx_syscall(__NR_waitid, P_ALL_, 0, NSX_P(&event),
                                 WEXITED_ | WSTOPPED_ | WNOHANG_ | ALL_CHILDREN, 0, 0);
        if (error == -ECHILD_ || (error >= 0 && event.pid == 0))
            return;
        if (error < 0) /* the signal that told us is used up */
            continue;
        if (event.pid != init->program)
            continue;
        if (event.code <= CLD_DUMPED_)
            program_ended(init, &event);
        /* Suspended: so are we, for whoever waits for us; SIGCONT wakes both. */
        if (event.code == CLD_STOPPED_ && !init->first)
            send(sys_gettid(), SIGSTOP_);
    }
}

NSX_CHILD_CODE static void pass_on(const struct init *init, const struct signal_event *event)
{
    if (event->number == SIGCHLD_) {
        reap(init);
        return;
    }
    /* What the terminal sends goes to the whole foreground group: a program that
     * is in ours has got it already. */
    if (event->code == SI_KERNEL_ && init->target > 0)
        return;
    send(init->target, (long)event->number);
}

/* Of the plan only the record, in the first page, is of use once the program has
 * taken from the rest what it needs.  1: it has. */
NSX_CHILD_CODE static int let_go_of_plan(const struct init *init)
{
    struct nsx_plan *plan = init->plan;
    if (__atomic_load_n(&init->shared, __ATOMIC_ACQUIRE))
        return 0;
    if (init->plan_size > init->page_size)
        nsx_syscall(__NR_munmap, NSX_P(plan) + init->page_size, init->plan_size - init->page_size,
                    0, 0, 0, 0);
    return 1;
}

NSX_CHILD_CODE static void supervise(const struct init *init) __attribute__((noreturn));
NSX_CHILD_CODE static void supervise(const struct init *init)
{
    const uint64_t all = ~0ull;
    const long while_shared[2] = {0, 100L * 1000 * 1000};
    struct signal_event event;
    int alone = 0;
    for (;;) {
        const long *limit = alone || (alone = let_go_of_plan(init)) ? NULL : while_shared;
        if (init->parent < 0) {
            if (nsx_syscall(__NR_rt_sigtimedwait, NSX_P(&all), NSX_P(&event), NSX_P(limit),
                            NSX_SIGSET_BYTES, 0, 0) > 0)
                pass_on(init, &event);
            continue;
        }
        struct {
            int fd;
            short events, revents;
        } poll[2] = {{init->signals, 1, 0}, {init->parent, 1, 0}};
        nsx_syscall(__NR_ppoll, NSX_P(poll), 2, NSX_P(limit), 0, 0, 0);
        if (poll[1].revents) {
            send(init->target, SIGKILL_);
            leave(init, 128 + SIGKILL_);
        }
        while (nsx_syscall(__NR_read, init->signals, NSX_P(&event), sizeof event, 0, 0, 0) ==
               (long)sizeof event)
            pass_on(init, &event);
    }
}

/* A program that may trace its init has what the init has, and what that would get
 * by exec: no more than it was given, but for signals to whoever it becomes. */
NSX_CHILD_CODE static long limit_capabilities(struct nsx_plan *plan)
{
    const struct nsx_blob *blob = child_at(plan, plan->blob);
    struct nsx_caps caps;
    for (uint32_t i = 0; i < blob->nsteps; i++) {
        const uint64_t *arg = blob->step[i].arg;
        if (blob->step[i].op != NSX_OP_capabilities || !(arg[2] & NSX_CAPS_EXACT) ||
            arg[2] & NSX_CAPS_ALL)
            continue;
        const long error = child_get_caps(&caps);
        if (error < 0)
            return error;
        caps.permitted &= arg[0] | 1ull << NSX_CAP_KILL;
        caps.effective = caps.permitted;
        caps.inheritable = 0;
        const long set = child_set_caps(&caps);
        return set < 0 ? set : sys_prctl(PR_SET_NO_NEW_PRIVS_, 1, 0);
    }
    return 0;
}

/* The program, which waits for us yet, goes; the record says why. */
NSX_CHILD_CODE static void give_up(const struct init *init, long error) __attribute__((noreturn));
NSX_CHILD_CODE static void give_up(const struct init *init, long error)
{
    nsx_child_failed(init->plan, error, 0);
    send(init->program, SIGKILL_);
    leave(init, 125);
}

/* Nothing of the program's stays open here: a pipe that init held would not end
 * with the program. */
NSX_CHILD_CODE static void become_init(struct init *init) __attribute__((noreturn));
NSX_CHILD_CODE static void become_init(struct init *init)
{
    const uint64_t all = ~0ull;
    struct nsx_plan *plan = init->plan;
    /* The program may be root over us. */
    long error = sys_prctl(PR_SET_DUMPABLE_, 0, 0);
    sys_prctl(PR_SET_NAME_, NSX_P("nsext-init"), 0);
    if (error >= 0 && init->parent > 0) {
        error = sys_dup3(init->parent, 0, 0);
        init->parent = 0;
    }
    if (error >= 0)
        error = limit_capabilities(plan);
    if (error >= 0)
        error = sys_close_range(init->parent == 0 ? 1 : 0, 0xffffffffu);
    if (error < 0)
        give_up(init, error);
    sys_chdir("/"); /* the caller's directory is in nobody's way then */
    if (init->parent == 0) {
        error = nsx_syscall(__NR_signalfd4, -1, NSX_P(&all), NSX_SIGSET_BYTES, SFD_CLOEXEC_NONBLOCK,
                            0, 0);
        if (error < 0)
            give_up(init, error);
        init->signals = (int)error;
    }
    init->plan_size = plan->size;
    init->page_size = plan->page_size;
    __atomic_store_n(&plan->record.init_ready, 1, __ATOMIC_RELEASE);
    sys_futex(&plan->record.init_ready, NSX_FUTEX_WAKE, 1, NULL);
    supervise(init);
}

/* The program's process. */
NSX_CHILD_CODE static long begin(const struct nsx_second *second)
{
    struct nsx_plan *plan = second->plan;
    const long slice[2] = {0, 50L * 1000 * 1000};
    long error = nsx_child_hold(plan, second->hold);
    if (error < 0)
        return error;
    if (!second->first) {
        /* Whoever kills us in the middle of the set-up kills the init, and reuses
         * the plan when that is gone.  step_init_death() again after the ids. */
        error = sys_prctl(PR_SET_PDEATHSIG_, SIGKILL_, 0);
        if (error < 0)
            return error;
        if (nsx_syscall(__NR_getppid, 0, 0, 0, 0, 0, 0) != plan->init_pid)
            return -ESRCH_;
    }
    if (second->group)
        sys_setpgid(0, 0);
    /* Before the program runs, which may be root over its init, that has nothing
     * left to be taken from it.  An init that dies takes us along. */
    while (!__atomic_load_n(&plan->record.init_ready, __ATOMIC_ACQUIRE))
        sys_futex(&plan->record.init_ready, NSX_FUTEX_WAIT, 0, slice);
    return 0;
}

/* arg 0: NSX_INIT_*.  The program's process goes on with the steps; this one does
 * not return. */
NSX_CHILD_CODE long step_init(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    const uint64_t reset[4] = {0}; /* SIG_DFL: an ignored SIGCHLD leaves no status */
    struct init init = {.plan = plan, .parent = -1, .shared = 1};
    struct nsx_second second = {.plan = plan, .hold = child->hold, .begin = begin};

    long error = sys_rt_sigaction(SIGCHLD_, reset, NULL);
    if (error < 0)
        return error;
    plan->init_pid = (int32_t)nsx_syscall(__NR_getpid, 0, 0, 0, 0, 0, 0);
    init.first = plan->init_pid == 1;
    if (!init.first) {
        error = sys_prctl(PR_SET_CHILD_SUBREAPER_, 1, 0);
        if (error < 0)
            return error;
    }
    second.step = plan->record.step;
    second.first = init.first;
    second.group = (step->arg[0] & NSX_INIT_GROUP) != 0;
    /* Noted now: the program's process moves its own, in the plan that both map. */
    init.parent = step->arg[0] & NSX_INIT_PARENT ? plan->parent_pidfd : -1;
    const long pid = nsx_helper_clone(NSX_CLONE_CHILD_CLEARTID, NULL, &init.shared, &second);
    if (pid < 0)
        return pid;
    /* Both sides set the group, so that neither finds it missing. */
    if (second.group)
        sys_setpgid(pid, pid);
    init.program = (int32_t)pid;
    init.target = (int32_t)(second.group ? -pid : pid);
    become_init(&init);
}
