/* The frame of the file system's steps: what they start from, the sources, and
 * the change to the new root. */
#include "fs.h"

#define RLIMIT_NOFILE_ 7
#define F_SETFD_ 2
#define FD_CLOEXEC_ 1
#define ESTALE_ 116

NSX_CHILD_CODE static long get_nofile(uint64_t limit[2])
{
    return nsx_syscall(__NR_prlimit64, 0, RLIMIT_NOFILE_, 0, NSX_P(limit), 0, 0);
}

/* The caller's /proc, for calls that know paths only; it may be missing where no
 * such call is needed.  A join has opened it already. */
NSX_CHILD_CODE static long open_proc(struct nsx_plan *plan)
{
    uint64_t status[16];
    if (plan->proc_fd >= 0)
        return 0;
    const long fd = sys_openat(NSX_AT_FDCWD, "/proc", NSX_O_PATH | NSX_O_DIRECTORY | NSX_O_CLOEXEC);
    if (fd < 0)
        return fd == -ENOENT_ || fd == -ENOTDIR_ ? 0 : fd;
    const long error = sys_fstatfs(fd, status);
    if (error >= 0 && status[0] == NSX_PROC_SUPER_MAGIC)
        plan->proc_fd = (int32_t)fd;
    else
        sys_close(fd);
    return error;
}

/* Descriptors are low: sources stay open until they have their place, so there may
 * be more of them than the soft limit allows.  Back at the end. */
NSX_CHILD_CODE long step_fs_begin(struct nsx_child *child, const struct nsx_step *step)
{
    (void)step;
    child->first_source = child->plan->record.step + 1;
    child->umask = (int32_t)sys_umask(0); /* modes are meant as they are said */
    child->aux = PART_LIMIT;
    long error = get_nofile(child->nofile);
    if (error < 0)
        return error;
    const uint64_t raised[2] = {child->nofile[1], child->nofile[1]};
    error = sys_prlimit64(0, RLIMIT_NOFILE_, raised);
    if (error < 0)
        return error;
    child->aux = PART_PROC;
    error = open_proc(child->plan);
    if (error < 0)
        return error;
    child->aux = 0;
    const long fd = sys_openat(NSX_AT_FDCWD, "/", NSX_O_PATH | NSX_O_DIRECTORY | NSX_O_CLOEXEC);
    child->root_fd = (int32_t)fd;
    child->pivoted = 0;
    return fd < 0 ? fd : fs_begin(child);
}

/* Without openat2(2): the path from the root directory, each link looked at. */
NSX_CHILD_CODE static long open_slowly(const char *path)
{
    char whole[2 * PATH_SIZE];
    size_t at = 0;
    if (path[0] != '/') {
        long size = nsx_syscall(__NR_getcwd, NSX_P(whole), PATH_SIZE, 0, 0, 0, 0);
        if (size < 0 || whole[0] != '/')
            return size < 0 ? size : -ENOENT_;
        at = (size_t)size; /* with the NUL, in whose place comes the slash */
        whole[at - 1] = '/';
    }
    for (size_t i = 0; (whole[at] = path[i]); i++)
        if (++at == sizeof whole)
            return -ENAMETOOLONG_;
    long root = sys_openat(NSX_AT_FDCWD, "/", NSX_O_PATH | NSX_O_DIRECTORY | NSX_O_CLOEXEC);
    if (root < 0)
        return root;
    const long fd = nsx_resolve_slowly(root, whole, NSX_O_PATH | NSX_O_CLOEXEC);
    sys_close(root);
    return fd;
}

/* A path through /proc/PID/fd, cwd or root would lead to descriptors that are to
 * be closed, or out of here: whoever means one hands over the descriptor. */
NSX_CHILD_CODE static long open_path(const char *path)
{
    const struct nsx_open_how how = {.flags = NSX_O_PATH | NSX_O_CLOEXEC,
                                     .resolve = NSX_RESOLVE_NO_MAGICLINKS};
    const long fd = sys_openat2(NSX_AT_FDCWD, path, &how);
    return fd == -ENOSYS_ ? open_slowly(path) : fd;
}

/* A handed descriptor is of a mount in the caller's mount namespace, of which this
 * one has a copy: the same file there, found by its path and known by its inode. */
