/* The last steps: signals back to what a program expects, then the program. */
#include "child.h"

#define ENOENT_ 2
#define ENOTDIR_ 20
#define SIG_SETMASK_ 2
#define NONBLOCK_ 04000L /* a FIFO is not waited for */
#define PATH_ 010000000L /* O_PATH */

/* struct sigaction as the kernel has it (on these architectures), zero:
 * SIG_DFL, no flags, empty mask. */
struct kernel_sigaction {
    uintptr_t handler;
    unsigned long flags;
    uintptr_t restorer;
    uint64_t mask;
};

NSX_CHILD_CODE static long reset_handlers(struct nsx_child *child, uint64_t these)
{
    const struct kernel_sigaction reset = {0};
    const int all = child->plan->flags & NSX_RESET_SIGNALS;
    for (int number = 1; number <= NSX_NSIG; number++) {
        if (!(these >> (number - 1) & 1)) {
            struct kernel_sigaction old = {0};
            if (!all || sys_rt_sigaction(number, NULL, &old) < 0)
                continue;
            if (old.handler <= 1) /* SIG_DFL, SIG_IGN */
                continue;
        }
        child->aux = number;
        long error = sys_rt_sigaction(number, &reset, NULL);
        if (error < 0)
            return error;
    }
    return 0;
}

/* arg: a bit for each signal, as in a sigset.  CLONE_CLEAR_SIGHAND leaves what
 * was ignored ignored; where the kernel could not do even that, it is done here. */
NSX_CHILD_CODE long step_default_signals(struct nsx_child *child, const struct nsx_step *step)
{
    return reset_handlers(child, step->arg[0]);
}

/* From here on signals reach the child: no handler of the parent's is left that
 * could run on shared memory.  What has been pending is the program's to die of. */
NSX_CHILD_CODE static void restore_mask(const struct nsx_plan *plan)
{
    sys_rt_sigprocmask(SIG_SETMASK_, &plan->sigmask, NULL);
    if (plan->flags & NSX_CORE_GUARD)
        sys_prlimit64(0, NSX_RLIMIT_CORE, plan->core);
}

/* A program that is there and yet ENOENT: its interpreter is not, or that one's own.
 * Which one that is stands in the file: after "#!", or in an ELF file's PT_INTERP.
 * See execve(2). */
NSX_CHILD_CODE static int note_script(char *text, size_t size, const char *head, long length)
{
    long at = 2;
    size_t used = 0;
    while (at < length && (head[at] == ' ' || head[at] == '\t'))
        at++;
    while (at < length && head[at] != ' ' && head[at] != '\t' && head[at] != '\n' && head[at] &&
           used + 1 < size)
        text[used++] = head[at++];
    text[used] = 0;
    return used > 0;
}

struct elf_head {
    unsigned char ident[16];
    uint16_t type, machine;
    uint32_t version;
    union {
        struct {
            uint64_t entry, program_headers, section_headers;
            uint32_t flags;
            uint16_t size, program_header_size, program_header_count;
        } of_64;
        struct {
            uint32_t entry, program_headers, section_headers, flags;
            uint16_t size, program_header_size, program_header_count;
        } of_32;
    };
};

union program_header {
    struct {
        uint32_t type, flags;
        uint64_t offset, address, physical, file_size, memory_size, align;
    } of_64;
    struct {
        uint32_t type, offset, address, physical, file_size, memory_size, flags, align;
    } of_32;
};

#define PT_INTERP_ 3
#define ELFCLASS32_ 1
#define ELFCLASS64_ 2

NSX_CHILD_CODE static long read_at(long fd, void *data, size_t size, uint64_t at)
{
    return nsx_syscall(__NR_pread64, fd, NSX_P(data), (long)size, (long)at, 0, 0);
}

