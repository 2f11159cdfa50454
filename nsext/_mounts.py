"""Mount specs: what a sandbox's file system is made of.  Frozen, checked when made, pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from pathlib import PurePath
from typing import Any, ClassVar, Literal

from . import _values
from ._fds import HasFileno

StrPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Source = StrPath | int | HasFileno
Propagation = Literal["private", "slave", "shared"]


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, bytes, os.PathLike))


def _plain_path(value: Any, what: str) -> str:
    if not _is_path(value):
        raise TypeError(f"{what} must be a path, not {type(value).__name__}")
    text = os.fsdecode(value)
    if not text:
        raise ValueError(f"{what}: an empty path")
    if "\0" in text:
        raise ValueError(f"{what}: embedded null byte")
    return text


def _inside(value: Any, what: str) -> str:
    """A path inside the sandbox, which is absolute there."""
    text = _plain_path(value, what)
    if not text.startswith("/"):
        raise ValueError(f"{what} must be absolute inside the sandbox, not {text!r}")
    return str(PurePath("/" + text.lstrip("/")))  # "//" is a root of its own to pathlib


def _is_root(path: str | None) -> bool:
    """Is it the root directory, as it is written?  A link may make it another one."""
    return path is not None and os.path.normpath(path) == "/"


def _below_root(value: Any, what: str) -> str:
    """A path inside that is not the root directory, which nothing can be put in the place of."""
    path = _inside(value, what)
    if _is_root(path):
        raise ValueError(f"{what}: {os.fsdecode(value)!r} is the root directory")
    return path


def _flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{what} must be a bool, not {type(value).__name__}")
    return value


def _source(value: Any, what: str) -> Any:
    """A path of the caller's, or a descriptor."""
    if isinstance(value, bool):
        raise TypeError(f"{what} must be a path or a descriptor, not a bool")
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{what}: bad file descriptor {value}")
        return value
    if _is_path(value):
        return _plain_path(value, what)
    if hasattr(value, "fileno"):
        return value
    raise TypeError(f"{what} must be a path or a descriptor, not {type(value).__name__}")


def _mode(value: Any, what: str) -> int:
    number = _values.integer(value, what)
    if not 0 <= number <= 0o7777:
        raise ValueError(f"{what}: {number:#o} is no mode")
    return number


def _tmpfs_size(value: Any, what: str) -> int | str | None:
    if value is None:
        return None
    size = _values.size(value, what)
    if size == 0:
        raise ValueError(f"{what}: 0 means no limit to the kernel: say 'unlimited'")
    return "unlimited" if size == _values.INFINITY else size


def _propagation(value: Any, what: str) -> Any:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{what} must be a str or None, not {type(value).__name__}")
    if value is not None and value not in ("private", "slave", "shared"):
        raise ValueError(f"{what}: {value!r} is none of 'private', 'slave', 'shared'")
    return value


