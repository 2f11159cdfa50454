/* Descriptors of our own in the parent. */
#ifndef NSX_FD_H
#define NSX_FD_H

#include <fcntl.h>
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

#endif
