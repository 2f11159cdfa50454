/* Mounts by descriptor: attach, change, and the classic calls where the newer
 * ones are missing (mount_setattr(2) came with Linux 5.12; a filter may be older
 * than any of them).  A missing call is ENOSYS; no other error leads to another
 * way, and no way to a weaker mount. */
#include "fs.h"

#define KEPT_ST_FLAGS                                                                              \
    (NSX_MS_RDONLY | NSX_MS_NOSUID | NSX_MS_NODEV | NSX_MS_NOEXEC | NSX_MS_NOATIME |               \
     NSX_MS_NODIRATIME)

NSX_CHILD_CODE uint32_t fs_source(const struct nsx_child *child, uint64_t n)
{
    const struct nsx_blob *blob = fs_blob(child);
    const uint64_t at = child->first_source + n;
    if (at >= child->plan->record.step || blob->step[at].op != NSX_OP_source)
        return SOURCE_MISSING;
    return blob->step[at].result;
}

NSX_CHILD_CODE long fs_top_of_root(void)
{
    /* "..", at the root directory, stays there, and goes up what is mounted on it. */
    return sys_openat(NSX_AT_FDCWD, "/..", NSX_O_PATH | NSX_O_DIRECTORY | NSX_O_CLOEXEC);
}

NSX_CHILD_CODE void fs_set_root(struct nsx_child *child, long fd)
{
    sys_close(child->root_fd);
    child->root_fd = (int32_t)fd;
}

NSX_CHILD_CODE void fs_number(long fd, struct fs_number *number)
{
    static const char prefix[] = "self/fd/";
    size_t at = 0;
    char digits[12];
    int count = 0;
    while (prefix[at]) {
        number->path[at] = prefix[at];
        at++;
    }
    do {
        digits[count++] = (char)('0' + fd % 10);
        fd /= 10;
    } while (fd);
    while (count)
        number->path[at++] = digits[--count];
    number->path[at] = 0;
}

NSX_CHILD_CODE long fs_by_number(struct nsx_child *child, long fd, struct fs_number *number)
{
    fs_number(fd, number);
    if (child->plan->proc_fd < 0) {
        child->aux = PART_PROC;
        return -ENOENT_;
    }
    return sys_fchdir(child->plan->proc_fd);
}

NSX_CHILD_CODE long fs_attach(struct nsx_child *child, long mount, long to)
{
    child->aux = PART_ATTACH;
    if (to >= 0)
        return sys_move_mount(mount, to, "",
                              NSX_MOVE_MOUNT_F_EMPTY_PATH | NSX_MOVE_MOUNT_T_EMPTY_PATH);
    return sys_move_mount(mount, NSX_AT_FDCWD, "/", NSX_MOVE_MOUNT_F_EMPTY_PATH);
}

/* MS_REMOUNT | MS_BIND replaces all flags: those that the mount has are kept,
 * which a user namespace may have locked. */
NSX_CHILD_CODE static long remount_one(struct nsx_child *child, long mount,
                                       const struct fs_change *change)
{
    uint64_t status[16];
    struct fs_number number;
    long error = sys_fstatfs(mount, status);
    if (error < 0)
        return error;
    uint32_t flags = (uint32_t)status[10] & KEPT_ST_FLAGS;
    if (status[10] & NSX_ST_RELATIME)
        flags |= NSX_MS_RELATIME;
    flags = (flags | change->set) & ~change->clear;
    error = fs_by_number(child, mount, &number);
    if (error >= 0 && (change->set | change->clear))
        error = sys_mount(NULL, number.path, NULL, NSX_MS_REMOUNT | NSX_MS_BIND | (long)flags);
    if (error >= 0 && change->propagation)
        error = sys_mount(NULL, number.path, NULL, (long)change->propagation);
    return error;
}

NSX_CHILD_CODE static long remount_below(const struct fs_visit *visit, const char *path)
{
    const struct fs_change *change = visit->data;
    long fd = nsx_resolve(visit->directory, path, NSX_O_PATH);
    if (fd < 0)
        return fd == -ENOENT_ ? 0 : fd; /* hidden by another mount */
    long error = remount_one(visit->child, fd, change);
    sys_close(fd);
    return error;
}

NSX_CHILD_CODE static long remount(struct nsx_child *child, long mount,
                                   const struct fs_change *change)
{
    long error = remount_one(child, mount, change);
    if (error >= 0 && change->recursive) {
        const struct fs_visit visit = {child, mount, 0, change, remount_below};
        error = fs_below(&visit);
    }
    return error;
}

NSX_CHILD_CODE long fs_change(struct nsx_child *child, long mount, const struct fs_change *change,
                              int attached)
{
    const struct nsx_mount_attr attr = {
        .set = change->set, .clear = change->clear, .propagation = change->propagation};
    if (!change->set && !change->clear && !change->propagation)
        return 0;
    child->aux = PART_FLAGS;
    long error = sys_mount_setattr(mount, change->recursive ? NSX_AT_RECURSIVE : 0, &attr);
    if (error == -ENOSYS_ && attached)
        error = remount(child, mount, change);
    return error;
}

NSX_CHILD_CODE long fs_scratch(struct nsx_child *child)
{
    child->aux = PART_SCRATCH;
    long error = sys_mount_data("tmpfs", "/", "tmpfs", NSX_MS_NOSUID | NSX_MS_NODEV, "mode=755");
    if (error < 0)
        return error;
    return fs_top_of_root();
}

NSX_CHILD_CODE long fs_scratch_end(struct nsx_child *child, long fd)
{
    struct fs_number number;
    long error = fs_by_number(child, fd, &number);
    if (error >= 0) {
        child->aux = PART_SCRATCH;
        error = sys_umount2(number.path, NSX_MNT_DETACH);
    }
    sys_close(fd);
    return error;
}