NSX_CHILD_CODE static long open_handed(struct nsx_child *child, long handed)
{
    char path[PATH_SIZE];
    struct fs_number number;
    struct nsx_statx own, found;
    /* The table may pass it on; else it goes there. */
    long error = sys_fcntl(handed, F_SETFD_, FD_CLOEXEC_);
    if (error < 0)
        return error;
    child->aux = PART_PROC;
    if (child->plan->proc_fd < 0)
        return -ENOENT_;
    fs_number(handed, &number);
    const long size = sys_readlinkat(child->plan->proc_fd, number.path, path, sizeof path - 1);
    if (size < 0)
        return size;
    path[size] = 0;
    child->aux = PART_TARGET;
    error = sys_statx(handed, "", NSX_AT_EMPTY_PATH, &own);
    long fd = error < 0 ? error : open_path(path);
    if (fd < 0)
        return fd;
    error = sys_statx(fd, "", NSX_AT_EMPTY_PATH, &found);
    if (error >= 0 && (own.inode != found.inode || fs_device(&own) != fs_device(&found)))
        error = -ESTALE_;
    if (error >= 0)
        return fd;
    sys_close(fd);
    return error;
}

NSX_CHILD_CODE static long open_source(struct nsx_child *child, const struct nsx_step *step)
{
    if (step->arg[1] & FS_HANDED) {
        const struct nsx_join *handed = child_at(child->plan, child->plan->joins);
        return open_handed(child, handed[step->arg[2]].fd);
    }
    child->aux = PART_TARGET;
    return open_path(child_string(child, step->arg[0]));
}

NSX_CHILD_CODE static long clone_source(struct nsx_child *child, const struct nsx_step *step,
                                        uint32_t *result)
{
    const long fd = (long)*result;
    const long mount = fs_clone(child, fd, (step->arg[1] & FS_RECURSIVE) != 0);
    sys_close(fd);
    *result = (uint32_t)mount;
    return mount < 0 ? mount : 0;
}

/* arg 0: path, 1: FS_*, 2: place in the table of handed descriptors.  Opened in the
 * caller's view, before the first mount is made. */
NSX_CHILD_CODE long step_source(struct nsx_child *child, const struct nsx_step *step)
{
    uint32_t *result = &fs_blob(child)->step[child->plan->record.step].result;
    const uint64_t flags = step->arg[1];
    if (flags & FS_HANDED && step->arg[2] >= child->plan->njoins)
        return -EINVAL_;
    long fd = open_source(child, step);
    if ((fd == -ENOENT_ || fd == -ENOTDIR_) && flags & FS_OPTIONAL) {
        *result = SOURCE_MISSING;
        return 0;
    }
    if (fd < 0)
        return fd;
    *result = (uint32_t)fd;
    if (flags & FS_PLAIN || fs_is_deferred(child))
        return 0;
    return clone_source(child, step, result);
}

NSX_CHILD_CODE long fs_clone_sources(struct nsx_child *child)
{
    struct nsx_blob *blob = fs_blob(child);
    struct nsx_step *step = &blob->step[child->first_source];
    if (!fs_is_deferred(child))
        return 0;
    long error = fs_open_shop(child);
    for (; error >= 0 && step->op == NSX_OP_source; step++)
        if (step->result != SOURCE_MISSING && !(step->arg[1] & FS_PLAIN))
            error = clone_source(child, step, &step->result);
    return error;
}

/* The directory where the new root is on top of the old one, where that one has no
 * parent, which pivot_root(2) refuses: an initramfs.  No ".." leads under it.  Any
 * other root directory that it refuses is a chroot's, whose host is above it. */
NSX_CHILD_CODE static long change_initramfs(struct nsx_child *child)
{
    struct nsx_statx status;
    long error = sys_statx(NSX_AT_FDCWD, "/", 0, &status);
    if (error < 0)
        return error;
    if (!(status.attributes & NSX_STATX_ATTR_MOUNT_ROOT) || child->plan->proc_fd < 0)
        return -EINVAL_;
    error = fs_has_parent(child, status.mount_id);
    if (error < 0)
        return error;
    child->aux = 0;
    return error ? -EINVAL_ : sys_chroot(".");
}

/* The old root is on top of the new one now, with whatever had been on top of it,
 * and each of them would be one ".." away: until the new one is on top. */
