"""The root directory of a child, for the parent: Root, and open_in()."""

from __future__ import annotations

import errno
import os
import stat
from types import TracebackType
from typing import IO, Any, Self

from . import _native
from ._fds import above_stdio, fileno
from ._namespace import Namespace


class Root:
    """A directory held by a descriptor, with the mount namespace that it lies in.

    Usable after the end of the processes there: without a hold on the mount namespace all that
    was mounted below would be gone with the last of them.  A context manager that closes.
    """

    __slots__ = ("_fd", "_namespace")

    def __init__(self, fd: int, namespace: Namespace | None = None) -> None:
        """Take over *fd* and *namespace*."""
        self._fd = fd
        self._namespace = namespace

    @classmethod
    def _of(cls, pid: int, namespace: Namespace) -> Self:
        """That of a process, which the caller knows to be there."""
        try:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            fd = above_stdio(os.open(f"/proc/{pid}/root", flags))
        except BaseException:
            namespace.close()
            raise
        return cls(fd, namespace)

    def fileno(self) -> int:
        """Return the descriptor.  Raises ValueError when it is closed."""
        if self._fd < 0:
            raise ValueError("the root's descriptor is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Is the descriptor closed?"""
        return self._fd < 0

    def close(self) -> None:
        """Let the directory go, and the mount namespace.  A second time does nothing."""
        fd, self._fd = self._fd, -1
        namespace, self._namespace = self._namespace, None
        if namespace is not None:
            namespace.close()
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Root {'closed' if self.closed else f'fd {self._fd}'}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Root holds a descriptor and cannot be pickled")

    def __del__(self, _close: Any = os.close) -> None:
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            self._fd = -1
            _close(fd)


def _directory(where: Any) -> int:
    """The descriptor of a root: of a Root, of a Popen's, or a directory's."""
    root = getattr(where, "root", where)
    if root is None:
        raise ValueError(
            f"the root of {where!r} was not kept: it is with root= or hold='mnt', or where it was "
            f"asked for while paused"
        )
    if not isinstance(root, int) and not hasattr(root, "fileno"):
        raise TypeError(f"where is a Popen, a Root or a descriptor, not {type(where).__name__}")
    return fileno(root)


def _check_kind(fd: int, path: Any, any_type: bool) -> bool:
    """Is it a directory?  Raises OSError for what is neither that nor a regular file."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        return True
    if not stat.S_ISREG(mode) and not any_type:
        raise OSError(errno.EINVAL, "neither a regular file nor a directory", path)
    return False


def _open_directory(name: str) -> int:
    """To be listed, too, where that is allowed."""
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _open(root: int, path: Any, flags: int, any_type: bool) -> int:
    """Open what *path* is inside *root*; looked at first, since opening may block."""
    for _ in range(2):
        try:
            found = _native.resolve(root, path, os.O_PATH)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        else:
            return _open_found(found, path, flags, any_type)
        try:
            return _native.resolve(root, path, flags | os.O_EXCL | os.O_NONBLOCK)
        except FileExistsError:  # somebody has been faster, or it is a link to what is missing
            if flags & os.O_EXCL:
                raise
    return _open_through(root, path, flags, any_type)


def _open_through(root: int, path: Any, flags: int, any_type: bool) -> int:
    """Make what a link leads to; what has appeared there meanwhile is looked at when it is open."""
    unseen = flags & ~os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY
    opened = _native.resolve(root, path, unseen)
    try:
        if not _check_kind(opened, path, any_type) and flags & os.O_TRUNC:
            os.ftruncate(opened, 0)
    except BaseException:
        os.close(opened)
        raise
    return opened


def _open_found(found: int, path: Any, flags: int, any_type: bool) -> int:
    """Open what *found*, an O_PATH descriptor that is closed here, is."""
    try:
        directory = _check_kind(found, path, any_type)
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        # By its descriptor, so that nothing else can have taken its place.
        name = f"/proc/self/fd/{found}"
        if directory:
            return _open_directory(name)
        flags &= ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
        return os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)


def open_in(
    where: Any,
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    mode: str = "rb",
    *,
    any_type: bool = False,
    **open_kw: Any,
) -> IO[Any] | Root:
    """Open a file as a process in a sandbox would find it, without ever leaving its root.

    where: a Popen whose root was kept, a Root, or the descriptor of a directory.
    path: inside; links are followed there, absolute ones and ".." too, but no magic link.
    mode, open_kw: as in open().
    any_type: devices, FIFOs and sockets too.  Without it they are refused; nothing blocks.

    Returns a file object; for a directory a Root of it, which os.listdir(root.fileno()) lists.
    Raises OSError.  See openat2(2), RESOLVE_IN_ROOT.
    """
    root = _directory(where)
    opened = -1
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def opener(_: Any, flags: int) -> int:
        nonlocal opened
        try:
            opened = _open(root, path, flags, any_type)
        except OSError as error:
            error.filename = path
            raise
        if stat.S_ISDIR(os.fstat(opened).st_mode):
            if mode not in ("r", "rb"):
                os.close(opened)
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            raise _Directory
        if not any_type:
            os.set_blocking(opened, True)
        return opened

    try:
        return open(os.fspath(path), mode, opener=opener, **open_kw)
    except _Directory:
        return Root(opened)


class _Directory(Exception):
    """What was opened is a directory."""
