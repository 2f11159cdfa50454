/* Steps for a program that shall make no user namespace.  The limit on them counts
 * in a user namespace for all that are below it, and only who has capabilities there
 * may raise it.  So there are two, one in the other: the outer one with room for one
 * more, in which nobody stays, and the inner one with all other new namespaces and with
 * the program, which may be root of that and has no power over the outer one.
 */
#include "second.h"
#include "userns.h"

#define EIO_ 5
#define EOPNOTSUPP_ 95
#define ENOSPC_ 28
#define PR_SET_DUMPABLE_ 4

/* After a join; else the first clone has made it.  The parent may write its maps from
 * now on.  Memory of our own, or it would be EINVAL. */
NSX_CHILD_CODE long step_outer_userns(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_record *record = &child->plan->record;
    (void)step;
    child->aux = 0;
    const long error = sys_unshare(NSX_CLONE_NEWUSER);
    if (error < 0)
        return error;
    __atomic_store_n(&record->unshared, 1, __ATOMIC_RELEASE);
    sys_futex(&record->hold, NSX_FUTEX_WAKE, 1, NULL);
    return 0;
}

/* Is there a line "inside outside count" that has this id outside?  Of a map that is
 * not the parent's to write it is the only one. */
NSX_CHILD_CODE static int has_outside(const struct nsx_child *child, uint32_t map, uint32_t size,
                                      uint32_t id)
{
    const char *text = child_string(child, map);
    uint64_t number[3] = {0, 0, 0};
    int column = 0;
    for (uint32_t at = 0; at < size; at++) {
        if (text[at] >= '0' && text[at] <= '9')
            number[column] = number[column] * 10 + (uint64_t)(text[at] - '0');
        else if (text[at] == ' ' && column < 2)
            column++;
        else if (id - number[1] < number[2])
            return 1;
        else
            column = 0, number[0] = number[1] = number[2] = 0;
    }
    return !size;
}

/* arg 0: uid, 1: gid, which the maps have.  Whose own id they lack makes no user
 * namespace, since nobody could say whose it is. */
NSX_CHILD_CODE long step_mapped_id(struct nsx_child *child, const struct nsx_step *step)
{
    const struct nsx_plan *plan = child->plan;
    const struct nsx_blob *blob = child_at(child->plan, plan->blob);
    long error = 0;
    child->aux = 0;
    if (!has_outside(child, blob->gid_map, blob->gid_map_size, plan->egid))
        error = sys_setresgid((long)step->arg[1]);
    if (error >= 0 && !has_outside(child, blob->uid_map, blob->uid_map_size, plan->euid))
        error = sys_setresuid((long)step->arg[0]);
    /* Else the files below /proc are somebody's whom the maps may lack, too. */
    return error < 0 ? error : sys_prctl(PR_SET_DUMPABLE_, 1, 0);
}

NSX_CHILD_CODE long step_limit_userns(struct nsx_child *child, const struct nsx_step *step)
{
    (void)step;
    return nsx_child_write_proc(child, "/proc/sys/user/max_user_namespaces", "1", 1);
}

/* Asked of the kernel: another one must be too many.  Alone in its memory, or it
 * would be EINVAL. */
NSX_CHILD_CODE long step_no_userns(struct nsx_child *child, const struct nsx_step *step)
{
    (void)step;
    child->aux = 0;
    const long error = sys_unshare(NSX_CLONE_NEWUSER);
    if (error >= 0)
        return -EOPNOTSUPP_;
    return error == -ENOSPC_ ? 0 : error;
}

/* "inside outside count" of each line becomes "inside inside count", which is never
 * longer: the kernel has aligned what it shows.  The new size. */
NSX_CHILD_CODE static size_t same_inside(char *text, size_t size)
{
    size_t out = 0;
    size_t at = 0;
    while (at < size) {
        size_t start[3], end[3];
        for (int column = 0; column < 3; column++) {
            while (at < size && text[at] == ' ')
                at++;
            start[column] = at;
            while (at < size && text[at] >= '0' && text[at] <= '9')
                at++;
            end[column] = at;
        }
        const size_t line = out;
        for (size_t i = start[0]; i < end[0]; i++)
            text[out++] = text[i];
        const size_t width = out - line;
        text[out++] = ' ';
        for (size_t i = 0; i < width; i++)
            text[out++] = text[line + i];
        text[out++] = ' ';
        for (size_t i = start[2]; i < end[2]; i++)
            text[out++] = text[i];
        text[out++] = '\n';
        at++; /* its newline */
    }
    return out;
}

NSX_CHILD_CODE static long read_map(struct nsx_child *child, const char *path,
                                    struct nsx_map_text *map)
{
    long fd = child_open_proc(child->plan, path, NSX_O_RDONLY | NSX_O_CLOEXEC);
    if (fd < 0)
        return fd;
    size_t size = 0;
    long got;
    do {
        got = nsx_syscall(__NR_read, fd, NSX_P(map->text + size), (long)(sizeof map->text - size),
                          0, 0, 0);
        size += got > 0 ? (size_t)got : 0;
    } while (got > 0 && size < sizeof map->text);
    sys_close(fd);
    if (got < 0)
        return got;
    if (got > 0) /* more than there can be */
        return -EIO_;
    map->size = same_inside(map->text, size);
    return 0;
}

NSX_CHILD_CODE long nsx_helper_read_maps(struct nsx_child *child, struct nsx_maps *maps)
{
    child->aux = NSX_RELAY_READ_GIDS;
    long error = read_map(child, "/proc/self/gid_map", &maps->gid);
    if (error < 0)
        return error;
    child->aux = NSX_RELAY_READ_UIDS;
    error = read_map(child, "/proc/self/uid_map", &maps->uid);
    if (error >= 0)
        child->aux = 0;
    return error;
}

NSX_CHILD_CODE static long write_map(struct nsx_child *child, long pid, const char *name,
                                     const struct nsx_map_text *map)
{
    char path[32] = "/proc/";
    char digits[12];
    size_t at = sizeof "/proc/" - 1;
    int count = 0;
    do {
        digits[count++] = (char)('0' + pid % 10);
        pid /= 10;
    } while (pid);
    while (count)
        path[at++] = digits[--count];
    for (; *name; name++)
        path[at++] = *name;
    path[at] = 0;
    long fd = child_open_proc(child->plan, path, NSX_O_WRONLY | NSX_O_CLOEXEC);
    if (fd < 0)
        return fd;
    const long written = sys_write(fd, map->text, map->size);
    sys_close(fd);
    return written < 0 ? written : 0;
}

NSX_CHILD_CODE long nsx_helper_write_maps(struct nsx_child *child, long pid,
                                          const struct nsx_maps *maps)
{
    child->aux = NSX_RELAY_WRITE_GIDS;
    long error = write_map(child, pid, "/gid_map", &maps->gid);
    if (error < 0)
        return error;
    child->aux = NSX_RELAY_WRITE_UIDS;
    return write_map(child, pid, "/uid_map", &maps->uid);
}
