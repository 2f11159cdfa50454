"""The likely cause of an error in the file system of a sandbox."""

from __future__ import annotations

import errno
import os
from typing import Any

from . import _causes, _flags
from ._describe_mounts import source_name
from ._spec import Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._privileges import Step

# csrc/helper/fs.h
TARGET, MISSING, MAKE, FLAGS, ATTACH, CLONE, OPTION, CREATE = range(1, 9)
WRITE, SCRATCH, SUBMOUNT, PROC, ENTER, DETACH, REACH, ROOT, MOVED = range(9, 18)

MOUNT_STEPS = frozenset(
    {"source", "idmap", "bind", "mount_fs", "overlay", "change", "mask"}
    | {"make_dir", "make_file", "make_link", "pivot", "fs_ids"}
)


def file_hint(missing: str, number: int, spec: Spec, path: Any, own: bool = False) -> str | None:
    """About a program or a directory that is not there; own: the caller's working directory."""
    inside = " inside the new root" if spec.root is not None else ""
    if number == errno.EACCES and spec.landlock is not None:
        return "Landlock: it and its interpreter have to lie below a path of execute="
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


def _host_tree(name: str, spec: Spec) -> str:
    if spec.root is None:
        other = "say root=Tmpfs() or root=Overlay(lower=[...])"
    else:
        other = "say root=Overlay(lower=[...])"
    if name in ("make_dir", "make_link"):
        return (
            f"it would have to be made in a tree of the host's, which is never written: make it "
            f"below a Tmpfs, or {other}"
        )
    return (
        f"it is missing in the tree there, and that is the host's, which is never written: make "
        f"it before, or {other}"
    )


def _in_user(spec: Spec) -> int:
    return int(spec.new) & _flags.NEWUSER  # type: ignore[arg-type]


def _new_fs_hint(fstype: str, number: int, spec: Spec) -> str | None:
    user = _in_user(spec)
    if number in (errno.EPERM, errno.EACCES) and fstype == "proc":
        return _causes.of_fresh_proc(int(spec.new))  # type: ignore[arg-type]
    if number in (errno.EPERM, errno.EACCES) and fstype == "sysfs":
        return (
            "a fresh sysfs needs a new net namespace and, in a user namespace, one of the caller's "
            "that nothing is mounted over"
        )
    if number == errno.EPERM and user:
        since = ", which it does since Linux 5.11" if fstype == "overlay" else ""
        return (
            f"the kernel does not let a user namespace mount {fstype}{since}: "
            f"mount it outside, and Bind() it"
        )
    if number == errno.EPERM:
        return "mounting needs CAP_SYS_ADMIN; with 'user' in new= an ordinary user has it"
    if number == errno.ENODEV:
        return f"this kernel has no file system {fstype}"
    return None


def _overlay_hint(step: Step, number: int, spec: Spec, steps: tuple[Step, ...]) -> str | None:
    if number == errno.EINVAL and _in_user(spec):
        names = [source_name(steps, step[1] + i) for i in range(step[2])]
        below = [mount for name in names for mount in _mounted_below(name)]
        if below:
            return _locked(below)
    if number == errno.EINVAL:
        return "upper and work must be empty directories of one file system that is no overlay"
    if number == errno.EROFS:
        return "upper or work cannot be written: the kernel would make the overlay read-only"
    return None


def _mounted_below(path: str) -> list[str]:
    """The caller's mounts below a path.  As far as it can be told: it is for a hint."""
    try:
        real = os.path.realpath(path)
        with open("/proc/self/mountinfo") as file:
            points = {line.split()[4] for line in file}
    except OSError:
        return []
    top = real.rstrip("/") + "/"
    return sorted(point for point in points if point.startswith(top) and point != top)


def _locked(below: list[str]) -> str:
    more = f" and {len(below) - 3} more" if len(below) > 3 else ""
    is_or_are = "is" if len(below) == 1 else "are"
    return (
        f"{', '.join(below[:3])}{more} {is_or_are} mounted below, where a user namespace may not "
        f"look under a mount"
    )


def _make_hint(number: int, spec: Spec) -> str | None:
    """What cannot be made in a file system of the sandbox's own."""
    if number == errno.EROFS:
        return "its directory is read-only by then: make it before"
    if number in (errno.EACCES, errno.EPERM, errno.EOVERFLOW) and _in_user(spec):
        return (
            "it belongs into a directory, or is a file, of an id that the user namespace does not "
            "know, and nobody in there can change it: put a Tmpfs or a Bind there"
        )
    return None


def _source_hint(step: Step, number: int, aux: int) -> str | None:
    _, path, flags, _ = step
    if number == errno.ESTALE or (number == errno.ENOENT and flags & 8):
        return "the descriptor's file is no longer at its path, by which a mount of it is made"
    if number == errno.ELOOP:
        return "it leads through a link of /proc/PID: give the descriptor instead of the path"
    if number == errno.ENOENT:
        return "there is no such file in the caller's tree; optional=True leaves it out"
    if number == errno.EACCES:
        return "a directory on the way may not be entered by the caller"
    if number == errno.EINVAL and aux == CLONE:
        below = [] if flags & 8 else _mounted_below(os.fsdecode(path))
        words = _locked(below) if below else "a user namespace may not look under a mount below it"
        return f"{words}: recursive=True takes it along"
    return None


_BY_PART = {
    ROOT: "the root directory is no mount point: say root=",
    MOVED: "it was renamed meanwhile",
    PROC: "the caller has no /proc, which this needs",
}


def mount_hint(
    step: Step, number: int, aux: int, spec: Spec, message: str, steps: tuple[Step, ...]
) -> str | None:
    """Why a step of the file system failed; message: the file system's own words."""
    name = step[0]
    if message and "too revealing" not in message:
        return message.split("\n", maxsplit=1)[0].strip()[2:] or None
    if aux in _BY_PART and (aux != PROC or number == errno.ENOENT):
        return _BY_PART[aux]
    if aux == MISSING:
        return _host_tree(name, spec)
    if aux == SUBMOUNT:
        return "something is mounted below a lower directory, which an overlay does not show: " + (
            "a user namespace can have none of it" if _in_user(spec) else _RECURSIVE
        )
    if aux in (MAKE, WRITE):
        return _make_hint(number, spec)
    if aux == TARGET and number == errno.EACCES and name != "source":
        return "a directory on the way may not be entered"
    if name == "source":
        return _source_hint(step, number, aux)
    if name in ("change", "mask") and number == errno.ENOENT:
        return "optional=True leaves it out"
    if number == errno.EPERM and aux == FLAGS:
        return "a user namespace may not take back flags of the caller's mounts"
    if name == "idmap":
        return (
            "an idmapped mount needs Linux 5.12, a file system that can do it, and CAP_SYS_ADMIN "
            "in the user namespace that the file system belongs to"
        )
    if name == "overlay":
        return _overlay_hint(step, number, spec, steps) or _new_fs_hint("overlay", number, spec)
    return _new_fs_hint(os.fsdecode(step[1]), number, spec) if name == "mount_fs" else None


_RECURSIVE = "recursive=True binds it, read-only"
