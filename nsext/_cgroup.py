"""Cgroup: the description of a control group.  Pure: what is done with it is in _cgroupfs."""

from __future__ import annotations

import os
from _collections_abc import Iterable, Mapping

from . import _values
from ._frozen import FrozenMap, defaults_of, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from ._fds import HasFileno
    from ._spec import Size

CgroupLike: TypeAlias = "Cgroup | str | os.PathLike[str] | int | HasFileno | Mapping[str, Any]"

_PERIOD = 100_000  # us, the kernel's own default
_IO_KEYS = ("rbps", "wbps", "riops", "wiops")
_MAX_NAME = 200  # the rest of NAME_MAX is ours


class _Kept:
    """What a description keeps with it, and is no part of its value."""

    __slots__ = ("_files",)

    _files: tuple[tuple[str, str], ...]


@frozen
class Cgroup(_Kept):
    """A new control group (of version 2) for each spawn, with limits, removed at the end.

    parent: the directory below which it is made; None: the caller's own group.
    name: a part of its name, for who looks for it: no slash in it.
    memory_max: bytes ("64m"); above it the OOM killer ends all of the group.
    memory_high: bytes; above it the group is slowed down.
    memory_swap_max: bytes of swap.
    pids_max: processes and threads.
    cpu_max: CPUs: 0.5 is half of one; or (quota, period) in microseconds.
    cpu_weight: 1 to 10000, the share of a busy CPU; 100 is the kernel's default.
    io_max: {device: {"rbps": bytes, "wbps": bytes, "riops": number, "wiops": number}}, each per
        second; a device is "8:0" or a path such as "/dev/sda".
    cpuset: numbers of CPUs, or text such as "0-3,5".

    None leaves a limit as it is; "max" takes it away.  A limit needs its controller in the parent
    group.  Raises TypeError and ValueError.  See cgroups(7).
    """

    parent: str | os.PathLike[str] | None = None
    name: str | None = None
    memory_max: Size | None = None
    memory_swap_max: Size | None = None
    memory_high: Size | None = None
    pids_max: int | str | None = None
    cpu_max: float | str | tuple[int | str, int] | None = None
    cpu_weight: int | None = None
    io_max: Mapping[str, Mapping[str, Size]] | None = None
    cpuset: str | Iterable[int] | None = None

    def __post_init__(self) -> None:
        files = []
        for name, (normal, file) in _NORMAL.items():
            value = getattr(self, name)
            if value is None:
                continue
            value = normal(value, name)
            object.__setattr__(self, name, value)
            if file is not None:
                files.append((file, _text(value)))
        object.__setattr__(self, "_files", tuple(files))

    def __repr__(self) -> str:
        given = (
            f"{name}={getattr(self, name)!r}"
            for name, default in defaults_of(Cgroup).items()
            if getattr(self, name) != default
        )
        return f"Cgroup({', '.join(given)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, ({name: getattr(self, name) for name in defaults_of(Cgroup)},)

    def replace(self, **changes: Any) -> Cgroup:
        """Return a copy with these fields replaced."""
        return Cgroup(**{**{name: getattr(self, name) for name in defaults_of(Cgroup)}, **changes})

    __replace__ = replace


def _rebuild(values: dict[str, Any]) -> Cgroup:
    return Cgroup(**values)


def _text(value: Any) -> str:
    """A limit as its file takes it."""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value)


def _size(value: Any, what: str) -> int | str:
    number = _values.size(value, what)
    return "max" if number == _values.INFINITY else number


def _count(value: Any, what: str) -> int | str:
    if value == "max":
        return "max"
    number = _values.integer(value, what)
    if not 0 <= number < 1 << 31:
        raise ValueError(f"{what}: {number} is no number of processes")
    return number


def _weight(value: Any, what: str) -> int:
    number = _values.integer(value, what)
    if not 1 <= number <= 10000:
        raise ValueError(f"{what}: {number} is not in 1 to 10000")
    return number


