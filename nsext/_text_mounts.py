"""Mount specs as plain values: {"type": "bind", "source": "/usr"}."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from . import _mounts

_CLASSES = {
    cls.__name__.lower(): cls
    for cls in vars(_mounts).values()
    if isinstance(cls, type)
    and issubclass(cls, _mounts.MountSpec)
    and hasattr(cls, "__match_args__")
}


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(item, name) for item in value]
    if name in ("source", "lower", "upper", "work", "idmap") and isinstance(value, int):
        raise ValueError(f"descriptor {value} is open here, and has no text form")
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (bytes, os.PathLike)):
        return os.fsdecode(value)
    raise ValueError(f"{value!r} is open here, and has no text form")


def dump(spec: Any) -> Any:
    """Plain values for a mount spec, or for a root that is a path.  Raises ValueError."""
    if isinstance(spec, str):
        return spec
    plain: dict[str, Any] = {"type": type(spec).__name__.lower()}
    for field in fields(spec):
        value = getattr(spec, field.name)
        if value == field.default:
            continue
        if field.name == "idmap" and isinstance(value, tuple):
            plain["idmap"] = [list(line) for line in value]
        elif field.name == "content":
            try:
                plain["content"] = value.decode()
            except UnicodeDecodeError:
                plain["base64"] = base64.b64encode(value).decode()
        else:
            plain[field.name] = _plain(value, field.name)
    return plain


def load(value: Any) -> Any:
    """A mount spec of plain values; anything else as it is.  Raises ValueError, TypeError."""
    if not isinstance(value, Mapping):
        return value
    given = dict(value)
    name = given.pop("type", None)
    cls = _CLASSES.get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"a mount's type is one of {', '.join(sorted(_CLASSES))}, not {name!r}")
    if "base64" in given:
        given["content"] = base64.b64decode(given.pop("base64"), validate=True)
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(str(key) for key in given if key not in known)
    if unknown:
        raise ValueError(f"{name}: no such field: {', '.join(unknown)}")
    needed = [
        field.name
        for field in fields(cls)  # type: ignore[arg-type]
        if field.init and field.default is MISSING and field.default_factory is MISSING
    ]
    missing = [key for key in needed if key not in given]
    if missing:
        raise TypeError(f"{name}: it needs {', '.join(missing)}")
    return cls(**given)
