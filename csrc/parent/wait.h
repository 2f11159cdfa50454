/* Waiting for and signalling a child, by pidfd only: a pid may be another's by
 * the time it is used.  Runs in the parent.  See pidfd_open(2), waitid(2). */
#ifndef NSX_WAIT_H
#define NSX_WAIT_H

#include "../abi.h"

#define NSX_FOREVER INT64_MAX

struct nsx_end {
    int exited; /* 1: exited with status; 0: killed by signal status */
    int status;
    int status_known; /* 0: somebody else reaped it, and the kernel kept nothing */
    int measured;     /* 1: we reaped it, and the usage is filled */
};

/* What it has used; times in ns of CLOCK_MONOTONIC. */
struct nsx_usage {
    int64_t begun; /* the caller's to fill */
    int64_t ended; /* when the wait has seen it */
    struct nsx_rusage rusage;
};

int64_t nsx_now(void); /* CLOCK_MONOTONIC, nanoseconds */

/* Wait at most timeout ns, then reap.  1: done; 0: it still runs; -EINTR and
 * other -errno.  reap 0: leave the zombie (WNOWAIT).  usage: may be NULL. */
int nsx_parent_wait(int pidfd, int64_t timeout, int reap, struct nsx_end *end,
                    struct nsx_usage *usage);

/* Has it ended within timeout ns?  Then it is reaped.  Never interrupted. */
int nsx_parent_reap(int pidfd, int64_t timeout);

/* 0 or -errno. */
int nsx_parent_signal(int pidfd, int signal);

#endif
