/* Raw system calls of the file system, for the child's side: each returns its
 * value or -errno.  Numbers and structures as in abi.h: written out, compared
 * with the headers by a test.  See openat2(2), open_tree(2), mount_setattr(2),
 * fsopen(2), move_mount(2), statx(2), pivot_root(2).
 */
#ifndef NSX_SYS_MOUNT_H
#define NSX_SYS_MOUNT_H

#include "sys.h"

#ifndef __NR_open_tree
#define __NR_open_tree 428
#endif
#ifndef __NR_move_mount
#define __NR_move_mount 429
#endif
#ifndef __NR_fsopen
#define __NR_fsopen 430
#endif
#ifndef __NR_fsconfig
#define __NR_fsconfig 431
#endif
#ifndef __NR_fsmount
#define __NR_fsmount 432
#endif
#ifndef __NR_openat2
#define __NR_openat2 437
#endif
#ifndef __NR_mount_setattr
#define __NR_mount_setattr 442
#endif

#define NSX_O_CREAT 0100L
#define NSX_O_EXCL 0200L
#define NSX_O_TRUNC 01000L
#define NSX_O_NONBLOCK 04000L
#define NSX_O_PATH 010000000L
#if defined(__aarch64__)
#define NSX_O_DIRECTORY 040000L
#define NSX_O_NOFOLLOW 0100000L
#else
#define NSX_O_DIRECTORY 0200000L
#define NSX_O_NOFOLLOW 0400000L
#endif

#define NSX_AT_EMPTY_PATH 0x1000L
#define NSX_AT_RECURSIVE 0x8000L
#define NSX_AT_SYMLINK_NOFOLLOW 0x100L

#define NSX_RESOLVE_NO_MAGICLINKS 0x02u
#define NSX_RESOLVE_IN_ROOT 0x10u

#define NSX_OPEN_TREE_CLONE 1L
#define NSX_OPEN_TREE_CLOEXEC NSX_O_CLOEXEC
#define NSX_MOVE_MOUNT_F_EMPTY_PATH 0x04L
#define NSX_MOVE_MOUNT_T_EMPTY_PATH 0x40L
#define NSX_FSOPEN_CLOEXEC 1L
#define NSX_FSMOUNT_CLOEXEC 1L
#define NSX_FSCONFIG_SET_FLAG 0L
#define NSX_FSCONFIG_SET_STRING 1L
#define NSX_FSCONFIG_CMD_CREATE 6L

/* MOUNT_ATTR_* and MS_* have the same values here. */
#define NSX_MS_RDONLY 1u
#define NSX_MS_NOSUID 2u
#define NSX_MS_NODEV 4u
#define NSX_MS_NOEXEC 8u
#define NSX_MOUNT_ATTR_IDMAP 0x00100000ull

#define NSX_MS_REMOUNT 32u
#define NSX_MS_BIND 4096u
#define NSX_MS_REC 16384u
#define NSX_MS_MOVE 8192u
#define NSX_MS_UNBINDABLE 131072u
#define NSX_MS_NOSYMFOLLOW 256u
#define NSX_ST_NOSYMFOLLOW 8192u
#define NSX_PROC_SUPER_MAGIC 0x9fa0
#define NSX_MNT_DETACH 2L

#define NSX_S_IFMT 0170000u
#define NSX_S_IFDIR 0040000u
#define NSX_S_IFREG 0100000u
#define NSX_S_IFLNK 0120000u

#define NSX_STATX_BASIC 0x7ffu
#define NSX_STATX_MNT_ID 0x1000u
#define NSX_STATX_ATTR_MOUNT_ROOT 0x2000ull

struct nsx_open_how {
    uint64_t flags, mode, resolve;
};

struct nsx_mount_attr {
    uint64_t set, clear, propagation, userns_fd;
};

/* struct statx; what is of use has a name. */
struct nsx_statx {
    uint32_t mask, block_size;
    uint64_t attributes;
    uint32_t links, uid, gid;
    uint16_t mode, spare;
    uint64_t inode, size, blocks, attributes_mask;
    uint64_t times[8];
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t mount_id;
    uint64_t rest[13];
};

_Static_assert(sizeof(struct nsx_open_how) == 24, "OPEN_HOW_SIZE_VER0");
_Static_assert(sizeof(struct nsx_mount_attr) == 32, "MOUNT_ATTR_SIZE_VER0");
_Static_assert(sizeof(struct nsx_statx) == 256, "struct statx");
_Static_assert(offsetof(struct nsx_statx, mount_id) == 144, "struct statx");

