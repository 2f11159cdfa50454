"""CgroupHandle: a live control group, by a descriptor of its directory."""

from __future__ import annotations

import errno
import os
import signal

from . import _native
from ._frozen import FrozenMap, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_RESOURCES = ("cpu", "io", "memory")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@frozen
class CgroupStats:
    """What a control group counts, its descendants included; None: the kernel, or the group for
    want of a controller, does not count it.

    cpu_usage, cpu_user, cpu_system, cpu_throttled: seconds.
    memory_current, memory_peak, swap_current, swap_peak: bytes.
    oom_kills: processes that the OOM killer has ended.
    pids_current, pids_peak: processes and threads.
    pressure: {"cpu", "io", "memory": {"some", "full": {"avg10", "avg60", "avg300": per cent of
        the time in which some, or all, tasks have waited for it; "total": seconds}}}.
    populated: is there a process in it?
    frozen: are all of them frozen?
    """

    cpu_usage: float | None = None
    cpu_user: float | None = None
    cpu_system: float | None = None
    cpu_throttled: float | None = None
    memory_current: int | None = None
    memory_peak: int | None = None
    swap_current: int | None = None
    swap_peak: int | None = None
    oom_kills: int | None = None
    pids_current: int | None = None
    pids_peak: int | None = None
    pressure: Mapping[str, Mapping[str, Mapping[str, float]]] = FrozenMap({})
    populated: bool = False
    frozen: bool = False

    def __post_init__(self) -> None:
        pass

    def __repr__(self) -> str:
        from ._frozen import defaults_of

        fields = (f"{name}={getattr(self, name)!r}" for name in defaults_of(CgroupStats))
        return f"CgroupStats({', '.join(fields)})"

    def __reduce__(self) -> tuple[Any, ...]:
        from ._frozen import defaults_of

        return _rebuild, ({name: getattr(self, name) for name in defaults_of(CgroupStats)},)


def _rebuild(values: dict[str, Any]) -> CgroupStats:
    return CgroupStats(**values)


