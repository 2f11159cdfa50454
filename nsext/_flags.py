"""Namespace kinds: their names as under /proc/PID/ns, and their CLONE_NEW* flags."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Literal

Kind = Literal["mnt", "uts", "ipc", "user", "pid", "net", "cgroup", "time"]
Kinds = str | int | Iterable[str]


class CloneFlags(enum.IntFlag):
    """The CLONE_NEW* flags of clone(2), with the values of ``os.CLONE_NEW*``."""

    NEWTIME = 0x00000080
    NEWNS = 0x00020000
    NEWCGROUP = 0x02000000
    NEWUTS = 0x04000000
    NEWIPC = 0x08000000
    NEWUSER = 0x10000000
    NEWPID = 0x20000000
    NEWNET = 0x40000000


BY_KIND: dict[str, CloneFlags] = {
    "mnt": CloneFlags.NEWNS,
    "uts": CloneFlags.NEWUTS,
    "ipc": CloneFlags.NEWIPC,
    "user": CloneFlags.NEWUSER,
    "pid": CloneFlags.NEWPID,
    "net": CloneFlags.NEWNET,
    "cgroup": CloneFlags.NEWCGROUP,
    "time": CloneFlags.NEWTIME,
}
NONE = CloneFlags(0)
ALL = CloneFlags(sum(BY_KIND.values()))


def parse_kinds(value: Kinds) -> CloneFlags:
    """Return the flags that *value* names.

    "pid mnt", "pid,mnt", ["pid", "mnt"], CLONE_NEW* flags and "all" are understood.

    Raises TypeError and ValueError.
    """
    if isinstance(value, bool):
        raise TypeError("namespace kinds are names or CLONE_NEW* flags, not a bool")
    if isinstance(value, int):
        if value & ~int(ALL):
            raise ValueError(f"not only CLONE_NEW* flags: {int(value):#x}")
        return CloneFlags(value)
    if isinstance(value, str):
        value = value.replace(",", " ").split()
        if value == ["all"]:
            return ALL
    elif isinstance(value, (bytes, bytearray)):
        raise TypeError("namespace kinds are str, not bytes")
    flags = NONE
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"a namespace kind is a str, not {type(name).__name__}")
        if name not in BY_KIND:
            raise ValueError(
                f"unknown namespace kind {name!r}: one of {' '.join(BY_KIND)}, or 'all'"
            )
        flags |= BY_KIND[name]
    return flags


def kind_names(flags: int) -> str:
    """Return the names in *flags*, with blanks between, in a fixed order."""
    return " ".join(name for name, flag in BY_KIND.items() if flags & flag)