NSX_SYS long sys_openat_mode(long dirfd, const char *path, long flags, long mode)
{
    return nsx_syscall(__NR_openat, dirfd, NSX_P(path), flags, mode, 0, 0);
}

NSX_SYS long sys_openat2(long dirfd, const char *path, const struct nsx_open_how *how)
{
    return nsx_syscall(__NR_openat2, dirfd, NSX_P(path), NSX_P(how), sizeof *how, 0, 0);
}

NSX_SYS long sys_statx(long fd, const char *path, long flags, struct nsx_statx *status)
{
    return nsx_syscall(__NR_statx, fd, NSX_P(path), flags, NSX_STATX_BASIC | NSX_STATX_MNT_ID,
                       NSX_P(status), 0);
}

NSX_SYS long sys_readlinkat(long dirfd, const char *path, char *text, size_t size)
{
    return nsx_syscall(__NR_readlinkat, dirfd, NSX_P(path), NSX_P(text), (long)size, 0, 0);
}

NSX_SYS long sys_mkdirat(long dirfd, const char *path, long mode)
{
    return nsx_syscall(__NR_mkdirat, dirfd, NSX_P(path), mode, 0, 0, 0);
}

NSX_SYS long sys_unlinkat(long dirfd, const char *path)
{
    return nsx_syscall(__NR_unlinkat, dirfd, NSX_P(path), 0, 0, 0, 0);
}

NSX_SYS long sys_symlinkat(const char *to, long dirfd, const char *path)
{
    return nsx_syscall(__NR_symlinkat, NSX_P(to), dirfd, NSX_P(path), 0, 0, 0);
}

NSX_SYS long sys_fchmod(long fd, long mode)
{
    return nsx_syscall(__NR_fchmod, fd, mode, 0, 0, 0, 0);
}

NSX_SYS long sys_fchdir(long fd)
{
    return nsx_syscall(__NR_fchdir, fd, 0, 0, 0, 0, 0);
}

NSX_SYS long sys_chroot(const char *path)
{
    return nsx_syscall(__NR_chroot, NSX_P(path), 0, 0, 0, 0, 0);
}

NSX_SYS long sys_read(long fd, void *data, size_t size)
{
    return nsx_syscall(__NR_read, fd, NSX_P(data), (long)size, 0, 0, 0);
}

/* status: 15 words; the first is the type, the one at 80 bytes the flags. */
NSX_SYS long sys_fstatfs(long fd, uint64_t status[16])
{
    return nsx_syscall(__NR_fstatfs, fd, NSX_P(status), 0, 0, 0, 0);
}

NSX_SYS long sys_mount_data(const char *source, const char *target, const char *fstype, long flags,
                            const char *data)
{
    return nsx_syscall(__NR_mount, NSX_P(source), NSX_P(target), NSX_P(fstype), flags, NSX_P(data),
                       0);
}

NSX_SYS long sys_umount2(const char *target, long flags)
{
    return nsx_syscall(__NR_umount2, NSX_P(target), flags, 0, 0, 0, 0);
}

NSX_SYS long sys_pivot_root(const char *root, const char *old)
{
    return nsx_syscall(__NR_pivot_root, NSX_P(root), NSX_P(old), 0, 0, 0, 0);
}

NSX_SYS long sys_open_tree(long dirfd, const char *path, long flags)
{
    return nsx_syscall(__NR_open_tree, dirfd, NSX_P(path), flags, 0, 0, 0);
}

NSX_SYS long sys_move_mount(long from, long to, const char *path, long flags)
{
    return nsx_syscall(__NR_move_mount, from, NSX_P(""), to, NSX_P(path), flags, 0);
}

NSX_SYS long sys_mount_setattr(long fd, long flags, const struct nsx_mount_attr *attr)
{
    return nsx_syscall(__NR_mount_setattr, fd, NSX_P(""), flags | NSX_AT_EMPTY_PATH, NSX_P(attr),
                       sizeof *attr, 0);
}

NSX_SYS long sys_fsopen(const char *type)
{
    return nsx_syscall(__NR_fsopen, NSX_P(type), NSX_FSOPEN_CLOEXEC, 0, 0, 0, 0);
}

NSX_SYS long sys_fsconfig(long fd, long command, const char *key, const char *value)
{
    return nsx_syscall(__NR_fsconfig, fd, command, NSX_P(key), NSX_P(value), 0, 0);
}

NSX_SYS long sys_fsmount(long fd, long attributes)
{
    return nsx_syscall(__NR_fsmount, fd, NSX_FSMOUNT_CLOEXEC, attributes, 0, 0, 0);
}

#endif
