/* The environment read while other threads change it, as nobody keeps them from it in a Python
 * without a GIL: each copy has what stays, whole, and nothing but strings with a "=".
 *
 *     environ_threads ROUNDS
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "parent/environ.h"

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define VARIABLES 40

static int stop;
static long changes;

static void *change(void *unused)
{
    char name[32], value[300];
    (void)unused;
    for (unsigned int n = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); n++) {
        snprintf(name, sizeof name, "CHANGING_%u", n % VARIABLES);
        memset(value, 'v', n % 299);
        value[n % 299] = 0;
        setenv(name, value, 1);
        snprintf(name, sizeof name, "CHANGING_%u", (n + VARIABLES / 2) % VARIABLES);
        unsetenv(name);
        /* One of these there always is. */
        snprintf(name, sizeof name, "STAYING_%u", n + 1);
        setenv(name, "", 1);
        snprintf(name, sizeof name, "STAYING_%u", n);
        unsetenv(name);
        __atomic_add_fetch(&changes, 1, __ATOMIC_RELAXED);
        /* There has to be a moment in which it is at rest. */
        if (n % 50 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 1}, NULL);
    }
    return NULL;
}

/* Takes one, and returns how many variables it has. */
static uint32_t copy(struct nsx_pool *pool, const char *first, const char *last)
{
    uint32_t array, count;
    int found = 0, staying = 0;
    struct nsx_slot *slot = nsx_slot_get(pool, NSX_SLOT_INLINE);
    MUST(slot);
    MUST(nsx_environ_append(&slot, &array, &count) == 0);
    const char *plan = (const char *)nsx_slot_plan(slot);
    const uintptr_t *item = (const uintptr_t *)(const void *)(plan + array);
    for (uint32_t i = 0; i < count; i++) {
        const char *text = plan + item[i];
        MUST(strchr(text, '='));
        found += strcmp(text, first) == 0 || strcmp(text, last) == 0;
        staying += strncmp(text, "STAYING_", 8) == 0;
    }
    MUST(item[count] == 0 && found == (first ? 2 : 0));
    MUST(!first || staying == 1 || staying == 2);
    nsx_slot_put(pool, slot);
    return count;
}

int main(int argc, char **argv)
{
    static struct nsx_pool pool;
    static char first[5000] = "FIRST=", last[5000] = "LAST=";
    const long rounds = argc > 1 ? atol(argv[1]) : 1000;
    pthread_t thread;
    memset(first + 6, 'a', sizeof first - 7);
    memset(last + 5, 'z', sizeof last - 6);
    MUST(clearenv() == 0);
    MUST(copy(&pool, NULL, NULL) == 0);
    /* Before them, so that they move where one of these goes. */
    for (unsigned int n = 0; n < VARIABLES; n++) {
        char name[32];
        snprintf(name, sizeof name, "CHANGING_%u", n);
        MUST(setenv(name, "", 1) == 0);
        if (n == VARIABLES / 2)
            MUST(putenv(first) == 0);
    }
    MUST(putenv(last) == 0 && setenv("STAYING_0", "", 1) == 0);
    MUST(copy(&pool, first, last) == VARIABLES + 3);
    MUST(pthread_create(&thread, NULL, change, NULL) == 0);
    for (long i = 0; i < rounds || __atomic_load_n(&changes, __ATOMIC_RELAXED) < 1000; i++)
        copy(&pool, first, last);
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    MUST(pthread_join(thread, NULL) == 0);
    nsx_pool_clear(&pool);
    printf("%ld copies, %ld changes\n", rounds, changes);
    return 0;
}
