"""Namespaces bound to a path, as ip-netns(8) has them."""

from __future__ import annotations

import errno
import os
import stat

from . import _native

_MS_BIND = 4096
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8


def bind(fd: int, kind: str, path: str) -> None:
    """Make the file *path*, and bind the namespace of a descriptor to it.

    Raises FileExistsError, OSError; then the file is gone again.
    """
    directory = os.path.dirname(path) or "."
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        pass
    # Mode 0: what is left of it where the mount is not to be seen tempts nobody.
    place = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0)
    try:
        # By descriptor: whatever has become of the path meanwhile, it is our file.
        _native.mount(f"/proc/thread-self/fd/{fd}", f"/proc/thread-self/fd/{place}", _MS_BIND)
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError):
            raise _explained(error.errno or 0, kind, path) from None
        raise
    finally:
        os.close(place)


def _explained(number: int, kind: str, path: str) -> OSError:
    text = os.strerror(number)
    if number == errno.EPERM:
        text += ": binding a namespace is mounting, and needs CAP_SYS_ADMIN"
    elif number == errno.EINVAL and kind == "mnt":
        text += (
            ": a mount namespace can only be bound in an older one, and below a mount that is "
            "not shared"
        )
    return OSError(number, text, path)


def unpersist(path: str | os.PathLike[str]) -> None:
    """Undo Namespace.persist(), and what ip-netns(8) and unshare(1) have bound.

    The namespace lives on while a process or a descriptor holds it.
    Raises FileNotFoundError; OSError EINVAL where no namespace is bound to the path;
    PermissionError without CAP_SYS_ADMIN.
    """
    path = os.fspath(path)
    nsfs = os.stat("/proc/thread-self/ns/uts").st_dev
    if os.lstat(path).st_dev != nsfs:
        raise OSError(errno.EINVAL, "no namespace is bound to it", path)
    try:
        _native.umount(path, _MNT_DETACH | _UMOUNT_NOFOLLOW)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    # The file below: an empty one was made for this, any other one somebody has laid it over.
    below = os.lstat(path)
    if stat.S_ISREG(below.st_mode) and below.st_size == 0 and below.st_dev != nsfs:
        os.unlink(path)
