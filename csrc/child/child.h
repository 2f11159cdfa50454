/* What the files of the child's side share.
 *
 * RULES OF THE CHILD'S SIDE.  This code runs in a process that shares the
 * parent's memory, stack excepted, and its thread's TLS, while the parent's
 * threads go on running.  So: raw system calls (sys.h) only; no libc, no errno,
 * no allocation, no lock; nothing written but the plan and the own stack.  It is
 * compiled without stack protector and sanitizers, into a section of its own,
 * and tests/test_child_objects.py holds its objects against an allow-list.
 */
#ifndef NSX_CHILD_H
#define NSX_CHILD_H

#include "../plan.h"
#include "../sys.h"
#include "entry.h"

#define NSX_CHILD_CODE __attribute__((section("nsx_child")))

struct nsx_robust_list {
    struct nsx_robust_list *next;
};

/* What the kernel reads when a helper leaves its memory: helper/hold.c. */
struct nsx_hold {
    struct nsx_robust_list list; /* these three: struct robust_list_head */
    long offset;
    struct nsx_robust_list *pending;
    struct nsx_robust_list entry;
};

struct nsx_child {
    struct nsx_plan *plan;
    const unsigned char *blob;
    struct nsx_hold *hold; /* the helper's; NULL inline */
    int32_t aux;           /* reported with an error: which part of the step */
#ifdef NSX_HELPER
    /* Of the file system's steps, between the first and the last of them. */
    int32_t root_fd;       /* the root directory that paths are resolved in */
    int32_t shop_fd;       /* the workshop; -1: there is none */
    int32_t classic;       /* 1: without the newer calls: in the workshop */
    int32_t pivoted;       /* 1: in the new root */
    uint32_t slots;        /* of the workshop, used so far */
    uint32_t first_source; /* index of the step */
    int32_t umask;         /* the caller's */
    uint64_t nofile[2];
#endif
};

/* Every step: 0 or -errno. */
#define STEP(name, stage, signature)                                                               \
    long step_##name(struct nsx_child *child, const struct nsx_step *step);
#include "../steps.def"
#undef STEP

static inline __attribute__((always_inline)) const char *child_string(const struct nsx_child *child,
                                                                      uint64_t offset)
{
    return (const char *)child->blob + offset;
}

static inline __attribute__((always_inline)) size_t child_strlen(const char *text)
{
    size_t size = 0;
    while (text[size])
        size++;
    return size;
}

static inline __attribute__((always_inline)) void *child_at(struct nsx_plan *plan, uint32_t offset)
{
    return (unsigned char *)plan + offset;
}

/* Runs the steps from first on; returns where one failed, which it has reported. */
void nsx_child_run(struct nsx_plan *plan, uint32_t first, struct nsx_hold *hold);

/* Writes itself to cgroup.procs.  aux says which part failed. */
long nsx_child_enter_cgroup(struct nsx_child *child);

/* path: below /proc.  After a join that is the caller's own, opened before: in
 * the namespace that was joined, somebody else decides what /proc is. */
static inline __attribute__((always_inline)) long child_open_proc(const struct nsx_plan *plan,
                                                                  const char *path, long flags)
{
    if (plan->proc_fd >= 0)
        return sys_openat(plan->proc_fd, path + sizeof "/proc/" - 1, flags);
    return sys_openat(NSX_AT_FDCWD, path, flags);
}

/* Writes to a file below /proc, likewise.  aux says which part failed. */
enum { NSX_PART_OPEN = 1, NSX_PART_WRITE = 2 };
long nsx_child_write_proc(struct nsx_child *child, const char *path, const char *text, size_t size);

/* A core of a child in the parent's memory is a core of the parent.  A soft limit
 * of 1 is below any file's size, and what a pipe in core_pattern respects, too. */
static inline __attribute__((always_inline)) void child_guard_core(const struct nsx_plan *plan)
{
    const uint64_t low[2] = {plan->core[1] ? 1 : 0, plan->core[1]};
    sys_prlimit64(0, NSX_RLIMIT_CORE, low);
}

/* The step that the record names has failed. */
void nsx_child_failed(struct nsx_plan *plan, long error, int32_t aux);

/* 0, or -ENOENT where the working directory lies outside the root directory. */
static inline __attribute__((always_inline)) long child_check_cwd(void)
{
    char path[4096];
    const long error = nsx_syscall(__NR_getcwd, NSX_P(path), sizeof path, 0, 0, 0, 0);
    return error < 0 ? error : path[0] == '/' ? 0 : -2;
}

/* Helper: from here on the kernel tells the parent when the calling process
 * leaves this memory, by exec or by death.  0 or -errno: without it the parent
 * would wait for ever. */
long nsx_child_hold(struct nsx_plan *plan, struct nsx_hold *hold);

/* Arrays of offsets become arrays of pointers, at the address where the plan is
 * mapped here. */
void nsx_child_relocate(struct nsx_plan *plan);

/* Tell a parent whose memory this is not (a copy) that the set-up is over. */
void nsx_child_announce(struct nsx_plan *plan);

#endif