class MountSpec:
    """What every mount spec is.  In ``mounts`` they are done in their order."""

    __slots__ = ()
    _positional: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        parts = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is not MISSING and value == field.default:
                continue
            text = _shown(value, field.name)
            parts.append(text if field.name in self._positional else f"{field.name}={text}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def _shown(value: Any, name: str) -> str:
    if name == "mode":
        return f"{value:#o}"
    if isinstance(value, bytes) and len(value) > 64:
        return f"<{len(value)} bytes>"
    return repr(value)


@dataclass(frozen=True, slots=True, repr=False)
class Bind(MountSpec):
    """A file or directory of the caller's: see open_tree(2), mount_setattr(2).

    source: a path as the caller sees it before any mount is made, or a descriptor (an int, or
        what has a fileno()).
    target: a path inside; None: the same path.
    readonly: recursively so, over mounts below it too.  False keeps what the source's mount has.
    recursive: with what is mounted below the source.
    nosuid, nodev, noexec: flags of the mount and of those below.  See mount(2).
    propagation: "private", "slave" or "shared"; None: as the mount namespace's.
    idmap: ids of an idmapped mount, as (id in the file system, id seen inside, count) ranges, or a
        descriptor of a user namespace.  Needs Linux 5.12, and privileges over the file system.
    optional: no error where the source is missing.
    """

    source: Source
    target: StrPath | None = None
    _: KW_ONLY
    readonly: bool = True
    recursive: bool = True
    nosuid: bool = True
    nodev: bool = True
    noexec: bool = False
    propagation: Propagation | None = None
    idmap: Sequence[tuple[int, int, int]] | HasFileno | None = None
    optional: bool = False

    _positional = ("source", "target")

    def __post_init__(self) -> None:
        self._set("source", _source(self.source, "Bind: source"))
        if self.target is not None:
            self._set("target", _inside(self.target, "Bind: target"))
        for name in ("readonly", "recursive", "nosuid", "nodev", "noexec", "optional"):
            _flag(getattr(self, name), f"Bind: {name}")
        _propagation(self.propagation, "Bind: propagation")
        if self.idmap is not None and not hasattr(self.idmap, "fileno"):
            ranges = _values.id_map(self.idmap, "Bind: idmap")
            if not isinstance(ranges, tuple):
                raise TypeError("Bind: idmap is ranges, or a descriptor of a user namespace")
            self._set("idmap", ranges)

    @property
    def place(self) -> str:
        """The target.  Raises ValueError where that cannot be told."""
        if self.target is not None:
            return str(self.target)
        if not isinstance(self.source, str):
            raise ValueError("Bind: a descriptor has no path: give a target, too")
        if not self.source.startswith("/"):
            raise ValueError(f"Bind: {self.source!r} is relative: give a target, too")
        return str(PurePath(self.source))


@dataclass(frozen=True, slots=True, repr=False)
class Tmpfs(MountSpec):
    """An empty file system in memory: tmpfs(5).

    size: bytes, "64m", or "unlimited"; None: half of the memory.
    nr_inodes: how many files; None: the kernel's rule.  mode: of its root directory.
    """

    target: StrPath | None = None
    _: KW_ONLY
    size: int | str | None = None
    mode: int = 0o755
    nr_inodes: int | None = None
    noexec: bool = False

    _positional = ("target",)

    def __post_init__(self) -> None:
        if self.target is not None:
            self._set("target", _inside(self.target, "Tmpfs: target"))
        self._set("size", _tmpfs_size(self.size, "Tmpfs: size"))
        _mode(self.mode, "Tmpfs: mode")
        if self.nr_inodes is not None and _values.integer(self.nr_inodes, "Tmpfs: nr_inodes") < 1:
            raise ValueError(f"Tmpfs: nr_inodes: {self.nr_inodes} is less than 1")
        _flag(self.noexec, "Tmpfs: noexec")


class _AtTarget(MountSpec):
    __slots__ = ()
    target: StrPath
    _of_root: ClassVar[bool] = False  # may it be about the root directory?

    def __post_init__(self) -> None:
        name = type(self).__name__
        check = _inside if self._of_root else _below_root
        self._set("target", check(self.target, f"{name}: target"))
        for field in fields(self):  # type: ignore[arg-type]
            if isinstance(field.default, bool):
                _flag(getattr(self, field.name), f"{name}: {field.name}")


@dataclass(frozen=True, slots=True, repr=False)
class Dev(_AtTarget):
    """A /dev of its own: null zero full random urandom tty, a new devpts with ptmx, shm, and the
    links fd, stdin, stdout and stderr.  No other device.  Needs no privilege.

    size: of its tmpfs, and so of all that lies in shm: as that of Tmpfs.
    """

    target: StrPath = "/dev"
    _: KW_ONLY
    size: int | str | None = None

    _positional = ("target",)

    def __post_init__(self) -> None:
        _AtTarget.__post_init__(self)
        self._set("size", _tmpfs_size(self.size, "Dev: size"))


@dataclass(frozen=True, slots=True, repr=False)
class Proc(_AtTarget):
    """A proc of the child's pid namespace: proc(5).

    subset_pid: only what belongs to processes.  hide_pid: 0, 1, 2 or 4, hidepid=; None: 0.
    """

    target: StrPath = "/proc"
    _: KW_ONLY
    subset_pid: bool = False
    hide_pid: int | None = None

    _positional = ("target",)

    def __post_init__(self) -> None:
        _AtTarget.__post_init__(self)
        if self.hide_pid is None:
            return
        if _values.integer(self.hide_pid, "Proc: hide_pid") not in (0, 1, 2, 4):
            raise ValueError(f"Proc: hide_pid: {self.hide_pid!r} is none of 0, 1, 2, 4")


@dataclass(frozen=True, slots=True, repr=False)
class Sysfs(_AtTarget):
    """A sysfs, which shows the devices of the network namespace: sysfs(5)."""

    target: StrPath = "/sys"
    _: KW_ONLY
    readonly: bool = True

    _positional = ("target",)


@dataclass(frozen=True, slots=True, repr=False)
class Mqueue(_AtTarget):
    """The POSIX message queues of the ipc namespace: mq_overview(7)."""

    target: StrPath = "/dev/mqueue"
    _positional = ("target",)


@dataclass(frozen=True, slots=True, repr=False)
class Cgroup2(_AtTarget):
    """The cgroup v2 hierarchy, from the root of the cgroup namespace down: cgroups(7)."""

    target: StrPath = "/sys/fs/cgroup"
    _: KW_ONLY
    readonly: bool = True

    _positional = ("target",)


@dataclass(frozen=True, slots=True, repr=False)
class Overlay(MountSpec):
    """Directories on top of each other: overlayfs.

    lower: directories that are only read, the top one first: paths or descriptors.
    upper, work: where changes go, two empty directories of one file system of the caller's;
        upper=None: into memory, gone with the sandbox.
    recursive: what is mounted below a lower directory is seen, read-only; False: such a directory
        is refused, since an overlay would show the empty directories under those mounts.
    """

    target: StrPath | None = None
    _: KW_ONLY
    lower: Source | Sequence[Source]
    upper: Source | None = None
    work: Source | None = None
    recursive: bool = False

    _positional = ("target",)

    def __post_init__(self) -> None:
        if self.target is not None:
            self._set("target", _inside(self.target, "Overlay: target"))
        lower: Any = self.lower
        if _is_path(lower) or isinstance(lower, int) or hasattr(lower, "fileno"):
            lower = (lower,)
        if not isinstance(lower, Iterable):
            kind = type(lower).__name__
            raise TypeError(f"Overlay: lower must be paths or descriptors, not {kind}")
        layers = tuple(_source(item, "Overlay: lower") for item in lower)
        if not layers:
            raise ValueError("Overlay: lower is empty")
        if len(layers) > 120:
            raise ValueError(f"Overlay: {len(layers)} lower directories; at most 120 are possible")
        self._set("lower", layers)
        if (self.upper is None) != (self.work is None):
            raise ValueError("Overlay: upper and work belong together")
        if self.upper is not None:
            self._set("upper", _source(self.upper, "Overlay: upper"))
            self._set("work", _source(self.work, "Overlay: work"))
        _flag(self.recursive, "Overlay: recursive")


_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}


