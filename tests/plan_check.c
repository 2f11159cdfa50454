/* The check of a plan's blob, csrc/plan.c, against what is no blob: cut short, or with bytes that
 * are not its own.  Each lies right before a page that cannot be read: a look beyond the end is a
 * fault.  Prints how many were refused and how many taken.
 *
 *     cc -I csrc -o plan_check tests/plan_check.c csrc/plan.c
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "plan.h"

#define TRIES 300000
#define STEPS 4

static char *end_of_page;

/* The answer for a copy of these bytes that ends where reading does. */
static int check(const char *bytes, size_t size)
{
    char *copy = end_of_page - (size + 7) / 8 * 8;
    memcpy(copy, bytes, size);
    const int answer = nsx_blob_check(copy, size);
    if (answer != 0 && answer != -22) {
        printf("the answer is %d\n", answer);
        exit(1);
    }
    return answer;
}

/* A blob as compile() makes it: steps of each kind of argument, then their strings. */
static size_t make(char *bytes)
{
    static const char text[] = "hostname\0/etc/hosts\0content";
    struct nsx_blob *blob = (void *)bytes;
    const size_t strings = sizeof *blob + STEPS * sizeof(struct nsx_step);
    size_t size = strings + sizeof text;
    size = (size + 7) / 8 * 8;
    memset(bytes, 0, size);
    memcpy(bytes + strings, text, sizeof text);
    *blob = (struct nsx_blob){NSX_BLOB_MAGIC, (uint32_t)size, 0, STEPS, 0, 0, 0, 0};
    blob->step[0] = (struct nsx_step){NSX_OP_hostname, 0, {strings}};
    blob->step[1] = (struct nsx_step){NSX_OP_helper, 0, {0}};
    blob->step[2] = (struct nsx_step){NSX_OP_make_file, 0, {strings + 9, strings + 20, 7, 0644}};
    blob->step[3] = (struct nsx_step){NSX_OP_exec, 0, {0}};
    return size;
}

int main(void)
{
    const long page = sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, (size_t)page * 2, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    _Alignas(8) char good[1024], bad[1024];
    long taken = 0, refused = 0;
    if (pages == MAP_FAILED || mprotect(pages + page, (size_t)page, PROT_NONE) < 0)
        return 2;
    end_of_page = pages + page;
    const size_t size = make(good);
    if (check(good, size) != 0) {
        puts("a good one is refused");
        return 1;
    }
    for (size_t cut = 0; cut < size; cut++) {
        memcpy(bad, good, size);
        if (cut >= sizeof(struct nsx_blob)) /* so that it says of itself that it is so long */
            ((struct nsx_blob *)(void *)bad)->size = (uint32_t)cut;
        if (check(bad, cut) == 0 && cut <= sizeof(struct nsx_blob) + STEPS * sizeof(struct nsx_step)) {
            printf("taken, of %zu bytes\n", cut);
            return 1;
        }
    }
    srand(1);
    for (int i = 0; i < TRIES; i++) {
        memcpy(bad, good, size);
        for (int n = rand() % 4; n >= 0; n--)
            bad[rand() % (int)size] = (char)(rand() % 3 ? rand() : 0xff);
        if (check(bad, size) == 0)
            taken++;
        else
            refused++;
    }
    printf("%ld refused, %ld taken\n", refused, taken);
    return refused < TRIES / 20 || taken < TRIES / 20;
}
