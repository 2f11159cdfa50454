#define _GNU_SOURCE
#include "slot.h"
#include "fd.h"
#include "wait.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MFD_CLOEXEC_ 1u
#define MFD_ALLOW_SEALING_ 2u
#define MFD_NOEXEC_SEAL_ 8u
#define F_ADD_SEALS_ 1033
#define SEALS_OF_PLAN 0x07 /* SEAL, SHRINK, GROW */
#define MADV_WIPEONFORK_ 18
#define NSX_SLOT_HEAD ((sizeof(struct nsx_slot) + 63) & ~(size_t)63)

#define PLAN_ROOM ((size_t)64 << 10)
#define KEEP_ROOM ((size_t)1 << 20) /* larger ones are not kept */
#define MAX_ROOM ((size_t)1 << 30)  /* offsets are 32 bit; execve(2) takes far less */

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t pages(size_t size)
{
    const size_t page = page_size();
    return (size + page - 1) & ~(page - 1);
}

static void reset(struct nsx_slot *slot)
{
    struct nsx_plan *plan = nsx_slot_plan(slot);
    memset(plan, 0, sizeof *plan);
    slot->used = sizeof *plan;
    slot->error = 0;
}

/* A descriptor may have been closed behind our back, and its number be another
 * file's by now. */
static int is_memfd(const struct nsx_slot *slot)
{
    return nsx_file_id(slot->memfd) == slot->file_id;
}

static void close_memfd(struct nsx_slot *slot)
{
    if (slot->memfd >= 0 && is_memfd(slot))
        close(slot->memfd);
    slot->memfd = -1;
}

static void slot_unmap(struct nsx_slot *slot)
{
    close_memfd(slot);
    munmap(slot->map, slot->map_size);
}

/* vm.memfd_noexec=2 wants the flag, kernels before 6.3 do not know it.  Nobody who gets
 * at it shall take away pages that we read (SIGBUS). */
