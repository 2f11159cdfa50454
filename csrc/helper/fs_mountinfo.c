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
NSX_CHILD_CODE static long read_line(struct reader *reader, char *line, size_t size)
{
    size_t used = 0;
    for (;;) {
        if (reader->at == reader->end) {
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
    uint32_t count;
    uint64_t id[MAX_BELOW];
};

NSX_CHILD_CODE static int is_known(const struct below *below, uint64_t id, uint32_t *at)
{
    for (*at = 0; *at < below->count; ++*at)
        if (below->id[*at] == id)
            return 1;
    return 0;
}

NSX_CHILD_CODE static long visit_line(const struct fs_visit *visit, struct below *below,
                                      const struct mount_line *mount)
{
    uint32_t at;
    if (is_known(below, mount->id, &at) || !is_known(below, mount->parent, &at))
        return 0;
    const char *path = relative(mount->path, below->own);
    if (!path || !*path || (path[0] == '/' && !path[1]))
        return 0;
    if (below->count == MAX_BELOW)
        return -E2BIG_;
    below->id[below->count++] = mount->id;
    return at && visit->direct ? 0 : visit->visit(visit, path);
}

NSX_CHILD_CODE static long read_all(const struct fs_visit *visit, struct below *below)
{
    struct reader reader = {.at = 0};
    char line[3 * PATH_SIZE];
    visit->child->aux = PART_PROC;
    reader.fd =
        sys_openat(visit->child->plan->proc_fd, "self/mountinfo", NSX_O_RDONLY | NSX_O_CLOEXEC);
    if (reader.fd < 0)
        return reader.fd;
    long error;
    while ((error = read_line(&reader, line, sizeof line)) > 0) {
        const struct mount_line mount = parse(line);
        error = visit_line(visit, below, &mount);
        if (error < 0)
            break;
    }
    sys_close(reader.fd);
    return error;
}

/* A mount may stand in the list before the one that it is on: until a reading
 * finds no more. */
NSX_CHILD_CODE long fs_below(const struct fs_visit *visit)
{
    struct below below;
    struct nsx_statx status;
    struct fs_number number;
    uint32_t before;
    long error = sys_statx(visit->directory, "", NSX_AT_EMPTY_PATH, &status);
    if (error >= 0)
        error = fs_by_number(visit->child, visit->directory, &number);
    if (error >= 0)
        error = sys_readlinkat(NSX_AT_FDCWD, number.path, below.own, sizeof below.own - 1);
    if (error < 0)
        return error;
    below.own[error] = 0;
    below.id[0] = status.mount_id;
    below.count = 1;
    do {
        before = below.count;
        error = read_all(visit, &below);
    } while (error >= 0 && below.count > before);
    return error;
}
