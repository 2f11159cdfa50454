/* The parent's side, without Python, from many threads at once: slots are taken, grown and given
 * back, children started, waited for, adopted, put in limbo and swept by whoever comes next.  For
 * ThreadSanitizer (`make sanitize`), and as it is.
 *
 *     parent_threads THREADS ROUNDS
 *
 * In the end no child, descriptor or mapping may be left.  The child's side is not instrumented.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "parent/spawn.h"
#include "parent/wait.h"

#define MAX_THREADS 64
#define ACTIONS 7

static struct nsx_pool pool;
static int clone3_missing;
static long rounds;
static uint64_t in_hand[MAX_THREADS]; /* by thread: what it has written into its plan */

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s: errno %d\n", __LINE__, #condition, errno);               \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static uint32_t append(struct nsx_slot **slot, const void *data, size_t size)
{
    uint32_t at = nsx_slot_append(slot, data, size);
    MUST(at);
    return at;
}

static uint32_t append_strings(struct nsx_slot **slot, const char *const *strings, uint32_t count)
{
    uintptr_t offsets[4] = {0};
    for (uint32_t i = 0; i < count; i++)
        offsets[i] = append(slot, strings[i], strlen(strings[i]) + 1);
    return append(slot, offsets, (count + 1) * sizeof *offsets);
}

/* The whole life of a child in a copy of this memory. */
static __attribute__((no_sanitize("thread", "address", "undefined"))) int entry(void *arg)
{
    return (int)(intptr_t)arg;
}

/* A plan as Python makes it: descriptors above 2 closed, and a program; or the function. */
static void fill(struct nsx_slot **slot, const char *program)
{
    const char *const args[] = {program, "1000"};
    const size_t size = sizeof(struct nsx_blob) + 2 * sizeof(struct nsx_step);
    _Alignas(8) char bytes[sizeof(struct nsx_blob) + 2 * sizeof(struct nsx_step)] = {0};
    struct nsx_blob *blob = (void *)bytes;
    blob->magic = NSX_BLOB_MAGIC;
    blob->size = (uint32_t)size;
    blob->nsteps = 2;
    blob->step[0].op = NSX_OP_fds;
    blob->step[1].op = (*slot)->kind == NSX_SLOT_SHARED ? NSX_OP_call : NSX_OP_exec;
    MUST(nsx_blob_check(bytes, size) == 0);
    const uint32_t at = append(slot, bytes, size);
    const uint32_t argv = append_strings(slot, args, 2);
    const uint32_t envp = append_strings(slot, args, 0);
    const uint32_t execs = append_strings(slot, args, 1);
    struct nsx_plan *plan = nsx_slot_plan(*slot);
    plan->blob = at;
    plan->argv = argv;
    plan->argc = 2;
    plan->envp = envp;
    plan->execs = execs;
    plan->nexecs = 1;
    plan->cgroup_fd = plan->helper_fd = -1;
    plan->flags = NSX_CLOSE_FDS;
    plan->entry = (uint64_t)(uintptr_t)entry;
    plan->entry_arg = 7;
}

static void begin(struct nsx_spawn *spawn, enum nsx_slot_kind kind, const char *program)
{
    *spawn = (struct nsx_spawn){.pool = &pool, .clone3_missing = &clone3_missing};
    spawn->slot =
        kind == NSX_SLOT_SHARED ? nsx_slot_new(NSX_STACK_SIZE, kind) : nsx_slot_get(&pool, kind);
    MUST(spawn->slot);
    fill(&spawn->slot, program);
}

static enum nsx_state complete(struct nsx_spawn *spawn)
{
    enum nsx_state state = nsx_parent_start(spawn);
    while (state == NSX_BUSY)
        state = nsx_parent_poll(spawn, 1000000000);
    return state;
}

static int start(enum nsx_slot_kind kind, const char *program)
{
    struct nsx_spawn spawn;
    begin(&spawn, kind, program);
    MUST(complete(&spawn) == NSX_STARTED);
    MUST(!spawn.slot && spawn.pidfd > 2);
    return spawn.pidfd;
}

static void finish(int pidfd, int exited, int status)
{
    struct nsx_end end = {0};
    int done;
    do
        done = nsx_parent_wait(pidfd, NSX_FOREVER, 1, &end, NULL);
    while (done == -EINTR);
    MUST(done == 1 && end.status_known && end.exited == exited && end.status == status);
    close(pidfd);
}

static void runs(enum nsx_slot_kind kind)
{
    finish(start(kind, "/bin/true"), 1, kind == NSX_SLOT_SHARED ? 7 : 0);
}

static void is_missing(void)
{
    struct nsx_spawn spawn;
    begin(&spawn, NSX_SLOT_INLINE, "/nowhere/to/be/found");
    MUST(complete(&spawn) == NSX_FAILED);
    MUST(!spawn.slot && spawn.failure.error == ENOENT && spawn.failure.step == 1);
}

