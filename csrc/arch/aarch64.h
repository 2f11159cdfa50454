/* aarch64: system calls that return -errno and touch no TLS. */
#ifndef NSX_ARCH_AARCH64_H
#define NSX_ARCH_AARCH64_H

#define NSX_ARCH_RAW 1

static inline __attribute__((always_inline)) long nsx_syscall(long nr, long a, long b, long c,
                                                              long d, long e, long f)
{
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}

/* As on x86_64. */
static inline __attribute__((always_inline)) long nsx_arch_clone(long flags, void *top,
                                                                 uint32_t *parent_tid,
                                                                 uint32_t *child_tid,
                                                                 void (*fn)(void *), void *arg)
{
    register long x8 __asm__("x8") = 220;
    register long x0 __asm__("x0") = flags;
    register void *x1 __asm__("x1") = top;
    register uint32_t *x2 __asm__("x2") = parent_tid;
    register long x3 __asm__("x3") = 0; /* no TLS */
    register uint32_t *x4 __asm__("x4") = child_tid;
    register void (*x5)(void *) __asm__("x5") = fn;
    register void *x6 __asm__("x6") = arg;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, #0\n\t"
                     "mov x30, #0\n\t"
                     "mov x0, x6\n\t"
                     "blr x5\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5), "r"(x6)
                     : "memory", "cc");
    return x0;
}

/* As on x86_64. */
static inline __attribute__((always_inline)) long nsx_arch_clone3_inline(const void *args,
                                                                         long size,
                                                                         void (*fn)(void *),
                                                                         void *arg)
{
    register long x8 __asm__("x8") = 435;
    register long x0 __asm__("x0") = (long)args;
    register long x1 __asm__("x1") = size;
    register void (*x5)(void *) __asm__("x5") = fn;
    register void *x6 __asm__("x6") = arg;
    __asm__ volatile("svc #0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, #0\n\t"
                     "mov x30, #0\n\t"
                     "mov x0, x6\n\t"
                     "blr x5\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x5), "r"(x6)
                     : "memory", "cc");
    return x0;
}

/* As on x86_64.  Only x0 changes over a system call. */
#define NSX_ARCH_CLONE3_ASM                                                                        \
    "    .text\n"                                                                                  \
    "    .p2align 4\n"                                                                             \
    "    .globl nsx_arch_clone3\n"                                                                 \
    "    .hidden nsx_arch_clone3\n"                                                                \
    "    .type nsx_arch_clone3, %function\n"                                                       \
    "nsx_arch_clone3:\n"                                                                           \
    "    .cfi_startproc\n"                                                                         \
    "    hint #34\n" /* bti c */                                                                   \
    "    mov x8, #435\n"                                                                           \
    "    svc #0\n"                                                                                 \
    "    cbz x0, 1f\n"                                                                             \
    "    ret\n"                                                                                    \
    "    .cfi_endproc\n"                                                                           \
    "1:  .cfi_startproc\n"                                                                         \
    "    .cfi_undefined x30\n"                                                                     \
    "    mov x29, #0\n"                                                                            \
    "    mov x30, #0\n"                                                                            \
    "    mov x0, x3\n"                                                                             \
    "    blr x2\n"                                                                                 \
    "    mov x8, #94\n" /* exit_group */                                                           \
    "    svc #0\n"                                                                                 \
    "    brk #1\n"                                                                                 \
    "    .cfi_endproc\n"                                                                           \
    "    .size nsx_arch_clone3, .-nsx_arch_clone3\n"

/* As on x86_64. */
#define NSX_ARCH_CLONE2_ASM                                                                        \
    "    .text\n"                                                                                  \
    "    .p2align 4\n"                                                                             \
    "    .globl nsx_arch_clone2\n"                                                                 \
    "    .hidden nsx_arch_clone2\n"                                                                \
    "    .type nsx_arch_clone2, %function\n"                                                       \
    "nsx_arch_clone2:\n"                                                                           \
    "    .cfi_startproc\n"                                                                         \
    "    hint #34\n" /* bti c */                                                                   \
    "    mov x6, x4\n"                                                                             \
    "    mov x4, x3\n"                                                                             \
    "    mov x3, #0\n" /* no TLS */                                                                \
    "    mov x8, #220\n"                                                                           \
    "    svc #0\n"                                                                                 \
    "    cbz x0, 1f\n"                                                                             \
    "    ret\n"                                                                                    \
    "    .cfi_endproc\n"                                                                           \
    "1:  .cfi_startproc\n"                                                                         \
    "    .cfi_undefined x30\n"                                                                     \
    "    mov x29, #0\n"                                                                            \
    "    mov x30, #0\n"                                                                            \
    "    mov x0, x5\n"                                                                             \
    "    blr x6\n"                                                                                 \
    "    mov x8, #94\n" /* exit_group */                                                           \
    "    svc #0\n"                                                                                 \
    "    brk #1\n"                                                                                 \
    "    .cfi_endproc\n"                                                                           \
    "    .size nsx_arch_clone2, .-nsx_arch_clone2\n"

#endif
