/* Steps that write to /proc what belongs to a whole memory, or to a namespace.
 * They run in the helper's own. */
#include "../child/child.h"

/* The kernel sets it for all who share the memory. */
NSX_CHILD_CODE long step_oom_score_adj(struct nsx_child *child, const struct nsx_step *step)
{
    const char *score = child_string(child, step->arg[0]);
    return nsx_child_write_proc(child, "/proc/self/oom_score_adj", score, child_strlen(score));
}
