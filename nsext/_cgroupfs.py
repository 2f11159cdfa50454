"""Control groups of spawns: where they are made, their controllers, their removal."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os

from . import _cgroup_handle as handles
from ._causes import Cause
from ._cgroup import Cgroup
from ._cgroup_handle import CgroupHandle
from ._errors import SpawnError, UnsupportedError
from ._fds import above_stdio, fileno
from ._proc import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PREFIX = "nsext-"
_PATIENCE = 1.0  # seconds for killed processes to leave their group

_counter = itertools.count(1)
# By the parent group, (device, inode): our own groups in it, and how many others there were.
_live: dict[tuple[int, int], set[str]] = {}
_others: dict[tuple[int, int], int] = {}


def _fail(number: int, step: str, path: str, hint: str | None = None) -> NoReturn:
    kind = UnsupportedError if number == errno.EOPNOTSUPP else SpawnError
    raise kind(number, os.strerror(number), stage="plan", step=step, path=path, hint=hint)


def _v1_controllers() -> set[str]:
    lines = (line.split(":", 2) for line in read("/proc/self/cgroup").splitlines())
    return {name for number, names, _ in lines if number != "0" for name in names.split(",")}


def _mounts() -> list[tuple[str, str]]:
    """(root, mount point) of each cgroup2: proc_pid_mountinfo(5)."""
    found = []
    for line in read("/proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split(" ")[0] == "cgroup2":
            root, point = (
                field.encode("latin-1").decode("unicode_escape") for field in fields.split()[3:5]
            )
            found.append((root, os.fsdecode(point.encode("latin-1"))))
    return found


# (group, its directory, device, inode) as last found: reading all mounts takes a while.
_own: tuple[str, str, int, int] | None = None


def own_group() -> str:
    """The directory of the caller's own group.  Raises UnsupportedError where there is none."""
    global _own
    step = "find the own control group"
    try:
        lines = [line.split(":", 2) for line in read("/proc/self/cgroup").splitlines()]
        own = next((path for number, _, path in lines if number == "0"), None)
        if _own is not None and own == _own[0] and _identity(_own[1]) == _own[2:]:
            return _own[1]
        mounts = _mounts()
    except OSError as error:
        _fail(error.errno or 0, step, str(error.filename), "/proc is not mounted here")
    if own is None or not mounts:
        v1 = own is None and _v1_controllers()
        hint = "this host has cgroup v1 only" if v1 else "no cgroup2 is mounted here"
        _fail(errno.EOPNOTSUPP, step, "/proc/self/cgroup", f"{hint}; limits need version 2")
    for root, point in mounts:
        below = own if root == "/" else own[len(root) :]
        inside = root == "/" or own == root or own.startswith(root + "/")
        if inside and not below.startswith("/../"):
            path = point.rstrip("/") + below.rstrip("/") or "/"
            if os.path.isdir(path):
                _own = own, path, *_identity(path)
                return path
    hint = f"{own} is not below any cgroup2 that is mounted here; say parent="
    _fail(errno.EOPNOTSUPP, step, "/proc/self/cgroup", hint)


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_dev, status.st_ino


def _words(directory: int, name: str) -> set[str]:
    return set((handles._file(directory, name) or "").split())


def _check_version(fd: int, path: str) -> None:
    """Is it a directory of cgroup v2?"""
    step = f"open the control group {path}"
    try:
        v2 = handles._file(fd, "cgroup.controllers") is not None
        v1 = not v2 and handles._file(fd, "cgroup.procs") is not None
    except OSError as error:
        _fail(error.errno or 0, step, path, "a control group is a directory")
    if not v2 and os.readlink(f"/proc/self/fd/{fd}").endswith(" (deleted)"):
        _fail(errno.ENOENT, step, path, "it is removed")
    if not v2:
        hint = "it is one of version 1" if v1 else "it is no control group"
        _fail(errno.EOPNOTSUPP, step, path, hint)


