/* Memory for one spawn: guard page, child's stack and plan in one mapping.
 *
 * A fresh mapping costs 9-15 us in page faults, so finished ones are kept.
 */
#ifndef NSX_SLOT_H
#define NSX_SLOT_H

#include "../plan.h"

#include <sys/types.h>

#define NSX_STACK_SIZE ((size_t)64 << 10)
#define NSX_POOL_SIZE 8

enum nsx_slot_kind {
    NSX_SLOT_INLINE, /* all private: the child shares this memory */
    NSX_SLOT_MEMFD,  /* the plan in a memfd, for the helper to map; kept too */
    NSX_SLOT_SHARED, /* the plan shared, for a child in a copy of this memory */
};
#define NSX_KEPT_KINDS 2

/* Lives at the start of the plan's part of its mapping. */
struct nsx_slot {
    void *map;
    size_t map_size;
    size_t stack_size;
    struct nsx_plan *plan;
    size_t room;           /* bytes for the plan */
    size_t used;           /* bytes taken by nsx_slot_append() */
    struct nsx_slot *next; /* in limbo */
    int pidfd;             /* in limbo */
    enum nsx_slot_kind kind;
    int error;        /* errno, where nsx_slot_append() could not grow it */
    int memfd;        /* NSX_SLOT_MEMFD: of the plan */
    uint64_t file_id; /* its, to see whether the number is still ours */
};

struct nsx_orphan;

struct nsx_pool {
    struct nsx_slot *free[NSX_KEPT_KINDS][NSX_POOL_SIZE]; /* taken and put by atomic exchange */
    struct nsx_slot *limbo;                               /* children that SIGKILL has not moved */
    struct nsx_orphan *orphans;                           /* children that nobody will wait for */
    /* A fork's copy of the pool is not for use. */
    uint32_t *mark;   /* in a page that the kernel wipes in a fork; NULL: none to be had */
    pid_t pid;        /* without a mark; pids are the same again in another pid namespace */
    uint32_t process; /* changes with each fork on the way here */
};

/* The plan of a slot.  Moves when nsx_slot_append() has to grow the slot. */
static inline struct nsx_plan *nsx_slot_plan(struct nsx_slot *slot)
{
    return slot->plan;
}

/* A number for the calling process, which none of those has that it was forked from. */
uint32_t nsx_pool_process(struct nsx_pool *pool);

/* A slot whose plan is zeroed and taken; NULL: none to be had, errno says why. */
struct nsx_slot *nsx_slot_get(struct nsx_pool *pool, enum nsx_slot_kind kind);
struct nsx_slot *nsx_slot_new(size_t stack_size, enum nsx_slot_kind kind);

/* Room for size bytes, aligned to 8, at the end.  Returns its offset in the
 * plan, 0 where there is none: see the slot's error.  May move the slot. */
uint32_t nsx_slot_append(struct nsx_slot **slot, const void *data, size_t size);

/* Give back.  No child may be left on its stack, and none that maps its memfd. */
void nsx_slot_put(struct nsx_pool *pool, struct nsx_slot *slot);

/* Keep a slot for as long as its child, killed but stuck in the kernel, lives;
 * later spawns look whether it has gone (nsx_pool_sweep). */
void nsx_slot_limbo(struct nsx_pool *pool, struct nsx_slot *slot, int pidfd);

/* Takes the pidfd of a child that nobody will wait for: later spawns reap it. */
void nsx_pool_adopt(struct nsx_pool *pool, int pidfd);
void nsx_pool_sweep(struct nsx_pool *pool);

/* As nsx_slot_put(), but for the memfd, which a child may still map: the next user
 * of this slot has another one. */
void nsx_slot_strip(struct nsx_pool *pool, struct nsx_slot *slot);

void nsx_pool_clear(struct nsx_pool *pool);

#endif