static int memfd_new(size_t size)
{
    int fd = (int)syscall(SYS_memfd_create, "nsext-plan", MFD_CLOEXEC_ | MFD_NOEXEC_SEAL_);
    if (fd < 0 && errno == EINVAL)
        fd = (int)syscall(SYS_memfd_create, "nsext-plan", MFD_CLOEXEC_ | MFD_ALLOW_SEALING_);
    fd = nsx_above_stdio(fd);
    if (fd >= 0 &&
        (ftruncate(fd, (off_t)size) != 0 || fcntl(fd, F_ADD_SEALS_, SEALS_OF_PLAN) != 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

/* [guard page][stack][slot, plan]: an overflow of the stack hits the guard, and
 * the plan lies above the stack, where an overflow does not go.  With a memfd
 * the plan starts a page of its own, the first of the file. */
static struct nsx_slot *slot_map(size_t stack_size, size_t room, enum nsx_slot_kind kind)
{
    const size_t guard = page_size();
    const size_t stack = pages(stack_size);
    const size_t head = kind == NSX_SLOT_MEMFD ? page_size() : 0;
    const size_t tail = pages(room + NSX_SLOT_HEAD);
    const size_t size = guard + stack + head + tail;
    const int anonymous = MAP_ANONYMOUS | MAP_NORESERVE;
    const int both = PROT_READ | PROT_WRITE;
    int memfd = -1;
    char *map = mmap(NULL, size, both, anonymous | MAP_PRIVATE | MAP_STACK, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    /* A child in memory of its own reports through a shared plan; its stack stays
     * private, since it may fork. */
    char *top = map + guard + stack;
    void *shared = top;
    if (kind == NSX_SLOT_MEMFD) {
        memfd = memfd_new(tail);
        if (memfd < 0)
            goto fail;
        shared = mmap(top + head, tail, both, MAP_SHARED | MAP_FIXED, memfd, 0);
    } else if (kind == NSX_SLOT_SHARED) {
        shared = mmap(top, tail, both, MAP_ANONYMOUS | MAP_SHARED | MAP_FIXED, -1, 0);
    }
    if (shared == MAP_FAILED || mprotect(map, guard, PROT_NONE) != 0)
        goto fail;
    struct nsx_slot *slot = (struct nsx_slot *)(void *)top;
    *slot = (struct nsx_slot){.map = map, .map_size = size, .stack_size = stack, .pidfd = -1};
    slot->kind = kind;
    slot->memfd = memfd;
    slot->file_id = nsx_file_id(memfd);
    slot->plan = (struct nsx_plan *)(void *)(top + (head ? head : NSX_SLOT_HEAD));
    slot->room = (size_t)(map + size - (char *)slot->plan);
    reset(slot);
    return slot;
fail:
    if (memfd >= 0)
        close(memfd);
    munmap(map, size);
    return NULL;
}

/* A new memfd in place of one that was given up; 0 or -1. */
static int memfd_renew(struct nsx_slot *slot)
{
    const int both = PROT_READ | PROT_WRITE;
    int memfd = memfd_new(slot->room);
    if (memfd < 0)
        return -1;
    if (mmap(slot->plan, slot->room, both, MAP_SHARED | MAP_FIXED, memfd, 0) == MAP_FAILED) {
        close(memfd);
        return -1;
    }
    slot->memfd = memfd;
    slot->file_id = nsx_file_id(memfd);
    return 0;
}

struct nsx_slot *nsx_slot_new(size_t stack_size, enum nsx_slot_kind kind)
{
    return slot_map(stack_size, PLAN_ROOM, kind);
}

/* After a fork: what lies in the pool is a copy.  That of private memory is fit
 * for use; a memfd is the other process's, too.  What another thread had in hand
 * when it forked is in no list, and is let go. */
static void after_fork(struct nsx_pool *pool)
{
    __atomic_store_n(&pool->limbo, NULL, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->orphans, NULL, __ATOMIC_RELAXED);
    for (int i = 0; i < NSX_POOL_SIZE; i++) {
        struct nsx_slot *slot =
            __atomic_exchange_n(&pool->free[NSX_SLOT_MEMFD][i], NULL, __ATOMIC_ACQUIRE);
        if (slot)
            slot_unmap(slot);
    }
}

/* What the mark says: 0, as the kernel has left it in a fork, is for the first of that
 * process's threads to act upon, and for the others to wait: they would find slots in the
 * pool that are about to be let go. */
enum { MARK_FORKED, MARK_OURS, MARK_BUSY };

static uint32_t *mark_new(void)
{
    const size_t page = page_size();
    uint32_t *mark = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    if (mark == MAP_FAILED)
        return NULL;
    if (madvise(mark, page, MADV_WIPEONFORK_) != 0) {
        munmap(mark, page);
        return NULL;
    }
    *mark = MARK_OURS;
    return mark;
}

static uint32_t *mark_of(struct nsx_pool *pool)
{
    uint32_t *mark = __atomic_load_n(&pool->mark, __ATOMIC_ACQUIRE);
    uint32_t *mine = mark ? NULL : mark_new();
    if (!mine)
        return mark;
    if (__atomic_compare_exchange_n(&pool->mark, &mark, mine, 0, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return mine;
    munmap(mine, page_size()); /* another thread was first */
    return mark;
}

static void after_fork_once(struct nsx_pool *pool, uint32_t *mark)
{
    uint32_t seen = __atomic_load_n(mark, __ATOMIC_ACQUIRE);
    if (seen == MARK_OURS)
        return;
    if (seen == MARK_FORKED && __atomic_compare_exchange_n(mark, &seen, MARK_BUSY, 0,
                                                           __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        after_fork(pool);
        __atomic_add_fetch(&pool->process, 1, __ATOMIC_RELEASE);
        __atomic_store_n(mark, MARK_OURS, __ATOMIC_RELEASE);
        sys_futex(mark, NSX_FUTEX_WAKE, INT_MAX, NULL);
        return;
    }
    while (__atomic_load_n(mark, __ATOMIC_ACQUIRE) == MARK_BUSY)
        sys_futex(mark, NSX_FUTEX_WAIT, MARK_BUSY, NULL);
}

uint32_t nsx_pool_process(struct nsx_pool *pool)
{
    uint32_t *mark = mark_of(pool);
    if (mark) {
        after_fork_once(pool, mark);
    } else {
        const pid_t self = getpid();
        const pid_t before = __atomic_exchange_n(&pool->pid, self, __ATOMIC_ACQ_REL);
        if (before && before != self) {
            after_fork(pool);
            __atomic_add_fetch(&pool->process, 1, __ATOMIC_RELEASE);
        }
    }
    return __atomic_load_n(&pool->process, __ATOMIC_ACQUIRE);
}

struct nsx_slot *nsx_slot_get(struct nsx_pool *pool, enum nsx_slot_kind kind)
{
    nsx_pool_process(pool);
    for (int i = 0; i < NSX_POOL_SIZE; i++) {
        if (!__atomic_load_n(&pool->free[kind][i], __ATOMIC_RELAXED))
            continue;
        struct nsx_slot *slot = __atomic_exchange_n(&pool->free[kind][i], NULL, __ATOMIC_ACQUIRE);
        if (!slot)
            continue;
        if (kind != NSX_SLOT_MEMFD || (slot->memfd < 0 ? memfd_renew(slot) == 0 : is_memfd(slot))) {
            reset(slot);
            return slot;
        }
        slot_unmap(slot);
    }
    return slot_map(NSX_STACK_SIZE, PLAN_ROOM, kind);
}

static struct nsx_slot *grow(struct nsx_slot *slot, size_t need)
{
    size_t room = slot->room;
    while (room < need)
        room *= 2;
    struct nsx_slot *larger = slot_map(slot->stack_size, room, slot->kind);
    if (!larger)
        return NULL;
    memcpy(nsx_slot_plan(larger), nsx_slot_plan(slot), slot->used);
    larger->used = slot->used;
    slot_unmap(slot);
    return larger;
}

uint32_t nsx_slot_append(struct nsx_slot **slot, const void *data, size_t size)
{
    const size_t at = ((*slot)->used + 7) & ~(size_t)7;
    if (size > MAX_ROOM || at + size > MAX_ROOM) {
        (*slot)->error = E2BIG;
        return 0;
    }
    if (at + size > (*slot)->room) {
        struct nsx_slot *larger = grow(*slot, at + size);
        if (!larger) {
            (*slot)->error = errno;
            return 0;
        }
        *slot = larger;
    }
    if (data)
        memcpy((char *)nsx_slot_plan(*slot) + at, data, size);
    (*slot)->used = at + size;
    return (uint32_t)at;
}

static void keep(struct nsx_pool *pool, struct nsx_slot *slot)
{
    for (int i = 0; i < NSX_POOL_SIZE && slot->room <= KEEP_ROOM; i++) {
        struct nsx_slot *none = NULL;
        if (__atomic_compare_exchange_n(&pool->free[slot->kind][i], &none, slot, 0,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            return;
    }
    slot_unmap(slot);
}

void nsx_slot_put(struct nsx_pool *pool, struct nsx_slot *slot)
{
    if (slot->kind == NSX_SLOT_SHARED) {
        slot_unmap(slot);
        return;
    }
    /* The next child's init maps this file for as long as it lives, and its program
     * may be root over it: nothing of ours is left in there. */
    if (slot->kind == NSX_SLOT_MEMFD)
        memset(nsx_slot_plan(slot), 0, slot->used);
    keep(pool, slot);
}

/* The old file stays mapped, unread, until a new one takes its place. */
void nsx_slot_strip(struct nsx_pool *pool, struct nsx_slot *slot)
{
    close_memfd(slot);
    keep(pool, slot);
}

void nsx_slot_limbo(struct nsx_pool *pool, struct nsx_slot *slot, int pidfd)
{
    slot->pidfd = pidfd;
    slot->next = __atomic_load_n(&pool->limbo, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&pool->limbo, &slot->next, slot, 1, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
        ;
}

struct nsx_orphan {
    struct nsx_orphan *next;
    int pidfd;
};

static void push_orphan(struct nsx_pool *pool, struct nsx_orphan *orphan)
{
    orphan->next = __atomic_load_n(&pool->orphans, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&pool->orphans, &orphan->next, orphan, 1, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
        ;
}

void nsx_pool_adopt(struct nsx_pool *pool, int pidfd)
{
    struct nsx_orphan *orphan;
    if (nsx_parent_reap(pidfd, 0) || !(orphan = malloc(sizeof *orphan))) {
        close(pidfd);
        return;
    }
    orphan->pidfd = pidfd;
    push_orphan(pool, orphan);
}

static void sweep_orphans(struct nsx_pool *pool)
{
    struct nsx_orphan *orphan = __atomic_exchange_n(&pool->orphans, NULL, __ATOMIC_ACQUIRE);
    while (orphan) {
        struct nsx_orphan *next = orphan->next;
        if (nsx_parent_reap(orphan->pidfd, 0)) {
            close(orphan->pidfd);
            free(orphan);
        } else {
            push_orphan(pool, orphan);
        }
        orphan = next;
    }
}

static void free_orphans(struct nsx_pool *pool)
{
    struct nsx_orphan *orphan = __atomic_exchange_n(&pool->orphans, NULL, __ATOMIC_ACQUIRE);
    while (orphan) {
        struct nsx_orphan *next = orphan->next;
        close(orphan->pidfd);
        free(orphan);
        orphan = next;
    }
}

void nsx_pool_sweep(struct nsx_pool *pool)
{
    if (__atomic_load_n(&pool->orphans, __ATOMIC_RELAXED))
        sweep_orphans(pool);
    if (!__atomic_load_n(&pool->limbo, __ATOMIC_RELAXED))
        return;
    struct nsx_slot *slot = __atomic_exchange_n(&pool->limbo, NULL, __ATOMIC_ACQUIRE);
    while (slot) {
        struct nsx_slot *next = slot->next;
        if (nsx_parent_reap(slot->pidfd, 0)) {
            close(slot->pidfd);
            slot_unmap(slot);
        } else {
            nsx_slot_limbo(pool, slot, slot->pidfd);
        }
        slot = next;
    }
}

void nsx_pool_clear(struct nsx_pool *pool)
{
    uint32_t *mark = __atomic_exchange_n(&pool->mark, NULL, __ATOMIC_ACQ_REL);
    if (mark)
        munmap(mark, page_size());
    free_orphans(pool);
    for (int kind = 0; kind < NSX_KEPT_KINDS; kind++) {
        for (int i = 0; i < NSX_POOL_SIZE; i++) {
            struct nsx_slot *slot =
                __atomic_exchange_n(&pool->free[kind][i], NULL, __ATOMIC_ACQUIRE);
            if (slot)
                slot_unmap(slot);
        }
    }
}
