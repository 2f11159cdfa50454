"""Control groups for tests: private ones, below this process's own, and what the kernel says."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import needs, status

from nsext import SpawnError
from nsext._cgroup_handle import await_event, kill_all
from nsext._cgroupfs import own_group

_counter = itertools.count()


def mount_point() -> Path:
    """Where the first cgroup2 is mounted; skips the test where there is none."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            return Path(before.split()[4])
    needs(False, "needs a mounted cgroup2")
    raise AssertionError


def home() -> Path:
    """The directory of our own group, where we may make others; else skips the test."""
    try:
        path = own_group()
    except SpawnError as error:
        needs(False, f"needs cgroup v2: {error}")
    needs(os.access(path, os.W_OK), f"needs to write to {path}")
    return Path(path)


def group_of(pid: object = "self") -> str:
    """The v2 group of a process, as /proc/PID/cgroup says it."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


def members(path: os.PathLike[str] | str) -> list[int]:
    """The processes in a group."""
    return [int(pid) for pid in Path(path, "cgroup.procs").read_text().split()]


def below(path: os.PathLike[str] | str) -> list[str]:
    """The names of the groups in a group."""
    return sorted(item.name for item in Path(path).iterdir() if item.is_dir())


def remove(path: Path) -> None:
    """End what is in a group, and remove it with those below it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        kill_all(fd)
        assert await_event(fd, "populated", 0, 10), path
    finally:
        os.close(fd)
    for place, _, _ in os.walk(path, topdown=False):
        os.rmdir(place)


@contextmanager
def made(parent: Path | None = None) -> Iterator[Path]:
    """A new group without processes, gone when the block ends."""
    path = (parent or home()) / f"test-{os.getpid()}-{next(_counter)}"
    path.mkdir()
    try:
        yield path
    finally:
        remove(path)


def state_letter(pid: int) -> str:
    return str(status(pid)["State"])[0]
