/* Mounts by descriptor: made, changed, attached.  The newer calls do that with
 * mounts that have no place yet (the last of them came with Linux 5.12; a filter
 * may be older than any).  Where one is missing, mount(2) does the same in the
 * workshop.  A missing call is ENOSYS; no other error leads to another way, and
 * no way to a weaker mount. */
#include "fs.h"

#define KEPT_ST_FLAGS (NSX_MS_RDONLY | NSX_MS_NOSUID | NSX_MS_NODEV | NSX_MS_NOEXEC)

#define AS_FILE (NSX_O_PATH | NSX_O_NOFOLLOW | NSX_O_CLOEXEC)

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
    if (child->root_fd >= 0)
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

NSX_CHILD_CODE long fs_mount(struct nsx_child *child, const struct fs_call *call)
{
    struct fs_number from, to;
    long error = 0;
    if (call->source >= 0)
        error = fs_by_number(child, call->source, &from);
    if (error >= 0 && call->target >= 0)
        error = fs_by_number(child, call->target, &to);
    if (error < 0)
        return error;
    return sys_mount_data(call->source >= 0 ? from.path : call->name,
                          call->target >= 0 ? to.path : "/", call->type, call->flags, call->data);
}

/* ---- the workshop ---- */

struct slot {
    char name[12];
    long fd;
};

/* A mount point in it, that nobody else knows. */
NSX_CHILD_CODE static long make_slot(struct nsx_child *child, int directory, struct slot *slot)
{
    uint32_t number = child->slots++;
    size_t at = 0;
    for (uint32_t rest = number; at == 0 || rest; rest /= 10)
        slot->name[at++] = (char)('0' + rest % 10); /* backwards, and one to each all the same */
    slot->name[at] = 0;
    child->aux = PART_SCRATCH;
    if (!directory)
        return slot->fd =
                   sys_openat_mode(child->shop_fd, slot->name,
                                   NSX_O_CREAT | NSX_O_EXCL | NSX_O_NOFOLLOW | NSX_O_CLOEXEC, 0600);
    const long error = sys_mkdirat(child->shop_fd, slot->name, 0700);
    return slot->fd = error < 0 ? error : sys_openat(child->shop_fd, slot->name, AS_FILE);
}

/* What is mounted there, after call has done that. */
NSX_CHILD_CODE static long mount_in_shop(struct nsx_child *child, int directory, int32_t part,
                                         struct fs_call *call)
{
    struct slot slot;
    long error = make_slot(child, directory, &slot);
    if (error < 0)
        return error;
    child->aux = part;
    call->target = slot.fd;
    error = fs_mount(child, call);
    sys_close(slot.fd);
    return error < 0 ? error : sys_openat(child->shop_fd, slot.name, AS_FILE);
}

/* Is any of the calls missing?  None does anything with such arguments. */
NSX_CHILD_CODE static int is_missing(void)
{
    static const short number[] = {__NR_open_tree, __NR_move_mount, __NR_fsopen,
                                   __NR_fsconfig,  __NR_fsmount,    __NR_mount_setattr};
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        if (nsx_syscall(number[i], -1, -1, -1, -1, -1, -1) == -ENOSYS_)
            return 1;
    return 0;
}

NSX_CHILD_CODE long fs_begin(struct nsx_child *child)
{
    child->slots = 0;
    child->shop_fd = -1;
    child->classic = is_missing();
    return child->classic && !fs_is_deferred(child) ? fs_open_shop(child) : 0;
}

NSX_CHILD_CODE int fs_is_deferred(const struct nsx_child *child)
{
    const struct nsx_blob *blob = fs_blob(child);
    for (uint32_t i = child->first_source; child->classic && i < blob->nsteps; i++)
        if (blob->step[i].op == NSX_OP_fs_ids)
            return 1;
    return 0;
}

NSX_CHILD_CODE long fs_open_shop(struct nsx_child *child)
{
    const long fd = fs_scratch(child);
    child->shop_fd = (int32_t)fd;
    /* It lies on the root directory, and a recursive bind of that would take it along.
     * By path: the working directory is the caller's yet. */
    return fd < 0 ? fd : sys_mount_data("none", "/..", NULL, NSX_MS_UNBINDABLE, NULL);
}

NSX_CHILD_CODE long fs_end(struct nsx_child *child)
{
    const int32_t fd = child->shop_fd;
    child->shop_fd = -1;
    return fd >= 0 ? fs_scratch_end(child, fd) : 0;
}

/* ---- making ---- */

NSX_CHILD_CODE long fs_clone(struct nsx_child *child, long fd, int recursive)
{
    struct nsx_statx status;
    child->aux = PART_CLONE;
    if (!child->classic)
        return sys_open_tree(fd, "",
                             NSX_AT_EMPTY_PATH | NSX_OPEN_TREE_CLONE | NSX_OPEN_TREE_CLOEXEC |
                                 (recursive ? NSX_AT_RECURSIVE : 0));
    const long error = sys_statx(fd, "", NSX_AT_EMPTY_PATH, &status);
    if (error < 0)
        return error;
    struct fs_call call = {.source = fd, .flags = NSX_MS_BIND | (recursive ? NSX_MS_REC : 0)};
    return mount_in_shop(child, fs_is_directory(&status), PART_CLONE, &call);
}

