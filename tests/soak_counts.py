"""What has to stay flat in tests/soak.py, counted while nothing is spawned.

soak.py runs in namespaces of its own, so that no other program of the machine is counted.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import faults
import soak_kinds
from soak_pressure import give_back_memory

import nsext

NAMESPACES = ("pid", "mnt", "uts", "ipc", "net", "cgroup", "time", "user")
# Of each kind, while it spawns.  The kernel frees namespaces some time after their end.
LIMIT = 2000
SETTLING = ("children", "processes", "cgroups", *NAMESPACES)
UNKNOWN = dict.fromkeys(SETTLING, LIMIT)

# What may come on top of the first row.  The core keeps the memory of eight spawns of each kind, in
# two mappings; the allocators keep what is scattered.
SLACK = {"maps": 30, "RSS KiB": 4 << 10}


def _set_limit(kind: str, number: int) -> None:
    """Of this user namespace, with those below: namespaces(7)."""
    Path(f"/proc/sys/user/max_{kind}_namespaces").write_text(str(number))


def set_limits() -> None:
    for kind in NAMESPACES:
        _set_limit(kind, LIMIT)


def _fits(kind: str, limit: int) -> bool:
    """Are there fewer than that, in this user namespace and those below?

    It is the kernel's own count that is compared with the limit: exact, and whoever holds them, a
    process, a descriptor, a mount, or a reference that the kernel has lost.
    """
    _set_limit(kind, limit)
    try:
        nsext.spawn([faults.noop()], new=kind).wait()
    except nsext.SpawnError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    finally:
        _set_limit(kind, LIMIT)
    return True


def _living(kind: str, expected: int, end: float) -> int:
    """How many namespaces there are; until *end* there is time for more than expected to go."""
    pause = threading.Event()
    numbers = range(expected + 1)
    # What has fitted is one more for a while: so only once, at the end.
    while (found := next((n for n in numbers if _fits(kind, n + 1)), -1)) < 0:
        if time.monotonic() > end:
            numbers = range(expected + 1, LIMIT)
        pause.wait(0.01)
    return found


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError


def _groups() -> int:
    return sum(len(names) for _, names, _ in os.walk(soak_kinds.GROUP)) if soak_kinds.GROUP else 0


def _processes() -> dict[str, int]:
    return {
        "children": len(faults.children() or ()),
        "processes": sum(name.isdigit() for name in os.listdir("/proc")),
        "cgroups": _groups(),
    }


def counts(expected: Mapping[str, int], patience: float) -> dict[str, int]:
    """The counts.

    patience: seconds for what the kernel brings down some time after the end of a process, to what
        is expected.
    """
    end = time.monotonic() + patience
    while True:
        soak_kinds.noop(soak_kinds.PLAIN)  # reaps what was dropped
        processes = _processes()
        if all(processes[name] <= expected[name] for name in processes) or time.monotonic() > end:
            break
    namespaces = {kind: _living(kind, expected[kind], end) for kind in NAMESPACES}
    give_back_memory()
    return {
        "fds": len(faults.open_fds()),
        "threads": len(os.listdir("/proc/self/task")),
        **processes,
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "maps": len(Path("/proc/self/maps").read_text().splitlines()),
        "RSS KiB": _resident(),
        **namespaces,
    }


def grown(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """What has, in words."""
    return [
        f"{name} {before[name]} -> {after[name]}"
        for name in before
        if after[name] > before[name] + SLACK.get(name, 0)
    ]
