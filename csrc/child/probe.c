/* For check(): runs system calls in a row, and writes down what each returns.
 * The entry of a clone(entry), or called where it is if the calls are harmless. */
#include "probe.h"
#include "child.h"

#ifndef NSX_HELPER
NSX_CHILD_CODE int nsx_child_probe(void *row)
{
    for (struct nsx_probe *call = row; call->number >= 0; call++) {
        const int64_t *arg = call->arg;
        call->result = nsx_syscall((long)call->number, (long)arg[0], (long)arg[1], (long)arg[2],
                                   (long)arg[3], (long)arg[4], 0);
    }
    return 0;
}
#endif