def _file(directory: int, name: str) -> str | None:
    """The text of a file of the group; None where the group has none.  Raises OSError."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, 4096).decode("latin-1")
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):  # PSI is off; the group is gone
            return None
        raise
    finally:
        os.close(fd)


def _number(directory: int, name: str) -> int | None:
    text = _file(directory, name)
    return None if text is None else int(text)


def _table(directory: int, name: str) -> dict[str, int]:
    """A flat keyed file."""
    pairs = (line.split() for line in (_file(directory, name) or "").splitlines())
    return {key: int(value) for key, value in pairs}


def _pressure(directory: int, name: str) -> Any:
    text = _file(directory, f"{name}.pressure")
    kinds = {}
    for line in (text or "").splitlines():
        kind, *pairs = line.split()
        values = {key: float(value) for key, value in (pair.split("=") for pair in pairs)}
        values["total"] /= 1e6
        kinds[kind] = FrozenMap(values)
    return FrozenMap(kinds)


def read_stats(directory: int) -> CgroupStats:
    """Read them.  Raises OSError."""
    cpu = _table(directory, "cpu.stat")
    memory = _table(directory, "memory.events")
    events = _table(directory, "cgroup.events")

    def seconds(key: str) -> float | None:
        return cpu[key] / 1e6 if key in cpu else None

    pressure = {name: found for name in _RESOURCES if (found := _pressure(directory, name))}
    return CgroupStats(
        cpu_usage=seconds("usage_usec"),
        cpu_user=seconds("user_usec"),
        cpu_system=seconds("system_usec"),
        cpu_throttled=seconds("throttled_usec"),
        memory_current=_number(directory, "memory.current"),
        memory_peak=_number(directory, "memory.peak"),
        swap_current=_number(directory, "memory.swap.current"),
        swap_peak=_number(directory, "memory.swap.peak"),
        oom_kills=memory.get("oom_kill"),
        pids_current=_number(directory, "pids.current"),
        pids_peak=_number(directory, "pids.peak"),
        pressure=FrozenMap(pressure),
        populated=bool(events.get("populated")),
        frozen=bool(events.get("frozen")),
    )


def cpu_time(directory: int) -> float:
    """Seconds of CPU that the group has used.  Raises OSError."""
    return _table(directory, "cpu.stat").get("usage_usec", 0) / 1e6


def write(directory: int, name: str, text: str) -> None:
    """Write to a file of the group.  Raises OSError with its name."""
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        error.filename = name
        raise
    finally:
        os.close(fd)


def await_event(directory: int, key: str, value: int, timeout: float) -> bool:
    """Wait until cgroup.events says so, which the kernel tells.  False: not within *timeout*."""
    import select
    import time

    end = time.monotonic() + timeout
    fd = os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while True:
            text = os.pread(fd, 4096, 0).decode("latin-1")
            if f"{key} {value}\n" in text:
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
    finally:
        os.close(fd)


def _members(directory: int) -> set[int]:
    """The processes in the group and below, as far as our pid namespace knows them."""
    found: set[int] = set()
    for _, _, _, fd in os.fwalk(".", dir_fd=directory):
        try:
            found.update(map(int, (_file(fd, "cgroup.procs") or "").split()))
        except OSError:
            pass  # a threaded group: its processes are listed above it
    return found - {0}


def _kill_listed(directory: int) -> None:
    """Before Linux 5.14: who is frozen neither ends by itself nor forks."""
    pidfds: dict[int, int] = {}
    write(directory, "cgroup.freeze", "1")
    try:
        await_event(directory, "frozen", 1, 1.0)
        for pid in _members(directory):
            try:
                pidfds[pid] = _native.pidfd_open(pid, 0)
            except OSError:
                pass  # it has ended
        for pid in _members(directory) & pidfds.keys():  # it is it, and no other of that number
            try:
                _native.send_signal(pidfds[pid], signal.SIGKILL)
            except ProcessLookupError:
                pass
    finally:
        for pidfd in pidfds.values():
            os.close(pidfd)
        write(directory, "cgroup.freeze", "0")


def kill_all(directory: int) -> None:
    """SIGKILL to every process in the group and below.  Raises OSError."""
    try:
        write(directory, "cgroup.kill", "1")
    except FileNotFoundError:
        _kill_listed(directory)


class CgroupHandle:
    """A control group that a process was born in: Popen.cgroup.

    path: its directory.
    fileno(): a descriptor of it.

    A group that was made for the process is removed when that has ended; stats() tells what it had
    counted by then, and the other methods raise FileNotFoundError.
    """

    __slots__ = ("__weakref__", "_fd", "_last", "path")

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._last: CgroupStats | None = None
        self.path = path

    def fileno(self) -> int:
        """Return the descriptor of its directory.  FileNotFoundError where it is removed."""
        if self._fd < 0:
            raise FileNotFoundError(errno.ENOENT, "the control group is removed", self.path)
        return self._fd

    def stats(self) -> CgroupStats:
        """Return what it has counted; of a removed one, until its end.  Raises OSError."""
        return self._last if self._last is not None else read_stats(self.fileno())

    def freeze(self, *, timeout: float = 5.0) -> None:
        """Stop all its processes; return when they stand still.  SIGKILL still ends them.

        Raises TimeoutError when that takes longer than *timeout* seconds; it goes on freezing.
        """
        write(self.fileno(), "cgroup.freeze", "1")
        if not await_event(self.fileno(), "frozen", 1, timeout):
            text = f"not frozen within {timeout} seconds"
            raise TimeoutError(errno.ETIMEDOUT, text, self.path)

    def thaw(self) -> None:
        """Let them go on."""
        write(self.fileno(), "cgroup.freeze", "0")

    def kill(self) -> None:
        """Send SIGKILL to all of them, frozen ones too."""
        kill_all(self.fileno())

    def __repr__(self) -> str:
        return f"<CgroupHandle {self.path!r}{' removed' if self._fd < 0 else ''}>"

    def _close(self, _close: Any = os.close) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _close(fd)

    __del__ = _close
