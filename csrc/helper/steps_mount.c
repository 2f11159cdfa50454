/* Mounts, each in one step: made detached, changed, then put in its place. */
#include "fs.h"

/* arg 0: number of the source, 1: place of a user namespace in the table */
NSX_CHILD_CODE long step_idmap(struct nsx_child *child, const struct nsx_step *step)
{
    const uint32_t source = fs_source(child, step->arg[0]);
    const struct nsx_join *handed = child_at(child->plan, child->plan->joins);
    if (source == SOURCE_MISSING)
        return 0;
    if (step->arg[1] >= child->plan->njoins)
        return -EINVAL_;
    if (child->classic) /* only one that has no place can be mapped */
        return -ENOSYS_;
    const struct nsx_mount_attr attr = {.set = NSX_MOUNT_ATTR_IDMAP,
                                        .userns_fd = (uint64_t)handed[step->arg[1]].fd};
    return sys_mount_setattr((long)source, NSX_AT_RECURSIVE, &attr);
}

/* Changed first, then put in its place: there is no moment in which it can be used
 * as it was.  target: -1: the new root.  Takes mount. */
NSX_CHILD_CODE static long put(struct nsx_child *child, long mount, long target,
                               const struct fs_change *change)
{
    long error = fs_change(child, mount, change);
    if (error >= 0)
        error = fs_attach(child, mount, target);
    if (error >= 0 && target < 0)
        fs_set_root(child, mount);
    else
        sys_close(mount);
    return error;
}

/* arg 0: number of the source, 1, 2: flags to set, to clear, 3: propagation, 4: FS_*,
 * 5: target, "": it is the new root */
NSX_CHILD_CODE long step_bind(struct nsx_child *child, const struct nsx_step *step)
{
    const uint32_t source = fs_source(child, step->arg[0]);
    const char *path = child_string(child, step->arg[5]);
    const struct fs_change change = {(uint32_t)step->arg[1], (uint32_t)step->arg[2],
                                     (uint32_t)step->arg[3], (int)(step->arg[4] & FS_RECURSIVE)};
    struct nsx_statx status;
    long target = -1;
    if (source == SOURCE_MISSING)
        return 0;
    if (*path) {
        long error = sys_statx((long)source, "", NSX_AT_EMPTY_PATH, &status);
        target = error < 0 ? error : fs_target(child, path, fs_is_directory(&status));
        if (target < 0)
            return target;
    }
    long error = put(child, (long)source, target, &change);
    if (target >= 0)
        sys_close(target);
    return error;
}

/* arg 0: type, 1: source, 2, 3: options, 4: MS_* and, above them, FS_*, 5: target */
NSX_CHILD_CODE long step_mount_fs(struct nsx_child *child, const struct nsx_step *step)
{
    const struct fs_new fs = {child_string(child, step->arg[0]), child_string(child, step->arg[1]),
                              child_string(child, step->arg[2]), step->arg[3],
                              (uint32_t)step->arg[4]};
    const char *path = child_string(child, step->arg[5]);
    uint32_t *result = &fs_blob(child)->step[child->plan->record.step].result;
    struct nsx_statx status;
    long target = -1;
    if (*path) {
        target = fs_target(child, path, 1);
        if (target < 0)
            return target;
    }
    long mount = fs_make(child, &fs);
    long error = mount < 0 ? mount : 0;
    if (error >= 0 && step->arg[4] >> 32 & FS_OWN) {
        error = sys_statx(mount, "", NSX_AT_EMPTY_PATH, &status);
        *result = error < 0 ? 0 : fs_device(&status);
    }
    if (error >= 0)
        error = put(child, mount, target, &(const struct fs_change){0});
    else if (mount >= 0)
        sys_close(mount);
    if (target >= 0)
        sys_close(target);
    return error;
}

/* What is no mount yet becomes one: on itself. */
NSX_CHILD_CODE static long change_part(struct nsx_child *child, long fd,
                                       const struct fs_change *change)
{
    const long mount = fs_clone(child, fd, 1);
    return mount < 0 ? mount : put(child, mount, fd, change);
}

/* arg 0: target, 1, 2: flags to set, to clear, 3: propagation, 4: FS_* */
NSX_CHILD_CODE long step_change(struct nsx_child *child, const struct nsx_step *step)
{
    const char *path = child_string(child, step->arg[0]);
    const struct fs_change change = {(uint32_t)step->arg[1], (uint32_t)step->arg[2],
                                     (uint32_t)step->arg[3], (int)(step->arg[4] & FS_RECURSIVE)};
    struct nsx_statx status;
    child->aux = PART_TARGET;
    long fd = nsx_resolve(child->root_fd, path, NSX_O_PATH);
    if ((fd == -ENOENT_ || fd == -ENOTDIR_) && step->arg[4] & FS_OPTIONAL)
        return 0;
    if (fd < 0)
        return fd;
    long error = sys_statx(fd, "", NSX_AT_EMPTY_PATH, &status);
    if (error >= 0 && status.attributes & NSX_STATX_ATTR_MOUNT_ROOT)
        error = fs_change(child, fd, &change);
    else if (error >= 0)
        error = change_part(child, fd, &change);
    sys_close(fd);
    return error;
}

/* arg 0: number of the source, /dev/null, 1: FS_*, 2: target.  A directory is
 * covered by an empty one, anything else by /dev/null. */
NSX_CHILD_CODE long step_mask(struct nsx_child *child, const struct nsx_step *step)
{
    const char *path = child_string(child, step->arg[2]);
    const uint32_t locked = NSX_MS_RDONLY | NSX_MS_NOSUID | NSX_MS_NODEV | NSX_MS_NOEXEC;
    static const char empty[] = "mode=000\0nr_inodes=2\0size=4k";
    const struct fs_new fs = {"tmpfs", "", empty, sizeof empty, locked};
    struct fs_change change = {0};
    struct nsx_statx status;
    long mount = -1;
    child->aux = PART_TARGET;
    long fd = nsx_resolve(child->root_fd, path, NSX_O_PATH);
    if ((fd == -ENOENT_ || fd == -ENOTDIR_) && step->arg[1] & FS_OPTIONAL)
        return 0;
    if (fd < 0)
        return fd;
    long error = fs_check_target(child, fd);
    if (error >= 0)
        error = sys_statx(fd, "", NSX_AT_EMPTY_PATH, &status);
    if (error >= 0 && fs_is_directory(&status)) {
        mount = error = fs_make(child, &fs);
    } else if (error >= 0) {
        change.set = NSX_MS_RDONLY | NSX_MS_NOSUID | NSX_MS_NOEXEC;
        mount = error = fs_clone(child, (long)fs_source(child, step->arg[0]), 0);
    }
    if (error >= 0)
        error = put(child, mount, fd, &change);
    sys_close(fd);
    return error;
}
