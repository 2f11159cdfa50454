"""The foreground of a terminal: tcsetpgrp(3) for a program in a group of its own."""

from __future__ import annotations

import os
import signal


def own_terminal() -> int:
    """The controlling terminal, where this process's group has its foreground; else -1."""
    try:
        tty = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1
    if os.tcgetpgrp(tty) == os.getpgrp():
        return tty
    os.close(tty)
    return -1


def set_foreground(tty: int, group: int) -> None:
    """tcsetpgrp(3), which would stop a process in the background."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    try:
        os.tcsetpgrp(tty, group)
    except OSError:
        pass  # the terminal or the group is gone
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
