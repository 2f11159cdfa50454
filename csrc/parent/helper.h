/* The helper's image: a tiny static ELF, in a sealed memfd so that what it is
 * run from cannot be written, whatever the program inside is root over. */
#ifndef NSX_HELPER_H
#define NSX_HELPER_H

#include <stddef.h>
#include <stdint.h>

/* Descriptor in the low half, a half of its file's id in the high one, so that
 * both change at once; 0: not opened yet. */
struct nsx_helper {
    uint64_t image;
};

/* The program as it was read, and its file in the package. */
struct nsx_program {
    const void *data;
    size_t size;
    const char *path;
};

/* Its descriptor, opened on first use; -errno. */
int nsx_helper_fd(struct nsx_helper *helper, const struct nsx_program *program);
void nsx_helper_close(struct nsx_helper *helper);

#endif
