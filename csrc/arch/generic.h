/* Any other architecture: the C library's syscall(2) and clone(2).
 *
 * syscall() writes errno, which a CLONE_VM child shares with its parent's
 * thread; so here the parent sleeps until the child has left (CLONE_VFORK, see
 * clone.c), and what needs both awake (ranges of ids) is refused.
 */
#ifndef NSX_ARCH_GENERIC_H
#define NSX_ARCH_GENERIC_H

#include <errno.h>
#include <unistd.h>

#define NSX_ARCH_RAW 0

extern long syscall(long, ...);

static inline __attribute__((always_inline)) long nsx_syscall(long nr, long a, long b, long c,
                                                              long d, long e, long f)
{
    long ret = syscall(nr, a, b, c, d, e, f);
    return ret == -1 ? -errno : ret;
}

#endif
