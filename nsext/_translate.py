"""translate_pid(): a process's id in another pid namespace."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import Any, Literal

from . import _nsfs
from ._listing import ns_link, pids
from ._namespace import Namespace
from ._proc import field

Of = Namespace | int | Literal["self"]


def _gone(pid: int) -> ProcessLookupError:
    return ProcessLookupError(errno.ESRCH, f"there is no process {pid} to be seen")


def translate_pid(pid: int, source: Of, target: Of) -> int | None:
    """The id that a process or thread has in another pid namespace.

    pid: its id in *source*.
    source, target: a pid Namespace; or a pid, a Popen, "self" ...: whose pid namespace.

    None where *target* does not see it.  Raises ProcessLookupError where *source* has no such
    process, or where the caller himself does not see it; OSError EOPNOTSUPP before Linux 6.11
    where a namespace is neither the caller's own nor below it.  See ioctl_ns(2).
    """
    if isinstance(pid, bool) or not isinstance(pid, int):
        raise TypeError(f"a pid is an int, not {type(pid).__name__}")
    if not 0 < pid < 1 << 31:
        raise ValueError(f"{pid} is no process id")
    with ExitStack() as stack:
        start, end = (_namespace(value, stack) for value in (source, target))
        here = _nsfs.translated(start.fileno(), _nsfs.NS_GET_PID_FROM_PIDNS, pid)
        if here is None:
            return _by_proc(pid, start, end)
        try:
            there = _nsfs.translated(end.fileno(), _nsfs.NS_GET_PID_IN_PIDNS, here)
        except ProcessLookupError:
            there = None
        # It may have ended between the two, and its id be another one's.
        if _nsfs.translated(start.fileno(), _nsfs.NS_GET_PID_FROM_PIDNS, pid) != here:
            raise _gone(pid)
        return there


def _namespace(value: Any, stack: ExitStack) -> Namespace:
    if not isinstance(value, Namespace):
        return stack.enter_context(Namespace.of(value, "pid"))
    if value.kind != "pid":
        raise ValueError(f"a pid namespace is wanted, not {value!r}")
    return value


# ---- before Linux 6.11: NSpid of /proc/PID/status, which lists the ids from the reader's pid
# namespace down to the process's own


def _depth(namespace: Namespace) -> int:
    """How far below the caller's own it is."""
    own = ns_link("/proc/thread-self/ns/pid")
    if own is None or os.readlink("/proc/self") != str(os.getpid()):
        raise OSError(errno.EOPNOTSUPP, "/proc is not that of the caller's pid namespace")
    depth, above = 0, namespace
    while ("pid", above.id) != own:
        parent = above.parent()
        if above is not namespace:
            above.close()
        if parent is None:
            raise OSError(
                errno.EOPNOTSUPP,
                "before Linux 6.11 only pid namespaces from the caller's own down are understood",
            )
        depth, above = depth + 1, parent
    if above is not namespace:
        above.close()
    return depth


def _id_in(pid: int, namespace: Namespace, depth: int) -> int | None:
    """The id that a process, which the caller knows as *pid*, has in a namespace at *depth*."""
    try:
        ids = (field(f"/proc/{pid}/status", "NSpid") or "").split()
        if len(ids) <= depth:
            return None
        inner = Namespace.open(f"/proc/{pid}/ns/pid")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    for _ in range(len(ids) - 1 - depth):
        with inner:
            parent = inner.parent()
        if parent is None:
            return None
        inner = parent
    with inner:
        return int(ids[depth]) if inner == namespace else None


def _by_proc(pid: int, source: Namespace, target: Namespace) -> int | None:
    depth, below = _depth(source), _depth(target)
    if depth == 0:
        here = pid if os.path.exists(f"/proc/{pid}") else None
    else:
        here = next((one for one in pids() if _id_in(one, source, depth) == pid), None)
    if here is None:
        raise _gone(pid)
    return here if below == 0 else _id_in(here, target, below)