@dataclass(frozen=True, slots=True, repr=False)
class Mount(MountSpec):
    """Any other file system: mount(8)'s type, source, target, flags and data.

    flags: of "ro", "nosuid", "nodev", "noexec".  data: options of the type, "a=1,b".
    """

    fstype: str
    source: StrPath
    target: StrPath
    _: KW_ONLY
    flags: Iterable[str] = ()
    data: str = ""

    _positional = ("fstype", "source", "target")

    def __post_init__(self) -> None:
        if not isinstance(self.fstype, str):
            raise TypeError(f"Mount: fstype must be a str, not {type(self.fstype).__name__}")
        self._set("fstype", _plain_path(self.fstype, "Mount: fstype"))
        self._set("source", _plain_path(self.source, "Mount: source"))
        self._set("target", _inside(self.target, "Mount: target"))
        if not isinstance(self.flags, Iterable):
            raise TypeError(f"Mount: flags must be words, not {type(self.flags).__name__}")
        flags = (self.flags,) if isinstance(self.flags, str) else tuple(self.flags)
        for flag in flags:
            if not isinstance(flag, str):
                raise TypeError(f"Mount: flags must be words, not {type(flag).__name__}")
            if flag not in _FLAGS:
                raise ValueError(f"Mount: flags: {flag!r} is none of {' '.join(_FLAGS)}")
        self._set("flags", flags)
        if not isinstance(self.data, str):
            raise TypeError(f"Mount: data must be a str, not {type(self.data).__name__}")
        if "\0" in self.data:
            raise ValueError("Mount: data: embedded null byte")

    @property
    def bits(self) -> int:
        """The flags as MS_* bits."""
        return sum(_FLAGS[flag] for flag in set(self.flags))


