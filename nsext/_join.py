"""join=: which namespaces a child enters, and their descriptors."""

from __future__ import annotations

import errno
import os
from _collections_abc import Mapping

from . import _flags, _native
from ._errors import SpawnError
from ._fds import fileno
from ._flags import ALL, BY_KIND, kind_names, parse_kinds
from ._proc import field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from ._fds import HasFileno
    from ._namespace import Namespaces

Target: TypeAlias = "int | str | os.PathLike[str] | HasFileno"
"""A pid (an int always is one), a path with a slash in it, or what has a fileno(): a pidfd or a
namespace's descriptor."""

Joins: TypeAlias = "Target | Mapping[str, Target] | Namespaces"


class Fd:
    """A bare descriptor number as a target of join=; it is borrowed, never closed."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fileno(fd)

    def fileno(self) -> int:
        """Return the number."""
        return self._fd

    def __repr__(self) -> str:
        return f"Fd({self._fd})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fd) and other._fd == self._fd

    def __hash__(self) -> int:
        return hash(("Fd", self._fd))


class Join:
    """A join= in its normal form: (kinds, target) pairs; kinds None: what the target is of."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: tuple[tuple[int | None, Any], ...]) -> None:
        self.pairs = pairs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Join) and other.pairs == self.pairs

    def __hash__(self) -> int:
        return hash(self.pairs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Join, (self.pairs,)

    def __repr__(self) -> str:
        if len(self.pairs) == 1 and self.pairs[0][0] is None:
            return repr(self.pairs[0][1])
        items = (f"{kind_names(kinds or 0)!r}: {target!r}" for kinds, target in self.pairs)
        return "{" + ", ".join(items) + "}"

    @property
    def kinds(self) -> int:
        """The kinds that are named."""
        named = 0
        for kinds, _ in self.pairs:
            named |= kinds or 0
        return named


def _target(value: Any) -> Any:
    if isinstance(value, bool):
        raise TypeError("join: a target is no bool")
    if isinstance(value, int):
        if value <= 0:
            raise ValueError(f"join: {value} is no process id")
        return value
    if isinstance(value, (str, bytes, os.PathLike)):
        path = os.fsdecode(value)
        if "\0" in path:
            raise ValueError("join: embedded null byte")
        if "/" not in path:
            raise ValueError(
                f"join: {path!r} has no slash in it; for a named network namespace say "
                f"'/run/netns/{path}', for a file here './{path}'"
            )
        return path
    if hasattr(value, "fileno") or hasattr(value, "kind"):
        return value
    raise TypeError(
        f"join: a target is a pid, a path or an object with fileno(), not {type(value).__name__}"
    )


def normal(value: Any) -> Join:
    """Return the normal form.  Raises TypeError and ValueError."""
    if isinstance(value, Join):
        return value
    if not isinstance(value, Mapping):
        return Join(((None, _target(value)),))
    pairs: list[tuple[int, Any]] = []
    seen = 0
    for kinds, target in value.items():
        flags = parse_kinds(kinds)
        if not flags:
            raise ValueError("join: no namespace kind named")
        if flags & seen:
            raise ValueError(f"join: {kind_names(flags & seen)} is given twice")
        seen |= flags
        pairs.append((flags, _target(target)))
    if not pairs:
        raise ValueError("join: an empty mapping names no namespace")
    return Join(tuple(pairs))


NOT_TO_BE_SEEN = (
    "another user's process, or one that is not dumpable: to look at it needs CAP_SYS_PTRACE"
)
NEITHER = "it is neither a namespace nor a pidfd"


def _error(number: int, what: str, hint: str | None = None) -> SpawnError:
    return SpawnError(number, os.strerror(number), stage="setup", step=what, hint=hint)


def pid_of_pidfd(fd: int) -> int | None:
    """The process id, here, of a pidfd; None where *fd* is none; -1 where it has been reaped.

    Raises FileNotFoundError where no /proc is mounted.
    """
    try:
        pid = field(f"/proc/self/fdinfo/{fd}", "Pid")
    except FileNotFoundError:
        os.stat("/proc/self/fdinfo")
        return None
    return None if pid is None else int(pid)


def has_ended(pidfd: int) -> bool:
    """Has the process of a pidfd ended?"""
    import select

    poll = select.poll()  # select() refuses descriptors from 1024 up
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


class Opened:
    """Descriptors of the namespaces to join, and what to close afterwards."""

    def __init__(self, at_once: bool) -> None:
        self.pairs: list[tuple[int, int]] = []
        self._own: list[int] = []
        self._at_once = at_once

    @property
    def kinds(self) -> int:
        """Kinds that are joined."""
        return sum(kinds for _, kinds in self.pairs)

    def keep(self, fd: int) -> int:
        """Take over a descriptor, to be closed with the others; return it."""
        self._own.append(fd)
        return fd

    def close(self) -> None:
        """Close what was opened here."""
        while self._own:
            os.close(self._own.pop())

    def _add(self, fd: int, kind: int, what: str) -> None:
        if kind == _flags.NEWUSER and os.path.sameopenfile(fd, self._own_ns("user")):
            return  # the caller's own: nothing to do, and EINVAL
        if self.kinds & kind:
            raise ValueError(f"join: {kind_names(kind)} is given twice ({what})")
        self.pairs.append((fd, kind))

    def _open(self, path: str, what: str) -> int:
        from ._nsfs import open_path

        try:
            fd = open_path(path)
        except OSError as error:
            raise _error(error.errno or 0, f"open {path} of {what}") from None
        except ValueError:
            raise _error(errno.EINVAL, f"join {path}", NEITHER) from None
        self._own.append(fd)
        return fd

    def process(self, pid: int, kinds: int | None, alive: int, what: str) -> None:
        """The namespaces of a process, which *alive*, its pidfd, tells from a later one."""
        if self._at_once and kinds is not None:
            # The pidfd itself, by which the child enters all of them at once, if the process
            # has not ended by then.  See setns(2).
            self._add(alive, kinds, what)
            return
        for kind, flag in BY_KIND.items():
            if not flag & (ALL if kinds is None else kinds):
                continue
            from . import _nsfs

            try:
                fd = _nsfs.of_process(alive, pid, kind)
            except OSError as error:
                if has_ended(alive):
                    break
                hint = NOT_TO_BE_SEEN if error.errno in (errno.EACCES, errno.EPERM) else None
                raise _error(error.errno or 0, f"open {error.filename} of {what}", hint) from None
            self._own.append(fd)
            same = os.path.sameopenfile(fd, own) if (own := self._own_ns(kind)) >= 0 else False
            if same and kinds is None:
                continue
            self._add(fd, int(flag), what)
        if has_ended(alive):
            raise _error(errno.ESRCH, f"join the namespaces of {what}", "it has ended")

    def _own_ns(self, kind: str) -> int:
        try:
            fd = os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return -1
        self._own.append(fd)
        return fd

    def target(self, kinds: int | None, target: Any) -> None:
        """Open what *target* is."""
        from ._nsfs import nstype

        if isinstance(target, int):
            what = f"process {target}"
            try:
                pidfd = _native.pidfd_open(target, 0)
            except OSError as error:
                hint = "there is no such process" if error.errno == errno.ESRCH else None
                raise _error(error.errno or 0, f"join the namespaces of {what}", hint) from None
            self._own.append(pidfd)
            self.process(target, kinds, pidfd, what)
            return
        if isinstance(target, str):
            fd, what = self._open(target, "join="), target
        elif hasattr(target, "fileno"):
            what = repr(target)
            if getattr(target, "returncode", None) is not None:
                raise _error(errno.ESRCH, f"join the namespaces of {what}", "it has ended")
            fd = fileno(target)
        else:
            raise TypeError(f"join: {target!r} has no descriptor")
        kind = nstype(fd)
        if kind is not None:
            if kinds is not None and kinds != kind:
                raise ValueError(f"join: {what} is a {kind_names(kind)} namespace")
            self._add(fd, int(kind), what)
            return
        try:
            pid = None if isinstance(target, str) else pid_of_pidfd(fd)
        except FileNotFoundError as error:
            raise _error(error.errno or 0, f"join {what}", "/proc is not mounted") from None
        if pid is None:
            raise _error(errno.EINVAL, f"join {what}", NEITHER)
        if pid <= 0:
            raise _error(errno.ESRCH, f"join the namespaces of {what}", "it has ended")
        self.process(pid, kinds, fd, what)


def open_joins(join: Join, new: int) -> Opened:
    """Open the namespaces of *join*.  Raises SpawnError, ValueError; then nothing stays open."""
    # Who has joined a user namespace may no longer look at a process that he could look at before.
    opened = Opened(all(kinds and not kinds & _flags.NEWUSER for kinds, _ in join.pairs))
    try:
        for kinds, target in join.pairs:
            opened.target(kinds, target)
        both = opened.kinds & new
        if both:
            raise ValueError(f"{kind_names(both)} stands in new= and is joined, too")
    except BaseException:
        opened.close()
        raise
    return opened
