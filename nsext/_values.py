"""Checks and normal forms of field values.  Everything here is pure.

Each function takes what a caller may say and returns the one form that is compared, hashed and
compiled, or raises TypeError or ValueError.
"""

from __future__ import annotations

import os
import sys
from _collections_abc import Iterable, Mapping, Sequence
from itertools import pairwise

from ._frozen import FrozenMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

MAX_ID = 2**32 - 2  # 2**32-1 means "unchanged" to setresuid(2)
MAX_MAP_LINES = 340  # user_namespaces(7)
MAX_SECONDS = 2**62 // 10**9  # KTIME_SEC_MAX / 2: time_namespaces(7)
MAX_NAME = 64  # __NEW_UTS_LEN

Range: TypeAlias = "tuple[int, int, int]"
IdMapValue: TypeAlias = "str | int | tuple[Range, ...]"

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_RLIMITS: dict[str, int] | None = None
INFINITY = 2**64 - 1


def integer(value: Any, what: str) -> int:
    """An int that is no bool."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an int, not {type(value).__name__}")
    return int(value)


def uts_name(value: Any, what: str) -> str:
    """A host or domain name: at most 64 bytes, no NUL."""
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    encoded = os.fsencode(value)
    if len(encoded) > MAX_NAME:
        raise ValueError(f"{what} has {len(encoded)} bytes; the kernel takes at most {MAX_NAME}")
    if b"\0" in encoded:
        raise ValueError(f"{what} has an embedded null byte")
    return value


def path(value: Any, what: str) -> Any:
    """A path without a NUL, as it was given: errors name it so, as subprocess's do."""
    plain = os.fspath(value)
    if ("\0" if isinstance(plain, str) else b"\0") in plain:
        raise ValueError(f"{what}: embedded null byte")
    pathlib = sys.modules.get("pathlib")  # who has made such a path has imported it
    kept = (str, bytes) if pathlib is None else (str, bytes, pathlib.PurePath)
    return value if isinstance(value, kept) else plain


def size(value: Any, what: str) -> int:
    """Bytes: an int, or "64k", "64m", "1g" (binary units), or "unlimited"."""
    if isinstance(value, str):
        if value.lower() in ("unlimited", "max", "infinity"):
            return INFINITY
        text = value.strip().lower()
        for suffix in ("ib", "b"):
            text = text.removesuffix(suffix)
        digits = text.rstrip("kmgt")
        unit = text[len(digits) :]
        if not (digits.isascii() and digits.isdecimal()) or unit not in _UNITS:
            raise ValueError(f"{what}: {value!r} is no size such as 4096, '64k', '1g', 'unlimited'")
        number = int(digits) * _UNITS[unit]
    else:
        number = integer(value, what)
        if number == -1:  # resource.RLIM_INFINITY
            return INFINITY
    if not 0 <= number <= INFINITY:
        raise ValueError(f"{what}: {value!r} is out of range")
    return number


def _rlimits() -> dict[str, int]:
    """{name in lower case: RLIMIT_* number}."""
    global _RLIMITS
    if _RLIMITS is None:
        import resource

        found = {"locks": 10}  # which the module lacks
        for name in dir(resource):
            if name.startswith("RLIMIT_"):
                found[name.removeprefix("RLIMIT_").lower()] = getattr(resource, name)
        _RLIMITS = found  # whole: another thread may look now
    return _RLIMITS


def rlimit_number(name: Any) -> int:
    """The RLIMIT_* number of a name in any case, with or without RLIMIT_."""
    if isinstance(name, str):
        key = name.lower().removeprefix("rlimit_")
        if key not in _rlimits():
            raise ValueError(f"unknown rlimit {name!r}: one of {' '.join(sorted(_rlimits()))}")
        return int(_rlimits()[key])
    number = integer(name, "an rlimit")
    if number not in _rlimits().values():
        raise ValueError(f"unknown rlimit number {number}")
    return number


def rlimit_name(number: int) -> str:
    """The name, in lower case, of a RLIMIT_* number."""
    return next(name for name, known in _rlimits().items() if known == number)


def rlimits(value: Any) -> FrozenMap[str, tuple[int, int]]:
    """{name: (soft, hard)}, in the order of their numbers."""
    if not isinstance(value, Mapping):
        raise TypeError(f"rlimits must be a mapping, not {type(value).__name__}")
    limits: dict[int, tuple[int, int]] = {}
    for name, given in value.items():
        number = rlimit_number(name)
        what = f"rlimit {rlimit_name(number)}"
        if number in limits:
            raise ValueError(f"{what} is given twice")
        if isinstance(given, (tuple, list)):
            if len(given) != 2:
                raise ValueError(f"{what}: (soft, hard), not {given!r}")
            soft, hard = size(given[0], what), size(given[1], what)
        else:
            soft = hard = size(given, what)
        if soft > hard:
            raise ValueError(f"{what}: the soft limit {soft} is above the hard limit {hard}")
        limits[number] = soft, hard
    return FrozenMap({rlimit_name(number): limits[number] for number in sorted(limits)})


