"""The likely cause of an error in the file system of a sandbox."""

from __future__ import annotations

import errno
import os
from typing import Any

from . import _flags
from ._spec import Spec

# csrc/helper/fs.h
TARGET, MISSING, MAKE, FLAGS, ATTACH, CLONE, OPTION, CREATE = range(1, 9)
WRITE, SCRATCH, SUBMOUNT, PROC, ENTER, DETACH, REACH, ROOT, MOVED = range(9, 18)

MOUNT_STEPS = frozenset(
    {"source", "idmap", "bind", "mount_fs", "overlay", "change", "mask"}
    | {"make_dir", "make_file", "make_link", "pivot"}
)


def file_hint(missing: str, number: int, spec: Spec, path: Any, own: bool = False) -> str | None:
    """About a program or a directory that is not there; own: the caller's working directory."""
    inside = " inside the new root" if spec.root is not None else ""
    if missing and number == errno.ENOENT:
        return f"its interpreter {missing} is missing{inside}"
    if number not in (errno.ENOENT, errno.ENOTDIR):
        return None
    words = [f"it is looked for{inside}"] if inside else []
    cover = _cover(os.fsdecode(path), spec)
    words += [f"{cover!r} lies over it"] if cover else []
    words += ["the working directory is the caller's: say cwd="] if own else []
    return "; ".join(words) or None


def _cover(path: str, spec: Spec) -> Any:
    """The last mount that hides what *path* was."""
    found = None
    for item in spec.mounts:
        target = getattr(item, "target", None)
        below = target is not None and f"{path}/".startswith(f"{target}/")
        if below and type(item).__name__ in ("Tmpfs", "Overlay", "Mount", "Dev", "Mask", "Bind"):
            found = item
    return found


def _host_tree(name: str) -> str:
    if name in ("make_dir", "make_link"):
        return (
            "it would have to be made in a tree of the host's, which is never written: make it "
            "below a Tmpfs, or say root=Overlay(lower=[...])"
        )
    return (
        "it is missing in the tree there, and that is the host's, which is never written: make it "
        "before, or say root=Overlay(lower=[...])"
    )


def _new_fs_hint(fstype: str, number: int, spec: Spec) -> str | None:
    user = int(spec.new) & _flags.NEWUSER  # type: ignore[arg-type]
    if number in (errno.EPERM, errno.EACCES) and fstype in ("proc", "sysfs"):
        kind = "pid" if fstype == "proc" else "net"
        return (
            f"a fresh {fstype} needs a new {kind} namespace and, in a user namespace, "
            f"one of the caller's that nothing is mounted over"
        )
    if number == errno.EPERM and user:
        return f"the kernel does not let a user namespace mount {fstype}"
    if number == errno.EPERM:
        return "mounting needs CAP_SYS_ADMIN; with 'user' in new= an ordinary user has it"
    if number == errno.ENODEV:
        return f"this kernel has no file system {fstype}"
    if number == errno.EINVAL and fstype == "overlay" and user:
        return (
            "upper and work must be empty directories of one file system that is no overlay; and "
            "a lower directory with mounts below it cannot be one in a user namespace, which may "
            "not look under them"
        )
    if number == errno.EINVAL and fstype == "overlay":
        return "upper and work must be empty directories of one file system that is no overlay"
    return None


def mount_hint(step: Any, number: int, aux: int, spec: Spec, message: str) -> str | None:
    """Why a step of the file system failed; message: the file system's own words."""
    name = step[0]
    if message:
        return message.split("\n", maxsplit=1)[0].strip()[2:] or None
    if aux == MISSING:
        return _host_tree(name)
    if aux == SUBMOUNT:
        return (
            "something is mounted below a lower directory, which an overlay does not show: "
            "recursive=True binds it, read-only"
        )
    if aux == ROOT:
        return "the root directory is no mount point: say root="
    if aux == MOVED:
        return "it was renamed meanwhile"
    if aux == PROC:
        return "the caller has no /proc, which this needs"
    if number == errno.ESTALE or (number == errno.ENOENT and name == "source" and step[2] & 8):
        return "the descriptor's file is no longer at its path, by which a mount of it is made"
    if number == errno.ELOOP and name == "source":
        return "it leads through a link of /proc/PID: give the descriptor instead of the path"
    if number == errno.ENOENT and name == "source":
        return "there is no such file in the caller's tree; optional=True leaves it out"
    if number == errno.EINVAL and aux == CLONE:
        return (
            "something is mounted below, which a user namespace may not look under: "
            "recursive=True takes it along"
        )
    if number == errno.EPERM and aux == FLAGS:
        return "a user namespace may not take back flags of the caller's mounts"
    if name == "idmap":
        return (
            "an idmapped mount needs Linux 5.12, a file system that can do it, and CAP_SYS_ADMIN "
            "in the user namespace that the file system belongs to"
        )
    fstype = {"mount_fs": os.fsdecode(step[1]) if name == "mount_fs" else "", "overlay": "overlay"}
    if name in fstype:
        return _new_fs_hint(fstype[name], number, spec)
    return None
