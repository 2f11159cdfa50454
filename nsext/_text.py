"""Descriptions as plain values, for JSON and TOML: Sandbox.to_dict(), from_toml() and their kin."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ._flags import kind_names
from ._frozen import defaults_of
from ._join import Join
from ._spec import FIELDS, Spec
from ._values import INFINITY


def _plain(value: Any) -> Any:
    """Text, numbers, lists and dicts for *value*.  Raises ValueError where it is a live object."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else value
    if isinstance(value, (bytes, os.PathLike)):
        return os.fsdecode(value)
    if isinstance(value, Mapping):
        return {_plain(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list, frozenset)):
        return [_plain(item) for item in value]
    raise ValueError(f"{value!r} has no text form")


def _join(join: Join) -> Any:
    targets = {}
    for kinds, target in join.pairs:
        if not isinstance(target, (int, str)):
            raise ValueError(f"{target!r} is open here, and has no text form: say a pid or a path")
        if kinds is None:
            return target
        targets[kind_names(kinds)] = target
    return targets


def _limits(limits: Mapping[str, tuple[int, int]]) -> Any:
    def words(limit: int) -> int | str:
        return "unlimited" if limit == INFINITY else limit

    return {
        name: words(soft) if soft == hard else [words(soft), words(hard)]
        for name, (soft, hard) in limits.items()
    }


def _cgroup(group: Any) -> Any:
    from ._cgroup import Cgroup

    if isinstance(group, Cgroup):
        fields = ((name, getattr(group, name)) for name in defaults_of(Cgroup))
        return {name: _plain(value) for name, value in fields if value is not None}
    if not isinstance(group, str):
        raise ValueError(f"{group!r} is open here, and has no text form: say a path or limits")
    return group


def _root(root: Any) -> Any:
    from ._text_mounts import dump

    return dump(root)


def _mounts(mounts: Any) -> Any:
    from ._text_mounts import dump

    return [dump(spec) for spec in mounts]


def _filters(programs: Any) -> Any:
    from ._profile import seccomp_default

    if any(program != seccomp_default() for program in programs):
        raise ValueError("BPF has no text form; the built-in filter has: 'default'")
    return ["default"] * len(programs)


# Fields whose normal form is not plain already.
_DUMP: dict[str, Any] = {
    "new": kind_names,
    "join": _join,
    "root": _root,
    "mounts": _mounts,
    "landlock": lambda rules: _plain(rules._given()),
    "rlimits": _limits,
    "seccomp": _filters,
    "cgroup": _cgroup,
}


def _load_mounts(values: dict[str, Any]) -> None:
    from ._text_mounts import load

    if "root" in values:
        values["root"] = load(values["root"])
    if isinstance(values.get("mounts"), (list, tuple)):
        values["mounts"] = [load(spec) for spec in values["mounts"]]


def to_dict(spec: Spec) -> dict[str, Any]:
    """The fields that are given, as plain values.  Raises ValueError for one that has no text."""
    plain = {}
    for name, value in spec._given().items():
        try:
            plain[name] = None if value is None else _DUMP.get(name, _plain)(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return plain


def from_dict(values: Any) -> dict[str, Any]:
    """Keywords for a description from plain values.  Raises TypeError and ValueError."""
    if not isinstance(values, Mapping):
        raise TypeError(f"a description is a mapping, not {type(values).__name__}")
    unknown = sorted(str(name) for name in values if name not in FIELDS)
    if unknown:
        raise ValueError(f"no such field: {', '.join(unknown)}")
    fields = dict(values)
    if "root" in fields or "mounts" in fields:
        _load_mounts(fields)
    return fields


def to_toml(spec: Spec) -> str:
    """As to_dict(), in TOML."""
    from ._toml import dumps

    return dumps(to_dict(spec))


def from_toml(source: Any) -> dict[str, Any]:
    """Keywords for a description from TOML: a path, or text.  Raises ValueError, OSError."""
    import tomllib

    if isinstance(source, str) and ("\n" in source or "=" in source or not source):
        return from_dict(tomllib.loads(source))
    with open(source, "rb") as file:
        return from_dict(tomllib.load(file))