static void is_killed(void)
{
    int pidfd = start(NSX_SLOT_INLINE, "/bin/sleep");
    MUST(nsx_parent_signal(pidfd, 9) == 0);
    finish(pidfd, 0, 9);
}

static void is_aborted(void)
{
    struct nsx_spawn spawn;
    int reached = -1;
    begin(&spawn, NSX_SLOT_INLINE, "/bin/sleep");
    MUST(nsx_parent_start(&spawn) == NSX_BUSY);
    nsx_parent_abort(&spawn, &reached);
    MUST(!spawn.slot && reached >= 0 && reached < 2);
}

/* Given back, whole or not, with what another thread may not have got in between. */
static void is_used(enum nsx_slot_kind kind, unsigned int number, uint64_t value)
{
    struct nsx_slot *slot = nsx_slot_get(&pool, kind);
    MUST(slot);
    MUST(nsx_slot_plan(slot)->entry_arg == 0);
    nsx_slot_plan(slot)->entry_arg = value;
    in_hand[value >> 32] = value;
    const uint32_t at = append(&slot, NULL, number % 3 ? 5000 : 100000);
    memset((char *)nsx_slot_plan(slot) + at, (int)number, 5000);
    MUST(nsx_slot_plan(slot)->entry_arg == in_hand[value >> 32]);
    if (number % 2)
        nsx_slot_strip(&pool, slot);
    else
        nsx_slot_put(&pool, slot);
}

static void *work(void *arg)
{
    const uint64_t self = (uint64_t)(uintptr_t)arg;
    unsigned int seed = (unsigned int)self * 7919 + 1;
    for (long i = 0; i < rounds; i++) {
        const unsigned int number = (unsigned int)rand_r(&seed);
        switch (number / 16 % ACTIONS) {
        case 0:
            runs(number % 4 ? NSX_SLOT_INLINE : NSX_SLOT_SHARED);
            break;
        case 1:
            is_missing();
            break;
        case 2:
            is_killed();
            break;
        case 3:
            is_aborted();
            break;
        case 4: /* nobody waits for it: a later one does */
            nsx_pool_adopt(&pool, start(NSX_SLOT_INLINE, "/bin/true"));
            break;
        case 5: { /* nor for this one, and its memory is kept for as long */
            int pidfd = start(NSX_SLOT_INLINE, "/bin/true");
            struct nsx_slot *slot = nsx_slot_get(&pool, NSX_SLOT_INLINE);
            MUST(slot);
            nsx_slot_limbo(&pool, slot, pidfd);
            break;
        }
        default:
            for (uint64_t n = 0; n < 20; n++)
                is_used(number & 1024 ? NSX_SLOT_INLINE : NSX_SLOT_MEMFD, number + (unsigned int)n,
                        self << 32 | (uint64_t)i << 8 | n);
        }
    }
    return NULL;
}

static int entries(const char *path)
{
    int count = 0;
    DIR *directory = opendir(path);
    MUST(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

/* Mappings with our guard page below them. */
static int guards(void)
{
    char line[512];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    MUST(maps);
    while (fgets(line, sizeof line, maps)) {
        unsigned long low, high;
        char rights[5];
        if (sscanf(line, "%lx-%lx %4s", &low, &high, rights) == 3 && strcmp(rights, "---p") == 0)
            count += high - low == (unsigned long)sysconf(_SC_PAGESIZE);
    }
    fclose(maps);
    return count;
}

int main(int argc, char **argv)
{
    pthread_t threads[MAX_THREADS];
    const long count = argc > 1 ? atol(argv[1]) : 8;
    rounds = argc > 2 ? atol(argv[2]) : 100;
    MUST(count > 0 && count <= MAX_THREADS);
    /* Whatever the C library makes once, it has by then. */
    runs(NSX_SLOT_INLINE);
    nsx_pool_clear(&pool);
    const int fds = entries("/proc/self/fd");
    const int before = guards();
    for (long i = 0; i < count; i++)
        MUST(pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i) == 0);
    for (long i = 0; i < count; i++)
        MUST(pthread_join(threads[i], NULL) == 0);
    const int64_t deadline = nsx_now() + 60000000000;
    while (pool.orphans || pool.limbo) {
        nsx_pool_sweep(&pool);
        MUST(nsx_now() < deadline);
    }
    nsx_pool_clear(&pool);
    MUST(waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
    MUST(entries("/proc/self/fd") == fds);
    /* The stacks of threads have guards, too; the C library keeps some. */
    printf("%ld threads, %ld rounds each; %d descriptors, %d guard pages, %d before\n", count,
           rounds, fds, guards(), before);
    MUST(guards() <= before + count);
    return 0;
}
