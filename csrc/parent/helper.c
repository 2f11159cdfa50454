#define _GNU_SOURCE
#include "helper.h"
#include "fd.h"

#include <errno.h>
#include <sys/syscall.h>

#define MFD_CLOEXEC_ 1u
#define MFD_ALLOW_SEALING_ 2u
#define MFD_EXEC_ 16u
#define F_ADD_SEALS_ 1033
#define ALL_SEALS 0x0f /* SEAL, SHRINK, GROW, WRITE */

static int copy(int from, int to)
{
    char buffer[16384];
    ssize_t size;
    while ((size = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, (size_t)size) != size)
            return -1;
    return (int)size;
}

/* MFD_EXEC is EINVAL before Linux 6.3; under vm.memfd_noexec=2 it is EACCES, and
 * then the file itself has to do. */
static int open_image(const char *path)
{
    int file = nsx_above_stdio(open(path, O_RDONLY | O_CLOEXEC));
    if (file < 0)
        return -1;
    int fd = (int)syscall(SYS_memfd_create, "nsext-helper",
                          MFD_CLOEXEC_ | MFD_ALLOW_SEALING_ | MFD_EXEC_);
    if (fd < 0 && errno == EINVAL)
        fd = (int)syscall(SYS_memfd_create, "nsext-helper", MFD_CLOEXEC_ | MFD_ALLOW_SEALING_);
    fd = nsx_above_stdio(fd);
    if (fd < 0)
        return file;
    if (copy(file, fd) != 0 || fcntl(fd, F_ADD_SEALS_, ALL_SEALS) != 0) {
        close(fd);
        return file;
    }
    close(file);
    return fd;
}

static uint64_t identity(int fd)
{
    const uint64_t id = nsx_file_id(fd);
    return id ? (id & ~(uint64_t)UINT32_MAX) | (uint32_t)fd : 0;
}

/* Two threads may both open it: one is kept.  A number that the caller has
 * closed behind our back is not closed again: it may be another file's. */
int nsx_helper_fd(struct nsx_helper *helper, const char *path)
{
    uint64_t old = __atomic_load_n(&helper->image, __ATOMIC_ACQUIRE);
    if (old && identity((int)(uint32_t)old) == old)
        return (int)(uint32_t)old;
    int fd = open_image(path);
    uint64_t image = identity(fd);
    if (!image)
        return -errno;
    if (!__atomic_compare_exchange_n(&helper->image, &old, image, 0, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        close(fd);
        fd = (int)(uint32_t)old;
    }
    return fd;
}

void nsx_helper_close(struct nsx_helper *helper)
{
    uint64_t image = __atomic_exchange_n(&helper->image, 0, __ATOMIC_ACQ_REL);
    if (image && identity((int)(uint32_t)image) == image)
        close((int)(uint32_t)image);
}
