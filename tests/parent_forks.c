/* The pool in a fork, whose threads all come for a slot at once: none may get one of those that
 * the parent has kept, since the memory behind them is the parent's, too.
 *
 *     parent_forks THREADS ROUNDS
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "parent/fd.h"
#include "parent/slot.h"

#define MAX_THREADS 64

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s: errno %d\n", __LINE__, #condition, errno);               \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static struct nsx_pool pool;
static pthread_barrier_t barrier;
static uint64_t kept[NSX_POOL_SIZE]; /* the parent's files */
static uint32_t before;              /* the parent's number */

static void *take(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&barrier);
    struct nsx_slot *slot = nsx_slot_get(&pool, NSX_SLOT_MEMFD);
    MUST(slot);
    MUST(nsx_pool_process(&pool) == before + 1);
    for (int i = 0; i < NSX_POOL_SIZE; i++)
        MUST(nsx_file_id(slot->memfd) != kept[i]);
    nsx_slot_plan(slot)->entry_arg = 7;
    pthread_barrier_wait(&barrier);
    nsx_slot_put(&pool, slot);
    return NULL;
}

static void in_fork(unsigned int count)
{
    pthread_t threads[MAX_THREADS];
    MUST(pthread_barrier_init(&barrier, NULL, count) == 0);
    for (unsigned int i = 0; i < count; i++)
        MUST(pthread_create(&threads[i], NULL, take, NULL) == 0);
    for (unsigned int i = 0; i < count; i++)
        MUST(pthread_join(threads[i], NULL) == 0);
}

int main(int argc, char **argv)
{
    struct nsx_slot *slots[NSX_POOL_SIZE];
    const int count = argc > 1 ? atoi(argv[1]) : 8;
    const int rounds = argc > 2 ? atoi(argv[2]) : 100;
    MUST(count > 0 && count <= MAX_THREADS);
    for (int i = 0; i < NSX_POOL_SIZE; i++) {
        MUST(slots[i] = nsx_slot_get(&pool, NSX_SLOT_MEMFD));
        MUST(kept[i] = nsx_file_id(slots[i]->memfd));
    }
    for (int i = 0; i < NSX_POOL_SIZE; i++)
        nsx_slot_put(&pool, slots[i]);
    before = nsx_pool_process(&pool);
    for (int round = 0; round < rounds; round++) {
        int status;
        const pid_t pid = fork();
        if (pid == 0) {
            in_fork((unsigned int)count);
            _exit(0);
        }
        MUST(waitpid(pid, &status, 0) == pid);
        MUST(status == 0);
    }
    for (int i = 0; i < NSX_POOL_SIZE; i++) {
        MUST(slots[i] = nsx_slot_get(&pool, NSX_SLOT_MEMFD));
        MUST(nsx_slot_plan(slots[i])->entry_arg == 0);
    }
    printf("%d threads, %d forks\n", count, rounds);
    return 0;
}
