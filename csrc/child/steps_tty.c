/* The step that gives a new session its terminal. */
#include "child.h"
#include "tty.h"

#define TIOCSCTTY_ 0x540E

/* arg 0: a descriptor of the child that is the terminal.  The table is not laid out
 * yet: an init, who leads the session, closes everything when it is. */
NSX_CHILD_CODE long step_ctty(struct nsx_child *child, const struct nsx_step *step)
{
    return sys_ioctl(child_before_table(child->plan, step->arg[0]), TIOCSCTTY_, NULL);
}
