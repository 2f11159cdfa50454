"""Mount specs into the steps of their child.  Pure, as compile() is, whose part this is."""

from __future__ import annotations

import os
from typing import Any

from . import _flags
from ._compile import first_inside
from ._mounts import (
    Bind,
    Cgroup2,
    Dev,
    Dir,
    File,
    Mask,
    Mount,
    MountSpec,
    Mqueue,
    Overlay,
    Proc,
    ReadOnly,
    Remount,
    Symlink,
    Sysfs,
    Tmpfs,
    target_of,
)
from ._spec import Spec

Step = tuple[Any, ...]

RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
RECURSIVE, OPTIONAL, PLAIN, HANDED = 1, 2, 4, 8
OWN = 16 << 32
MS_SHARED, MS_SLAVE, MS_PRIVATE = 1 << 20, 1 << 19, 1 << 18
PROPAGATION = {None: 0, "private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED}

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEV_LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
)


def _size(size: Any) -> str:
    """The option of a tmpfs; in the kernel's words no limit is 0."""
    return f"size={0 if size == 'unlimited' else size}"


def _options(*options: str) -> bytes:
    return b"".join(os.fsencode(option) + b"\0" for option in options)


class _Writer:
    """The steps so far: the sources, which all come first, and what is done with them."""

    def __init__(self, in_user: bool, moved: int) -> None:
        self.sources: list[Step] = []
        self.steps: list[Step] = []
        self._moved = moved  # propagation of binds that say none
        self._handed = 0
        self._null = -1
        self._in_user = in_user
        self.own_proc = False  # that nobody has asked for, is there

    def source(self, source: Any, flags: int) -> int:
        """The number of a new source, a path or a descriptor."""
        if isinstance(source, str):
            self.sources.append(("source", os.fsencode(source), flags, 0))
        else:
            self.sources.append(("source", b"", flags | HANDED, self._handed))
            self._handed += 1
        return len(self.sources) - 1

    def null(self) -> int:
        """That of /dev/null, of which every use makes a clone."""
        if self._null < 0:
            self._null = self.source("/dev/null", PLAIN)
        return self._null

    def bind(self, spec: Bind, target: bytes) -> None:
        flags = (RECURSIVE if spec.recursive else 0) | (OPTIONAL if spec.optional else 0)
        number = self.source(spec.source, flags)
        if spec.idmap is not None:
            self.steps.append(("idmap", number, self._handed))
            self._handed += 1
        bits = (spec.readonly, RDONLY), (spec.nosuid, NOSUID), (spec.nodev, NODEV)
        given = sum(bit for wanted, bit in (*bits, (spec.noexec, NOEXEC)) if wanted)
        moved = PROPAGATION[spec.propagation] or self._moved
        if spec.propagation == "shared" and self._moved:
            # What is slave and becomes shared is both.
            self.steps.append(("bind", number, given, 0, self._moved, flags & RECURSIVE, target))
            place = target or b"/"
            self.steps.append(("change", place, 0, 0, moved, flags & RECURSIVE))
        else:
            self.steps.append(("bind", number, given, 0, moved, flags & RECURSIVE, target))

    def fs(self, fstype: str, target: bytes, flags: int, *options: str, source: str = "") -> None:
        self.steps.append(
            (
                "mount_fs",
                os.fsencode(fstype),
                os.fsencode(source),
                _options(*options),
                flags,
                target,
            )
        )

    def tmpfs(self, spec: Tmpfs, target: bytes) -> None:
        options = [f"mode={spec.mode:03o}"]
        if spec.size is not None:
            options.append(_size(spec.size))
        if spec.nr_inodes is not None:
            options.append(f"nr_inodes={spec.nr_inodes}")
        flags = NOSUID | NODEV | (NOEXEC if spec.noexec else 0) | OWN
        self.fs("tmpfs", target, flags, *options, source="tmpfs")

    def dev(self, spec: Dev) -> None:
        place = str(spec.target)
        options = ["mode=755"] if spec.size is None else ["mode=755", _size(spec.size)]
        self.fs("tmpfs", os.fsencode(place), NOSUID | NODEV | OWN, *options, source="tmpfs")
        for name in _DEVICES:
            number = self.source(f"/dev/{name}", OPTIONAL)
            target = os.fsencode(f"{place}/{name}")
            self.steps.append(("bind", number, NOSUID | NOEXEC, 0, self._moved, 0, target))
        for to, name in _DEV_LINKS:
            self.steps.append(("make_link", os.fsencode(to), os.fsencode(f"{place}/{name}")))
        self.steps.append(("make_dir", os.fsencode(f"{place}/shm"), 0o1777))
        fresh = "newinstance", "ptmxmode=0666", "mode=620"
        pts = os.fsencode(f"{place}/pts")
        self.fs("devpts", pts, NOSUID | NOEXEC, *fresh, source="devpts")

    def proc(self, spec: Proc) -> None:
        options = ["subset=pid"] if spec.subset_pid else []
        if spec.hide_pid is not None:
            options.append(f"hidepid={spec.hide_pid}")
        target = os.fsencode(str(spec.target))
        self.fs("proc", target, NOSUID | NODEV | NOEXEC, *options, source="proc")

    def overlay(self, spec: Overlay, target: bytes) -> None:
        lower: Any = spec.lower
        numbers = [self.source(layer, PLAIN) for layer in lower]
        flags = RECURSIVE if spec.recursive else 0
        if spec.upper is not None:
            flags |= HANDED
            self.source(spec.upper, PLAIN)
            self.source(spec.work, PLAIN)
        self.steps.append(("overlay", numbers[0], len(lower), flags, int(self._in_user), target))

    def remount(self, spec: Remount) -> None:
        bits = ("readonly", RDONLY), ("nosuid", NOSUID), ("nodev", NODEV), ("noexec", NOEXEC)
        given = sum(bit for name, bit in bits if getattr(spec, name))
        taken = sum(bit for name, bit in bits if getattr(spec, name) is False)
        flags = RECURSIVE if spec.recursive else 0
        self.steps.append(("change", os.fsencode(str(spec.target)), given, taken, 0, flags))

    def add(self, spec: MountSpec) -> None:
        """The steps of *spec*."""
        target = os.fsencode(target_of(spec) or "")
        if target == b"/" and isinstance(spec, (Bind, Tmpfs, Overlay, Mount)):
            target = b""  # the root itself
        match spec:
            case Bind():
                self.bind(spec, target)
            case Tmpfs():
                self.tmpfs(spec, target)
            case Dev():
                self.dev(spec)
            case Proc():
                self.proc(spec)
            case Overlay():
                self.overlay(spec, target)
            case Sysfs():
                flags = NOSUID | NODEV | NOEXEC | (RDONLY if spec.readonly else 0)
                self.fs("sysfs", target, flags, source="sysfs")
            case Mqueue():
                self.fs("mqueue", target, NOSUID | NODEV | NOEXEC, source="mqueue")
            case Cgroup2():
                flags = NOSUID | NODEV | NOEXEC | (RDONLY if spec.readonly else 0)
                self.fs("cgroup2", target, flags, source="cgroup2")
            case Mount():
                options = spec.data.split(",") if spec.data else []
                own = OWN if spec.fstype in ("tmpfs", "ramfs") else 0
                self.fs(spec.fstype, target, spec.bits | own, *options, source=str(spec.source))
            case ReadOnly():
                flags = (RECURSIVE if spec.recursive else 0) | (OPTIONAL if spec.optional else 0)
                self.steps.append(("change", target, RDONLY, 0, 0, flags))
                if target == b"/" and spec.recursive and self.own_proc:
                    # Who makes a user namespace in there has to write to it.
                    self.steps.append(("change", b"/proc", 0, RDONLY, 0, 0))
            case Remount():
                self.remount(spec)
            case Mask():
                self.steps.append(("mask", self.null(), OPTIONAL if spec.optional else 0, target))
            case Dir():
                self.steps.append(("make_dir", os.fsencode(str(spec.path)), spec.mode))
            case File():
                path = os.fsencode(str(spec.path))
                self.steps.append(("make_file", path, spec.content, spec.mode))
            case Symlink():
                to, path = os.fsencode(str(spec.to)), os.fsencode(str(spec.path))
                self.steps.append(("make_link", to, path))
            case _:
                raise AssertionError(spec)


