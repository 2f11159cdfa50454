/* Overlays, by mount(2): only that takes layers by /proc/self/fd on every kernel,
 * so that no name is looked up twice, and no comma or colon in one matters. */
#include "fs.h"

struct text {
    char data[PATH_SIZE];
    size_t size;
};

NSX_CHILD_CODE static long add(struct text *text, const char *more)
{
    while (*more) {
        if (text->size + 1 >= sizeof text->data)
            return -E2BIG_;
        text->data[text->size++] = *more++;
    }
    text->data[text->size] = 0;
    return 0;
}

NSX_CHILD_CODE static long add_layer(struct nsx_child *child, struct text *text,
                                     const char *separator, long fd)
{
    struct fs_number number;
    long error = fs_by_number(child, fd, &number);
    if (error >= 0)
        error = add(text, separator);
    return error < 0 ? error : add(text, number.path);
}

NSX_CHILD_CODE static long refuse(const struct fs_visit *visit, const char *path, uint64_t id)
{
    (void)path, (void)id;
    visit->child->aux = PART_SUBMOUNT;
    return -EBUSY_;
}

/* data: the overlay's own mount.  A layer is never written, nor what is on it. */
NSX_CHILD_CODE static long bind_below(const struct fs_visit *visit, const char *path, uint64_t id)
{
    const struct fs_change change = {NSX_MS_RDONLY, 0, 0, 1};
    struct nsx_child *child = visit->child;
    (void)id;
    child->aux = PART_BELOW;
    long from = nsx_resolve(visit->directory, path, NSX_O_PATH);
    if (from < 0)
        return from == -ENOENT_ ? 0 : from; /* hidden by another mount */
    long to = nsx_resolve(*(const long *)visit->data, path, NSX_O_PATH);
    if (to < 0) {
        sys_close(from);
        return to == -ENOENT_ ? 0 : to; /* removed by a layer above */
    }
    long mount = fs_clone(child, from, 1);
    long error = mount;
    if (error >= 0)
        error = fs_change(child, mount, &change);
    if (error >= 0)
        error = fs_attach(child, mount, to);
    if (mount >= 0)
        sys_close(mount);
    sys_close(from);
    sys_close(to);
    return error;
}

struct layers {
    uint64_t first, count; /* numbers of the lower sources, the top one first */
    int recursive;
};

NSX_CHILD_CODE static long add_lower(struct nsx_child *child, const struct layers *layers,
                                     struct text *data)
{
    for (uint64_t i = 0; i < layers->count; i++) {
        const long fd = (long)fs_source(child, layers->first + i);
        const struct fs_visit visit = {child, fd, 1, NULL, refuse};
        long error = layers->recursive ? 0 : fs_below(&visit);
        if (error >= 0)
            error = add_layer(child, data, i ? ":" : "lowerdir=", fd);
        if (error < 0)
            return error;
    }
    return 0;
}

/* The bottom layer's first: those above cover. */
NSX_CHILD_CODE static long bind_all_below(struct nsx_child *child, const struct layers *layers,
                                          long mount)
{
    for (uint64_t i = layers->count; layers->recursive && i > 0; i--) {
        const long fd = (long)fs_source(child, layers->first + i - 1);
        const struct fs_visit visit = {child, fd, 1, &mount, bind_below};
        long error = fs_below(&visit);
        if (error < 0)
            return error;
    }
    return 0;
}

/* All that is needed for a moment, in a scratch: where the overlay is mounted until
 * it has its place, and what it writes to, if that is not the caller's. */
struct upper {
    long scratch, place, directory, work;
};

NSX_CHILD_CODE static long make_in(long scratch, const char *name, long mode)
{
    const long error = sys_mkdirat(scratch, name, mode);
    if (error < 0)
        return error;
    return sys_openat(scratch, name, NSX_O_PATH | NSX_O_DIRECTORY | NSX_O_NOFOLLOW | NSX_O_CLOEXEC);
}

/* The root directory of an overlay has the mode of the upper one. */
NSX_CHILD_CODE static long make_upper(struct nsx_child *child, const struct layers *layers,
                                      struct upper *upper)
{
    struct nsx_statx status;
    long error = sys_statx((long)fs_source(child, layers->first), "", NSX_AT_EMPTY_PATH, &status);
    child->aux = PART_SCRATCH;
    if (error >= 0)
        error = upper->directory = make_in(upper->scratch, "upper", status.mode & 07777);
    if (error >= 0)
        error = upper->work = make_in(upper->scratch, "work", 0755);
    return error;
}

NSX_CHILD_CODE static long begin_scratch(struct nsx_child *child, struct upper *upper)
{
    long error = upper->scratch = fs_scratch(child);
    if (error >= 0)
        error = upper->place = make_in(upper->scratch, "overlay", 0700);
    return error;
}

