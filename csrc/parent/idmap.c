#define _GNU_SOURCE
#include "idmap.h"
#include "../sys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAP_SETGID_ 6

uint64_t nsx_parent_capabilities(void)
{
    struct {
        uint32_t version;
        int pid;
    } header = {0x20080522, 0}; /* _LINUX_CAPABILITY_VERSION_3 */
    struct {
        uint32_t effective, permitted, inheritable;
    } data[2] = {{0, 0, 0}, {0, 0, 0}};
    if (syscall(SYS_capget, &header, data) != 0)
        return 0;
    return (uint64_t)data[1].effective << 32 | data[0].effective;
}

/* Who lacks CAP_SETGID may write a gid map only after setgroups(2) was denied
 * for good; who has it leaves setgroups to the program. */
static int may_setgid(void)
{
    return nsx_parent_capabilities() >> CAP_SETGID_ & 1;
}

/* Where /proc is another pid namespace's, /proc/PID is another process. */
static int proc_is_ours(void)
{
    char text[16] = {0}, self[16];
    if (readlink("/proc/self", text, sizeof text - 1) < 0)
        return 0;
    snprintf(self, sizeof self, "%d", (int)getpid());
    return strcmp(text, self) == 0;
}

static int write_map(pid_t child, const char *name, const void *text, size_t size)
{
    char path[48];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)child, name);
    long fd = sys_openat(NSX_AT_FDCWD, path, NSX_O_WRONLY | NSX_O_CLOEXEC);
    if (fd < 0)
        return (int)fd;
    long written = sys_write(fd, text, size);
    sys_close(fd);
    return written < 0 ? (int)written : 0;
}

int nsx_parent_write_maps(const struct nsx_blob *blob, pid_t child, int *part)
{
    const char *bytes = (const char *)blob;
    int error = 0;
    *part = NSX_PART_UID_MAP;
    if (!blob->gid_map_size && !blob->uid_map_size)
        return -EINVAL; /* then they are not ours to write */
    *part = NSX_PART_PROC;
    if (!proc_is_ours())
        return -ESRCH;
    if (blob->gid_map_size) {
        *part = NSX_PART_SETGROUPS;
        if (!may_setgid())
            error = write_map(child, "setgroups", "deny", 4);
        if (error)
            return error;
        *part = NSX_PART_GID_MAP;
        error = write_map(child, "gid_map", bytes + blob->gid_map, blob->gid_map_size);
        if (error)
            return error;
    }
    if (blob->uid_map_size) {
        *part = NSX_PART_UID_MAP;
        error = write_map(child, "uid_map", bytes + blob->uid_map, blob->uid_map_size);
    }
    return error;
}
