#define _GNU_SOURCE
#include "slot.h"
#include "wait.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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
}

/* [guard page][stack][slot, plan]: an overflow of the stack hits the guard, and
 * the plan lies above the stack, where an overflow does not go. */
static struct nsx_slot *slot_map(size_t stack_size, size_t room, int shared)
{
    const size_t guard = page_size();
    const size_t stack = pages(stack_size);
    const size_t tail = pages(room + sizeof(struct nsx_slot) + 64);
    const size_t size = guard + stack + tail;
    const int anonymous = MAP_ANONYMOUS | MAP_NORESERVE;
    char *map =
        mmap(NULL, size, PROT_READ | PROT_WRITE, anonymous | MAP_PRIVATE | MAP_STACK, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    /* A child in a copy of our memory reports through a shared plan; its stack
     * stays private, since it may fork. */
    char *top = map + guard + stack;
    if (mprotect(map, guard, PROT_NONE) != 0 ||
        (shared && mmap(top, tail, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_SHARED | MAP_FIXED,
                        -1, 0) == MAP_FAILED)) {
        munmap(map, size);
        return NULL;
    }
    struct nsx_slot *slot = (struct nsx_slot *)top;
    *slot = (struct nsx_slot){.map = map, .map_size = size, .stack_size = stack, .pidfd = -1};
    slot->room = (size_t)(map + size - (char *)nsx_slot_plan(slot));
    slot->shared = shared;
    reset(slot);
    return slot;
}

struct nsx_slot *nsx_slot_new(size_t stack_size, int shared)
{
    return slot_map(stack_size, PLAN_ROOM, shared);
}

struct nsx_slot *nsx_slot_get(struct nsx_pool *pool)
{
    const pid_t self = getpid();
    if (__atomic_load_n(&pool->owner, __ATOMIC_RELAXED) != self) {
        /* After a fork: what lies here is a copy, fit for use, but what another
         * thread had in hand when it forked is in no list, and is let go. */
        __atomic_store_n(&pool->owner, self, __ATOMIC_RELAXED);
        __atomic_store_n(&pool->limbo, NULL, __ATOMIC_RELAXED);
    }
    for (int i = 0; i < NSX_POOL_SIZE; i++) {
        if (!__atomic_load_n(&pool->free[i], __ATOMIC_RELAXED))
            continue;
        struct nsx_slot *slot = __atomic_exchange_n(&pool->free[i], NULL, __ATOMIC_ACQUIRE);
        if (slot) {
            reset(slot);
            return slot;
        }
    }
    return slot_map(NSX_STACK_SIZE, PLAN_ROOM, 0);
}

static struct nsx_slot *grow(struct nsx_slot *slot, size_t need)
{
    size_t room = slot->room;
    while (room < need)
        room *= 2;
    struct nsx_slot *larger = slot_map(slot->stack_size, room, slot->shared);
    if (!larger)
        return NULL;
    memcpy(nsx_slot_plan(larger), nsx_slot_plan(slot), slot->used);
    larger->used = slot->used;
    munmap(slot->map, slot->map_size);
    return larger;
}

uint32_t nsx_slot_append(struct nsx_slot **slot, const void *data, size_t size)
{
    const size_t at = ((*slot)->used + 7) & ~(size_t)7;
    if (size > MAX_ROOM || at + size > MAX_ROOM)
        return 0;
    if (at + size > (*slot)->room) {
        struct nsx_slot *larger = grow(*slot, at + size);
        if (!larger)
            return 0;
        *slot = larger;
    }
    if (data)
        memcpy((char *)nsx_slot_plan(*slot) + at, data, size);
    (*slot)->used = at + size;
    return (uint32_t)at;
}

void nsx_slot_put(struct nsx_pool *pool, struct nsx_slot *slot)
{
    if (!slot->shared && slot->room <= KEEP_ROOM && slot->stack_size == pages(NSX_STACK_SIZE)) {
        for (int i = 0; i < NSX_POOL_SIZE; i++) {
            struct nsx_slot *none = NULL;
            if (__atomic_compare_exchange_n(&pool->free[i], &none, slot, 0, __ATOMIC_RELEASE,
                                            __ATOMIC_RELAXED))
                return;
        }
    }
    munmap(slot->map, slot->map_size);
}

void nsx_slot_limbo(struct nsx_pool *pool, struct nsx_slot *slot, int pidfd)
{
    slot->pidfd = pidfd;
    slot->next = __atomic_load_n(&pool->limbo, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&pool->limbo, &slot->next, slot, 1, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED))
        ;
}

void nsx_pool_sweep(struct nsx_pool *pool)
{
    if (!__atomic_load_n(&pool->limbo, __ATOMIC_RELAXED))
        return;
    struct nsx_slot *slot = __atomic_exchange_n(&pool->limbo, NULL, __ATOMIC_ACQUIRE);
    while (slot) {
        struct nsx_slot *next = slot->next;
        if (nsx_parent_reap(slot->pidfd, 0)) {
            close(slot->pidfd);
            munmap(slot->map, slot->map_size);
        } else {
            nsx_slot_limbo(pool, slot, slot->pidfd);
        }
        slot = next;
    }
}

void nsx_pool_clear(struct nsx_pool *pool)
{
    for (int i = 0; i < NSX_POOL_SIZE; i++) {
        struct nsx_slot *slot = __atomic_exchange_n(&pool->free[i], NULL, __ATOMIC_ACQUIRE);
        if (slot)
            munmap(slot->map, slot->map_size);
    }
}
