#ifndef NSX_PROBE_H
#define NSX_PROBE_H

#include <stdint.h>

/* One system call; a negative number ends the row. */
struct nsx_probe {
    int64_t number;
    int64_t arg[5];
    int64_t result; /* -errno; left alone where it did not come to it */
};

int nsx_child_probe(void *row);

#endif
