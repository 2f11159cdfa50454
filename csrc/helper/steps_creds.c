/* Steps of identity, and the checkpoint before them.  They run in the helper: a
 * change of kernel ids makes the memory it happens in non-dumpable for good. */
#include "fs.h"

#define EINVAL_ 22
#define OVERFLOW_ID 65534 /* /proc/sys/kernel/overflowuid, as it is everywhere */
#define ESRCH_ 3
#define PR_SET_KEEPCAPS_ 8
#define PR_SET_PDEATHSIG_ 1
#define SIGKILL_ 9
#define NO_ID 0xffffffffu

/* The parent says when to go on.  Its death ends the wait. */
NSX_CHILD_CODE long step_checkpoint(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_record *record = &child->plan->record;
    const long slice[2] = {0, 50L * 1000 * 1000};
    (void)step;
    __atomic_store_n(&record->paused, 1, __ATOMIC_RELEASE);
    sys_futex(&record->hold, NSX_FUTEX_WAKE, 1, NULL);
    while (!__atomic_load_n(&record->resume, __ATOMIC_ACQUIRE)) {
        sys_futex(&record->resume, NSX_FUTEX_WAIT, 0, slice);
        if (sys_is_readable(child->plan->parent_pidfd) > 0)
            return -ESRCH_;
    }
    return 0;
}

/* Whose own id is not mapped in the user namespace that he has joined becomes its
 * root, as nsenter(1) does; nobody's files are nobody's. */
NSX_CHILD_CODE long step_join_as_root(struct nsx_child *child, const struct nsx_step *step)
{
    (void)step;
    const long uid = sys_geteuid();
    const long gid = uid < 0 ? uid : sys_getegid();
    child->aux = 0;
    if (gid < 0 || (uid != OVERFLOW_ID && gid != OVERFLOW_ID))
        return gid < 0 ? gid : 0;
    long error = sys_setgroups(0, NULL);
    if (error < 0 && error != -EPERM_) /* denied there for good: user_namespaces(7) */
        return error;
    error = sys_setresgid(0);
    return error < 0 ? error : sys_setresuid(0);
}

/* arg 0: uid, 1: gid.  Nobody whose own id is not mapped in the user namespace can
 * make a file in it: EOVERFLOW.  For files only, and until exec. */
NSX_CHILD_CODE long step_fs_ids(struct nsx_child *child, const struct nsx_step *step)
{
    const long uid = (long)step->arg[0], gid = (long)step->arg[1];
    child->aux = 0;
    const long own_gid = sys_getegid();
    const long own_uid = own_gid < 0 ? own_gid : sys_geteuid();
    if (own_uid < 0) /* a filter's doing */
        return own_uid;
    if (own_gid == OVERFLOW_ID) {
        sys_setfsgid(gid);
        if (sys_setfsgid(-1) != gid)
            return -EPERM_;
    }
    if (own_uid == OVERFLOW_ID) {
        sys_setfsuid(uid);
        if (sys_setfsuid(-1) != uid)
            return -EPERM_;
    }
    return fs_clone_sources(child);
}

/* After every change of ids, each of which clears it.  The parent may have died
 * before: its pidfd tells.  The signal is tied to the thread that cloned; the
 * parent sees to it that this is one that lives as long as the process. */
NSX_CHILD_CODE long step_parent_death(struct nsx_child *child, const struct nsx_step *step)
{
    (void)step;
    long error = sys_prctl(PR_SET_PDEATHSIG_, SIGKILL_, 0);
    if (error < 0)
        return error;
    error = sys_is_readable(child->plan->parent_pidfd);
    return error > 0 ? -ESRCH_ : error;
}

/* Who kills an init that is PID 1 kills all; where it is a subreaper only, the
 * program follows it this way.  It has one thread. */
NSX_CHILD_CODE long step_init_death(struct nsx_child *child, const struct nsx_step *step)
{
    (void)step;
    long error = sys_prctl(PR_SET_PDEATHSIG_, SIGKILL_, 0);
    if (error < 0)
        return error;
    const long parent = nsx_syscall(__NR_getppid, 0, 0, 0, 0, 0, 0);
    return parent == child->plan->init_pid ? 0 : -ESRCH_;
}

/* Does a later step change the uid or the gid? */
NSX_CHILD_CODE static int changes_ids(const struct nsx_child *child)
{
    const struct nsx_plan *plan = child->plan;
    const struct nsx_blob *blob = child_at(child->plan, plan->blob);
    int changes = 0;
    for (uint32_t i = 0; i < blob->nsteps; i++) {
        const uint64_t id = blob->step[i].arg[0];
        changes |= blob->step[i].op == NSX_OP_setuid && (long)id != sys_geteuid();
        changes |= blob->step[i].op == NSX_OP_setgid && (long)id != sys_getegid();
    }
    return changes;
}

/* arg 2: implied by user= or group=.  Who stays what he is needs no privilege for
 * it, and without one keeps his groups. */
NSX_CHILD_CODE long step_setgroups(struct nsx_child *child, const struct nsx_step *step)
{
    const long error =
        sys_setgroups(step->arg[1] / sizeof(uint32_t), child_string(child, step->arg[0]));
    return error == -EPERM_ && step->arg[2] && !changes_ids(child) ? 0 : error;
}

/* -1 would mean "unchanged", and 2**32 wraps around to root. */
NSX_CHILD_CODE long step_setgid(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child;
    return step->arg[0] < NO_ID ? sys_setresgid((long)step->arg[0]) : -EINVAL_;
}

NSX_CHILD_CODE long step_setuid(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child;
    return step->arg[0] < NO_ID ? sys_setresuid((long)step->arg[0]) : -EINVAL_;
}

/* Else a change from uid 0 to another takes them before they can be chosen from;
 * step_capabilities() takes this back. */
NSX_CHILD_CODE long step_keep_capabilities(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child, (void)step;
    return sys_prctl(PR_SET_KEEPCAPS_, 1, 0);
}
