/* The step that lays out the child's table of descriptors. */
#include "child.h"

#define F_SETFD_ 2
#define FD_CLOEXEC_ 1
#define F_DUPFD_CLOEXEC_ 1030
#define ENOSYS_ 38
#define LAST_FD 0xffffffffu

/* struct linux_dirent64 */
struct entry {
    uint64_t inode;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

/* What stays open: the table's, and our own descriptor that is still needed
 * (close-on-exec; -1: none). */
struct kept {
    const struct nsx_fd *fd;
    uint32_t count;
    int32_t own;
};

NSX_CHILD_CODE static int is_kept(const struct kept *kept, long number)
{
    for (uint32_t i = 0; i < kept->count; i++)
        if (kept->fd[i].child == number)
            return 1;
    return number == kept->own;
}

/* Where close_range(2) is refused (a seccomp filter): by the directory of open
 * descriptors.  Descriptors left open would be an escape, so without /proc this
 * is an error. */
NSX_CHILD_CODE static long close_listed(const struct nsx_plan *plan, const struct kept *kept)
{
    uint64_t buffer[128];
    long closed;
    long directory = child_open_proc(plan, "/proc/self/fd", NSX_O_RDONLY | NSX_O_CLOEXEC);
    if (directory < 0)
        return directory;
    /* Closing while reading may pass entries over: until a round closes none. */
    do {
        long size;
        closed = 0;
        nsx_syscall(__NR_lseek, directory, 0, 0, 0, 0, 0);
        while ((size = sys_getdents64(directory, buffer, sizeof buffer)) > 0) {
            for (long at = 0; at < size;) {
                const struct entry *entry = (const void *)((const char *)buffer + at);
                long number = 0;
                at += entry->size;
                if (entry->name[0] < '0' || entry->name[0] > '9')
                    continue;
                for (const char *digit = entry->name; *digit; digit++)
                    number = number * 10 + (*digit - '0');
                if (number < 3 || number == directory || is_kept(kept, number))
                    continue;
                sys_close(number);
                closed++;
            }
        }
        if (size < 0) {
            sys_close(directory);
            return size;
        }
    } while (closed);
    sys_close(directory);
    return 0;
}

NSX_CHILD_CODE static long close_rest(const struct nsx_plan *plan, const struct kept *kept)
{
    unsigned int first = 3;
    uint32_t i = 0;
    for (;;) {
        unsigned int next = LAST_FD;
        while (i < kept->count && (unsigned int)kept->fd[i].child < first)
            i++;
        if (i < kept->count)
            next = (unsigned int)kept->fd[i].child;
        if (kept->own >= 0 && (unsigned int)kept->own >= first && (unsigned int)kept->own < next)
            next = (unsigned int)kept->own;
        if (next > first) {
            long error = sys_close_range(first, next == LAST_FD ? LAST_FD : next - 1);
            if (error == -ENOSYS_)
                return close_listed(plan, kept);
            if (error < 0)
                return error;
        }
        if (next == LAST_FD)
            return 0;
        first = next + 1;
    }
}

/* A copy of fd at a number that no entry of the table will take. */
NSX_CHILD_CODE static long move_aside(const struct kept *kept, long fd)
{
    long from = 3;
    for (;;) {
        long moved = sys_fcntl(fd, F_DUPFD_CLOEXEC_, from);
        if (moved < 0 || !is_kept(kept, moved))
            return moved;
        sys_close(moved);
        from = moved + 1;
    }
}

/* Sources that were close-on-exec until the helper's exec are so again. */
NSX_CHILD_CODE static long restore_cloexec(const struct kept *kept)
{
    long error = 0;
    for (uint32_t i = 0; i < kept->count && error >= 0; i++)
        if (kept->fd[i].cloexec && !is_kept(kept, kept->fd[i].parent))
            error = sys_fcntl(kept->fd[i].parent, F_SETFD_, FD_CLOEXEC_);
    return error;
}

/* Nothing here may touch the parent's table.  The copy is of stdio alone: what is
 * open above is neither copied nor closed (which would flush it). */
NSX_CHILD_CODE static long leave_shared(const struct nsx_plan *plan, const struct kept *kept)
{
    long error = sys_close_range_unshare(3);
    if (error != -ENOSYS_)
        return error;
    error = sys_unshare(NSX_CLONE_FILES);
    return error < 0 ? error : close_listed(plan, kept);
}

/* Two passes, so that cycles (0->1, 1->0) come out right: what another entry
 * will overwrite is first moved aside, then each goes to its place. */
NSX_CHILD_CODE long step_fds(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    struct nsx_fd *fd = child_at(plan, plan->fds);
    const uint32_t count = plan->nfds;
    struct kept kept = {fd, count, -1};
    (void)step;

    child->aux = -1;
    if (plan->flags & NSX_SHARED_FDS)
        return leave_shared(plan, &kept);
    if (plan->flags & NSX_IN_HELPER && plan->parent_pidfd >= 0) {
        long own = move_aside(&kept, plan->parent_pidfd);
        if (own < 0)
            return own;
        sys_close(plan->parent_pidfd);
        plan->parent_pidfd = kept.own = (int32_t)own;
    }

    /* The caller's own /proc, where a join or a new root has brought another. */
    if (plan->proc_fd >= 0 && is_kept(&kept, plan->proc_fd)) {
        const long own = move_aside(&kept, plan->proc_fd);
        if (own < 0)
            return own;
        plan->proc_fd = (int32_t)own; /* the table closes the other one */
    }

    for (uint32_t i = 0; i < count; i++) {
        if (fd[i].moved < 0)
            continue;
        child->aux = fd[i].child;
        long moved = move_aside(&kept, fd[i].parent);
        if (moved < 0)
            return moved;
        fd[i].moved = (int32_t)moved;
    }
    for (uint32_t i = 0; i < count; i++) {
        long from = fd[i].moved >= 0 ? fd[i].moved : fd[i].parent;
        child->aux = fd[i].child;
        /* dup3(x, x) is EINVAL and dup2(x, x) keeps FD_CLOEXEC. */
        long error =
            from == fd[i].child ? sys_fcntl(from, F_SETFD_, 0) : sys_dup3(from, fd[i].child, 0);
        if (error < 0)
            return error;
    }
    child->aux = -1;
    long error = restore_cloexec(&kept);
    if (error >= 0 && plan->flags & NSX_CLOSE_FDS)
        error = close_rest(plan, &kept);
    if (error >= 0 && plan->proc_fd >= 0) {
        if (plan->proc_fd < 3 || !(plan->flags & NSX_CLOSE_FDS))
            sys_close(plan->proc_fd);
        plan->proc_fd = -1;
    }
    return error;
}