def _cpus(value: Any, what: str) -> tuple[int | str, int] | str:
    if value == "max":
        return "max"
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{what}: (quota, period) in microseconds, not {value!r}")
        quota, period = value
        period = _values.integer(period, what)
        if quota == "max":
            return "max", period
        quota = _values.integer(quota, what)
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number of CPUs, not {type(value).__name__}")
    else:
        if not 0 < value <= 1 << 16:
            raise ValueError(f"{what}: {value} is no number of CPUs")
        quota, period = round(value * _PERIOD), _PERIOD
    if not 1000 <= period <= 1_000_000 or quota < 1000:
        raise ValueError(
            f"{what}: {quota} us in {period} us; the kernel takes a quota of 1000 us or more, and "
            "a period of 1000 to 1000000 us"
        )
    return quota, period


def _device(value: Any) -> str:
    text: str = os.fspath(value)
    major, colon, minor = text.partition(":")
    if colon and major.isdigit() and minor.isdigit():
        return f"{int(major)}:{int(minor)}"
    if not text.startswith("/") or "\0" in text:
        raise ValueError(f"io_max: {text!r} is no device such as '8:0' or '/dev/sda'")
    return text


def _io(value: Any, what: str) -> FrozenMap[str, FrozenMap[str, int | str]]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a mapping of devices, not {type(value).__name__}")
    devices = {}
    for device, limits in value.items():
        if not isinstance(limits, Mapping):
            raise TypeError(f"{what}[{device!r}] must be a mapping of limits")
        unknown = [key for key in limits if key not in _IO_KEYS]
        if unknown:
            raise ValueError(f"{what}: unknown limit {unknown[0]!r}: one of {' '.join(_IO_KEYS)}")
        devices[_device(device)] = FrozenMap(
            {key: _size(limits[key], what) for key in _IO_KEYS if key in limits}
        )
    return FrozenMap(devices)


def _ranges(cpus: list[int]) -> str:
    """Sorted numbers as the kernel writes them: 0-3,5."""
    parts: list[list[int]] = []
    for cpu in cpus:
        if parts and parts[-1][1] == cpu - 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def _cpuset(value: Any, what: str) -> str:
    if not isinstance(value, str):
        return _ranges(list(_values.affinity(value)))
    cpus: set[int] = set()
    for part in value.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()):
            raise ValueError(f"{what}: {value!r} is no list such as '0-3,5'")
        first, last = int(low), int(high or low)
        if not first <= last < 1 << 16:
            raise ValueError(f"{what}: no such CPU numbers: {part.strip()!r}")
        cpus.update(range(first, last + 1))
    return _ranges(sorted(cpus))


def _parent(value: Any, what: str) -> str:
    path = os.fsdecode(_values.path(value, f"cgroup {what}"))
    if not path.startswith("/"):
        raise ValueError(f"cgroup {what}: {path!r} is not absolute; /sys/fs/cgroup/...")
    return path


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"cgroup {what} must be a str, not {type(value).__name__}")
    if not value or value in (".", "..") or len(os.fsencode(value)) > _MAX_NAME:
        raise ValueError(f"cgroup {what}: {value!r} is no name")
    if "/" in value or "\0" in value or "\n" in value:
        raise ValueError(f"cgroup {what}: {value!r} has a slash, a newline or a null byte in it")
    return value


# A field, its check, and its file; None: none of its own.
_NORMAL: dict[str, tuple[Any, str | None]] = {
    "parent": (_parent, None),
    "name": (_name, None),
    "memory_high": (_size, "memory.high"),
    "memory_max": (_size, "memory.max"),
    "memory_swap_max": (_size, "memory.swap.max"),
    "pids_max": (_count, "pids.max"),
    "cpu_max": (_cpus, "cpu.max"),
    "cpu_weight": (_weight, "cpu.weight"),
    "io_max": (_io, None),  # a write for each device
    "cpuset": (_cpuset, "cpuset.cpus"),
}


def normal(value: Any) -> Any:
    """The normal form of cgroup=.  Raises TypeError and ValueError."""
    if isinstance(value, Cgroup):
        return value
    if isinstance(value, Mapping):
        return Cgroup(**value)
    if isinstance(value, bool):
        raise TypeError("cgroup must be a Cgroup, a path or a descriptor, not bool")
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"cgroup: {value} is no file descriptor")
        return value
    if hasattr(value, "fileno"):
        return value
    path = os.fsdecode(_values.path(value, "cgroup"))
    if "/" not in path:
        raise ValueError(f"cgroup: {path!r} has no slash in it; a path is /sys/fs/cgroup/...")
    return path
