/* The step that gives away system calls. */
#include "child.h"

#define PR_SET_SECCOMP_ 22
#define SECCOMP_MODE_FILTER_ 2

/* struct sock_fprog, struct sock_filter: linux/filter.h */
struct program {
    uint16_t count;
    const void *code;
};

/* By prctl(2): seccomp(2), of which no flag is needed here, is younger than the
 * headers of old build machines.  What follows has to pass the filter: signal
 * dispositions and mask, further filters, execve. */
NSX_CHILD_CODE long step_seccomp(struct nsx_child *child, const struct nsx_step *step)
{
    const struct program program = {(uint16_t)(step->arg[1] / 8),
                                    child_string(child, step->arg[0])};
    return sys_prctl(PR_SET_SECCOMP_, SECCOMP_MODE_FILTER_, NSX_P(&program));
}
