"""What the kernel says of a namespace's descriptor: ioctl_ns(2), ioctl_pidfd(2)."""

from __future__ import annotations

import errno
import fcntl
import os
import sys

# Where an ioctl's number has its direction differs between architectures: asm/ioctl.h.
_ODD = os.uname().machine.startswith(("alpha", "mips", "parisc", "ppc", "sparc"))
_NONE, _READ = (1 << 29, 2 << 29) if _ODD else (0, 2 << 30)
_NSIO, _PIDFS = 0xB7 << 8, 0xFF << 8

NS_GET_USERNS = _NONE | _NSIO | 1
NS_GET_PARENT = _NONE | _NSIO | 2
NS_GET_NSTYPE = _NONE | _NSIO | 3
NS_GET_OWNER_UID = _NONE | _NSIO | 4
NS_GET_MNTNS_ID = _READ | 8 << 16 | _NSIO | 5
NS_GET_PID_FROM_PIDNS = _READ | 4 << 16 | _NSIO | 6
NS_GET_PID_IN_PIDNS = _READ | 4 << 16 | _NSIO | 8
NS_GET_ID = _READ | 8 << 16 | _NSIO | 13

_PIDFD_GET_NAMESPACE = {
    kind: _NONE | _PIDFS | number
    for kind, number in {
        "cgroup": 1,
        "ipc": 2,
        "mnt": 3,
        "net": 4,
        "pid": 5,
        "time": 7,
        "user": 9,
        "uts": 10,
    }.items()
}


def nstype(fd: int) -> int | None:
    """The kind of a namespace's descriptor; None where it is none."""
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError:
        return None


def open_path(path: str | os.PathLike[str]) -> int:
    """Open a path where a namespace ought to be: a regular file, or a ValueError.

    Another file is not opened: a FIFO would wait for a writer, a device may act upon it.
    """
    if os.stat(path).st_mode & 0o170000 != 0o100000:
        raise ValueError(f"{os.fsdecode(path)!r} is no namespace")
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)


def open_checked(path: str, id: int) -> int | None:
    """Open a namespace by a path in which others may have a hand; None where it is another file.

    Nothing but a namespace is opened: a device's file would not be without effects.
    """
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status, own = os.fstat(place), os.stat("/proc/self/ns/uts")
        if (status.st_dev, status.st_ino) != (own.st_dev, id):
            return None
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    finally:
        os.close(place)


def _related(fd: int, request: int) -> int | None:
    try:
        return fcntl.ioctl(fd, request)
    except OSError as error:
        if error.errno == errno.EPERM:
            return None
        raise


def owner(fd: int) -> int | None:
    """A descriptor of the user namespace that owns this one; a user namespace's is its parent.

    None where it is out of the caller's sight: neither his own user namespace nor below it.
    """
    return _related(fd, NS_GET_USERNS)


def parent(fd: int) -> int | None:
    """A descriptor of the parent of a user or pid namespace; None where it is out of sight.

    Raises OSError EINVAL for other kinds.
    """
    return _related(fd, NS_GET_PARENT)


def owner_uid(fd: int) -> int:
    """The uid that made a user namespace, as the caller's user namespace has it."""
    return int.from_bytes(fcntl.ioctl(fd, NS_GET_OWNER_UID, bytes(4)), sys.byteorder)


def unique_id(fd: int) -> int | None:
    """The 64-bit id, which is never used twice; None before Linux 6.18 (mnt: 6.11)."""
    for request in (NS_GET_ID, NS_GET_MNTNS_ID):
        try:
            data = fcntl.ioctl(fd, request, bytes(8))
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL):
                continue
            raise
        return int.from_bytes(data, sys.byteorder)
    return None


def _of_pidfd(pidfd: int, kind: str) -> int | None:
    """None before Linux 6.11, and where the kernel has no such namespaces."""
    try:
        return fcntl.ioctl(pidfd, _PIDFD_GET_NAMESPACE[kind])
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
            return None
        raise


def of_process(pidfd: int, pid: int, kind: str) -> int:
    """A descriptor of a process's namespace.  By /proc it may be a later process's with that pid.

    Raises ProcessLookupError where it has ended, FileNotFoundError where it has or where there
    are no such namespaces, PermissionError.
    """
    path = f"/proc/{pid}/ns/{kind}"
    try:
        fd = _of_pidfd(pidfd, kind)
    except OSError as error:
        assert error.errno is not None
        raise OSError(error.errno, os.strerror(error.errno), path) from None
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC) if fd is None else fd


def translated(fd: int, request: int, pid: int) -> int | None:
    """NS_GET_PID_FROM_PIDNS, NS_GET_PID_IN_PIDNS of a pid namespace; None before Linux 6.11.

    Raises ProcessLookupError.
    """
    try:
        return fcntl.ioctl(fd, request, pid)
    except OSError as error:
        if error.errno == errno.ENOTTY:
            return None
        if error.errno == errno.ESRCH:
            raise ProcessLookupError(errno.ESRCH, f"there is no process {pid} to be seen") from None
        raise
