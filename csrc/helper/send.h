/* Descriptors for the parent, by a socket: unix(7), SCM_RIGHTS. */
#ifndef NSX_HELPER_SEND_H
#define NSX_HELPER_SEND_H

#include "../child/child.h"

#define NSX_SEND_MAX 9

/* All of them in one message, with a byte of data. */
long nsx_helper_send(long socket, const int32_t *fds, uint32_t count);

#endif