NSX_CHILD_CODE static long detach_old(const struct nsx_child *child)
{
    struct nsx_statx own, top;
    long error = sys_statx(child->root_fd, "", NSX_AT_EMPTY_PATH, &own);
    while (error >= 0) {
        error = sys_umount2(".", NSX_MNT_DETACH);
        if (error < 0)
            break;
        const long fd = fs_top_of_root();
        if (fd < 0)
            return fd;
        error = sys_statx(fd, "", NSX_AT_EMPTY_PATH, &top);
        sys_close(fd);
        if (error >= 0 && top.mount_id == own.mount_id)
            return 0;
    }
    return error;
}

/* From the old root, for who has another one: is there anything above but what lies on
 * top of it, which is the new one?  0, -EINVAL or -errno. */
NSX_CHILD_CODE static long look_up(const struct nsx_child *child, long old)
{
    struct nsx_statx own, above;
    const long fd = sys_openat(old, "..", NSX_O_PATH | NSX_O_DIRECTORY | NSX_O_CLOEXEC);
    if (fd < 0)
        return fd;
    long error = sys_statx(fd, "", NSX_AT_EMPTY_PATH, &above);
    if (error >= 0)
        error = sys_statx(child->root_fd, "", NSX_AT_EMPTY_PATH, &own);
    sys_close(fd);
    if (error >= 0 && (own.mount_id != above.mount_id || own.inode != above.inode))
        error = -EINVAL_;
    return error;
}

/* In a chroot whose directory is a mount point pivot_root(2) works, and leaves the
 * host above the new root: one ".." away for who may chroot(2).  Asked by doing just
 * that; whoever may not is not answered, and has nobody inside who may.  From and to
 * the new root as the working directory. */
NSX_CHILD_CODE static long check_chroot(const struct nsx_child *child)
{
    const long old = sys_openat(NSX_AT_FDCWD, "/", NSX_O_PATH | NSX_O_DIRECTORY | NSX_O_CLOEXEC);
    if (old < 0)
        return old;
    long error = sys_chroot(".");
    if (error >= 0) {
        error = look_up(child, old);
        if (error >= 0)
            error = sys_fchdir(old);
        if (error >= 0)
            error = sys_chroot(".");
        if (error >= 0)
            error = sys_fchdir(child->root_fd);
    } else if (error == -EPERM_) {
        error = 0;
    }
    sys_close(old);
    return error;
}

/* The root is on top of the old one; they change places, and the old one goes. */
NSX_CHILD_CODE long step_pivot(struct nsx_child *child, const struct nsx_step *step)
{
    (void)step;
    child->aux = PART_ENTER;
    long error = sys_fchdir(child->root_fd);
    if (error < 0)
        return error;
    child->aux = 0;
    error = check_chroot(child);
    if (error < 0)
        return error;
    error = sys_pivot_root(".", ".");
    if (error == -EINVAL_) {
        error = change_initramfs(child);
    } else if (error >= 0) {
        child->aux = PART_DETACH;
        error = detach_old(child);
    }
    if (error < 0)
        return error;
    if (child->shop_fd >= 0) /* has gone with the old root */
        sys_close(child->shop_fd);
    child->shop_fd = -1;
    child->pivoted = 1;
    child->aux = PART_ENTER;
    error = sys_chdir("/");
    if (error < 0)
        return error;
    child->aux = PART_REACH;
    return child_check_cwd();
}

/* All that these steps have changed for themselves goes back.  The caller's /proc
 * stays at hand for the step fds: what is there by now may be somebody's files. */
NSX_CHILD_CODE long step_fs_end(struct nsx_child *child, const struct nsx_step *step)
{
    (void)step;
    long error = fs_end(child);
    if (error >= 0 && child->pivoted) /* a step may have used the caller's /proc */
        error = sys_chdir("/");
    if (error < 0)
        return error;
    sys_close(child->root_fd);
    child->root_fd = -1;
    sys_umask(child->umask);
    child->aux = 0;
    return sys_prlimit64(0, RLIMIT_NOFILE_, child->nofile);
}

/* The caller's working directory by its path, in the tree as it is now. */
NSX_CHILD_CODE long step_reenter(struct nsx_child *child, const struct nsx_step *step)
{
    (void)step;
    if (!child->plan->cwd) /* it has none: it was removed, or lies outside a chroot */
        return -ENOENT_;
    return sys_chdir(child_at(child->plan, child->plan->cwd));
}
