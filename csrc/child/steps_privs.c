/* Steps on what the program may do: capabilities, no_new_privs, keys.
 *
 * Inline they run in the parent's memory, where they are safe: the kernel makes
 * that non-dumpable only where ids change or permitted capabilities grow, and here
 * they shrink.
 */
#include "capabilities.h"

#define EINVAL_ 22
#define EPERM_ 1
#define ENOSYS_ 38
#define KEYCTL_GET_KEYRING_ID_ 0
#define KEYCTL_JOIN_SESSION_KEYRING_ 1
#define KEY_SPEC_SESSION_KEYRING_ (-3)
#define PR_SET_KEEPCAPS_ 8
#define PR_CAPBSET_READ_ 23
#define PR_CAPBSET_DROP_ 24
#define PR_GET_SECUREBITS_ 27
#define PR_SET_SECUREBITS_ 28
#define PR_SET_NO_NEW_PRIVS_ 38
#define PR_CAP_AMBIENT_ 47
#define PR_CAP_AMBIENT_IS_SET_ 1
#define PR_CAP_AMBIENT_RAISE_ 2
#define PR_CAP_AMBIENT_CLEAR_ALL_ 4
#define SECBIT_NOROOT_ 1

/* aux: what failed, times 64, plus the capability. */
enum part { PART_SETS, PART_MISSING, PART_BOUNDING, PART_AMBIENT, PART_VERIFY, PART_SECUREBITS };

NSX_CHILD_CODE static long part(struct nsx_child *child, enum part what, int number, long error)
{
    child->aux = (int32_t)what * 64 + number;
    return error;
}

NSX_CHILD_CODE static int lowest(uint64_t set)
{
    int number = 0;
    while (number < 63 && !(set >> number & 1))
        number++;
    return number;
}

NSX_CHILD_CODE static long ambient(long what, long number)
{
    return nsx_syscall(__NR_prctl, PR_CAP_AMBIENT_, what, number, 0, 0, 0);
}

/* EINVAL ends it: a capability that this kernel does not know. */
NSX_CHILD_CODE static long read_bounding(uint64_t *set)
{
    *set = 0;
    for (int number = 0; number < 64; number++) {
        const long there = sys_prctl(PR_CAPBSET_READ_, number, 0);
        if (there == -EINVAL_)
            return 0;
        if (there < 0)
            return there;
        *set |= (uint64_t)there << number;
    }
    return 0;
}

/* Root's program gets at exec what is bounding, whatever was permitted: so that has
 * to go.  Without CAP_SETPCAP it stays, which is an error unless no_new_privs sees
 * to it that no exec gains anything: then we do not come here. */
NSX_CHILD_CODE static long drop_bounding(struct nsx_child *child, uint64_t set)
{
    for (int number = 0; number < 64; number++) {
        if (!(set >> number & 1))
            continue;
        const long error = sys_prctl(PR_CAPBSET_DROP_, number, 0);
        if (error == -EINVAL_)
            return 0;
        if (error < 0)
            return part(child, PART_BOUNDING, number, error);
    }
    return 0;
}

NSX_CHILD_CODE static long raise_ambient(struct nsx_child *child, uint64_t set)
{
    for (int number = 0; number < 64; number++) {
        if (!(set >> number & 1))
            continue;
        const long error = ambient(PR_CAP_AMBIENT_RAISE_, number);
        if (error < 0)
            return part(child, PART_AMBIENT, number, error);
    }
    return 0;
}

/* What there is now, asked of the kernel: all that is set, and nothing else.  No
 * ambient one is there that is not inheritable. */
NSX_CHILD_CODE static long verify(struct nsx_child *child, const struct nsx_caps *wanted,
                                  uint64_t raised, int bounded)
{
    struct nsx_caps caps;
    uint64_t bounding = wanted->permitted;
    long error = child_get_caps(&caps);
    uint64_t wrong = caps.effective ^ wanted->effective;
    wrong |= caps.permitted ^ wanted->permitted;
    wrong |= caps.inheritable ^ wanted->inheritable;
    for (int number = 0; number < 64 && error >= 0; number++) {
        if (!(raised >> number & 1))
            continue;
        error = ambient(PR_CAP_AMBIENT_IS_SET_, number);
        wrong |= (uint64_t)(error == 0) << number;
    }
    if (error >= 0 && bounded)
        error = read_bounding(&bounding);
    if (error < 0)
        return part(child, PART_SETS, 0, error);
    if (wanted->permitted & ~bounding)
        return part(child, PART_MISSING, lowest(wanted->permitted & ~bounding), -EPERM_);
    wrong |= bounding ^ wanted->permitted;
    return wrong ? part(child, PART_VERIFY, lowest(wrong), -EPERM_) : 0;
}

NSX_CHILD_CODE static int may_drop(const struct nsx_caps *caps)
{
    return (int)(caps->permitted >> NSX_CAP_SETPCAP & 1);
}