NSX_CHILD_CODE static int note_elf(char *text, size_t size, long fd, const struct elf_head *elf)
{
    union program_header header;
    const int wide = elf->ident[4] == ELFCLASS64_;
    const uint16_t count = wide ? elf->of_64.program_header_count : elf->of_32.program_header_count;
    const uint64_t first = wide ? elf->of_64.program_headers : elf->of_32.program_headers;
    const size_t each = wide ? sizeof header.of_64 : sizeof header.of_32;
    if (!wide && elf->ident[4] != ELFCLASS32_)
        return 0;
    for (uint16_t i = 0; i < count; i++) {
        if (read_at(fd, &header, each, first + i * each) != (long)each)
            return 0;
        const uint64_t length = wide ? header.of_64.file_size : header.of_32.file_size;
        const uint64_t offset = wide ? header.of_64.offset : header.of_32.offset;
        if (header.of_64.type != PT_INTERP_ || length == 0 || length > size)
            continue;
        if (read_at(fd, text, length, offset) != (long)length)
            return 0;
        text[length - 1] = 0;
        return 1;
    }
    return 0;
}

_Static_assert(offsetof(struct elf_head, of_64.program_header_count) == 56, "Elf64_Ehdr");
_Static_assert(offsetof(struct elf_head, of_32.program_header_count) == 44, "Elf32_Ehdr");
_Static_assert(sizeof(((union program_header *)0)->of_32) == 32, "Elf32_Phdr");

/* text: the interpreter of the program at path; 0: it is none that is there to be
 * read, or has no interpreter. */
NSX_CHILD_CODE static int note_interpreter(char *text, size_t size, const char *path)
{
    union {
        struct elf_head elf;
        char bytes[256];
    } head;
    const uint32_t magic = 0x464c457f; /* "\177ELF" */
    const long fd = sys_openat(NSX_AT_FDCWD, path, NSX_O_RDONLY | NSX_O_CLOEXEC | NONBLOCK_);
    int noted = 0;
    if (fd < 0)
        return 0;
    const long length = read_at(fd, head.bytes, sizeof head.bytes, 0);
    if (length > 2 && head.bytes[0] == '#' && head.bytes[1] == '!')
        noted = note_script(text, size, head.bytes, length);
    else if (length > (long)sizeof head.elf && *(const uint32_t *)head.elf.ident == magic)
        noted = note_elf(text, size, fd, &head.elf);
    sys_close(fd);
    return noted;
}

/* The kernel follows as many scripts, each the interpreter of the one before. */
#define MAX_SCRIPTS 6

/* plan->text: what is missing; "": nothing that can be told. */
NSX_CHILD_CODE static void note_missing(struct nsx_plan *plan, const char *path)
{
    char before[sizeof plan->text];
    for (int i = 0; i < MAX_SCRIPTS && note_interpreter(plan->text, sizeof before, path); i++) {
        const long fd = sys_openat(NSX_AT_FDCWD, plan->text, PATH_ | NSX_O_CLOEXEC);
        if (fd < 0) {
            if (fd != -ENOENT_)
                break;
            return;
        }
        sys_close(fd);
        for (size_t at = 0; at < sizeof before; at++)
            before[at] = plan->text[at];
        path = before;
    }
    plan->text[0] = 0;
}

/* As execvp(3) and subprocess search PATH: the first error that is not "not
 * there" is the one to tell. */
NSX_CHILD_CODE long step_exec(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    const uintptr_t *path = child_at(plan, plan->execs);
    const uintptr_t *argv = child_at(plan, plan->argv);
    const uintptr_t *envp = child_at(plan, plan->envp);
    long first = 0, error = -ENOENT_;
    (void)step;

    restore_mask(plan);
    for (uint32_t i = 0; i < plan->nexecs; i++) {
        error = sys_execve((const char *)path[i], argv, envp);
        if (error != -ENOENT_ && error != -ENOTDIR_ && !first) {
            first = error;
            child->aux = (int32_t)i;
        }
    }
    for (uint32_t i = 0; !first && error == -ENOENT_ && i < plan->nexecs && !plan->text[0]; i++)
        note_missing(plan, (const char *)path[i]);
    return first ? first : error;
}

/* The entry of clone(entry), in a copy of the parent's memory. */
NSX_CHILD_CODE long step_call(struct nsx_child *child, const struct nsx_step *step)
{
    struct nsx_plan *plan = child->plan;
    int (*entry)(void *) = (int (*)(void *))(uintptr_t)plan->entry;
    void *arg = (void *)(uintptr_t)plan->entry_arg;
    (void)step;
    restore_mask(plan);
    nsx_child_announce(plan);
    int status = entry(arg);
    nsx_syscall(__NR_exit_group, status & 0xff, 0, 0, 0, 0, 0);
    __builtin_unreachable();
}
