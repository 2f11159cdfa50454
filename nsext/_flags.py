"""Namespace kinds: their names as under /proc/PID/ns, and their CLONE_NEW* flags.

In here flags are plain ints: the nsext command starts without enum, which costs as much as a third
of the interpreter.  The values that a library's caller sees are CloneFlags.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _collections_abc import Iterable
    from typing import Any, Literal, TypeAlias

    from ._clone_flags import CloneFlags

Kind: TypeAlias = "Literal['mnt', 'uts', 'ipc', 'user', 'pid', 'net', 'cgroup', 'time']"
Kinds: TypeAlias = "str | int | Iterable[str]"

NEWTIME = 0x00000080
NEWNS = 0x00020000
NEWCGROUP = 0x02000000
NEWUTS = 0x04000000
NEWIPC = 0x08000000
NEWUSER = 0x10000000
NEWPID = 0x20000000
NEWNET = 0x40000000

BY_KIND: dict[str, int] = {
    "mnt": NEWNS,
    "uts": NEWUTS,
    "ipc": NEWIPC,
    "user": NEWUSER,
    "pid": NEWPID,
    "net": NEWNET,
    "cgroup": NEWCGROUP,
    "time": NEWTIME,
}
ALL = sum(BY_KIND.values())

public: Any = int
"""Makes of an int what a caller gets to see: CloneFlags, where that has been imported."""


def __getattr__(name: str) -> Any:
    if name == "CloneFlags":
        from ._clone_flags import CloneFlags

        return CloneFlags
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def parse_kinds(value: Kinds) -> CloneFlags:
    """Return the flags that *value* names.

    "pid mnt", "pid,mnt", ["pid", "mnt"], CLONE_NEW* flags and "all" are understood.

    Raises TypeError and ValueError.
    """
    if isinstance(value, bool):
        raise TypeError("namespace kinds are names or CLONE_NEW* flags, not a bool")
    if isinstance(value, int):
        if value & ~ALL:
            raise ValueError(f"not only CLONE_NEW* flags: {int(value):#x}")
        return public(value)  # type: ignore[no-any-return]
    if isinstance(value, str):
        value = value.replace(",", " ").split()
        if value == ["all"]:
            return public(ALL)  # type: ignore[no-any-return]
    elif isinstance(value, (bytes, bytearray)):
        raise TypeError("namespace kinds are str, not bytes")
    elif not hasattr(value, "__iter__"):
        raise TypeError(f"namespace kinds are names or CLONE_NEW* flags, not {value!r}")
    flags = 0
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"a namespace kind is a str, not {type(name).__name__}")
        if name not in BY_KIND:
            raise ValueError(
                f"unknown namespace kind {name!r}: one of {' '.join(BY_KIND)}, or 'all'"
            )
        flags |= BY_KIND[name]
    return public(flags)  # type: ignore[no-any-return]


def kind_names(flags: int) -> str:
    """Return the names in *flags*, with blanks between, in a fixed order."""
    return " ".join(name for name, flag in BY_KIND.items() if flags & flag)