/* What is asked for, with what there is: *set and *raised are the program's, and
 * bounding is what there was. */
NSX_CHILD_CODE static long choose(struct nsx_child *child, const struct nsx_step *step,
                                  const struct nsx_caps *caps, uint64_t *bounding, uint64_t *set,
                                  uint64_t *raised)
{
    const uint64_t flags = step->arg[2];
    long securebits = (long)step->arg[3], error = 0;
    *set = step->arg[0];
    *raised = step->arg[1];
    *bounding = ~0ull;
    if (!(flags & NSX_CAPS_EXACT)) {
        *set = flags & NSX_CAPS_KEPT ? *raised : caps->permitted;
    } else {
        if (flags & NSX_CAPS_ALL || !may_drop(caps))
            error = read_bounding(bounding);
        if (flags & NSX_CAPS_ALL)
            *set = caps->permitted & *bounding;
        if (error >= 0 && !(flags & NSX_CAPS_SECUREBITS))
            error = securebits = sys_prctl(PR_GET_SECUREBITS_, 0, 0);
        if (error < 0)
            return part(child, PART_SETS, 0, error);
        /* Root gets all that is bounding by exec; who is not gets nothing over it
         * but what is ambient. */
        if (sys_geteuid() != 0 || securebits & SECBIT_NOROOT_)
            *raised |= *set;
    }
    const uint64_t missing = (*set | *raised) & ~(caps->permitted & *bounding);
    return missing ? part(child, PART_MISSING, lowest(missing), -EPERM_) : 0;
}

NSX_CHILD_CODE long step_capabilities(struct nsx_child *child, const struct nsx_step *step)
{
    const uint64_t flags = step->arg[2];
    const int exact = (flags & NSX_CAPS_EXACT) != 0;
    uint64_t bounding, set, raised;
    struct nsx_caps caps;

    long error = child_get_caps(&caps);
    if (error < 0)
        return part(child, PART_SETS, 0, error);
    error = choose(child, step, &caps, &bounding, &set, &raised);
    if (error < 0)
        return error;

    /* CAP_SETPCAP counts where it is effective; a change of ids has taken that. */
    struct nsx_caps next = {caps.permitted, caps.permitted, raised};
    if (!exact)
        next.inheritable |= caps.inheritable;
    error = ambient(PR_CAP_AMBIENT_CLEAR_ALL_, 0);
    if (error >= 0)
        error = child_set_caps(&next);
    if (error < 0)
        return part(child, PART_SETS, 0, error);
    const int no_gain = (flags & NSX_CAPS_NO_GAIN) && !may_drop(&caps);
    if (exact && !no_gain)
        error = drop_bounding(child, bounding & ~set);
    if (error >= 0)
        error = raise_ambient(child, raised);
    if (error < 0)
        return error;
    if (flags & NSX_CAPS_SECUREBITS)
        error = sys_prctl(PR_SET_SECUREBITS_, (long)step->arg[3], 0);
    else if (flags & NSX_CAPS_KEPT)
        error = sys_prctl(PR_SET_KEEPCAPS_, 0, 0);
    if (error < 0)
        return part(child, PART_SECUREBITS, 0, error);
    next.effective = next.permitted = set;
    error = child_set_caps(&next);
    if (error < 0)
        return part(child, PART_SETS, 0, error);
    return verify(child, &next, raised, exact && !no_gain);
}

/* For the next exec of this very task: after the helper's and after every clone.
 * Before descriptors are closed, the caller's own /proc among them, which a root of
 * somebody else's must not stand in for. */
NSX_CHILD_CODE long step_exec_label(struct nsx_child *child, const struct nsx_step *step)
{
    const char *text = child_string(child, step->arg[1]);
    return nsx_child_write_proc(child, child_string(child, step->arg[0]), text, child_strlen(text));
}

NSX_CHILD_CODE long step_no_new_privs(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child, (void)step;
    return sys_prctl(PR_SET_NO_NEW_PRIVS_, 1, 0);
}

/* A session keyring is inherited, into a user namespace too.  Where this kernel
 * knows of none there is nothing to inherit; nor is there where a filter refuses
 * all of keyctl(2), without which no key can be read.  arg 0: it has been asked
 * for in so many words, and then a filter is an error. */
NSX_CHILD_CODE long step_keyring(struct nsx_child *child, const struct nsx_step *step)
{
    (void)child;
    const long error = sys_keyctl(KEYCTL_JOIN_SESSION_KEYRING_, 0, 0);
    if (error >= 0 || error == -ENOSYS_)
        return 0;
    if (error == -EPERM_ && !step->arg[0] &&
        sys_keyctl(KEYCTL_GET_KEYRING_ID_, KEY_SPEC_SESSION_KEYRING_, 0) == -EPERM_)
        return 0;
    return error;
}