/* What an option of a file system was refused for; for the hint. */
NSX_CHILD_CODE static void note_message(struct nsx_child *child, long context)
{
    char *text = child->plan->text;
    const long size = sys_read(context, text, sizeof child->plan->text - 1);
    text[size > 0 ? size : 0] = 0;
}

NSX_CHILD_CODE static long configure(struct nsx_child *child, long context, const char *options,
                                     size_t size)
{
    char key[64];
    child->aux = PART_OPTION;
    for (size_t at = 0; at < size; at += child_strlen(options + at) + 1) {
        const char *option = options + at;
        size_t length = 0;
        while (option[length] && option[length] != '=') {
            if (length + 1 == sizeof key)
                return -EINVAL_;
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

NSX_CHILD_CODE static long make_new(struct nsx_child *child, const struct fs_new *fs)
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

NSX_CHILD_CODE long fs_make(struct nsx_child *child, const struct fs_new *fs)
{
    char data[PATH_SIZE];
    if (!child->classic)
        return make_new(child, fs);
    child->aux = PART_CREATE;
    if (fs->options_size >= sizeof data)
        return -E2BIG_;
    for (size_t i = 0; i < fs->options_size; i++)
        data[i] = fs->options[i] ? fs->options[i] : ',';
    data[fs->options_size ? fs->options_size - 1 : 0] = 0;
    struct fs_call call = {.source = -1,
                           .name = *fs->source ? fs->source : "none", /* as fsmount(2) says then */
                           .type = fs->type,
                           .flags = (long)fs->flags,
                           .data = data};
    return mount_in_shop(child, 1, PART_CREATE, &call);
}

/* ---- attaching and changing ---- */

NSX_CHILD_CODE long fs_attach(struct nsx_child *child, long mount, long to)
{
    child->aux = PART_ATTACH;
    if (child->classic) {
        const struct fs_call call = {.source = mount, .target = to, .flags = NSX_MS_MOVE};
        return fs_mount(child, &call);
    }
    if (to >= 0)
        return sys_move_mount(mount, to, "",
                              NSX_MOVE_MOUNT_F_EMPTY_PATH | NSX_MOVE_MOUNT_T_EMPTY_PATH);
    return sys_move_mount(mount, NSX_AT_FDCWD, "/", NSX_MOVE_MOUNT_F_EMPTY_PATH);
}

/* MS_REMOUNT | MS_BIND replaces all flags: those that the mount has are kept, which
 * a user namespace may have locked.  Those about access times stay where none is said. */
NSX_CHILD_CODE static long remount_one(struct nsx_child *child, long mount,
                                       const struct fs_change *change)
{
    uint64_t status[16];
    long error = sys_fstatfs(mount, status);
    if (error < 0)
        return error;
    uint32_t flags = (uint32_t)status[10] & KEPT_ST_FLAGS;
    if (status[10] & NSX_ST_NOSYMFOLLOW)
        flags |= NSX_MS_NOSYMFOLLOW;
    flags = (flags | change->set) & ~change->clear;
    struct fs_call call = {.source = -1, .target = mount};
    if (change->set | change->clear) {
        call.flags = NSX_MS_REMOUNT | NSX_MS_BIND | (long)flags;
        error = fs_mount(child, &call);
    }
    if (error >= 0 && change->propagation) {
        call.flags = (long)change->propagation;
        error = fs_mount(child, &call);
    }
    return error;
}

/* A mount that another one hides cannot be changed, and needs not.  Any other that
 * is not at its path has been moved, and would stay as it is. */
NSX_CHILD_CODE static long remount_below(const struct fs_visit *visit, const char *path,
                                         uint64_t id)
{
    struct nsx_child *child = visit->child;
    struct nsx_statx status;
    child->aux = PART_BELOW;
    long fd = nsx_resolve(visit->directory, path, NSX_O_PATH);
    if (fd < 0 && fd != -ENOENT_ && fd != -ENOTDIR_)
        return fd;
    long error = fd < 0 ? 0 : sys_statx(fd, "", NSX_AT_EMPTY_PATH, &status);
    if (fd >= 0 && error >= 0 && status.mount_id == id) {
        child->aux = PART_FLAGS;
        error = remount_one(child, fd, visit->data);
    } else if (error >= 0) {
        error = fs_is_hidden(child, id);
        if (error == 0) {
            child->aux = PART_MOVED;
            error = -EAGAIN_;
        }
    }
    if (fd >= 0)
        sys_close(fd);
    return error;
}

NSX_CHILD_CODE long fs_change(struct nsx_child *child, long mount, const struct fs_change *change)
{
    const struct nsx_mount_attr attr = {
        .set = change->set, .clear = change->clear, .propagation = change->propagation};
    if (!change->set && !change->clear && !change->propagation)
        return 0;
    child->aux = PART_FLAGS;
    /* Not even where mount_setattr(2) is there: it would change the workshop, too. */
    if (!child->classic)
        return sys_mount_setattr(mount, change->recursive ? NSX_AT_RECURSIVE : 0, &attr);
    long error = remount_one(child, mount, change);
    if (error >= 0 && change->recursive) {
        const struct fs_visit visit = {child, mount, 0, change, remount_below};
        error = fs_below(&visit);
    }
    return error;
}

/* ---- scratch ---- */

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
    child->aux = PART_SCRATCH;
    long error = fs_by_number(child, fd, &number);
    if (error >= 0)
        error = sys_umount2(number.path, NSX_MNT_DETACH);
    sys_close(fd);
    return error;
}
