/* Mounts, each in one step: made detached, changed, then put in its place. */
#include "fs.h"

#define S_IFDIR_(mode) (((mode) & NSX_S_IFMT) == NSX_S_IFDIR)

/* What an option of a file system was refused for; for the hint. */
NSX_CHILD_CODE static void note_message(struct nsx_child *child, long context)
{
    char *text = child->plan->text;
    const long size = sys_read(context, text, sizeof child->plan->text - 1);
    text[size > 0 ? size : 0] = 0;
}

/* arg 0: number of the source, 1: place of a user namespace in the table */
NSX_CHILD_CODE long step_idmap(struct nsx_child *child, const struct nsx_step *step)
{
    const uint32_t source = fs_source(child, step->arg[0]);
    const struct nsx_join *handed = child_at(child->plan, child->plan->joins);
    if (source == SOURCE_MISSING)
        return 0;
    if (step->arg[1] >= child->plan->njoins)
        return -EINVAL_;
    if (source & SOURCE_CLASSIC)
        return -ENOSYS_;
    const struct nsx_mount_attr attr = {.set = NSX_MOUNT_ATTR_IDMAP,
                                        .userns_fd = (uint64_t)handed[step->arg[1]].fd};
    return sys_mount_setattr((long)source, NSX_AT_RECURSIVE, &attr);
}

/* mount(2) of what is known by descriptors only; returns the new mount. */
NSX_CHILD_CODE static long bind_classic(struct nsx_child *child, long source, long target,
                                        const char *path, int recursive)
{
    struct fs_number from, to;
    long error = fs_by_number(child, source, &from);
    if (error >= 0 && target >= 0)
        error = fs_by_number(child, target, &to);
    if (error < 0)
        return error;
    child->aux = PART_ATTACH;
    error = sys_mount(from.path, target >= 0 ? to.path : "/", NULL,
                      NSX_MS_BIND | (recursive ? NSX_MS_REC : 0));
    if (error < 0)
        return error;
    return target >= 0 ? nsx_resolve(child->root_fd, path, NSX_O_PATH) : fs_top_of_root();
}

/* Flags while it is detached, where that can be; else once it is attached: nobody
 * is here yet who could use the moment. */
NSX_CHILD_CODE static long bind_tree(struct nsx_child *child, long tree, long target,
                                     const struct fs_change *change)
{
    long error = fs_change(child, tree, change, 0);
    const int later = error == -ENOSYS_;
    if (error >= 0 || later)
        error = fs_attach(child, tree, target);
    if (error >= 0 && later)
        error = fs_change(child, tree, change, 1);
    return error;
}

/* target: -1: the new root.  Takes source. */
NSX_CHILD_CODE static long bind(struct nsx_child *child, uint32_t source, long target,
                                const char *path, const struct fs_change *change)
{
    long mount = (long)(source & SOURCE_FD);
    long error;
    if (source & SOURCE_CLASSIC) {
        const long fd = mount;
        mount = bind_classic(child, fd, target, path, change->recursive);
        sys_close(fd);
        error = mount < 0 ? mount : fs_change(child, mount, change, 1);
    } else {
        error = bind_tree(child, mount, target, change);
    }
    if (mount >= 0 && target < 0 && error >= 0)
        fs_set_root(child, mount);
    else if (mount >= 0)
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
        long error = sys_statx((long)(source & SOURCE_FD), "", NSX_AT_EMPTY_PATH, &status);
        target = error < 0 ? error : fs_target(child, path, S_IFDIR_(status.mode));
        if (target < 0)
            return target;
    }
    long error = bind(child, source, target, path, &change);
    if (target >= 0)
        sys_close(target);
    return error;
}

/* Each option is a string that ends with NUL: "size=64m", "noswap". */
NSX_CHILD_CODE static long configure(struct nsx_child *child, long context, const char *options,
                                     size_t size)
{
    char key[64];
    child->aux = PART_OPTION;
    for (size_t at = 0; at < size; at += child_strlen(options + at) + 1) {
        const char *option = options + at;
        size_t length = 0;
        while (option[length] && option[length] != '=' && length + 1 < sizeof key) {
            key[length] = option[length];
            length++;
        }
        key[length] = 0;
        const int has_value = option[length] == '=';
        long error =
            sys_fsconfig(context, has_value ? NSX_FSCONFIG_SET_STRING : NSX_FSCONFIG_SET_FLAG, key,
                         has_value ? option + length + 1 : NULL);
        if (error < 0)
            return error;
    }
    return 0;
}

struct new_fs {
    const char *type, *source, *options;
    size_t options_size;
    uint32_t flags;
};

/* Detached, by fsopen(2); -ENOSYS where that is missing. */
NSX_CHILD_CODE static long make_fs(struct nsx_child *child, const struct new_fs *fs)
{
    child->aux = PART_CREATE;
    long context = sys_fsopen(fs->type);
    if (context < 0)
        return context;
    long error = 0;
    if (*fs->source)
        error = sys_fsconfig(context, NSX_FSCONFIG_SET_STRING, "source", fs->source);
    if (error >= 0 && fs->flags & NSX_MS_RDONLY)
        error = sys_fsconfig(context, NSX_FSCONFIG_SET_FLAG, "ro", NULL);
    if (error >= 0)
        error = configure(child, context, fs->options, fs->options_size);
    if (error >= 0) {
        child->aux = PART_CREATE;
        error = sys_fsconfig(context, NSX_FSCONFIG_CMD_CREATE, NULL, NULL);
    }
    if (error >= 0)
        error = sys_fsmount(context, (long)fs->flags);
    if (error < 0)
        note_message(child, context);
    sys_close(context);
    return error;
}

