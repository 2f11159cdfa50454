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

NSX_CHILD_CODE static long refuse(const struct fs_visit *visit, const char *path)
{
    (void)path;
    visit->child->aux = PART_SUBMOUNT;
    return -EBUSY_;
}

/* data: the overlay's own mount.  A layer is never written, nor what is on it. */
NSX_CHILD_CODE static long bind_below(const struct fs_visit *visit, const char *path)
{
    const struct fs_change change = {NSX_MS_RDONLY, 0, 0, 1};
    struct nsx_child *child = visit->child;
    long from = nsx_resolve(visit->directory, path, NSX_O_PATH);
    if (from < 0)
        return from == -ENOENT_ ? 0 : from; /* hidden by another mount */
    long to = nsx_resolve(*(const long *)visit->data, path, NSX_O_PATH);
    if (to < 0) {
        sys_close(from);
        return to == -ENOENT_ ? 0 : to; /* removed by a layer above */
    }
    child->aux = PART_CLONE;
    long tree = sys_open_tree(from, "",
                              NSX_AT_EMPTY_PATH | NSX_OPEN_TREE_CLONE | NSX_OPEN_TREE_CLOEXEC |
                                  NSX_AT_RECURSIVE);
    long error = tree;
    if (tree >= 0) {
        error = fs_attach(child, tree, to);
        if (error >= 0)
            error = fs_change(child, tree, &change, 1);
        sys_close(tree);
    }
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
        const long fd = (long)(fs_source(child, layers->first + i) & SOURCE_FD);
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
        const long fd = (long)(fs_source(child, layers->first + i - 1) & SOURCE_FD);
        const struct fs_visit visit = {child, fd, 1, &mount, bind_below};
        long error = fs_below(&visit);
        if (error < 0)
            return error;
    }
    return 0;
}

struct upper {
    long scratch, directory, work; /* scratch: -1: the caller's own directories */
};

/* The root directory of an overlay has the mode of the upper one. */
NSX_CHILD_CODE static long make_upper(struct nsx_child *child, const struct layers *layers,
                                      struct upper *upper)
{
    const long flags = NSX_O_PATH | NSX_O_DIRECTORY | NSX_O_CLOEXEC;
    const long lower = (long)(fs_source(child, layers->first) & SOURCE_FD);
    struct nsx_statx status;
    long error = sys_statx(lower, "", NSX_AT_EMPTY_PATH, &status);
    if (error < 0)
        return error;
    upper->scratch = fs_scratch(child);
    if (upper->scratch < 0)
        return upper->scratch;
    error = sys_mkdirat(upper->scratch, "upper", status.mode & 07777);
    if (error >= 0)
        error = sys_mkdirat(upper->scratch, "work", 0755);
    if (error >= 0)
        error = upper->directory = sys_openat(upper->scratch, "upper", flags);
    if (error >= 0)
        error = upper->work = sys_openat(upper->scratch, "work", flags);
    return error;
}

/* Below the new root the scratch stays in its place, and goes with the old root. */
NSX_CHILD_CODE static long end_upper(struct nsx_child *child, const struct upper *upper,
                                     long target, long error)
{
    if (upper->directory >= 0)
        sys_close(upper->directory);
    if (upper->work >= 0)
        sys_close(upper->work);
    if (target < 0) {
        sys_close(upper->scratch);
        return error;
    }
    const long ended = fs_scratch_end(child, upper->scratch);
    return error < 0 ? error : ended;
}

NSX_CHILD_CODE static long add_upper(struct nsx_child *child, const struct upper *upper,
                                     struct text *data, int unprivileged)
{
    long error = add_layer(child, data, ",upperdir=", upper->directory);
    if (error >= 0)
        error = add_layer(child, data, ",workdir=", upper->work);
    return error >= 0 && unprivileged ? add(data, ",userxattr") : error;
}

NSX_CHILD_CODE static long mount_overlay(struct nsx_child *child, const char *data, long target,
                                         const char *path)
{
    struct fs_number to;
    long error = target >= 0 ? fs_by_number(child, target, &to) : 0;
    if (error < 0)
        return error;
    child->aux = PART_CREATE;
    error = sys_mount_data("overlay", target >= 0 ? to.path : "/", "overlay",
                           NSX_MS_NOSUID | NSX_MS_NODEV, data);
    if (error < 0)
        return error;
    return target >= 0 ? nsx_resolve(child->root_fd, path, NSX_O_PATH) : fs_top_of_root();
}

/* arg 0: number of the first source: the lower ones, and where there is an upper
 * one, that and its work directory after them; 1: how many lower ones, 2: FS_*,
 * FS_HANDED: an upper one is given; 3: 1: in a new user namespace; 4: target */
NSX_CHILD_CODE long step_overlay(struct nsx_child *child, const struct nsx_step *step)
{
    const struct layers layers = {step->arg[0], step->arg[1], (int)(step->arg[2] & FS_RECURSIVE)};
    const char *path = child_string(child, step->arg[4]);
    uint32_t *result = &fs_blob(child)->step[child->plan->record.step].result;
    struct upper upper = {-1, -1, -1};
    struct nsx_statx status;
    struct text data;
    long target = -1, mount = -1;
    data.size = 0;
    if (*path) {
        target = fs_target(child, path, 1);
        if (target < 0)
            return target;
    }
    long error = add_lower(child, &layers, &data);
    if (error >= 0 && step->arg[2] & FS_HANDED) {
        upper.directory = (long)(fs_source(child, layers.first + layers.count) & SOURCE_FD);
        upper.work = (long)(fs_source(child, layers.first + layers.count + 1) & SOURCE_FD);
    } else if (error >= 0) {
        error = make_upper(child, &layers, &upper);
    }
    if (error >= 0)
        error = add_upper(child, &upper, &data, step->arg[3] != 0);
    if (error >= 0)
        mount = error = mount_overlay(child, data.data, target, path);
    if (upper.scratch >= 0) {
        error = end_upper(child, &upper, target, error);
    }
    if (error >= 0)
        error = sys_statx(mount, "", NSX_AT_EMPTY_PATH, &status);
    if (error >= 0) {
        *result = fs_device(&status);
        error = bind_all_below(child, &layers, mount);
    }
    if (error >= 0 && target < 0)
        fs_set_root(child, mount);
    else if (mount >= 0)
        sys_close(mount);
    if (target >= 0)
        sys_close(target);
    return error;
}
