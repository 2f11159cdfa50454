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

#endif
