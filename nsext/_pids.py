"""Processes, and their ids across pid namespaces, from /proc."""

from __future__ import annotations

from ._proc import field, read

_PF_EXITING = 4


def inner_pid(pid: int) -> int:
    """The id that a process has in its own pid namespace (NSpid of proc(5))."""
    numbers = field(f"/proc/{pid}/status", "NSpid")
    return int(numbers.split()[-1]) if numbers else pid


def child_with_inner_pid(parent: int, inner: int) -> int:
    """The child of *parent* that is *inner* in its own pid namespace.

    Raises ProcessLookupError.
    """
    try:
        for child in read(f"/proc/{parent}/task/{parent}/children").split():
            if inner_pid(int(child)) == inner:
                return int(child)
    except FileNotFoundError:
        pass
    raise ProcessLookupError(f"process {parent} has no child that is {inner} inside")


def is_dying(pid: int, pidfd: int) -> bool:
    """Is it a zombie, or about to be?  Its memory, and with it its owner in /proc, goes first.

    One that was killed just now takes a moment: a failure may be so long in coming.
    """
    import select

    try:
        stat = read(f"/proc/{pid}/stat")
        if int(stat[stat.rindex(")") + 2 :].split()[6]) & _PF_EXITING:
            return True
    except OSError:
        pass
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(20))
