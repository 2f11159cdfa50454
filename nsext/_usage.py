"""Usage: what a process that has ended has used."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from resource import struct_rusage
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._cgroup_handle import CgroupStats

_RAW = struct.Struct("@2q18l")  # struct nsx_usage


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and those of its descendants that were waited for have used.

    In a control group of its own (cgroup=Cgroup(...)): what all processes in it have.

    user, system: CPU time in seconds.
    wall: seconds from the start of its set-up until a wait has seen its end.
    peak_memory: bytes that the largest of these processes had resident at once; with the memory
        controller, what the group had.  The kernel counts what a process had before exec as well,
        which is the caller's own peak: the figure is never below that, unless the program is in a
        control group, or run() was given a limit.
    rusage: all that the kernel tells, as resource.getrusage() returns it.  See getrusage(2).
    """

    user: float
    system: float
    wall: float
    peak_memory: int
    rusage: struct_rusage


def usage_of(raw: bytes, begun: int | None = None, stats: CgroupStats | None = None) -> Usage:
    """Read what C has left.

    begun: in ns of CLOCK_MONOTONIC, where C does not know it.
    stats: of a control group of its own, which counts more exactly, and everybody in it.
    """
    start, end, user, user_us, system, system_us, *rest = _RAW.unpack(raw)
    rusage = struct_rusage((user + user_us / 1e6, system + system_us / 1e6, *rest))
    wall = (end - (start if begun is None else begun)) / 1e9
    user_time, system_time, peak = rusage.ru_utime, rusage.ru_stime, rusage.ru_maxrss * 1024
    if stats is not None and stats.cpu_user is not None and stats.cpu_system is not None:
        user_time, system_time = stats.cpu_user, stats.cpu_system
    if stats is not None and stats.memory_peak is not None:
        peak = stats.memory_peak
    return Usage(user_time, system_time, wall, peak, rusage)
