/* Reading /proc/self/mountinfo, through the caller's own /proc: what is mounted
 * below a mount.  See proc_pid_mountinfo(5). */
#include "fs.h"

#define MAX_BELOW 8192

struct reader {
    long fd;
    size_t at, end;
    char buffer[4096];
};

/* One line without its end, cut at size; 0: no more, -errno. */
NSX_CHILD_CODE static long read_line(struct nsx_child *child, struct reader *reader, char *line,
                                     size_t size)
{
    size_t used = 0;
    for (;;) {
        if (reader->at == reader->end) {
            child->aux = PART_PROC;
            const long got = sys_read(reader->fd, reader->buffer, sizeof reader->buffer);
            if (got <= 0)
                return got < 0 ? got : (long)used;
            reader->at = 0;
            reader->end = (size_t)got;
        }
        const char c = reader->buffer[reader->at++];
        if (c == '\n')
            return (long)used + 1;
        if (used + 1 < size)
            line[used++] = c;
        line[used] = 0;
    }
}

struct mount_line {
    uint64_t id, parent;
    char *path;
};

NSX_CHILD_CODE static char *number(char *text, uint64_t *value)
{
    *value = 0;
    while (*text >= '0' && *text <= '9')
        *value = *value * 10 + (uint64_t)(*text++ - '0');
    return *text == ' ' ? text + 1 : text;
}

NSX_CHILD_CODE static char *skip_word(char *text)
{
    while (*text && *text != ' ')
        text++;
    return *text ? text + 1 : text;
}

/* \040 and its like, in place; the word ends at a blank. */
NSX_CHILD_CODE static void unescape(char *text)
{
    char *out = text;
    while (*text && *text != ' ') {
        if (text[0] == '\\' && text[1] && text[2] && text[3]) {
            *out++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
            text += 4;
        } else {
            *out++ = *text++;
        }
    }
    *out = 0;
}

NSX_CHILD_CODE static struct mount_line parse(char *line)
{
    struct mount_line mount;
    line = number(line, &mount.id);
    line = number(line, &mount.parent);
    mount.path = skip_word(skip_word(line));
    unescape(mount.path);
    return mount;
}

/* The rest of path behind a directory; NULL: it does not lie below. */
NSX_CHILD_CODE static const char *relative(const char *path, const char *directory)
{
    if (directory[0] == '/' && !directory[1])
        return path;
    while (*directory && *path == *directory) {
        path++;
        directory++;
    }
    return *directory || (*path && *path != '/') ? NULL : path;
}

struct below {
    char own[PATH_SIZE];
    int whole; /* the directory is a mount's root: all that is mounted in that lies below */
    uint32_t count;
    uint32_t id[MAX_BELOW];
};

NSX_CHILD_CODE static int is_known(const struct below *below, uint64_t id, uint32_t *at)
{
    for (*at = 0; *at < below->count; ++*at)
        if (below->id[*at] == id)
            return 1;
    return 0;
}

NSX_CHILD_CODE static long open_mountinfo(struct nsx_child *child, struct reader *reader)
{
    child->aux = PART_PROC;
    reader->at = reader->end = 0;
    reader->fd = sys_openat(child->plan->proc_fd, "self/mountinfo", NSX_O_RDONLY | NSX_O_CLOEXEC);
    return reader->fd;
}

NSX_CHILD_CODE static long visit_line(const struct fs_visit *visit, struct below *below,
                                      const struct mount_line *mount)
{
    uint32_t at;
    if (is_known(below, mount->id, &at) || !is_known(below, mount->parent, &at))
        return 0;
    const char *path = relative(mount->path, below->own);
    if (!path && below->whole) {
        visit->child->aux = PART_MOVED;
        return -EAGAIN_;
    }
    if (!path || !*path || (path[0] == '/' && !path[1]))
        return 0;
    if (below->count == MAX_BELOW)
        return -E2BIG_;
    below->id[below->count++] = (uint32_t)mount->id;
    return at && visit->direct ? 0 : visit->visit(visit, path, mount->id);
}

NSX_CHILD_CODE static long read_all(const struct fs_visit *visit, struct below *below)
{
    struct reader reader;
    char line[3 * PATH_SIZE];
    long error = open_mountinfo(visit->child, &reader);
    if (error < 0)
        return error;
    while ((error = read_line(visit->child, &reader, line, sizeof line)) > 0) {
        const struct mount_line mount = parse(line);
        error = visit_line(visit, below, &mount);
        if (error < 0)
            break;
    }
    sys_close(reader.fd);
    return error;
}

