/* Files, directories and links that a sandbox brings along.  They are made in its
 * own file systems; a file that exists in the host's tree is covered. */
#include "fs.h"

#define F_DIRECTORY (NSX_O_PATH | NSX_O_DIRECTORY | NSX_O_NOFOLLOW | NSX_O_CLOEXEC)

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
    long error = sys_mkdirat(parent, name, (long)step->arg[1]);
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
        error = same ? 0 : error;
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

/* A file of the host's is covered by one on a tmpfs that nothing else leads to. */
NSX_CHILD_CODE static long cover(struct nsx_child *child, const struct nsx_step *step, long target)
{
    const struct fs_change change = {NSX_MS_RDONLY | NSX_MS_NOSUID | NSX_MS_NODEV, 0, 0, 0};
    long scratch = fs_scratch(child);
    if (scratch < 0)
        return scratch;
    long tree = -1;
    long file = sys_openat_mode(scratch, "file", WRITE_NEW, 0600);
    long error = file;
    if (file >= 0) {
        error = write_all(child, file, child_string(child, step->arg[1]), step->arg[2],
                          (long)step->arg[3]);
        sys_close(file);
    }
    if (error >= 0) {
        child->aux = PART_CLONE;
        tree = error = sys_open_tree(scratch, "file", NSX_OPEN_TREE_CLONE | NSX_OPEN_TREE_CLOEXEC);
    }
    if (error >= 0) {
        error = fs_attach(child, tree, target);
    } else if (error == -ENOSYS_) {
        struct fs_number from, to;
        file = error = sys_openat(scratch, "file", NSX_O_PATH | NSX_O_NOFOLLOW | NSX_O_CLOEXEC);
        if (error >= 0)
            error = fs_by_number(child, file, &from);
        if (error >= 0)
            error = fs_by_number(child, target, &to);
        if (error >= 0)
            error = sys_mount(from.path, to.path, NULL, NSX_MS_BIND);
        if (file >= 0)
            sys_close(file);
        if (error >= 0)
            tree = error =
                nsx_resolve(child->root_fd, child_string(child, step->arg[0]), NSX_O_PATH);
    }
    if (error >= 0)
        error = fs_change(child, tree, &change, 1);
    if (tree >= 0)
        sys_close(tree);
    const long ended = fs_scratch_end(child, scratch);
    return error < 0 ? error : ended;
}

/* arg 0: path, 1, 2: content, 3: mode */
NSX_CHILD_CODE long step_make_file(struct nsx_child *child, const struct nsx_step *step)
{
    const char *path = child_string(child, step->arg[0]);
    char name[256];
    struct nsx_statx status;
    child->aux = PART_TARGET;
    long target = nsx_resolve(child->root_fd, path, NSX_O_PATH);
    if (target >= 0) {
        long error = sys_statx(target, "", NSX_AT_EMPTY_PATH, &status);
        if (error >= 0 && !fs_is_own(child, &status))
            error = cover(child, step, target);
        else if (error >= 0)
            error = 1; /* written below */
        sys_close(target);
        if (error <= 0)
            return error;
    } else if (target != -ENOENT_) {
        return target;
    }
    long parent = own_parent(child, path, name);
    if (parent < 0)
        return parent;
    child->aux = PART_MAKE;
    long file = sys_openat_mode(parent, name, WRITE_NEW, 0600);
    sys_close(parent);
    if (file < 0)
        return file;
    long error =
        write_all(child, file, child_string(child, step->arg[1]), step->arg[2], (long)step->arg[3]);
    sys_close(file);
    return error;
}
