"""Usage: what a process that has ended has used."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from resource import struct_rusage

_RAW = struct.Struct("@2q18l")  # struct nsx_usage


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and those of its descendants that were waited for have used.

    user, system: CPU time in seconds.
    wall: seconds from the start of its set-up until a wait has seen its end.
    peak_memory: bytes that the largest of these processes had resident at once.  The kernel counts
        what it had before exec as well, which is the caller's own peak: the figure is never below
        that, unless the program has an own cgroup or run() was given a limit.
    rusage: all that the kernel tells, as resource.getrusage() returns it.  See getrusage(2).
    """

    user: float
    system: float
    wall: float
    peak_memory: int
    rusage: struct_rusage


def usage_of(raw: bytes, begun: int | None = None) -> Usage:
    """Read what C has left; *begun*: in ns of CLOCK_MONOTONIC, where C does not know it."""
    start, end, user, user_us, system, system_us, *rest = _RAW.unpack(raw)
    rusage = struct_rusage((user + user_us / 1e6, system + system_us / 1e6, *rest))
    wall = (end - (start if begun is None else begun)) / 1e9
    return Usage(rusage.ru_utime, rusage.ru_stime, wall, rusage.ru_maxrss * 1024, rusage)
