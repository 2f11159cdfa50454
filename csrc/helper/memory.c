/* What a compiler may call where the source has no call: a structure that is
 * cleared or copied.  GCC and Clang want these even of a program without libc. */
#include <stddef.h>

void *memset(void *to, int value, size_t size);
void *memcpy(void *restrict to, const void *restrict from, size_t size);

#define KEEP __attribute__((section("nsx_child"), used))

/* The barriers keep the loops from being taken for what they are. */
KEEP void *memset(void *to, int value, size_t size)
{
    unsigned char *byte = to;
    for (size_t i = 0; i < size; i++) {
        byte[i] = (unsigned char)value;
        __asm__ volatile("" ::: "memory");
    }
    return to;
}

KEEP void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    unsigned char *byte = to;
    const unsigned char *source = from;
    for (size_t i = 0; i < size; i++) {
        byte[i] = source[i];
        __asm__ volatile("" ::: "memory");
    }
    return to;
}
