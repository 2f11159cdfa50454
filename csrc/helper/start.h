/* Entry of a static program without libc: the stack to helper_main(). */
#ifndef NSX_START_H
#define NSX_START_H

#if defined(__x86_64__)
#define NSX_START_ASM                                                                              \
    "    .text\n"                                                                                  \
    "    .globl _start\n"                                                                          \
    "_start:\n"                                                                                    \
    "    xorl %ebp, %ebp\n"                                                                        \
    "    movq %rsp, %rdi\n"                                                                        \
    "    andq $-16, %rsp\n"                                                                        \
    "    call nsx_helper_main\n"                                                                   \
    "    hlt\n"
#elif defined(__aarch64__)
#define NSX_START_ASM                                                                              \
    "    .text\n"                                                                                  \
    "    .globl _start\n"                                                                          \
    "_start:\n"                                                                                    \
    "    mov x29, #0\n"                                                                            \
    "    mov x30, #0\n"                                                                            \
    "    mov x0, sp\n"                                                                             \
    "    bl nsx_helper_main\n"                                                                     \
    "    brk #1\n"
#endif

#endif