def _root_spec(root: Any) -> MountSpec | None:
    if isinstance(root, str):
        return Bind(root, "/")
    if isinstance(root, Bind) and root.target is None:
        return Bind(
            root.source,
            "/",
            readonly=root.readonly,
            recursive=root.recursive,
            nosuid=root.nosuid,
            nodev=root.nodev,
            noexec=root.noexec,
            propagation=root.propagation,
            idmap=root.idmap,
        )
    return root  # type: ignore[no-any-return]


def _fresh_proc(spec: Spec) -> bool:
    """Is a proc to be mounted that no mount spec asks for?"""
    new = int(spec.new)  # type: ignore[arg-type]
    if spec.proc is not None:
        return spec.proc
    named = any(target_of(item) == "/proc" for item in spec.mounts)
    return bool(new & _flags.NEWPID and new & _flags.NEWNS) and not named


def _fs_ids(spec: Spec) -> list[Step]:
    """Ranges may leave out the caller's own id, to whom then nothing can belong."""
    maps = spec.uid_map, spec.gid_map
    if not any(isinstance(ranges, tuple) for ranges in maps):
        return []
    return [("fs_ids", *(first_inside(ranges) for ranges in maps))]


def _binds(spec: Spec) -> list[Bind]:
    """Those with a propagation of their own."""
    items = (_root_spec(spec.root), *spec.mounts)
    return [item for item in items if isinstance(item, Bind) and item.propagation is not None]


