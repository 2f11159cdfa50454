/* nsext-helper: the child's steps in memory of their own.
 *
 * The cloned child execs it at once, from a sealed memfd, with the descriptor of
 * its plan as the only argument.  It maps the plan, so that the parent sees its
 * record, and runs the same steps from the same sources.  Without a plan it ends:
 * a program "#!/proc/self/exe" that finds it gets nowhere.  (With "-" it is a cat.)
 */
#include "../child/child.h"
#include "start.h"

__asm__(NSX_START_ASM);

#define PROT_READ_WRITE 3
#define MAP_SHARED_ 1
#define SEEK_END_ 2
#define F_SETFD_ 2
#define FD_CLOEXEC_ 1
#define PR_CAP_AMBIENT_ 47
#define PR_CAP_AMBIENT_RAISE_ 2
#define PR_CAP_AMBIENT_CLEAR_ALL_ 4
#define PR_SET_DUMPABLE_ 4
#define PR_SET_NAME_ 15
#define CAPABILITY_VERSION_3 0x20080522u
#define FAILED 125
#define EINTR_ 4

void nsx_helper_main(const uintptr_t *stack) __attribute__((noreturn));

static void leave(int status) __attribute__((noreturn));
static void leave(int status)
{
    nsx_syscall(__NR_exit_group, status, 0, 0, 0, 0, 0);
    __builtin_trap(); /* a filter refuses even that */
}

static long plan_fd(const uintptr_t *stack)
{
    long number = 0;
    if (stack[0] != 2) /* argc */
        return -1;
    const char *digit = (const char *)stack[2];
    if (!*digit)
        return -1;
    for (; *digit; digit++) {
        if (*digit < '0' || *digit > '9' || number > 100000000)
            return -1;
        number = number * 10 + (*digit - '0');
    }
    return number;
}

static struct nsx_plan *map_plan(long fd)
{
    long size = nsx_syscall(__NR_lseek, fd, 0, SEEK_END_, 0, 0, 0);
    if (size < (long)sizeof(struct nsx_plan))
        return NULL;
    long at = nsx_syscall(__NR_mmap, 0, size, PROT_READ_WRITE, MAP_SHARED_, fd, 0);
    if (at < 0 && at > -4096)
        return NULL;
    struct nsx_plan *plan = (struct nsx_plan *)at;
    if (nsx_plan_check(plan, (size_t)size) < 0 || !(plan->flags & NSX_IN_HELPER))
        return NULL;
    return plan;
}

static long lower_ambient(const struct nsx_plan *plan)
{
    long error = nsx_syscall(__NR_prctl, PR_CAP_AMBIENT_, PR_CAP_AMBIENT_CLEAR_ALL_, 0, 0, 0, 0);
    for (int number = 0; number < 64 && error >= 0; number++)
        if (plan->ambient[number / 32] >> number % 32 & 1)
            error =
                nsx_syscall(__NR_prctl, PR_CAP_AMBIENT_, PR_CAP_AMBIENT_RAISE_, number, 0, 0, 0);
    return error;
}

/* No more than before the exec, by which root has got all that is bounding. */
static long lower_capabilities(const struct nsx_plan *plan)
{
    struct {
        uint32_t version;
        int32_t pid;
    } header = {CAPABILITY_VERSION_3, 0};
    struct {
        uint32_t effective, permitted, inheritable;
    } sets[2];
    uint32_t more = 0, gained = 0;
    long error = sys_capget(&header, sets);
    if (error < 0)
        return error;
    for (int i = 0; i < 2; i++) {
        gained |= sets[i].permitted & ~plan->permitted[i];
        more |= (sets[i].effective & ~plan->effective[i]) |
                (sets[i].inheritable & ~plan->inheritable[i]);
        sets[i].effective &= plan->effective[i];
        sets[i].permitted &= plan->permitted[i];
        sets[i].inheritable &= plan->inheritable[i];
    }
    error = more | gained ? sys_capset(&header, sets) : 0;
    /* An exec that gains any has closed the process to whoever has less: its parent. */
    if (error >= 0 && gained)
        error = sys_prctl(PR_SET_DUMPABLE_, 1, 0);
    return error;
}

/* "-" or "-user" in place of a plan: somebody has to be in a namespace while
 * Namespace.new() opens it.  He is dumpable, as he has nothing to hide. */
static const char *placeholder(const uintptr_t *stack)
{
    const char *word = stack[0] == 2 ? (const char *)stack[2] : "";
    return word[0] == '-' && (!word[1] || word[1] == 'u') ? word + 1 : NULL;
}

/* Into a new user namespace, as its root. */
static long enter_user_namespace(void)
{
    struct nsx_plan plan; /* what the steps want of it */
    struct nsx_child child = {.plan = &plan};
    struct nsx_step own_as_root;
    own_as_root.arg[0] = 0;
    plan.proc_fd = -1;
    plan.euid = (uint32_t)sys_geteuid();
    plan.egid = (uint32_t)sys_getegid();
    long error = sys_unshare(NSX_CLONE_NEWUSER);
    if (error >= 0)
        error = step_setgroups_deny(&child, &own_as_root);
    if (error >= 0)
        error = step_gid_map(&child, &own_as_root);
    if (error >= 0)
        error = step_uid_map(&child, &own_as_root);
    return error;
}

/* As cat(1): when it answers, the exec is over.  Exits with the errno else. */
static void hold_place(const char *kind) __attribute__((noreturn));
static void hold_place(const char *kind)
{
    char byte;
    long size = *kind ? enter_user_namespace() : 0;
    if (size < 0)
        leave((int)-size);
    do {
        size = nsx_syscall(__NR_read, 0, NSX_P(&byte), 1, 0, 0, 0);
        if (size > 0)
            sys_write(1, &byte, 1);
    } while (size > 0 || size == -EINTR_);
    leave(0);
}

void nsx_helper_main(const uintptr_t *stack)
{
    const char *kind = placeholder(stack);
    if (kind)
        hold_place(kind);
    const long fd = plan_fd(stack);
    struct nsx_plan *plan = fd >= 0 ? map_plan(fd) : NULL;
    if (!plan)
        leave(FAILED);
    /* On the stack, at the same address in the helper's forks: data of its own
     * would be one more mapping and one more page fault, 10 us. */
    struct nsx_hold hold;
    long error = nsx_child_hold(plan, &hold);
    sys_prctl(PR_SET_NAME_, NSX_P("nsext-helper"), 0);
    sys_close(fd);
    if (plan->parent_pidfd >= 0)
        sys_fcntl(plan->parent_pidfd, F_SETFD_, FD_CLOEXEC_);
    if (error >= 0 && plan->flags & NSX_RAISED)
        error = lower_ambient(plan);
    if (error >= 0)
        error = lower_capabilities(plan);
    if (error < 0) {
        nsx_child_failed(plan, error, -1);
        leave(FAILED);
    }
    const struct nsx_blob *blob = child_at(plan, plan->blob);
    nsx_child_relocate(plan);
    nsx_child_run(plan, nsx_blob_helper_step(blob) + 1, &hold);
    leave(127);
}