/* target: -1: below the new root it stays in its place, and goes with the old root. */
NSX_CHILD_CODE static long end_scratch(struct nsx_child *child, const struct upper *upper,
                                       long target, long error)
{
    const int32_t aux = child->aux;
    if (upper->place >= 0)
        sys_close(upper->place);
    if (upper->directory >= 0)
        sys_close(upper->directory);
    if (upper->work >= 0)
        sys_close(upper->work);
    if (upper->scratch < 0)
        return error;
    if (target < 0) {
        sys_close(upper->scratch);
        return error;
    }
    return fs_first(child, error, fs_scratch_end(child, upper->scratch), aux);
}

NSX_CHILD_CODE static long add_upper(struct nsx_child *child, struct text *data, long directory,
                                     long work, int unprivileged)
{
    long error = add_layer(child, data, ",upperdir=", directory);
    if (error >= 0)
        error = add_layer(child, data, ",workdir=", work);
    return error >= 0 && unprivileged ? add(data, ",userxattr") : error;
}

NSX_CHILD_CODE static long mount_overlay(struct nsx_child *child, const char *data,
                                         const struct upper *upper)
{
    const struct fs_call call = {.source = -1,
                                 .target = upper->place,
                                 .name = "overlay",
                                 .type = "overlay",
                                 .flags = NSX_MS_NOSUID | NSX_MS_NODEV,
                                 .data = data};
    child->aux = PART_CREATE;
    const long error = fs_mount(child, &call);
    if (error < 0)
        return error;
    return sys_openat(upper->scratch, "overlay",
                      NSX_O_PATH | NSX_O_DIRECTORY | NSX_O_NOFOLLOW | NSX_O_CLOEXEC);
}

/* Where the caller may not write to upper or work the kernel makes it read-only. */
NSX_CHILD_CODE static long check_writable(long mount)
{
    uint64_t status[16];
    const long error = sys_fstatfs(mount, status);
    return error < 0 ? error : status[10] & NSX_MS_RDONLY ? -EROFS_ : 0;
}

/* The overlay, in its place.  upper: what end_scratch() is to end in any case. */
NSX_CHILD_CODE static long build(struct nsx_child *child, const struct nsx_step *step,
                                 const struct layers *layers, long target, struct upper *upper)
{
    uint32_t *result = &fs_blob(child)->step[child->plan->record.step].result;
    struct nsx_statx status;
    struct text data;
    data.size = 0;
    long error = add_lower(child, layers, &data);
    if (error >= 0)
        error = begin_scratch(child, upper);
    long directory = -1, work = -1;
    if (error >= 0 && step->arg[2] & FS_HANDED) {
        directory = (long)fs_source(child, layers->first + layers->count);
        work = (long)fs_source(child, layers->first + layers->count + 1);
    } else if (error >= 0) {
        error = make_upper(child, layers, upper);
        directory = upper->directory;
        work = upper->work;
    }
    if (error >= 0)
        error = add_upper(child, &data, directory, work, step->arg[3] != 0);
    if (error < 0)
        return error;
    const long mount = mount_overlay(child, data.data, upper);
    if (mount < 0)
        return mount;
    error = check_writable(mount);
    if (error >= 0)
        error = sys_statx(mount, "", NSX_AT_EMPTY_PATH, &status);
    if (error >= 0) {
        *result = fs_device(&status);
        error = bind_all_below(child, layers, mount);
    }
    if (error >= 0)
        error = fs_attach(child, mount, target);
    if (error >= 0)
        return mount;
    sys_close(mount);
    return error;
}

/* arg 0: number of the first source: the lower ones, and where there is an upper
 * one, that and its work directory after them; 1: how many lower ones, 2: FS_*,
 * FS_HANDED: an upper one is given; 3: 1: in a new user namespace; 4: target */
NSX_CHILD_CODE long step_overlay(struct nsx_child *child, const struct nsx_step *step)
{
    const struct layers layers = {step->arg[0], step->arg[1], (int)(step->arg[2] & FS_RECURSIVE)};
    const char *path = child_string(child, step->arg[4]);
    struct upper upper = {-1, -1, -1, -1};
    long target = -1;
    if (*path) {
        target = fs_target(child, path, 1);
        if (target < 0)
            return target;
    }
    const long mount = build(child, step, &layers, target, &upper);
    const long error = end_scratch(child, &upper, target, mount);
    if (mount >= 0 && error >= 0 && target < 0)
        fs_set_root(child, mount);
    else if (mount >= 0)
        sys_close(mount);
    if (target >= 0)
        sys_close(target);
    return error < 0 ? error : 0;
}