def mount_steps(spec: Spec) -> list[Step]:
    """The steps of propagation=, root= and mounts=.

    While mounts are made none may be shared with others, or what is made would be seen there,
    and pivot_root(2) is refused.  A mount that is to stay a slave of the caller's is taken
    before all the others are cut off.
    """
    new = int(spec.new)  # type: ignore[arg-type]
    given = spec.propagation or "private"
    binds = _binds(spec)
    early = given != "slave" and any(item.propagation == "slave" for item in binds)
    slave = early or given == "slave"
    steps: list[Step] = [("propagation", MS_SLAVE if slave else MS_PRIVATE)]
    writer = _Writer(bool(new & _flags.NEWUSER), MS_PRIVATE if early else 0)
    root = _root_spec(spec.root)
    if root is not None:
        writer.add(root)
    if _fresh_proc(spec):
        writer.add(Proc())
        writer.own_proc = True
    for item in spec.mounts:
        writer.add(item)
    steps += [("fs_begin",), *writer.sources]
    if early:
        steps.append(("change", b"/", 0, 0, MS_PRIVATE, RECURSIVE))
    steps += [*_fs_ids(spec), *writer.steps]
    if spec.root is not None:
        steps.append(("pivot",))
    if given == "shared":
        steps.append(("change", b"/", 0, 0, MS_SHARED, RECURSIVE))
        for item in binds:
            if item.propagation != "shared":
                target = os.fsencode(item.place)
                moved = PROPAGATION[item.propagation]
                steps.append(("change", target, 0, 0, moved, RECURSIVE if item.recursive else 0))
    steps.append(("fs_end",))
    if spec.root is None and (spec.cwd is None or not os.fsencode(spec.cwd).startswith(b"/")):
        steps.append(("reenter",))
    return steps