@dataclass(frozen=True, slots=True, repr=False)
class ReadOnly(_AtTarget):
    """Makes what is there read-only, in this sandbox: mount_setattr(2).

    recursive: with what is mounted below.  optional: no error where it is missing.
    """

    target: StrPath
    _: KW_ONLY
    recursive: bool = True
    optional: bool = False

    _positional = ("target",)
    _of_root = True


@dataclass(frozen=True, slots=True, repr=False)
class Mask(_AtTarget):
    """Covers a directory with an empty one, a file with /dev/null.

    optional: no error where it is missing.
    """

    target: StrPath
    _: KW_ONLY
    optional: bool = False

    _positional = ("target",)


@dataclass(frozen=True, slots=True, repr=False)
class Remount(MountSpec):
    """Changes flags of what is there: True sets, False clears, None leaves.  See mount(2)."""

    target: StrPath
    _: KW_ONLY
    readonly: bool | None = None
    nosuid: bool | None = None
    nodev: bool | None = None
    noexec: bool | None = None
    recursive: bool = False

    _positional = ("target",)

    def __post_init__(self) -> None:
        self._set("target", _inside(self.target, "Remount: target"))
        names = ("readonly", "nosuid", "nodev", "noexec")
        given = [name for name in names if getattr(self, name) is not None]
        if not given:
            raise ValueError(f"Remount: nothing is to change: say one of {', '.join(names)}")
        for name in (*given, "recursive"):
            _flag(getattr(self, name), f"Remount: {name}")


@dataclass(frozen=True, slots=True, repr=False)
class Dir(MountSpec):
    """Makes a directory, with those above it, in a file system of the sandbox's own."""

    path: StrPath
    _: KW_ONLY
    mode: int = 0o755

    _positional = ("path",)

    def __post_init__(self) -> None:
        self._set("path", _inside(self.path, "Dir: path"))
        _mode(self.mode, "Dir: mode")


@dataclass(frozen=True, slots=True, repr=False)
class File(MountSpec):
    """Makes a file with this content; a file of the host's is covered by it, not changed.

    content: bytes, or a str that is encoded as UTF-8.
    """

    path: StrPath
    content: bytes | str
    _: KW_ONLY
    mode: int = 0o644

    _positional = ("path", "content")

    def __post_init__(self) -> None:
        self._set("path", _below_root(self.path, "File: path"))
        if not isinstance(self.content, (bytes, bytearray, str)):
            raise TypeError(f"File: content is bytes or str, not {type(self.content).__name__}")
        if isinstance(self.content, str):
            try:
                self._set("content", self.content.encode())
            except UnicodeEncodeError as error:
                raise ValueError(f"File: content: {error}") from None
        self._set("content", bytes(self.content))  # type: ignore[arg-type]
        _mode(self.mode, "File: mode")


@dataclass(frozen=True, slots=True, repr=False)
class Symlink(MountSpec):
    """Makes a symbolic link, in a file system of the sandbox's own; os.symlink's order."""

    to: StrPath
    path: StrPath

    _positional = ("to", "path")

    def __post_init__(self) -> None:
        self._set("to", _plain_path(self.to, "Symlink: to"))
        self._set("path", _below_root(self.path, "Symlink: path"))


