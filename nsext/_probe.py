"""System calls that are tried out, to see who refuses them: csrc/child/probe.c."""

from __future__ import annotations

import errno
import mmap
import struct
from collections.abc import Sequence
from typing import NamedTuple

from . import _native
from ._flags import BY_KIND

_ROW = struct.Struct("=q5qq")
_NOT_RUN = -(1 << 62)

CLONE_THREAD = 0x00010000


class Call(NamedTuple):
    """A system call and its arguments, which are numbers."""

    name: str
    args: tuple[int, ...]


def _fill(buffer: bytearray | mmap.mmap, calls: Sequence[Call]) -> None:
    for index, call in enumerate(calls):
        args = (*call.args, 0, 0, 0, 0, 0)[:5]
        _ROW.pack_into(buffer, index * _ROW.size, _native.SYSCALLS[call.name], *args, _NOT_RUN)
    _ROW.pack_into(buffer, len(calls) * _ROW.size, -1, 0, 0, 0, 0, 0, 0)


def _results(buffer: bytearray | mmap.mmap, count: int) -> list[int | None]:
    found: list[int] = [_ROW.unpack_from(buffer, n * _ROW.size)[6] for n in range(count)]
    return [None if value == _NOT_RUN else value for value in found]


def here(calls: Sequence[Call]) -> list[int | None]:
    """Run calls in the calling thread: such as always fail.  Results, or -errno."""
    buffer = bytearray((len(calls) + 1) * _ROW.size)
    _fill(buffer, calls)
    _native.probe(buffer)
    return _results(buffer, len(calls))


class InChild:
    """Calls for a child to run, by way of clone(entry, argument)."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._count = len(calls)
        self._row = mmap.mmap(-1, (len(calls) + 1) * _ROW.size)
        _fill(self._row, calls)
        self.entry, self.argument = _native.probe_entry(self._row)

    def results(self) -> list[int | None]:
        """What they returned; None for those that it did not live to make."""
        return _results(self._row, self._count)


def attempt(kind: str) -> Call:
    """Make a namespace, in a way that the kernel refuses as EINVAL before all else.

    Another errno is a filter's answer.
    """
    flag = BY_KIND[kind]
    if kind == "time":
        return Call("unshare", (flag | 1,))  # clone(2) has no bit for it
    # The flags are the first argument, but for s390x and its like.
    return Call("clone", (flag | CLONE_THREAD, flag | CLONE_THREAD))


CLONE3 = Call("clone3", (0, 0))
"""EINVAL by size."""

MOUNT = Call("mount", (0, 0, 0, 0, 0))
"""EFAULT: no target."""


SETNS = Call("setns", (-1, 0))
"""EBADF."""


def filtered_kinds(kinds: int) -> tuple[str, int]:
    """(system call, which of these kinds) that a filter refuses to the calling thread."""
    names = [kind for kind, flag in BY_KIND.items() if flag & kinds]
    for call in ("clone", "unshare"):
        asked = [kind for kind in names if attempt(kind).name == call]
        results = here([attempt(kind) for kind in asked])
        refused = sum(
            BY_KIND[kind] for kind, result in zip(asked, results) if result != -errno.EINVAL
        )
        if refused:
            return call, refused
    return "", 0


def chroot_stops_userns() -> bool:
    """May a child make a user namespace only when setns(2) has taken it out of a chroot?

    False where it may not do that either.
    """
    import os

    from ._clone import clone
    from ._errors import SpawnError

    try:
        own = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        make = Call("unshare", (BY_KIND["user"],))
        rows = InChild([make]), InChild([Call("setns", (own, 0)), make])
        for row in rows:
            with clone(row.entry, row.argument):
                pass
    except SpawnError:
        return False
    finally:
        os.close(own)
    return [row.results() for row in rows] == [[-errno.EPERM], [0, 0]]


def mount_is_filtered() -> bool:
    """Does a filter refuse mount(2) to the calling thread?"""
    return here([MOUNT]) != [-errno.EFAULT]


def setns_is_filtered() -> bool:
    """And setns(2)?"""
    return here([SETNS]) != [-errno.EBADF]
