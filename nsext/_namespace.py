"""Namespace: a namespace held by a descriptor, which outlives its processes."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from . import _native, _nsfs
from ._enter import Entered
from ._fds import above_stdio, fileno
from ._flags import ALL, BY_KIND, Kind, Kinds, kind_names, parse_kinds
from ._join import has_ended, pid_of_pidfd
from ._listing import ns_link, pids
from ._make import make
from ._persist import bind


class Namespace:
    """A namespace.  Owns a descriptor, which keeps the namespace alive.

    kind: "net", "mnt" ..., as under /proc/PID/ns.
    id: its inode number, as readlink of /proc/PID/ns/KIND shows it; used again after its end.
    device: that of the nsfs it lies on.
    Equal and hashable by (device, id); a context manager that closes.  See namespaces(7).
    """

    __slots__ = ("kind", "id", "device", "_fd", "__weakref__")

    kind: Kind
    id: int
    device: int

    def __init__(self, fd: int) -> None:
        """Take over *fd*.  Use of(), open(), from_fd() or new()."""
        kind = _nsfs.nstype(fd)
        if kind is None:
            raise ValueError(f"descriptor {fd} is no namespace's")
        status = os.fstat(fd)
        self.kind = cast(Kind, kind_names(kind))
        self.id, self.device = status.st_ino, status.st_dev
        self._fd = fd

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a namespace's file, /proc/PID/ns/net or /run/netns/NAME.

        Raises OSError; ValueError where the file is no namespace.
        """
        fd = _nsfs.open_path(path)
        try:
            return cls(fd)
        except ValueError:
            os.close(fd)
            raise ValueError(f"{os.fsdecode(path)!r} is no namespace") from None

    @classmethod
    def from_fd(cls, fd: Any, *, dup: bool = True) -> Self:
        """Hold the namespace of a descriptor: a copy of it, or with dup=False itself."""
        if isinstance(fd, bool) or not (isinstance(fd, int) or hasattr(fd, "fileno")):
            raise TypeError(f"a descriptor or an object with fileno(), not {type(fd).__name__}")
        number = fileno(fd)
        return cls._take(os.dup(number)) if dup else cls(number)

    @classmethod
    def of(cls, target: Any, kind: Kind) -> Self:
        """The namespace of that kind of a process: a pid, a Popen, a pidfd, or "self".

        Raises ProcessLookupError where it has ended, OSError.
        """
        with _Process(target) as process:
            return process.open(cls, kind)

    @classmethod
    def new(cls, kind: Kind, *, user: Namespace | None = None, loopback: bool = True) -> Self:
        """Make a namespace with no process in it.

        user: the user namespace that owns it, in which an ordinary user may make others; None:
            the caller's own.
        loopback: bring up ``lo`` of a net namespace.

        A new user namespace has the caller as its root.  Raises ValueError for "pid", which lives
        as long as its PID 1; SpawnError.
        """
        return cls._take(make(kind, user, loopback))

    @classmethod
    def _take(cls, fd: int) -> Self:
        fd = above_stdio(fd)
        try:
            return cls(fd)
        except BaseException:
            os.close(fd)
            raise

    def fileno(self) -> int:
        """Return the descriptor.  Raises ValueError when it is closed."""
        if self._fd < 0:
            raise ValueError("the namespace's descriptor is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Is the descriptor closed?"""
        return self._fd < 0

    def close(self) -> None:
        """Let the namespace go.  A second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def unique_id(self) -> int | None:
        """The 64-bit id, which is never used again; None before Linux 6.18 (mnt: 6.11)."""
        return _nsfs.unique_id(self.fileno())

    @property
    def owner_uid(self) -> int:
        """The uid that made the user namespace that owns this one; or this, where it is one.

        As the caller's user namespace has it.  Raises PermissionError where the owner is out of
        sight: neither the caller's user namespace nor below it.
        """
        if self.kind == "user":
            return _nsfs.owner_uid(self.fileno())
        owner = self.user_namespace()
        if owner is None:
            raise PermissionError(errno.EPERM, "the user namespace that owns it is out of sight")
        with owner:
            return owner.owner_uid

    def user_namespace(self) -> Namespace | None:
        """The user namespace that owns it; a user namespace's is its parent.

        None where that is neither the caller's own nor below it.
        """
        fd = _nsfs.owner(self.fileno())
        return None if fd is None else Namespace._take(fd)

    def parent(self) -> Namespace | None:
        """The parent of a user or pid namespace; None where it is out of the caller's sight.

        Raises ValueError for other kinds, which have none.
        """
        if self.kind not in ("user", "pid"):
            raise ValueError(f"{self.kind} namespaces have no parents")
        fd = _nsfs.parent(self.fileno())
        return None if fd is None else Namespace._take(fd)

    def processes(self) -> list[int]:
        """The processes in it that the caller may see, as pids of his."""
        link = (self.kind, self.id)
        self.fileno()
        return [pid for pid in pids() if ns_link(f"/proc/{pid}/ns/{self.kind}") == link]

    def persist(self, path: str | os.PathLike[str]) -> None:
        """Bind it to a path, where it stays, as ip-netns(8) does: see unpersist().

        The file is made, and its directory where that is missing (not the one above).
        Raises FileExistsError, atomically; PermissionError without CAP_SYS_ADMIN; OSError.
        """
        bind(self.fileno(), self.kind, os.fspath(path))

    def enter(self) -> Entered:
        """Return a context manager in which the calling thread, and no other, is in it.

        For uts, ipc, net and cgroup.  Programs started there are in it, too.  It needs
        CAP_SYS_ADMIN, also to come back; PermissionError else.
        Raises ValueError for other kinds, which a process with threads may not enter, or not
        leave again: start a program there with ``join=``.
        """
        return Entered(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Namespace):
            return NotImplemented
        return (self.device, self.id) == (other.device, other.id)

    def __hash__(self) -> int:
        return hash((self.device, self.id))

    def __repr__(self) -> str:
        return f"<Namespace {self.kind}:[{self.id}]{' closed' if self.closed else ''}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Namespace holds a descriptor and cannot be pickled")

    def __del__(self, _close: Any = os.close) -> None:
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            self._fd = -1
            _close(fd)


_N = TypeVar("_N", bound=Namespace)


class _Process:
    """A process held by a pidfd while its files in /proc are opened."""

    def __init__(self, target: Any) -> None:
        self._own = -1
        if isinstance(target, str):
            if target != "self":
                raise ValueError(f"{target!r} is no process: a pid, or 'self'")
            self.pid, self._alive = os.getpid(), -1  # the calling thread's
        elif isinstance(target, int) and not isinstance(target, bool):
            if target <= 0:
                raise ValueError(f"{target} is no process id")
            self.pid = target
            self._own = self._alive = _native.pidfd_open(target, 0)
        else:
            if not hasattr(target, "fileno"):
                name = type(target).__name__
                more = "; give its pid" if hasattr(target, "pid") else ""
                raise TypeError(
                    f"a process is a pid, a Popen of nsext, or 'self', not {name}{more}"
                )
            if getattr(target, "returncode", None) is not None:
                raise ProcessLookupError(errno.ESRCH, "the process has ended")
            self._alive = fileno(target)
            pid = pid_of_pidfd(self._alive)
            if pid is None:
                raise TypeError(f"{target!r} is no process")
            self.pid = pid

    def open(self, cls: type[_N], kind: str) -> _N:
        if kind not in BY_KIND:
            raise ValueError(f"unknown namespace kind {kind!r}: one of {' '.join(BY_KIND)}")
        if self._alive < 0:
            return cls.open(f"/proc/thread-self/ns/{kind}")
        if self.pid <= 0:
            raise ProcessLookupError(errno.ESRCH, "the process has ended")
        try:
            namespace = self._open_soon(cls, kind)
        except FileNotFoundError:
            if not os.path.exists(f"/proc/thread-self/ns/{kind}"):
                raise
            raise ProcessLookupError(errno.ESRCH, "the process has ended") from None
        if has_ended(self._alive):
            namespace.close()  # perhaps another process's by now
            raise ProcessLookupError(errno.ESRCH, "the process has ended")
        return namespace

    def _open_soon(self, cls: type[_N], kind: str) -> _N:
        # For some microseconds of its exec a program's files in /proc are root's.
        end = time.monotonic() + 0.05
        while True:
            try:
                return cls._take(_nsfs.of_process(self._alive, self.pid, kind))
            except PermissionError:
                if time.monotonic() > end or has_ended(self._alive):
                    raise
                os.sched_yield()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._own >= 0:
            os.close(self._own)


class Namespaces(Mapping[Kind, Namespace]):
    """The namespaces of a process, by kind.  May be given to join= as it is.

    A context manager that closes them all.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[Namespace]) -> None:
        self._items: dict[Kind, Namespace] = {item.kind: item for item in items}

    def __getitem__(self, kind: Kind) -> Namespace:
        return self._items[kind]

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Namespaces({', '.join(f'{k}:[{n.id}]' for k, n in self._items.items())})"

    def close(self) -> None:
        """Close them all."""
        for namespace in self._items.values():
            namespace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


def namespaces(target: Any = "self", kinds: Kinds | None = None) -> Namespaces:
    """Open the namespaces of a process: a pid, a Popen, a pidfd, or "self".

    kinds: which, as in ``new=``; None: all that this kernel has.
    Raises ProcessLookupError where the process has ended, OSError.
    """
    wanted = ALL if kinds is None else parse_kinds(kinds)
    opened: list[Namespace] = []
    try:
        with _Process(target) as process:
            for kind, flag in BY_KIND.items():
                if flag & wanted and (
                    kinds is not None or os.path.exists(f"/proc/thread-self/ns/{kind}")
                ):
                    opened.append(process.open(Namespace, kind))
    except BaseException:
        for namespace in opened:
            namespace.close()
        raise
    return Namespaces(opened)
