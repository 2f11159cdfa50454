/* Paths inside a root: by openat2(2), and where that is refused (a filter that
 * is older than it) component by component.  Runs in the helper and, for
 * open_in(), in the parent. */
#include "resolve.h"
#include "../sys_mount.h"
#include "child.h"

#define ENOENT_ 2
#define EAGAIN_ 11
#define EEXIST_ 17
#define ENOTDIR_ 20
#define ENAMETOOLONG_ 36
#define ENOSYS_ 38
#define ELOOP_ 40
#define MAX_PATH 4096
#define MAX_DEPTH 256
#define MAX_LINKS 40
#define MAX_RACES 100 /* renames on the way, each of which is another try */

struct walk {
    int exclusive;       /* O_EXCL: a link at the end is not followed */
    long depth;          /* of fd[]: fd[0] is the root, borrowed */
    long fd[MAX_DEPTH];  /* what is on the way, so that ".." is exact */
    char rest[MAX_PATH]; /* what is left of the path */
    char link[MAX_PATH]; /* a link's text */
    char name[256];      /* a component */
    int named;           /* name is that of fd[depth] in fd[depth - 1], or is missing there */
};

NSX_CHILD_CODE static void up_to(struct walk *walk, long depth)
{
    while (walk->depth > depth)
        sys_close(walk->fd[walk->depth--]);
}

/* Takes the next component off the path; its length, 0: none is left. */
NSX_CHILD_CODE static long next_name(struct walk *walk)
{
    long from = 0, size = 0, at = 0;
    while (walk->rest[from] == '/')
        from++;
    while (walk->rest[from + size] && walk->rest[from + size] != '/')
        size++;
    if (size >= (long)sizeof walk->name)
        return -ENAMETOOLONG_;
    for (long i = 0; i < size; i++)
        walk->name[i] = walk->rest[from + i];
    walk->name[size] = 0;
    from += size;
    do {
        walk->rest[at] = walk->rest[from + at];
    } while (walk->rest[at++]);
    return size;
}

/* What a link of /proc/PID leads to is no path: its text says "pipe:[1]", or the
 * path of what it holds.  Other links there are relative.  0, -ELOOP or -errno. */
NSX_CHILD_CODE static long check_magic(long fd, const char *text)
{
    uint64_t status[16];
    const long error = sys_fstatfs(fd, status);
    if (error < 0 || status[0] != NSX_PROC_SUPER_MAGIC)
        return error;
    if (*text == '/')
        return -ELOOP_;
    while (*text && *text != ':')
        text++;
    return *text == ':' ? -ELOOP_ : 0;
}

/* The link's text goes before what is left, which is nothing or starts with "/". */
NSX_CHILD_CODE static long follow(struct walk *walk, long fd)
{
    const long size = sys_readlinkat(fd, "", walk->link, sizeof walk->link - 1);
    if (size < 0)
        return size;
    walk->link[size] = 0;
    const long error = check_magic(fd, walk->link);
    if (error < 0)
        return error;
    const long left = (long)child_strlen(walk->rest);
    if (size + left >= (long)sizeof walk->rest)
        return -ENAMETOOLONG_;
    for (long i = left; i >= 0; i--)
        walk->rest[size + i] = walk->rest[i];
    for (long i = 0; i < size; i++)
        walk->rest[i] = walk->link[i];
    if (walk->link[0] == '/')
        up_to(walk, 0);
    return 0;
}

NSX_CHILD_CODE static long check_directory(long fd)
{
    struct nsx_statx status;
    const long error = sys_statx(fd, "", NSX_AT_EMPTY_PATH, &status);
    if (error < 0)
        return error;
    return (status.mode & NSX_S_IFMT) == NSX_S_IFDIR ? 0 : -ENOTDIR_;
}

