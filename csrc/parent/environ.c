#define _GNU_SOURCE
#include "environ.h"
#include "../sys.h"
#include "wait.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PATIENCE 1000000000 /* ns; then it is EAGAIN */
#define BATCH ((size_t)32)
#define PIECE ((size_t)256)
#define MOST ((size_t)1 << 22) /* bytes; the stack of a program takes less */

extern char **environ;

/* What was read: pointers, and the strings behind them, one after the other. */
struct copy {
    uintptr_t *pointer;
    size_t count, pointers; /* without the last one, which is 0; room */
    char *text;
    size_t used, room;
};

static int grow(void **memory, size_t *room, size_t need, size_t unit)
{
    if (*memory && need <= *room)
        return 0;
    if (need > MOST)
        return -E2BIG;
    void *larger = realloc(*memory, need * 2 * unit);
    if (!larger)
        return -ENOMEM;
    *memory = larger;
    *room = need * 2;
    return 0;
}

/* How much of size bytes can be read there in one piece: up to the end of a page. */
static size_t piece(uintptr_t from, size_t size)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t left = page - (size_t)(from & (page - 1));
    return size < left ? size : left;
}

/* From our own memory by the kernel, since it may be gone: then it is -EAGAIN, where a
 * look of our own would be the end of us. */
static int peek(struct iovec *to, struct iovec *from, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += from[i].iov_len;
    const long got = nsx_syscall(__NR_process_vm_readv, getpid(), NSX_P(to), (long)count,
                                 NSX_P(from), (long)count, 0);
    if (got < 0 && got != -EFAULT)
        return (int)got;
    return got == (long)size ? 0 : -EAGAIN;
}

static int peek_one(void *to, uintptr_t from, size_t size)
{
    struct iovec here = {.iov_base = to, .iov_len = size};
    struct iovec there = {.iov_base = (void *)from, .iov_len = size};
    return peek(&here, &there, 1);
}

static int read_pointers(struct copy *copy, uintptr_t from)
{
    copy->count = 0;
    while (from) {
        const size_t size = piece(from, BATCH * sizeof(uintptr_t));
        const size_t more = size / sizeof(uintptr_t);
        void *memory = copy->pointer;
        int error = grow(&memory, &copy->pointers, copy->count + more, sizeof(uintptr_t));
        copy->pointer = memory;
        if (!error)
            error = more ? peek_one(copy->pointer + copy->count, from, size) : -EAGAIN;
        if (error)
            return error;
        for (size_t i = 0; i < more; i++, copy->count++)
            if (!copy->pointer[copy->count])
                return 0;
        from += size;
    }
    return 0;
}

static int put(struct copy *copy, const char *data, size_t size)
{
    void *memory = copy->text;
    const int error = grow(&memory, &copy->room, copy->used + size, 1);
    copy->text = memory;
    if (error)
        return error;
    memcpy(copy->text + copy->used, data, size);
    copy->used += size;
    return 0;
}

/* Takes the first piece of a string, and reads the others. */
static int read_string(struct copy *copy, char *data, size_t size, uintptr_t from)
{
    for (;;) {
        const char *end = memchr(data, 0, size);
        int error = put(copy, data, end ? (size_t)(end - data) + 1 : size);
        if (error || end)
            return error;
        from += size;
        size = piece(from, PIECE);
        error = peek_one(data, from, size);
        if (error)
            return error;
    }
}

static int read_strings(struct copy *copy)
{
    char data[BATCH][PIECE];
    struct iovec to[BATCH], from[BATCH];
    copy->used = 0;
    for (size_t at = 0; copy->pointer && at < copy->count;) {
        const size_t left = copy->count - at, count = left < BATCH ? left : BATCH;
        for (size_t i = 0; i < count; i++) {
            const size_t size = piece(copy->pointer[at + i], PIECE);
            to[i] = (struct iovec){.iov_base = data[i], .iov_len = size};
            from[i] = (struct iovec){.iov_base = (void *)copy->pointer[at + i], .iov_len = size};
        }
        int error = peek(to, from, count);
        for (size_t i = 0; !error && i < count; i++)
            error = read_string(copy, data[i], to[i].iov_len, copy->pointer[at + i]);
        if (error)
            return error;
        at += count;
    }
    return 0;
}

/* Pointers that are the same before and after are those of one moment in between. */
static int read_all(struct copy *copy, struct copy *again)
{
    const uintptr_t from = (uintptr_t)__atomic_load_n(&environ, __ATOMIC_ACQUIRE);
    int error = read_pointers(copy, from);
    if (!error)
        error = read_strings(copy);
    if (!error)
        error = read_pointers(again, (uintptr_t)__atomic_load_n(&environ, __ATOMIC_ACQUIRE));
    if (error)
        return error;
    const size_t size = copy->count * sizeof *copy->pointer;
    const int same =
        copy->count == again->count && (!size || memcmp(copy->pointer, again->pointer, size) == 0);
    return same ? 0 : -EAGAIN;
}

/* Where the kernel may not read for us (EPERM, ENOSYS of a filter), by ourselves. */
static int read_directly(struct copy *copy)
{
    int error = 0;
    copy->count = copy->used = 0;
    for (char **item = environ; !error && item && *item; item++, copy->count++)
        error = put(copy, *item, strlen(*item) + 1);
    return error;
}

static int append(struct nsx_slot **slot, const struct copy *copy, uint32_t *array)
{
    const size_t size = (copy->count + 1) * sizeof(uintptr_t);
    *array = nsx_slot_append(slot, NULL, size);
    if (!*array)
        return -1;
    memset((char *)nsx_slot_plan(*slot) + *array, 0, size);
    const char *text = copy->text;
    for (size_t i = 0; i < copy->count; i++) {
        const size_t length = strlen(text) + 1;
        const uint32_t at = nsx_slot_append(slot, text, length);
        if (!at)
            return -1;
        ((uintptr_t *)(void *)((char *)nsx_slot_plan(*slot) + *array))[i] = at;
        text += length;
    }
    return 0;
}

int nsx_environ_append(struct nsx_slot **slot, uint32_t *array, uint32_t *count)
{
    struct copy copy = {0}, again = {0};
    const int64_t deadline = nsx_now() + PATIENCE;
    int error;
    while ((error = read_all(&copy, &again)) == -EAGAIN && nsx_now() < deadline)
        sched_yield(); /* to who changes it, perhaps */
    if (error == -EPERM || error == -ENOSYS)
        error = read_directly(&copy);
    if (error)
        (*slot)->error = -error;
    else
        error = append(slot, &copy, array);
    *count = (uint32_t)copy.count;
    free(copy.pointer), free(copy.text), free(again.pointer);
    return error ? -1 : 0;
}
