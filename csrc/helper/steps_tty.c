/* Steps of the terminal that only the helper has: a pseudoterminal of the child's own
 * devpts, and the foreground for a program whose init leads the session.  See pty(7).
 */
#include "../child/tty.h"
#include "send.h"

#define TIOCSPGRP_ 0x5410
#define TIOCSPTLCK_ 0x40045431
#define TIOCGPTPEER_ 0x5441
#define TIOCSWINSZ_ 0x5414
#define O_RDWR_NOCTTY_CLOEXEC (02 | 0400 | 02000000)
#define O_CLOEXEC_ 02000000

enum { PART_OPEN = 1, PART_SLAVE, PART_SEND };

/* arg 0: a descriptor of the child that is to be the terminal, 1 and 2: rows and columns.
 * In the table it is a socket of the caller's; the caller gets the master through it, and
 * the slave takes its number. */
NSX_CHILD_CODE long step_pty(struct nsx_child *child, const struct nsx_step *step)
{
    const long socket = child_before_table(child->plan, step->arg[0]);
    uint16_t size[4] = {(uint16_t)step->arg[1], (uint16_t)step->arg[2], 0, 0};
    int32_t locked = 0;
    child->aux = PART_OPEN;
    const long master = sys_openat(NSX_AT_FDCWD, "/dev/pts/ptmx", O_RDWR_NOCTTY_CLOEXEC);
    if (master < 0)
        return master;
    child->aux = PART_SLAVE;
    long error = sys_ioctl(master, TIOCSPTLCK_, &locked);
    if (error < 0)
        return error;
    error = sys_ioctl(master, TIOCSWINSZ_, size);
    if (error < 0)
        return error;
    const long slave =
        nsx_syscall(__NR_ioctl, master, TIOCGPTPEER_, O_RDWR_NOCTTY_CLOEXEC, 0, 0, 0);
    if (slave < 0)
        return slave;
    child->aux = PART_SEND;
    const int32_t sent = (int32_t)master;
    error = nsx_helper_send(socket, &sent, 1);
    if (error < 0)
        return error;
    error = sys_dup3(slave, socket, O_CLOEXEC_);
    sys_close(master);
    sys_close(slave);
    return error;
}

/* arg 0: as for ctty.  The program is in a group of its own, and all signals are blocked,
 * so that the kernel lets it do this from the background. */
NSX_CHILD_CODE long step_foreground(struct nsx_child *child, const struct nsx_step *step)
{
    int32_t group = (int32_t)nsx_syscall(__NR_getpid, 0, 0, 0, 0, 0, 0);
    return sys_ioctl(child_before_table(child->plan, step->arg[0]), TIOCSPGRP_, &group);
}
