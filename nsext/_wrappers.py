"""unshare(2), setns(2) and pidfd_open(2) of the calling thread, as os has them in new Pythons.

They change the thread that calls them, and with it what it may do later: after unshare or setns
of a pid namespace, no new thread can be started from it.  To start a program somewhere else, use
nsext.Popen, which leaves the caller as it is.
"""

from __future__ import annotations

from typing import Any

from . import _native
from ._fds import fileno
from ._flags import Kinds, parse_kinds


def unshare(flags: Kinds) -> None:
    """Move the calling thread into new namespaces.  See unshare(2).

    flags: kinds, as in ``new=``.  Raises OSError: EINVAL for "user" in a process with threads.
    """
    _native.unshare(int(parse_kinds(flags)))


def setns(fd: Any, nstype: Kinds = 0) -> None:
    """Move the calling thread into the namespace of a descriptor.  See setns(2).

    fd: an int, or an object with fileno(): a namespace file or a pidfd.
    nstype: the kinds expected (for a pidfd: wanted), as in ``new=``; 0: any.
    Raises OSError.
    """
    _native.setns(fileno(fd), int(parse_kinds(nstype)))


def pidfd_open(pid: int, flags: int = 0) -> int:
    """Return a descriptor, close-on-exec, for a process.  See pidfd_open(2).  Raises OSError."""
    fd: int = _native.pidfd_open(pid, flags)
    return fd
