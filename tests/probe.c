/* Looks at a sandbox from inside: probe [what path]... prints the answers as a JSON list.  An error
 * is its errno's name, as a string.  For mount_facts.py. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

static char text[1 << 20];

static void print_string(const char *s, size_t size)
{
    putchar('"');
    for (size_t i = 0; i < size; i++)
        if (s[i] == '"' || s[i] == '\\')
            printf("\\%c", s[i]);
        else if ((unsigned char)s[i] < 32)
            printf("\\u%04x", s[i]);
        else
            putchar(s[i]);
    putchar('"');
}

static const char *name_of(int number)
{
    static const struct {
        int number;
        const char *name;
    } names[] = {
#define NAME(e) {e, #e}
        NAME(EPERM),  NAME(ENOENT),  NAME(EACCES), NAME(EBUSY), NAME(EEXIST), NAME(EXDEV),
        NAME(ENOTDIR), NAME(EISDIR), NAME(EINVAL), NAME(ENOSPC), NAME(EROFS),  NAME(ELOOP),
        NAME(ENXIO),  NAME(EIO),
    };
    static char other[16];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].number == number)
            return names[i].name;
    snprintf(other, sizeof other, "errno %d", number);
    return other;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Prints the answer; 0, or -1 with errno. */
static int answer(const char *what, const char *path)
{
    struct stat status;
    ssize_t size = 0;
    if (!strcmp(what, "write") || !strcmp(what, "fill")) {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        if (fd < 0)
            return -1;
        if (!strcmp(what, "fill")) {
            size = write(fd, text, sizeof text);
            if (size >= 0)
                printf("%zd", size);
        } else {
            size = write(fd, "written", 7);
            if (size >= 0)
                printf("\"ok\"");
        }
        int number = errno;
        close(fd);
        errno = number;
        return size < 0 ? -1 : 0;
    }
    if (!strcmp(what, "read")) {
        int fd = open(path, O_RDONLY);
        ssize_t got = -1;
        if (fd < 0)
            return -1;
        while ((got = read(fd, text + size, sizeof text - (size_t)size)) > 0)
            size += got;
        int number = errno;
        close(fd);
        errno = number;
        if (got < 0)
            return -1;
        print_string(text, (size_t)size);
        memset(text, 0, (size_t)size);
        return 0;
    }
    if (!strcmp(what, "flags")) {
        struct statvfs fs;
        if (statvfs(path, &fs) < 0)
            return -1;
        return printf("%lu", fs.f_flag) < 0;
    }
    if (!strcmp(what, "kind")) {
        if (lstat(path, &status) < 0)
            return -1;
        return printf("[%u, %u]", status.st_mode & S_IFMT, status.st_mode & 07777u) < 0;
    }
    if (!strcmp(what, "mkdir")) {
        if (mkdir(path, 0755) < 0)
            return -1;
        return printf("\"ok\"") < 0;
    }
    if (!strcmp(what, "link")) {
        size = readlink(path, text, sizeof text);
        if (size < 0)
            return -1;
        print_string(text, (size_t)size);
        return 0;
    }
    if (!strcmp(what, "run")) {
        int end;
        pid_t child = fork();
        if (child == 0) {
            execl(path, path, (char *)NULL);
            _exit(errno);
        }
        if (child < 0 || waitpid(child, &end, 0) < 0)
            return -1;
        return printf("%d", WEXITSTATUS(end)) < 0;
    }
    if (!strcmp(what, "list")) {
        char *names[4096];
        int count = 0;
        struct dirent *entry;
        DIR *directory = opendir(path);
        if (!directory)
            return -1;
        while ((entry = readdir(directory)) && count < 4096)
            if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
                names[count++] = strdup(entry->d_name);
        closedir(directory);
        qsort(names, (size_t)count, sizeof *names, compare);
        putchar('[');
        for (int i = 0; i < count; i++) {
            if (i)
                putchar(',');
            print_string(names[i], strlen(names[i]));
        }
        putchar(']');
        return 0;
    }
    errno = ENOSYS;
    return -1;
}

int main(int argc, char **argv)
{
    putchar('[');
    for (int i = 1; i + 1 < argc; i += 2) {
        if (i > 1)
            putchar(',');
        if (answer(argv[i], argv[i + 1]) < 0) {
            const char *name = name_of(errno);
            print_string(name, strlen(name));
        }
    }
    puts("]");
    return 0;
}