NSX_CHILD_CODE static long enter(struct walk *walk, int *links)
{
    struct nsx_statx status;
    const long fd =
        sys_openat(walk->fd[walk->depth], walk->name, NSX_O_PATH | NSX_O_NOFOLLOW | NSX_O_CLOEXEC);
    if (fd < 0)
        return fd;
    long error = sys_statx(fd, "", NSX_AT_EMPTY_PATH, &status);
    if (error >= 0 && (status.mode & NSX_S_IFMT) == NSX_S_IFLNK) {
        walk->named = 0;
        if (walk->exclusive && !walk->rest[0])
            error = -EEXIST_;
        else
            error = ++*links > MAX_LINKS ? -ELOOP_ : follow(walk, fd);
        sys_close(fd);
        return error;
    }
    if (error >= 0 && walk->depth + 1 >= MAX_DEPTH)
        error = -ENAMETOOLONG_;
    if (error < 0) {
        sys_close(fd);
        return error;
    }
    walk->fd[++walk->depth] = fd;
    walk->named = 1;
    return 0;
}

/* -ENOENT with named set: only the last component is missing, in fd[depth]. */
NSX_CHILD_CODE static long walk_all(struct walk *walk)
{
    int links = 0;
    for (;;) {
        const int separated = walk->rest[0] == '/';
        const long size = next_name(walk);
        if (size < 0)
            return size;
        if ((size > 0 || separated) && walk->depth) {
            const long error = check_directory(walk->fd[walk->depth]);
            if (error < 0)
                return error;
        }
        if (size == 0)
            return 0;
        const char *name = walk->name;
        const int dots = name[0] != '.' ? 0 : !name[1] ? 1 : name[1] == '.' && !name[2] ? 2 : 0;
        if (dots == 2)
            up_to(walk, walk->depth ? walk->depth - 1 : 0);
        if (dots) {
            walk->named = 0;
            continue;
        }
        const long error = enter(walk, &links);
        if (error == -ENOENT_)
            walk->named = !walk->rest[0];
        if (error < 0)
            return error;
    }
}

/* What was found, opened as flags ask: by its name in its directory, where a link
 * that took its place is not followed; without a name it is a directory. */
NSX_CHILD_CODE static long reopen(const struct walk *walk, long flags)
{
    if (!walk->named)
        return sys_openat(walk->fd[walk->depth], ".", flags);
    return sys_openat_mode(walk->fd[walk->depth - 1], walk->name, flags | NSX_O_NOFOLLOW, 0666);
}

NSX_CHILD_CODE long nsx_resolve_slowly(long root, const char *path, long flags)
{
    struct walk walk;
    const size_t size = child_strlen(path);
    if (size >= sizeof walk.rest)
        return -ENAMETOOLONG_;
    for (size_t i = 0; i <= size; i++)
        walk.rest[i] = path[i];
    walk.exclusive = flags & NSX_O_CREAT && flags & NSX_O_EXCL;
    walk.named = 0;
    walk.depth = 0;
    walk.fd[0] = root;
    long fd = walk_all(&walk);
    if (fd == -ENOENT_ && walk.named && flags & NSX_O_CREAT) {
        fd = sys_openat_mode(walk.fd[walk.depth], walk.name, flags | NSX_O_NOFOLLOW, 0666);
    } else if (fd >= 0 && flags & NSX_O_PATH && walk.depth) {
        fd = flags & NSX_O_DIRECTORY ? check_directory(walk.fd[walk.depth]) : 0;
        if (fd >= 0)
            fd = walk.fd[walk.depth--]; /* this one is it */
    } else if (fd >= 0) {
        fd = reopen(&walk, flags);
    }
    up_to(&walk, 0);
    return fd;
}

NSX_CHILD_CODE long nsx_resolve(long root, const char *path, long flags)
{
    const struct nsx_open_how how = {
        .flags = (uint64_t)(flags | NSX_O_CLOEXEC),
        .mode = flags & NSX_O_CREAT ? 0666 : 0,
        .resolve = NSX_RESOLVE_IN_ROOT | NSX_RESOLVE_NO_MAGICLINKS,
    };
    while (*path == '/')
        path++;
    if (!*path)
        path = ".";
    /* EAGAIN: something, anywhere, was renamed on the way, and ".." could have led out.
     * Who renames all the time must not keep us here: the slow way needs no second try. */
    for (int i = 0; i < MAX_RACES; i++) {
        const long fd = sys_openat2(root, path, &how);
        if (fd == -ENOSYS_)
            break;
        if (fd != -EAGAIN_)
            return fd;
    }
    return nsx_resolve_slowly(root, path, flags | NSX_O_CLOEXEC);
}
