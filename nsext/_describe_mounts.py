"""Steps of the file system in words: a part of describe()."""

from __future__ import annotations

import os

from ._compile import MS_PRIVATE, MS_SHARED, MS_SLAVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._privileges import Step

# Which part of a step failed (csrc/helper/fs.h); {0} is what describe_mount() says of it.
_PROPAGATION = {MS_PRIVATE: "private", MS_SLAVE: "slave", MS_SHARED: "shared"}
_FS_PARTS = {
    1: "{0}: the mount point",
    2: "{0}: the mount point",
    6: "{0}: open_tree",
    9: "{0}: write",
    10: "{0}: mount a tmpfs for it",
    11: "{0}: look for mounts below a lower directory",
    12: "{0}: read /proc",
    16: "{0}: the mount point",
    17: "{0}: look at what is mounted below",
    19: "{0}: look at what is mounted below",
}
_PIVOT_PARTS = {13: "enter the new root", 14: "detach the old root", 15: "look from the new root"}

_FLAG_NAMES = ((1, "read-only"), (2, "nosuid"), (4, "nodev"), (8, "noexec"))


def _flag_names(flags: int) -> str:
    return ", ".join(name for bit, name in _FLAG_NAMES if flags & bit)


def _on(target: bytes) -> str:
    return f"on {os.fsdecode(target)}" if target else "as the root"


def source_name(steps: tuple[Step, ...], number: int) -> str:
    """The path of a source, or what else is known of it."""
    sources = [step for step in steps if step[0] == "source"]
    if number >= len(sources):
        return f"source {number}"
    _, path, flags, handed = sources[number]
    return f"handed descriptor {handed}" if flags & 8 else os.fsdecode(path)


def describe_mount(step: Step, steps: tuple[Step, ...]) -> str | None:
    """What *step* does, or None where it is no step of the file system."""
    name, args = step[0], step[1:]
    if name in _PLAIN:
        return _PLAIN[name]
    match name, args:
        case "source", (path, flags, number):
            what = f"handed descriptor {number}" if flags & 8 else os.fsdecode(path)
            return f"open {what}{', where it is there' if flags & 2 else ''}"
        case "fs_ids", (uid, gid):
            return f"make files as {uid}:{gid} where the own ids are not mapped"
        case "idmap", (number, _):
            return f"map the ids of {source_name(steps, number)}"
        case "bind", (number, given, _, moved, flags, target):
            words = [f"bind {source_name(steps, number)} {_on(target)}"]
            words += ["with what is below"] if flags & 1 else []
            words += [_flag_names(given)] if given else []
            words += [_PROPAGATION[moved]] if moved else []
            return ", ".join(words)
        case "mount_fs", (fstype, _, options, flags, target):
            words = [f"mount {os.fsdecode(fstype)} {_on(target)}"]
            words += [os.fsdecode(option) for option in options.split(b"\0") if option]
            return ", ".join(words + ([_flag_names(flags)] if flags & 15 else []))
        case "overlay", (number, count, flags, _, target):
            lower = [source_name(steps, number + i) for i in range(count)]
            upper = source_name(steps, number + count) if flags & 8 else "memory"
            return f"overlay {':'.join(lower)} {_on(target)}, changes to {upper}"
        case "change", (target, given, taken, moved, flags):
            words = [f"make {os.fsdecode(target)}{' recursively' if flags & 1 else ''}"]
            words += [_PROPAGATION[moved]] if moved else []
            words += [_flag_names(given)] if given else []
            words += [f"not {_flag_names(taken)}"] if taken else []
            return " ".join(words)
        case "mask", (_, _, target):
            return f"mask {os.fsdecode(target)}"
        case "make_dir", (path, mode):
            return f"make directory {os.fsdecode(path)}, mode {mode:03o}"
        case "make_file", (path, content, mode):
            return f"make file {os.fsdecode(path)} of {len(content)} bytes, mode {mode:03o}"
        case "make_link", (to, path):
            return f"make link {os.fsdecode(path)} to {os.fsdecode(to)}"
    return None


# Those with the path that they are about, by its place among their arguments.
MOUNT_TARGETS = {
    "source": 0,
    "bind": 5,
    "mount_fs": 4,
    "overlay": 4,
    "change": 0,
    "mask": 2,
    "make_dir": 0,
    "make_file": 0,
    "make_link": 1,
}


_PLAIN = {
    "fs_begin": "open the root directory",
    "fs_end": "restore what the mounts needed",
    "pivot": "change to the new root",
    "reenter": "go back to the working directory",
}


def describe_mount_failure(step: Step, aux: int, steps: tuple[Step, ...]) -> str:
    """What a step was doing when it failed, without its options."""
    if step[0] == "pivot":
        return _PIVOT_PARTS.get(aux) or _PLAIN["pivot"]
    words = describe_mount(step, steps) or step[0]
    if aux in (1, 2) and step[0] in ("source", "make_dir", "make_file", "make_link"):
        part = "{0}" if step[0] == "source" else "{0}: the directory that it lies in"
        return part.format(words.partition(",")[0])
    return _FS_PARTS.get(aux, "{0}").format(words.partition(",")[0])
