/* Descriptors of our own in the parent. */
#ifndef NSX_FD_H
#define NSX_FD_H

#include "../sys.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

/* Takes fd and returns it, or a copy where it would pass for a standard stream
 * because the caller has closed one of these; -1: errno says why. */
static inline int nsx_above_stdio(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    return moved;
}

/* Which file is behind fd, by device and inode, so that we see whether its number is
 * still our file's; 0: none.  Raw where the kernel's struct stat is the C library's: as
 * a symbol fstat came with glibc 2.33 only. */
static inline uint64_t nsx_file_id(int fd)
{
    struct stat status;
    if (fd < 0)
        return 0;
#if NSX_ARCH_RAW
    if (nsx_syscall(__NR_fstat, fd, NSX_P(&status), 0, 0, 0, 0) != 0)
        return 0;
#else
    if (fstat(fd, &status) != 0)
        return 0;
#endif
    /* Odd, so that neither is lost; inodes of different file systems are alike. */
    const uint64_t spread = 0x9e3779b97f4a7c15u;
    const uint64_t id = ((uint64_t)status.st_dev * spread + status.st_ino) * spread;
    return id ? id : 1;
}

#endif
