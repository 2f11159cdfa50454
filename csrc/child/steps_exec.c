/* The last steps: signals back to what a program expects, then the program. */
#include "child.h"

#define ENOENT_ 2
#define ENOTDIR_ 20
#define SIG_SETMASK_ 2

/* struct sigaction as the kernel has it (on these architectures), zero:
 * SIG_DFL, no flags, empty mask. */
struct kernel_sigaction {
    uintptr_t handler;
    unsigned long flags;
    uintptr_t restorer;
    uint64_t mask;
};

NSX_CHILD_CODE static long reset_handlers(struct nsx_child *child, uint64_t these)
{
    const struct kernel_sigaction reset = {0};
    const int all = child->plan->flags & NSX_RESET_SIGNALS;
    for (int number = 1; number <= NSX_NSIG; number++) {
        if (!(these >> (number - 1) & 1)) {
            struct kernel_sigaction old = {0};
            if (!all || sys_rt_sigaction(number, NULL, &old) < 0)
                continue;
            if (old.handler <= 1) /* SIG_DFL, SIG_IGN */
                continue;
        }
        child->aux = number;
        long error = sys_rt_sigaction(number, &reset, NULL);
        if (error < 0)
            return error;
    }
    return 0;
}

/* arg: a bit for each signal, as in a sigset.  CLONE_CLEAR_SIGHAND leaves what
 * was ignored ignored; where the kernel could not do even that, it is done here. */
NSX_CHILD_CODE long step_default_signals(struct nsx_child *child, const struct nsx_step *step)
{
    return reset_handlers(child, step->arg[0]);
}

/* From here on signals reach the child: no handler of the parent's is left that
 * could run on shared memory.  What has been pending is the program's to die of. */
NSX_CHILD_CODE static void restore_mask(const struct nsx_plan *plan)
{
    sys_rt_sigprocmask(SIG_SETMASK_, &plan->sigmask, NULL);
    if (plan->flags & NSX_CORE_GUARD)
        sys_prlimit64(0, NSX_RLIMIT_CORE, plan->core);
}

/* As execvp(3) and subprocess search PATH: the first error that is not "not
 * there" is the one to tell. */
NSX_CHILD_CODE long step_exec(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    const uintptr_t *path = child_at(plan, plan->execs);
    const uintptr_t *argv = child_at(plan, plan->argv);
    const uintptr_t *envp = child_at(plan, plan->envp);
    long first = 0, error = -ENOENT_;
    (void)step;

    restore_mask(plan);
    for (uint32_t i = 0; i < plan->nexecs; i++) {
        error = sys_execve((const char *)path[i], argv, envp);
        if (error != -ENOENT_ && error != -ENOTDIR_ && !first) {
            first = error;
            child->aux = (int32_t)i;
        }
    }
    return first ? first : error;
}

/* The entry of clone(entry), in a copy of the parent's memory. */
NSX_CHILD_CODE long step_call(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    int (*entry)(void *) = (int (*)(void *))(uintptr_t)plan->entry;
    void *arg = (void *)(uintptr_t)plan->entry_arg;
    (void)step;
    restore_mask(plan);
    nsx_child_announce(plan);
    int status = entry(arg);
    nsx_syscall(__NR_exit_group, status & 0xff, 0, 0, 0, 0, 0);
    __builtin_unreachable();
}
