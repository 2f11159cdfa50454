/* Mount points: found inside the root, and made where that is allowed.
 *
 * The host's tree is never written, not even an empty directory: a mount point
 * is made only in a file system that this child has mounted anew. */
#include "fs.h"

#define DIRECTORY (NSX_O_PATH | NSX_O_DIRECTORY | NSX_O_NOFOLLOW | NSX_O_CLOEXEC)

NSX_CHILD_CODE int fs_is_own(const struct nsx_child *child, const struct nsx_statx *status)
{
    const struct nsx_blob *blob = fs_blob(child);
    const uint32_t device = fs_device(status);
    for (uint32_t i = 0; i < child->plan->record.step; i++) {
        const uint32_t op = blob->step[i].op;
        if ((op == NSX_OP_mount_fs || op == NSX_OP_overlay) && blob->step[i].result == device)
            return 1;
    }
    return 0;
}

/* The length of the path up to and with the component that starts behind at. */
NSX_CHILD_CODE static size_t component_end(const char *path, size_t at)
{
    while (path[at] == '/')
        at++;
    while (path[at] && path[at] != '/')
        at++;
    return at;
}

NSX_CHILD_CODE static long check_own(struct nsx_child *child, long parent)
{
    struct nsx_statx status;
    long error = sys_statx(parent, "", NSX_AT_EMPTY_PATH, &status);
    if (error < 0)
        return error;
    if (fs_is_own(child, &status))
        return 0;
    child->aux = PART_MISSING;
    return -ENOENT_;
}

NSX_CHILD_CODE static long make_directory(struct nsx_child *child, long parent, const char *name)
{
    long error = check_own(child, parent);
    if (error < 0)
        return error;
    child->aux = PART_MAKE;
    error = sys_mkdirat(parent, name, 0755);
    if (error < 0 && error != -EEXIST_)
        return error;
    return sys_openat(parent, name, DIRECTORY);
}

NSX_CHILD_CODE static long make_file(struct nsx_child *child, long parent, const char *name)
{
    long error = check_own(child, parent);
    if (error < 0)
        return error;
    child->aux = PART_MAKE;
    return sys_openat_mode(parent, name, NSX_O_CREAT | NSX_O_EXCL | NSX_O_NOFOLLOW | NSX_O_CLOEXEC,
                           0644);
}

/* name: of the component that ends at end. */
NSX_CHILD_CODE static long last_name(const char *path, size_t end, char name[256])
{
    size_t from = end;
    while (from && path[from - 1] != '/')
        from--;
    if (end - from >= 256)
        return -ENAMETOOLONG_;
    for (size_t i = from; i < end; i++)
        name[i - from] = path[i];
    name[end - from] = 0;
    return 0;
}

/* Each directory of the path up to size, made where it is missing. */
NSX_CHILD_CODE static long walk_down(struct nsx_child *child, const char *path, size_t size)
{
    char prefix[PATH_SIZE], name[256];
    size_t end = 0;
    if (size >= sizeof prefix)
        return -ENAMETOOLONG_;
    for (size_t i = 0; i < size; i++)
        prefix[i] = path[i];
    prefix[size] = 0;
    child->aux = PART_TARGET;
    long fd = nsx_resolve(child->root_fd, prefix, NSX_O_PATH | NSX_O_DIRECTORY);
    if (fd != -ENOENT_) /* as a rule it is there, and only what is to lie in it is missing */
        return fd;
    fd = nsx_resolve(child->root_fd, "/", NSX_O_PATH);
    while (fd >= 0 && end < size) {
        const size_t next = component_end(path, end);
        if (next > size || next == end)
            break;
        for (size_t i = end; i < next; i++)
            prefix[i] = path[i];
        prefix[next] = 0;
        end = next;
        long error = last_name(prefix, end, name);
        if (error < 0 || !name[0]) {
            sys_close(fd);
            return error < 0 ? error : -EINVAL_;
        }
        child->aux = PART_TARGET;
        long below = nsx_resolve(child->root_fd, prefix, NSX_O_PATH | NSX_O_DIRECTORY);
        if (below == -ENOENT_)
            below = make_directory(child, fd, name);
        sys_close(fd);
        fd = below;
    }
    return fd;
}

NSX_CHILD_CODE long fs_parent(struct nsx_child *child, const char *path, char name[256])
{
    size_t end = child_strlen(path);
    while (end && path[end - 1] == '/')
        end--;
    long error = last_name(path, end, name);
    if (error < 0)
        return error;
    while (end && path[end - 1] != '/')
        end--;
    while (end && path[end - 1] == '/')
        end--;
    return walk_down(child, path, end);
}

NSX_CHILD_CODE long fs_check_target(struct nsx_child *child, long fd)
{
    struct nsx_statx own, status;
    long error = sys_statx(child->root_fd, "", NSX_AT_EMPTY_PATH, &own);
    if (error >= 0)
        error = sys_statx(fd, "", NSX_AT_EMPTY_PATH, &status);
    if (error < 0 || own.mount_id != status.mount_id || own.inode != status.inode)
        return error;
    child->aux = PART_ROOT;
    return -EBUSY_;
}

NSX_CHILD_CODE long fs_target(struct nsx_child *child, const char *path, int directory)
{
    char name[256];
    child->aux = PART_TARGET;
    long fd = nsx_resolve(child->root_fd, path, NSX_O_PATH);
    if (fd >= 0) {
        const long error = fs_check_target(child, fd);
        if (error >= 0)
            return fd;
        sys_close(fd);
        return error;
    }
    if (fd != -ENOENT_)
        return fd;
    long parent = fs_parent(child, path, name);
    if (parent < 0)
        return parent;
    fd = directory ? make_directory(child, parent, name) : make_file(child, parent, name);
    sys_close(parent);
    return fd;
}