def _open_directory(path: str) -> int:
    try:
        fd = above_stdio(os.open(path, _DIRECTORY))
    except OSError as error:
        _fail(error.errno or 0, f"open the control group {path}", path)
    try:
        _check_version(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


# ---- controllers


def _who_lacks(name: str, path: str) -> str:
    """Who would have to make a controller available in the group at *path*."""
    points = {point for _, point in _mounts()}
    above = path
    while above not in points and above != "/":
        above = os.path.dirname(above)
        try:
            with open(f"{above}/cgroup.controllers") as file:
                if name in file.read().split():
                    return (
                        f"whoever manages {above} has to delegate it: "
                        f"echo +{name} > {above}/cgroup.subtree_control (systemd: Delegate=yes)"
                    )
        except OSError:
            break
    if name in _v1_controllers():
        return (
            f"on this host {name} is a controller of cgroup v1: boot it with cgroup_no_v1={name}, "
            "or systemd.unified_cgroup_hierarchy=1"
        )
    return (
        f"{above} is the topmost group here, and has not got it: the kernel lacks it, or whoever "
        "has made this container has to delegate it"
    )


def _enable(fd: int, path: str, needed: set[str]) -> None:
    """Let the children of a group have these controllers.  Raises SpawnError."""
    missing = sorted(needed - _words(fd, "cgroup.subtree_control"))
    if not missing:
        return
    # Only the root, which has no type, may have both processes and children with controllers.
    # The kernel refuses others that, but for pids, cpu and cpuset: then it makes the group a
    # threaded one, and its children useless.
    busy = handles._file(fd, "cgroup.type") is not None and _words(fd, "cgroup.procs")
    for name in missing:
        step = f"enable the {name} controller below {path}"
        if name not in _words(fd, "cgroup.controllers"):
            _fail(errno.EOPNOTSUPP, step, path, _who_lacks(name, path))
        if busy:
            hint = (
                f"{path} has processes in it, and only a group without any can give controllers "
                "to its children (cgroups(7)): say parent=, a group without processes; a service "
                "manager that starts this process can put it into a group below its own "
                "(systemd: Delegate=yes, DelegateSubgroup=)"
            )
            _fail(errno.EBUSY, step, path, hint)
        try:
            handles.write(fd, "cgroup.subtree_control", f"+{name}")
        except OSError as error:
            number = error.errno or 0
            _fail(number, step, path, _not_delegated(number, path))


def _not_delegated(number: int, path: str) -> str | None:
    if number in (errno.EACCES, errno.EPERM):
        return Cause(
            f"{path} is not delegated to uid {os.geteuid()}",
            "its owner has to (systemd: Delegate=yes, or systemd-run --user --scope -p "
            "Delegate=yes)",
        )
    if number == errno.EROFS:
        return Cause(
            "cgroup2 is mounted read-only here", "whoever has made this container can change that"
        )
    if number == errno.EAGAIN:
        return "cgroup.max.descendants or cgroup.max.depth of a group above is reached"
    return None


# ---- names, and what others have left


def _start_time(pid: int | str) -> str | None:
    """When a process has started, in clock ticks since boot: field 22 of /proc/PID/stat."""
    try:
        stat = read(f"/proc/{pid}/stat")
    except OSError:
        return None
    return stat[stat.rindex(")") + 2 :].split()[19]


_started: dict[int, str | None] = {}  # by our pid, which a fork changes


def _own_start() -> str | None:
    pid = os.getpid()
    if pid not in _started:
        _started[pid] = _start_time(pid)
    return _started[pid]


def _owner(name: str) -> tuple[str, str] | None:
    """(pid, start time) in the name of a group of ours."""
    pid, _, rest = name.removeprefix(_PREFIX).partition("-")
    start = rest.partition("-")[0]
    ours = name.startswith(_PREFIX) and pid.isdecimal() and start.isdecimal()
    return (pid, start) if ours else None


def _is_left(parent: int, name: str) -> bool:
    """Is it a group of ours whose owner is gone?  It holds a lock on its group while it lives,
    which also tells of an owner in another pid namespace."""
    owner = _owner(name)
    if owner is None:
        return False
    pid, start = owner
    own = pid == str(os.getpid())
    if not own and _start_time(pid) == start:
        return False
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def _remove(parent: int, name: str) -> bool:
    """Remove a group without processes, and those below it.  Is it gone?"""
    try:
        os.rmdir(name, dir_fd=parent)
        return True
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            return False
    try:
        for _, below, _, fd in os.fwalk(name, topdown=False, dir_fd=parent):
            for child in below:
                os.rmdir(child, dir_fd=fd)
        os.rmdir(name, dir_fd=parent)
    except OSError:
        return False
    return True


def _key(parent: int) -> tuple[int, int]:
    status = os.fstat(parent)
    return status.st_dev, status.st_ino


def _sweep(parent: int) -> None:
    """Remove what owners that were killed have left here: empty groups only, nobody is killed.

    The link count tells how many groups there are; as long as that is what it was, and none of
    them is one of ours, nothing is looked at.
    """
    key = _key(parent)
    live = _live.setdefault(key, set())
    there = os.fstat(parent).st_nlink - 2
    if there - len(live) == _others.get(key, 0):
        return
    stay = 0
    for name in os.listdir(parent):
        if _owner(name) is not None and name not in live:
            stay += not (_is_left(parent, name) and _remove(parent, name))
    _others[key] = -1 if stay else os.fstat(parent).st_nlink - 2 - len(live)


# ---- the group of one spawn


class Group:
    """The group of one spawn: a given one, or one of its own, which goes with it.

    Nothing is done before open(); end() may be called at any time, and more than once.
    """

    __slots__ = ("__weakref__", "_live", "_name", "_parent", "_pid", "handle", "source")

    def __init__(self, source: Any) -> None:
        self.source = source
        self.handle: CgroupHandle | None = None
        self._parent = -1
        self._name: str | None = None
        self._live: set[str] = set()
        self._pid = os.getpid()

    @property
    def own(self) -> bool:
        """Was it made for this spawn?"""
        return isinstance(self.source, Cgroup)

    def open(self) -> int:
        """Return the descriptor of its directory.  Raises SpawnError."""
        source = self.source
        if isinstance(source, Cgroup):
            return self._make(source)
        if isinstance(source, str):
            fd, path = _open_directory(source), os.path.abspath(source)
        else:
            number = fileno(source)
            try:
                fd = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
            except OSError as error:
                _fail(error.errno or 0, f"use descriptor {number} as a control group", "")
            path = os.readlink(f"/proc/self/fd/{fd}")
        self.handle = CgroupHandle(fd, path)
        _check_version(fd, path)
        return fd

    def _make(self, cgroup: Cgroup) -> int:
        path: Any = cgroup.parent or own_group()
        self._parent = parent = _open_directory(path)
        _sweep(parent)
        limits = [*cgroup._files, *_io_limits(cgroup)]
        _enable(parent, path, {file.partition(".")[0] for file, _ in limits})
        name = f"{_PREFIX}{self._pid}-{_own_start()}-{next(_counter)}"
        if cgroup.name is not None:
            name = f"{name}-{cgroup.name}"
        self._name = name
        self._live = _live[_key(parent)]
        self._live.add(name)
        step = f"make the control group {path}/{name}"
        try:
            os.mkdir(name, dir_fd=parent)
            fd = above_stdio(os.open(name, _DIRECTORY, dir_fd=parent))
        except OSError as error:
            _fail(error.errno or 0, step, path, _not_delegated(error.errno or 0, path))
        self.handle = CgroupHandle(fd, f"{path}/{name}")
        fcntl.flock(fd, fcntl.LOCK_EX)
        if any(file.startswith("memory.") for file, _ in limits):
            limits.append(("memory.oom.group", "1"))
        for file, text in limits:
            try:
                handles.write(fd, file, text)
            except OSError as error:
                hint = "the kernel has no such limit" if error.errno == errno.ENOENT else None
                step = f"write {text} to {file} of {self.handle.path}"
                _fail(error.errno or 0, step, self.handle.path, hint)
        return fd

    def end(self, kill: bool = True) -> None:
        """The process has ended: with its own group goes what is left in it."""
        name, self._name = self._name, None
        parent, self._parent = self._parent, -1
        if parent < 0:
            return
        try:
            # First: whatever interrupts the rest, a later spawn then finds the group as left.
            self._live.discard(name or "")
            if name is not None and self._pid == os.getpid():  # not in a fork of the caller
                self._end(parent, name, kill)
        finally:
            os.close(parent)

    def discard(self) -> None:
        """Nobody will ever have the process: close what is open."""
        self.end()
        if self.handle is not None:
            self.handle._close()

    def _end(self, parent: int, name: str, kill: bool) -> None:
        handle = self.handle
        try:
            if handle is not None and kill:
                handle._last = handles.read_stats(handle.fileno())
            gone = _remove(parent, name)
            if not gone and handle is not None and kill:
                handle.kill()
                handles.await_event(handle.fileno(), "populated", 0, _PATIENCE)
                _remove(parent, name)
        except OSError:
            pass  # a later call looks for it again
        finally:
            if handle is not None:
                handle._close()

    def oom_kills(self) -> int:
        """How many processes the OOM killer has ended here, if it is an own one."""
        if not self.own or self.handle is None:
            return 0
        try:
            return self.handle.stats().oom_kills or 0
        except OSError:
            return 0

    def cpu_time(self) -> float | None:
        """Seconds of CPU so far, of an own one; None once it is over."""
        if not self.own or self.handle is None:
            return None
        try:
            return handles.cpu_time(self.handle.fileno())
        except OSError:
            return None

    def __del__(self) -> None:
        # Dropped while its process runs: that goes on.
        self.end(kill=False)


def _io_limits(cgroup: Cgroup) -> list[tuple[str, str]]:
    limits = []
    devices: Any = cgroup.io_max or {}
    for device, keys in devices.items():
        if device.startswith("/"):
            try:
                number = os.stat(device).st_rdev
            except OSError as error:
                _fail(error.errno or 0, f"find the device {device}", device)
            device = f"{os.major(number)}:{os.minor(number)}"
        text = " ".join(f"{key}={value}" for key, value in keys.items())
        limits.append(("io.max", f"{device} {text}"))
    return limits
