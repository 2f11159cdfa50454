"""Landlock: what files and ports a program may reach.  Pure."""

from __future__ import annotations

import os
from _collections_abc import Iterable, Mapping

from ._frozen import frozen
from ._values import integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._privileges import Step
    from ._spec import Spec, StrOrBytesPath

# LANDLOCK_ACCESS_FS_*: execute, write_file, read_file, read_dir, and from remove_dir to truncate.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_CHANGE = (1 << 15) - (1 << 4)
_READ = _READ_FILE | _READ_DIR
_RIGHTS = {"read": _READ, "write": _WRITE_FILE | _CHANGE, "execute": _EXECUTE | _READ}
ALL_FILES = _EXECUTE | _WRITE_FILE | _READ | _CHANGE
# LANDLOCK_ACCESS_NET_*
_PORTS = {"tcp_bind": 1, "tcp_connect": 2}


def _paths(value: Any, what: str) -> tuple[str, ...]:
    if isinstance(value, (str, bytes, os.PathLike)) or not isinstance(value, Iterable):
        raise TypeError(f"Landlock: {what} must be a list of paths, not {value!r}")
    paths = set()
    for item in value:
        path = os.fsdecode(os.fspath(item))
        if not path.startswith("/"):
            raise ValueError(f"Landlock: {what}: {path!r} is no absolute path")
        if "\0" in path:
            raise ValueError(f"Landlock: {what}: embedded null byte")
        paths.add(path)
    return tuple(sorted(paths))


def _ports(value: Any, what: str) -> tuple[int, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"Landlock: {what} must be a list of ports, not {value!r}")
    ports = sorted({integer(port, f"Landlock: a port of {what}") for port in value})
    if ports and not (0 <= ports[0] and ports[-1] < 1 << 16):
        raise ValueError(f"Landlock: {what}: no such port in {ports}")
    return tuple(ports)


class _Base:
    __slots__ = ()


@frozen
class Landlock(_Base):
    """What a program may reach, by Landlock; a value of ``landlock=``.

    read, write, execute: absolute paths, looked up when the mounts are done; each is of a file, or
        of a directory with all that is below it.  As soon as one is given, files elsewhere are
        out of reach.
        read: read files, list directories.
        write: write, make, remove, rename and truncate; not read.
        execute: run programs, and read.
    tcp_bind, tcp_connect: ports; () none; None: no limit.  Need Linux 6.7.

    What is open already stays open.  Raises TypeError and ValueError.  See landlock(7).
    """

    read: Iterable[StrOrBytesPath] = ()
    write: Iterable[StrOrBytesPath] = ()
    execute: Iterable[StrOrBytesPath] = ()
    tcp_bind: Iterable[int] | None = None
    tcp_connect: Iterable[int] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in _RIGHTS:
            put(self, name, _paths(getattr(self, name), name))
        for name in _PORTS:
            value = getattr(self, name)
            if value is not None:
                put(self, name, _ports(value, name))
        if not self._given():
            raise ValueError("Landlock: nothing is limited")

    def _given(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in (*_RIGHTS, *_PORTS)}
        return {
            name: value
            for name, value in values.items()
            if value or (name in _PORTS and value is not None)
        }

    def __repr__(self) -> str:
        parts = [f"{name}={value!r}" for name, value in self._given().items()]
        return f"Landlock({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._given(),)


def _rebuild(values: dict[str, Any]) -> Landlock:
    return Landlock(**values)


def normal(value: Any) -> Landlock:
    """A Landlock, or a mapping of its fields."""
    if isinstance(value, Landlock):
        return value
    if isinstance(value, Mapping):
        return Landlock(**value)
    raise TypeError(f"landlock must be a nsext.Landlock, not {type(value).__name__}")


def ruleset_steps(spec: Spec) -> list[Step]:
    """The ruleset of spec.landlock."""
    rules = spec.landlock
    assert isinstance(rules, Landlock)
    rights: dict[str, int] = {}
    for name, access in _RIGHTS.items():
        for path in getattr(rules, name):
            rights[path] = rights.get(path, 0) | access
    ports: dict[int, int] = {}
    limited = 0
    for name, access in _PORTS.items():
        given = getattr(rules, name)
        limited |= 0 if given is None else access
        for port in given or ():
            ports[port] = ports.get(port, 0) | access
    strict = int(spec.landlock_strict is not False)  # None: the default
    steps: list[Step] = [("landlock", ALL_FILES if rights else 0, limited, strict)]
    steps += [("landlock_path", os.fsencode(path), rights[path]) for path in sorted(rights)]
    steps += [("landlock_port", port, ports[port]) for port in sorted(ports)]
    return steps


def path_words(access: int) -> str:
    """The names of rights to a path."""
    names = [name for name, rights in _RIGHTS.items() if access & rights == rights]
    return " ".join(name for name in names if name != "read" or "execute" not in names)


def port_words(access: int) -> str:
    """The names of rights to a port."""
    return " ".join(name for name, right in _PORTS.items() if access & right)
