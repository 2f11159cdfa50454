/* Steps of a Landlock ruleset: made once the mounts are done and the descriptors
 * are laid out, before a limit on them; in force just before exec. */
#include "child.h"

#define EINVAL_ 22
#define ENOSYS_ 38
#define EOPNOTSUPP_ 95
#define LANDLOCK_CREATE_RULESET_VERSION_ 1
#define LANDLOCK_RULE_PATH_BENEATH_ 1
#define LANDLOCK_RULE_NET_PORT_ 2
#define ACCESS_V1 ((1ull << 13) - 1)
#define ACCESS_REFER (1ull << 13)
#define ACCESS_TRUNCATE (1ull << 14)
/* execute, write, read, truncate */
#define ACCESS_OF_FILES (1ull | 1ull << 1 | 1ull << 2 | ACCESS_TRUNCATE)
#define ACCESS_NET 3ull
#define O_PATH_CLOEXEC (010000000 | 02000000)

/* struct landlock_ruleset_attr; net since ABI 4. */
struct ruleset {
    uint64_t fs, net;
};

/* struct landlock_path_beneath_attr */
struct beneath {
    uint64_t access;
    int32_t parent;
} __attribute__((packed));

/* struct landlock_net_port_attr */
struct port {
    uint64_t access, number;
};

NSX_CHILD_CODE static long version(void)
{
    const long abi =
        nsx_syscall(__NR_landlock_create_ruleset, 0, 0, LANDLOCK_CREATE_RULESET_VERSION_, 0, 0, 0);
    return abi == -ENOSYS_ || abi == -EOPNOTSUPP_ ? 0 : abi;
}

NSX_CHILD_CODE static struct ruleset known(long abi)
{
    struct ruleset set = {abi > 0 ? ACCESS_V1 : 0, abi >= 4 ? ACCESS_NET : 0};
    if (abi >= 2)
        set.fs |= ACCESS_REFER;
    if (abi >= 3)
        set.fs |= ACCESS_TRUNCATE;
    return set;
}

/* args: rights to files and to ports that nobody has without a rule; 1: all of
 * them, or none at all.  aux: the ABI, where that is too old.  Moving files to
 * other directories is no reason: what does not know the right forbids it. */
NSX_CHILD_CODE long step_landlock(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    struct ruleset handled = {step->arg[0], step->arg[1]};
    const long abi = version();
    child->aux = -1;
    if (abi < 0)
        return abi;
    const struct ruleset set = known(abi);
    if (step->arg[2] && ((handled.fs & ~set.fs & ~ACCESS_REFER) || (handled.net & ~set.net))) {
        child->aux = (int32_t)abi;
        return -EOPNOTSUPP_;
    }
    handled.fs &= set.fs;
    handled.net &= set.net;
    plan->landlock_fs = handled.fs;
    plan->landlock_net = handled.net;
    if (!handled.fs && !handled.net)
        return 0;
    const long size = abi >= 4 ? sizeof handled : sizeof handled.fs;
    const long fd = nsx_syscall(__NR_landlock_create_ruleset, NSX_P(&handled), size, 0, 0, 0, 0);
    if (fd >= 0)
        plan->landlock_fd = (int32_t)fd;
    return fd < 0 ? fd : 0;
}

NSX_CHILD_CODE static long add_rule(const struct nsx_plan *plan, long type, const void *rule)
{
    return nsx_syscall(__NR_landlock_add_rule, plan->landlock_fd, type, NSX_P(rule), 0, 0, 0);
}

NSX_CHILD_CODE long step_landlock_path(struct nsx_child *child, const struct nsx_step *step)
{
    const struct nsx_plan *plan = child->plan;
    struct beneath rule = {step->arg[1] & plan->landlock_fs, -1};
    if (plan->landlock_fd < 0 || !rule.access)
        return 0;
    child->aux = NSX_PART_OPEN;
    const long fd = sys_openat(NSX_AT_FDCWD, child_string(child, step->arg[0]), O_PATH_CLOEXEC);
    if (fd < 0)
        return fd;
    child->aux = 0;
    rule.parent = (int32_t)fd;
    long error = add_rule(plan, LANDLOCK_RULE_PATH_BENEATH_, &rule);
    /* No directory has fewer rights, and none of the others is known to it. */
    if (error == -EINVAL_ && rule.access & ~ACCESS_OF_FILES && rule.access & ACCESS_OF_FILES) {
        rule.access &= ACCESS_OF_FILES;
        error = add_rule(plan, LANDLOCK_RULE_PATH_BENEATH_, &rule);
    }
    sys_close(fd);
    return error;
}

NSX_CHILD_CODE long step_landlock_port(struct nsx_child *child, const struct nsx_step *step)
{
    const struct nsx_plan *plan = child->plan;
    const struct port rule = {step->arg[1] & plan->landlock_net, step->arg[0]};
    if (plan->landlock_fd < 0 || !rule.access)
        return 0;
    return add_rule(plan, LANDLOCK_RULE_NET_PORT_, &rule);
}

NSX_CHILD_CODE long step_landlock_restrict(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    (void)step;
    if (plan->landlock_fd < 0)
        return 0;
    const long error = nsx_syscall(__NR_landlock_restrict_self, plan->landlock_fd, 0, 0, 0, 0, 0);
    sys_close(plan->landlock_fd);
    plan->landlock_fd = -1;
    return error;
}
