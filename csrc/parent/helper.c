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

static int write_all(int fd, const char *data, size_t size)
{
    while (size) {
        const ssize_t written = write(fd, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        data += written;
        size -= (size_t)written;
    }
    return 0;
}

/* MFD_EXEC is EINVAL before Linux 6.3; under vm.memfd_noexec=2 it is EACCES, and
 * then the file itself has to do; but for nothing else, since it can be written to. */
static int open_image(const struct nsx_program *program)
{
    int fd = (int)syscall(SYS_memfd_create, "nsext-helper",
                          MFD_CLOEXEC_ | MFD_ALLOW_SEALING_ | MFD_EXEC_);
    if (fd < 0 && errno == EINVAL)
        fd = (int)syscall(SYS_memfd_create, "nsext-helper", MFD_CLOEXEC_ | MFD_ALLOW_SEALING_);
    if (fd < 0 && errno == EACCES)
        return nsx_above_stdio(open(program->path, O_RDONLY | O_CLOEXEC));
    fd = nsx_above_stdio(fd);
    if (fd < 0)
        return -1;
    if (write_all(fd, program->data, program->size) != 0 ||
        fcntl(fd, F_ADD_SEALS_, ALL_SEALS) != 0) {
        const int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static uint64_t identity(int fd)
{
    const uint64_t id = nsx_file_id(fd);
    return id ? (id & ~(uint64_t)UINT32_MAX) | (uint32_t)fd : 0;
}

/* Two threads may both open it: one is kept.  A number that the caller has
 * closed behind our back is not closed again: it may be another file's. */
int nsx_helper_fd(struct nsx_helper *helper, const struct nsx_program *program)
{
    uint64_t old = __atomic_load_n(&helper->image, __ATOMIC_ACQUIRE);
    if (old && identity((int)(uint32_t)old) == old)
        return (int)(uint32_t)old;
    int fd = open_image(program);
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