NSX_CHILD_CODE static long own_path(struct nsx_child *child, long fd, char path[PATH_SIZE])
{
    struct fs_number number;
    child->aux = PART_PROC;
    long size = fs_by_number(child, fd, &number);
    if (size >= 0)
        size = sys_readlinkat(NSX_AT_FDCWD, number.path, path, PATH_SIZE - 1);
    path[size > 0 ? size : 0] = 0;
    return size;
}

NSX_CHILD_CODE static int is_same(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* A mount may stand in the list before the one that it is on: until a reading
 * finds no more.  The list knows the directory by its path only: were that another
 * one in between, mounts would have been passed over. */
NSX_CHILD_CODE long fs_below(const struct fs_visit *visit)
{
    struct below below;
    struct nsx_statx status;
    char again[PATH_SIZE];
    uint32_t before;
    visit->child->aux = PART_BELOW;
    long error = sys_statx(visit->directory, "", NSX_AT_EMPTY_PATH, &status);
    if (error >= 0)
        error = own_path(visit->child, visit->directory, below.own);
    if (error < 0)
        return error;
    below.id[0] = (uint32_t)status.mount_id;
    below.whole = (status.attributes & NSX_STATX_ATTR_MOUNT_ROOT) != 0;
    below.count = 1;
    do {
        before = below.count;
        error = read_all(visit, &below);
    } while (error >= 0 && below.count > before);
    if (error >= 0)
        error = own_path(visit->child, visit->directory, again);
    if (error >= 0 && !is_same(below.own, again)) {
        visit->child->aux = PART_MOVED;
        error = -EAGAIN_;
    }
    return error;
}

struct chain {
    char path[PATH_SIZE];
    uint32_t count; /* the mount, that which it is on, and so on up */
    uint32_t id[MAX_BELOW];
};

/* Adds what line says of the chain's last mount. */
NSX_CHILD_CODE static long add_parent(struct chain *chain, const struct mount_line *mount,
                                      uint64_t *last)
{
    if (mount->id != *last)
        return 0;
    if (chain->count == MAX_BELOW)
        return -E2BIG_;
    if (chain->count == 0)
        for (size_t i = 0; i < PATH_SIZE; i++)
            if (!(chain->path[i] = mount->path[i]))
                break;
    chain->id[chain->count++] = (uint32_t)mount->id;
    *last = mount->parent;
    return 0;
}

/* Over it, or over a directory on the way to it.  What is on top of the root
 * directory hides nothing: we are below. */
NSX_CHILD_CODE static int hides(const struct chain *chain, const struct mount_line *mount)
{
    int on_way = 0;
    for (uint32_t i = 0; i < chain->count; i++) {
        if (chain->id[i] == mount->id)
            return 0;
        on_way |= chain->id[i] == mount->parent;
    }
    return on_way && mount->path[1] && relative(chain->path, mount->path) != NULL;
}

NSX_CHILD_CODE long fs_is_hidden(struct nsx_child *child, uint64_t id)
{
    struct chain chain;
    struct reader reader;
    char line[3 * PATH_SIZE];
    uint64_t last = id;
    uint32_t before;
    long error;
    chain.count = 0;
    chain.path[0] = 0;
    /* Up to the top, then all others, in readings of their own. */
    do {
        before = chain.count;
        error = open_mountinfo(child, &reader);
        while (error >= 0 && (error = read_line(child, &reader, line, sizeof line)) > 0) {
            const struct mount_line mount = parse(line);
            error = add_parent(&chain, &mount, &last);
        }
        if (reader.fd >= 0)
            sys_close(reader.fd);
    } while (error >= 0 && chain.count > before);
    if (error < 0 || !chain.count)
        return error;
    error = open_mountinfo(child, &reader);
    while (error >= 0 && (error = read_line(child, &reader, line, sizeof line)) > 0) {
        const struct mount_line mount = parse(line);
        if (hides(&chain, &mount))
            break;
    }
    if (reader.fd >= 0)
        sys_close(reader.fd);
    return error > 0 ? 1 : error;
}

NSX_CHILD_CODE long fs_has_parent(struct nsx_child *child, uint64_t id)
{
    struct reader reader;
    char line[3 * PATH_SIZE];
    int has_parent = 1;
    long error = open_mountinfo(child, &reader);
    while (error >= 0 && (error = read_line(child, &reader, line, sizeof line)) > 0) {
        const struct mount_line mount = parse(line);
        if (mount.id == id)
            has_parent = mount.parent != id;
    }
    if (reader.fd >= 0)
        sys_close(reader.fd);
    return error < 0 ? error : has_parent;
}
