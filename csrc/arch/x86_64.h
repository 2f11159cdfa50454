/* x86_64: system calls that return -errno and touch no TLS. */
#ifndef NSX_ARCH_X86_64_H
#define NSX_ARCH_X86_64_H

#define NSX_ARCH_RAW 1

static inline __attribute__((always_inline)) long nsx_syscall(long nr, long a, long b, long c,
                                                              long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long ret;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

/* clone(2) of a child on a stack of its own (top: aligned to 16), which calls
 * fn(arg); that does not return.  Inlined, so that its system call lies where its
 * caller does. */
static inline __attribute__((always_inline)) long nsx_arch_clone(long flags, void *top,
                                                                 uint32_t *parent_tid,
                                                                 uint32_t *child_tid,
                                                                 void (*fn)(void *), void *arg)
{
    register uint32_t *r10 __asm__("r10") = child_tid;
    register long r8 __asm__("r8") = 0; /* no TLS */
    register void (*r12)(void *) __asm__("r12") = fn;
    register void *r13 __asm__("r13") = arg;
    long ret;
    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "movq %%r13, %%rdi\n\t"
                     "call *%%r12\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(ret)
                     : "a"(56), "D"(flags), "S"(top), "d"(parent_tid), "r"(r10), "r"(r8), "r"(r12),
                       "r"(r13)
                     : "rcx", "r11", "memory", "cc");
    return ret;
}

/* The same by clone3(2). */
static inline __attribute__((always_inline)) long nsx_arch_clone3_inline(const void *args,
                                                                         long size,
                                                                         void (*fn)(void *),
                                                                         void *arg)
{
    register void (*r12)(void *) __asm__("r12") = fn;
    register void *r13 __asm__("r13") = arg;
    long ret;
    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "movq %%r13, %%rdi\n\t"
                     "call *%%r12\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(ret)
                     : "a"(435), "D"(args), "S"(size), "r"(r12), "r"(r13)
                     : "rcx", "r11", "memory", "cc");
    return ret;
}

/* long nsx_arch_clone3(args, size, fn, arg): the parent returns; the child, on
 * its new stack, calls fn(arg) and exits with its value.  rcx and r11 do not
 * survive a system call, so arg waits in r8. */
#define NSX_ARCH_CLONE3_ASM                                                                        \
    "    .text\n"                                                                                  \
    "    .p2align 4\n"                                                                             \
    "    .globl nsx_arch_clone3\n"                                                                 \
    "    .hidden nsx_arch_clone3\n"                                                                \
    "    .type nsx_arch_clone3, @function\n"                                                       \
    "nsx_arch_clone3:\n"                                                                           \
    "    .cfi_startproc\n"                                                                         \
    "    endbr64\n"                                                                                \
    "    movq %rcx, %r8\n"                                                                         \
    "    movl $435, %eax\n"                                                                        \
    "    syscall\n"                                                                                \
    "    testq %rax, %rax\n"                                                                       \
    "    jz 1f\n"                                                                                  \
    "    ret\n"                                                                                    \
    "    .cfi_endproc\n"                                                                           \
    "1:  .cfi_startproc\n"                                                                         \
    "    .cfi_undefined rip\n"                                                                     \
    "    xorl %ebp, %ebp\n"                                                                        \
    "    andq $-16, %rsp\n"                                                                        \
    "    movq %r8, %rdi\n"                                                                         \
    "    call *%rdx\n"                                                                             \
    "    movl %eax, %edi\n"                                                                        \
    "    movl $231, %eax\n" /* exit_group */                                                       \
    "    syscall\n"                                                                                \
    "    hlt\n"                                                                                    \
    "    .cfi_endproc\n"                                                                           \
    "    .size nsx_arch_clone3, .-nsx_arch_clone3\n"

/* long nsx_arch_clone2(flags, top, pidfd, child_tid, fn, arg): the same by clone(2).  The C
 * library's own is no use: musl's refuses CLONE_CHILD_CLEARTID. */
#define NSX_ARCH_CLONE2_ASM                                                                        \
    "    .text\n"                                                                                  \
    "    .p2align 4\n"                                                                             \
    "    .globl nsx_arch_clone2\n"                                                                 \
    "    .hidden nsx_arch_clone2\n"                                                                \
    "    .type nsx_arch_clone2, @function\n"                                                       \
    "nsx_arch_clone2:\n"                                                                           \
    "    .cfi_startproc\n"                                                                         \
    "    endbr64\n"                                                                                \
    "    movq %rcx, %r10\n"                                                                        \
    "    movl $56, %eax\n"                                                                         \
    "    syscall\n"                                                                                \
    "    testq %rax, %rax\n"                                                                       \
    "    jz 1f\n"                                                                                  \
    "    ret\n"                                                                                    \
    "    .cfi_endproc\n"                                                                           \
    "1:  .cfi_startproc\n"                                                                         \
    "    .cfi_undefined rip\n"                                                                     \
    "    xorl %ebp, %ebp\n"                                                                        \
    "    andq $-16, %rsp\n"                                                                        \
    "    movq %r9, %rdi\n"                                                                         \
    "    call *%r8\n"                                                                              \
    "    movl %eax, %edi\n"                                                                        \
    "    movl $231, %eax\n" /* exit_group */                                                       \
    "    syscall\n"                                                                                \
    "    hlt\n"                                                                                    \
    "    .cfi_endproc\n"                                                                           \
    "    .size nsx_arch_clone2, .-nsx_arch_clone2\n"

#endif
