/* Files, directories and links that a sandbox brings along.  They are made in its
 * own file systems; a file that exists in the host's tree is covered. */
#include "fs.h"

#define ELOOP_ 40

NSX_CHILD_CODE static long own_parent(struct nsx_child *child, const char *path, char name[256])
{
    struct nsx_statx status;
    long parent = fs_parent(child, path, name);
    if (parent < 0)
        return parent;
    long error = sys_statx(parent, "", NSX_AT_EMPTY_PATH, &status);
    if (error >= 0 && fs_is_own(child, &status))
        return parent;
    sys_close(parent);
    child->aux = PART_MISSING;
    return error < 0 ? error : -ENOENT_;
}

/* mkdir(2) passes these over. */
#define SET_IDS 06000

NSX_CHILD_CODE static long change_mode(long parent, const char *name, long mode)
{
    const long fd = sys_openat(parent, name, NSX_O_DIRECTORY | NSX_O_NOFOLLOW | NSX_O_CLOEXEC);
    if (fd < 0)
        return fd;
    const long error = sys_fchmod(fd, mode);
    sys_close(fd);
    return error;
}

/* arg 0: path, 1: mode.  One that exists stays as it is. */
NSX_CHILD_CODE long step_make_dir(struct nsx_child *child, const struct nsx_step *step)
{
    const char *path = child_string(child, step->arg[0]);
    char name[256];
    child->aux = PART_TARGET;
    long fd = nsx_resolve(child->root_fd, path, NSX_O_PATH | NSX_O_DIRECTORY);
    if (fd >= 0)
        sys_close(fd);
    if (fd != -ENOENT_)
        return fd < 0 ? fd : 0;
    long parent = own_parent(child, path, name);
    if (parent < 0)
        return parent;
    child->aux = PART_MAKE;
    const long mode = (long)step->arg[1];
    long error = sys_mkdirat(parent, name, mode);
    if (error >= 0 && mode & SET_IDS)
        error = change_mode(parent, name, mode);
    sys_close(parent);
    return error;
}

/* arg 0: what it says, 1: path.  One that says the same may exist. */
NSX_CHILD_CODE long step_make_link(struct nsx_child *child, const struct nsx_step *step)
{
    const char *to = child_string(child, step->arg[0]);
    char name[256], text[PATH_SIZE];
    long parent = own_parent(child, child_string(child, step->arg[1]), name);
    if (parent < 0)
        return parent;
    child->aux = PART_MAKE;
    long error = sys_symlinkat(to, parent, name);
    if (error == -EEXIST_) {
        const long size = sys_readlinkat(parent, name, text, sizeof text);
        int same = size == (long)child_strlen(to);
        for (long i = 0; same && i < size; i++)
            same = text[i] == to[i];
        if (same)
            error = 0;
        else if (size < 0 && size != -EINVAL_) /* that: it is no link */
            error = size;
    }
    sys_close(parent);
    return error;
}

NSX_CHILD_CODE static long write_all(struct nsx_child *child, long fd, const char *data,
                                     size_t size, long mode)
{
    child->aux = PART_WRITE;
    while (size) {
        const long written = sys_write(fd, data, size);
        if (written < 0)
            return written;
        data += written;
        size -= (size_t)written;
    }
    return sys_fchmod(fd, mode);
}

#define WRITE_NEW (NSX_O_WRONLY | NSX_O_CREAT | NSX_O_TRUNC | NSX_O_NOFOLLOW | NSX_O_CLOEXEC)

/* Anything but a regular file of the child's own is covered by one on a tmpfs that
 * nothing else leads to. */
NSX_CHILD_CODE static long cover(struct nsx_child *child, const struct nsx_step *step, long target)
{
    const struct fs_change change = {NSX_MS_RDONLY | NSX_MS_NOSUID | NSX_MS_NODEV, 0, 0, 0};
    long scratch = fs_scratch(child);
    if (scratch < 0)
        return scratch;
    long file = sys_openat_mode(scratch, "file", WRITE_NEW, 0600);
    long error = file;
    if (file >= 0) {
        error = write_all(child, file, child_string(child, step->arg[1]), step->arg[2],
                          (long)step->arg[3]);
        sys_close(file);
    }
    long mount = error;
    if (error >= 0) {
        file = mount = sys_openat(scratch, "file", NSX_O_PATH | NSX_O_NOFOLLOW | NSX_O_CLOEXEC);
        if (file >= 0) {
            mount = fs_clone(child, file, 0);
            sys_close(file);
        }
        error = mount;
    }
    if (error >= 0)
        error = fs_change(child, mount, &change);
    if (error >= 0)
        error = fs_attach(child, mount, target);
    if (mount >= 0)
        sys_close(mount);
    const int32_t aux = child->aux;
    return fs_first(child, error, fs_scratch_end(child, scratch), aux);
}

/* 1 if target is what name says in its directory, and is a regular file in a file
 * system of the child's own; 0, or -errno.  An overlay's files may be of another
 * device than its directories. */
NSX_CHILD_CODE static long is_own_file(struct nsx_child *child, long target, long parent,
                                       const char *name)
{
    struct nsx_statx above, found, named;
    long error = sys_statx(parent, "", NSX_AT_EMPTY_PATH, &above);
    if (error >= 0)
        error = sys_statx(target, "", NSX_AT_EMPTY_PATH, &found);
    if (error < 0)
        return error;
    if (!fs_is_own(child, &above) || above.mount_id != found.mount_id ||
        (found.mode & NSX_S_IFMT) != NSX_S_IFREG)
        return 0;
    error = sys_statx(parent, name, NSX_AT_SYMLINK_NOFOLLOW, &named);
    return error < 0 ? error : named.mount_id == found.mount_id && named.inode == found.inode;
}

/* Not by a link, whose end may be anywhere: one that leads nowhere gives way. */
NSX_CHILD_CODE static long open_new(long parent, const char *name)
{
    const long flags = WRITE_NEW | NSX_O_NONBLOCK;
    long file = sys_openat_mode(parent, name, flags, 0600);
    if (file == -ELOOP_) {
        const long error = sys_unlinkat(parent, name);
        file = error < 0 ? error : sys_openat_mode(parent, name, flags | NSX_O_EXCL, 0600);
    }
    return file;
}

/* arg 0: path, 1, 2: content, 3: mode */
NSX_CHILD_CODE long step_make_file(struct nsx_child *child, const struct nsx_step *step)
{
    const char *path = child_string(child, step->arg[0]);
    char name[256];
    child->aux = PART_TARGET;
    long target = nsx_resolve(child->root_fd, path, NSX_O_PATH);
    if (target < 0 && target != -ENOENT_)
        return target;
    long parent = target < 0 ? own_parent(child, path, name) : fs_parent(child, path, name);
    long error = parent;
    if (error >= 0 && target >= 0) {
        error = is_own_file(child, target, parent, name);
        if (error == 0) {
            sys_close(parent);
            parent = -1;
            error = cover(child, step, target);
        }
    }
    if (target >= 0)
        sys_close(target);
    if (error < 0 || parent < 0) {
        if (parent >= 0)
            sys_close(parent);
        return error < 0 ? error : 0;
    }
    child->aux = PART_MAKE;
    long file = open_new(parent, name);
    sys_close(parent);
    if (file < 0)
        return file;
    error =
        write_all(child, file, child_string(child, step->arg[1]), step->arg[2], (long)step->arg[3]);
    sys_close(file);
    return error;
}