def mounts(value: Any) -> tuple[MountSpec, ...]:
    """The normal form of ``mounts``."""
    if isinstance(value, MountSpec) or not isinstance(value, Iterable):
        raise TypeError(f"mounts must be a sequence of mount specs, not {value!r}")
    specs = tuple(value)
    for spec in specs:
        if not isinstance(spec, MountSpec):
            raise TypeError(f"mounts: {spec!r} is no mount spec: Bind, Tmpfs, Proc ...")
        if isinstance(spec, (Tmpfs, Overlay)) and spec.target is None:
            raise ValueError(f"mounts: {type(spec).__name__} without a target is for root= only")
        if isinstance(spec, Bind):
            spec.place  # noqa: B018
        if isinstance(spec, (Bind, Tmpfs, Overlay, Mount)) and _is_root(target_of(spec)):
            raise ValueError(f"mounts: {spec!r} is a root: say root=")
    return specs


def root(value: Any) -> Any:
    """The normal form of ``root``: a path, or a mount spec without a target."""
    if isinstance(value, (str, bytes, os.PathLike)):
        return _plain_path(value, "root")
    if isinstance(value, (Bind, Tmpfs, Overlay)):
        if value.target not in (None, "/"):
            raise ValueError(f"root: {value!r} has a target: the root's is /")
        if isinstance(value, Bind) and value.optional:
            raise ValueError("root: it cannot be optional")
        return value
    if isinstance(value, Mount) and value.target == "/":
        return value
    if isinstance(value, MountSpec):
        raise TypeError(f"root: {value!r} cannot be a root: Bind, Overlay, Tmpfs or Mount can")
    raise TypeError(f"root must be a path or a mount spec, not {type(value).__name__}")


def target_of(spec: MountSpec) -> str | None:
    """Where *spec* is mounted; None where it makes a file, a directory or a link."""
    if isinstance(spec, Bind):
        return spec.place
    return getattr(spec, "target", None)


# What the kernel allows in a user namespace only with another new namespace beside it.
_BESIDE = {"proc": "pid", "sysfs": "net", "mqueue": "ipc", "cgroup": "cgroup", "cgroup2": "cgroup"}

# What it never does (to Linux 6.18): the rest it is asked.
_NOT_IN_USER = frozenset(
    "btrfs cifs configfs debugfs devtmpfs efivarfs erofs exfat ext2 ext3 ext4 f2fs hugetlbfs "
    "iso9660 nfs nfs4 pstore securityfs squashfs tracefs udf vfat xfs".split()
)


def refusal_in_user(spec: MountSpec, new_kinds: Iterable[str]) -> str | None:
    """Why the kernel refuses *spec* in a new user namespace with these beside it."""
    if isinstance(spec, Bind) and spec.idmap is not None:
        return (
            "idmap needs CAP_SYS_ADMIN in the user namespace that the file system belongs to, "
            "and nobody has it there from a new one: leave 'user' out of new="
        )
    if isinstance(spec, Mount):
        fstype = spec.fstype
    else:
        fstype = type(spec).__name__.lower()
    if fstype in _NOT_IN_USER:
        return f"the kernel lets no user namespace mount {fstype}: mount it outside, and Bind() it"
    kind = _BESIDE.get(fstype)
    if kind is not None and kind not in new_kinds:
        return f"in a new user namespace it needs a new {kind} namespace: add {kind!r} to new="
    return None


def descriptors(spec: MountSpec) -> tuple[Any, ...]:
    """The descriptors that *spec* is given, in the order in which compile() counts them."""
    if isinstance(spec, Bind):
        found = () if isinstance(spec.source, str) else (spec.source,)
        return found if spec.idmap is None else (*found, spec.idmap)
    if isinstance(spec, Overlay):
        layers = (*spec.lower, spec.upper, spec.work)  # type: ignore[misc]
        return tuple(layer for layer in layers if layer is not None and not isinstance(layer, str))
    return ()