/* By mount(2), in its place at once; returns the new mount. */
NSX_CHILD_CODE static long mount_classic(struct nsx_child *child, const struct new_fs *fs,
                                         long target, const char *path)
{
    struct fs_number to;
    char data[PATH_SIZE];
    if (fs->options_size >= sizeof data)
        return -E2BIG_;
    for (size_t i = 0; i < fs->options_size; i++)
        data[i] = fs->options[i] ? fs->options[i] : ',';
    data[fs->options_size ? fs->options_size - 1 : 0] = 0;
    long error = target >= 0 ? fs_by_number(child, target, &to) : 0;
    if (error < 0)
        return error;
    child->aux = PART_CREATE;
    error = sys_mount_data(*fs->source ? fs->source : fs->type, target >= 0 ? to.path : "/",
                           fs->type, (long)fs->flags, data);
    if (error < 0)
        return error;
    return target >= 0 ? nsx_resolve(child->root_fd, path, NSX_O_PATH) : fs_top_of_root();
}

NSX_CHILD_CODE static long put_fs(struct nsx_child *child, const struct new_fs *fs, long target,
                                  const char *path)
{
    long mount = make_fs(child, fs);
    if (mount == -ENOSYS_)
        return mount_classic(child, fs, target, path);
    if (mount < 0)
        return mount;
    long error = fs_attach(child, mount, target);
    if (error >= 0)
        return mount;
    sys_close(mount);
    return error;
}

/* arg 0: type, 1: source, 2, 3: options, 4: MS_* and, above them, FS_*, 5: target */
NSX_CHILD_CODE long step_mount_fs(struct nsx_child *child, const struct nsx_step *step)
{
    const struct new_fs fs = {child_string(child, step->arg[0]), child_string(child, step->arg[1]),
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
    long mount = put_fs(child, &fs, target, path);
    if (target >= 0)
        sys_close(target);
    if (mount < 0)
        return mount;
    long error = 0;
    if (step->arg[4] >> 32 & FS_OWN) {
        error = sys_statx(mount, "", NSX_AT_EMPTY_PATH, &status);
        *result = error < 0 ? 0 : fs_device(&status);
    }
    if (!*path)
        fs_set_root(child, mount);
    else
        sys_close(mount);
    return error;
}

/* Where a directory is no mount yet, it becomes one: on itself. */
NSX_CHILD_CODE static long change_part(struct nsx_child *child, long fd, const char *path,
                                       const struct fs_change *change)
{
    child->aux = PART_CLONE;
    long tree = sys_open_tree(
        fd, "", NSX_AT_EMPTY_PATH | NSX_OPEN_TREE_CLONE | NSX_OPEN_TREE_CLOEXEC | NSX_AT_RECURSIVE);
    if (tree >= 0) {
        long error = bind_tree(child, tree, fd, change);
        sys_close(tree);
        return error;
    }
    if (tree != -ENOSYS_)
        return tree;
    long mount = bind_classic(child, fd, fd, path, 1);
    if (mount < 0)
        return mount;
    long error = fs_change(child, mount, change, 1);
    sys_close(mount);
    return error;
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
        error = fs_change(child, fd, &change, 1);
    else if (error >= 0)
        error = change_part(child, fd, path, &change);
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
    const struct new_fs fs = {"tmpfs", "", empty, sizeof empty, locked};
    struct nsx_statx status;
    child->aux = PART_TARGET;
    long fd = nsx_resolve(child->root_fd, path, NSX_O_PATH);
    if ((fd == -ENOENT_ || fd == -ENOTDIR_) && step->arg[1] & FS_OPTIONAL)
        return 0;
    if (fd < 0)
        return fd;
    long error = sys_statx(fd, "", NSX_AT_EMPTY_PATH, &status);
    if (error >= 0 && S_IFDIR_(status.mode)) {
        error = put_fs(child, &fs, fd, path);
        if (error >= 0)
            sys_close(error);
    } else if (error >= 0) {
        /* A clone each: a detached mount has one place. */
        const long null = (long)(fs_source(child, step->arg[0]) & SOURCE_FD);
        const struct fs_change change = {NSX_MS_RDONLY | NSX_MS_NOSUID | NSX_MS_NOEXEC, 0, 0, 0};
        child->aux = PART_CLONE;
        long tree = sys_open_tree(null, "",
                                  NSX_AT_EMPTY_PATH | NSX_OPEN_TREE_CLONE | NSX_OPEN_TREE_CLOEXEC);
        if (tree == -ENOSYS_)
            tree = bind_classic(child, null, fd, path, 0);
        else if (tree >= 0 && (error = fs_attach(child, tree, fd)) < 0) {
            sys_close(tree);
            tree = error;
        }
        error = tree < 0 ? tree : fs_change(child, tree, &change, 1);
        if (tree >= 0)
            sys_close(tree);
    }
    sys_close(fd);
    return error;
}