def time_offsets(value: Any) -> FrozenMap[str, float]:
    """{clock: seconds}."""
    if not isinstance(value, Mapping):
        raise TypeError(f"time_offsets must be a mapping, not {type(value).__name__}")
    for clock, seconds in value.items():
        if clock not in ("boottime", "monotonic"):
            raise ValueError(f"unknown clock {clock!r}: 'boottime' or 'monotonic'")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(
                f"time_offsets[{clock!r}] must be seconds, not {type(seconds).__name__}"
            )
        if not abs(seconds) <= MAX_SECONDS:  # a NaN is not, either
            raise ValueError(f"time_offsets[{clock!r}] is out of range: {seconds}")
    return FrozenMap(dict(sorted(value.items())))


def _check_overlap(ranges: Sequence[Range], side: int, what: str) -> None:
    spans = sorted((line[side], line[side] + line[2]) for line in ranges)
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            name = ("inside", "outside")[side]
            raise ValueError(f"{what}: the {name} ranges overlap at {start}")


def id_map(value: Any, what: str) -> IdMapValue:
    """ "root", "self", "auto", an id inside for the own id, or ranges as in uid_map(5)."""
    if isinstance(value, str):
        if value not in ("root", "self", "auto"):
            raise ValueError(f"{what}: {value!r} is none of 'root', 'self', 'auto'")
        return value
    if isinstance(value, int):
        number = integer(value, what)
        if not 0 <= number <= MAX_ID:
            raise ValueError(f"{what}: {number} is no id (0 to {MAX_ID})")
        return number
    if not isinstance(value, Iterable):
        raise TypeError(f"{what} must be 'root', 'self', 'auto', an int or ranges, not {value!r}")
    ranges: list[Range] = []
    for line in value:
        if not isinstance(line, Sequence) or isinstance(line, (str, bytes)) or len(line) != 3:
            raise ValueError(f"{what}: a range is (inside, outside, count), not {line!r}")
        inside, outside, count = (integer(number, what) for number in line)
        if count < 1 or min(inside, outside) < 0 or max(inside, outside) + count - 1 > MAX_ID:
            raise ValueError(f"{what}: {line!r} leaves the range of ids, 0 to {MAX_ID}")
        ranges.append((inside, outside, count))
    if not 1 <= len(ranges) <= MAX_MAP_LINES:
        raise ValueError(f"{what}: {len(ranges)} ranges; the kernel takes 1 to {MAX_MAP_LINES}")
    size = sum(len(f"{inside} {outside} {count}\n") for inside, outside, count in ranges)
    if size >= os.sysconf("SC_PAGESIZE"):
        raise ValueError(
            f"{what}: {size} bytes of ranges; the kernel takes less than a page of them"
        )
    _check_overlap(ranges, 0, what)
    _check_overlap(ranges, 1, what)
    return tuple(ranges)


class IdRangeError(ValueError, OverflowError):
    """An id out of range; subprocess raises one or the other, by how far."""


def identity(value: Any, what: str) -> int | str:
    """A uid or gid, or the name of one."""
    if isinstance(value, str):
        if not value or "\0" in value:
            raise ValueError(f"{what}: {value!r} is no name")
        return value
    number = integer(value, what)
    if not 0 <= number <= MAX_ID:
        raise IdRangeError(f"{what}: {number} is no id (0 to {MAX_ID})")
    return number


def identities(value: Any) -> tuple[int | str, ...]:
    """Supplementary groups; none at all is a choice, too."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"extra_groups must be a sequence of groups, not {value!r}")
    groups = tuple(identity(group, "extra_groups") for group in value)
    if len(groups) > 65536:  # NGROUPS_MAX
        raise ValueError(f"extra_groups: {len(groups)} groups; the kernel takes at most 65536")
    return groups


def affinity(value: Any) -> tuple[int, ...]:
    """CPU numbers, sorted."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"affinity must be CPU numbers, not {value!r}")
    cpus = sorted({integer(cpu, "a CPU number") for cpu in value})
    if not cpus:
        raise ValueError("affinity: no CPU at all")
    if cpus[0] < 0 or cpus[-1] >= 1 << 16:
        raise ValueError(f"affinity: no such CPU number in {cpus}")
    return tuple(cpus)


def environment(value: Any) -> FrozenMap[Any, Any]:
    """A snapshot of an environment."""
    if not isinstance(value, Mapping):
        raise TypeError(f"env must be a mapping, not {type(value).__name__}")
    return FrozenMap(value)
