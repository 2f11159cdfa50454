/* The program that every contender starts: it exits 0, and does nothing else.
 *
 * No C library: starting one takes ten times as long as the spawn itself, and
 * would hide what is measured.  Flags: see build() in contenders.py.
 */
__attribute__((noreturn, used)) void _start(void)
{
#if defined(__x86_64__)
    __asm__ volatile("syscall" : : "a"(231), "D"(0) : "rcx", "r11", "memory"); /* exit_group */
#elif defined(__aarch64__)
    register long number __asm__("x8") = 94;
    register long status __asm__("x0") = 0;
    __asm__ volatile("svc 0" : : "r"(number), "r"(status) : "memory");
#elif defined(__riscv)
    register long number __asm__("a7") = 94;
    register long status __asm__("a0") = 0;
    __asm__ volatile("ecall" : : "r"(number), "r"(status) : "memory");
#else
#error "how to exit here without a C library?"
#endif
    for (;;)
        ;
}
