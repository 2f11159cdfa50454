/* The environment, where nobody keeps other threads from changing it: setenv(3) frees what
 * is read here. */
#ifndef NSX_ENVIRON_H
#define NSX_ENVIRON_H

#include "slot.h"

/* Appends it as it was at one moment, an array of offsets and its strings.  0; -1: the
 * slot's error says why. */
int nsx_environ_append(struct nsx_slot **slot, uint32_t *array, uint32_t *count);

#endif
