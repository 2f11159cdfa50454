/* Kernel constants and structures, written out so that the age of the build
 * machine's headers does not matter (manylinux images carry those of Linux
 * 3.10).  tests/test_constants.py compares each with the headers at hand.
 * See clone(2), waitid(2), close_range(2), ioctl_pidfd(2).
 */
#ifndef NSX_ABI_H
#define NSX_ABI_H

#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>

/* Since Linux 5.1 new system calls have one number on every architecture. */
#ifndef __NR_pidfd_send_signal
#define __NR_pidfd_send_signal 424
#endif
#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434
#endif
#ifndef __NR_clone3
#define __NR_clone3 435
#endif
#ifndef __NR_close_range
#define __NR_close_range 436
#endif
#ifndef __NR_landlock_create_ruleset
#define __NR_landlock_create_ruleset 444
#endif
#ifndef __NR_landlock_add_rule
#define __NR_landlock_add_rule 445
#endif
#ifndef __NR_landlock_restrict_self
#define __NR_landlock_restrict_self 446
#endif
#ifndef __NR_listns
#define __NR_listns 470
#endif

#define NSX_CLONE_NEWTIME 0x00000080u
#define NSX_CLONE_VM 0x00000100u
#define NSX_CLONE_FILES 0x00000400u
#define NSX_CLONE_PIDFD 0x00001000u
#define NSX_CLONE_VFORK 0x00004000u
#define NSX_CLONE_NEWNS 0x00020000u
#define NSX_CLONE_NEWCGROUP 0x02000000u
#define NSX_CLONE_NEWUTS 0x04000000u
#define NSX_CLONE_NEWIPC 0x08000000u
#define NSX_CLONE_NEWUSER 0x10000000u
#define NSX_CLONE_NEWPID 0x20000000u
#define NSX_CLONE_NEWNET 0x40000000u
#define NSX_CLONE_CHILD_CLEARTID 0x00200000u
#define NSX_CLONE_CLEAR_SIGHAND 0x100000000ull
#define NSX_CLONE_INTO_CGROUP 0x200000000ull

#define NSX_CLONE_NEW_ALL                                                                          \
    (NSX_CLONE_NEWTIME | NSX_CLONE_NEWNS | NSX_CLONE_NEWCGROUP | NSX_CLONE_NEWUTS |                \
     NSX_CLONE_NEWIPC | NSX_CLONE_NEWUSER | NSX_CLONE_NEWPID | NSX_CLONE_NEWNET)

#define NSX_CLOSE_RANGE_UNSHARE 2u

#define NSX_CLONE_PARENT 0x00008000u

#define NSX_FUTEX_TID_MASK 0x3fffffffu
#define NSX_FUTEX_OWNER_DIED 0x40000000u
#define NSX_FUTEX_WAITERS 0x80000000u

#define NSX_FUTEX_WAIT 0
#define NSX_FUTEX_WAKE 1

#define NSX_RLIMIT_CORE 4
#define NSX_P_PIDFD 3
#define NSX_SIGSET_BYTES 8
#define NSX_NSIG 64
#define NSX_SIGCHLD 17 /* on every architecture but alpha, mips, parisc and sparc */

/* struct clone_args, CLONE_ARGS_SIZE_VER2 (Linux 5.7). */
struct nsx_clone_args {
    uint64_t flags;
    uint64_t pidfd;
    uint64_t child_tid;
    uint64_t parent_tid;
    uint64_t exit_signal;
    uint64_t stack;
    uint64_t stack_size;
    uint64_t tls;
    uint64_t set_tid;
    uint64_t set_tid_size;
    uint64_t cgroup;
};

/* struct rusage, as the kernel has it: the C library's time_t may be wider. */
struct nsx_rusage {
    long user[2], system[2]; /* seconds, microseconds */
    long maxrss;             /* KiB */
    long rest[13];
};

/* struct pidfd_info, PIDFD_INFO_SIZE_VER0 (Linux 6.13); exit_code since 6.15. */
struct nsx_pidfd_info {
    uint64_t mask;
    uint64_t cgroupid;
    uint32_t pid, tgid, ppid;
    uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
    int32_t exit_code;
};
#define NSX_PIDFD_INFO_EXIT (1ull << 3)
#define NSX_PIDFD_GET_INFO 0xc040ff0bul /* _IOWR(0xFF, 11, struct pidfd_info) */

_Static_assert(sizeof(struct nsx_clone_args) == 88, "CLONE_ARGS_SIZE_VER2");
_Static_assert(sizeof(struct nsx_pidfd_info) == 64, "PIDFD_INFO_SIZE_VER0");

#endif
