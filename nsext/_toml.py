"""A writer of TOML, for what the standard library only reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_ESCAPES = {
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
    '"': '\\"',
    "\\": "\\\\",
}


def _string(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} is no UTF-8, and TOML has nothing else") from None
    quoted = (
        _ESCAPES.get(char) or (f"\\u{ord(char):04X}" if char < " " or char == "\x7f" else char)
        for char in text
    )
    return f'"{"".join(quoted)}"'


def _key(name: str) -> str:
    return name if name and _BARE.issuperset(name) else _string(name)


def _value(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        # Readers need take no more than 64 bits; as a size such a number may be text.
        return str(value) if -(2**63) <= value < 2**63 else f'"{value}"'
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        items = (f"{_key(name)} = {_value(item)}" for name, item in value.items())
        return f"{{ {', '.join(items)} }}" if value else "{}"
    raise ValueError(f"{value!r} has no form in TOML")


def _is_tables(value: Any) -> bool:
    return bool(
        isinstance(value, (list, tuple))
        and value
        and all(isinstance(item, Mapping) for item in value)
    )


def dumps(document: Mapping[str, Any]) -> str:
    """Return *document* as TOML: plain values first, then a table for each mapping.

    Raises ValueError for what TOML cannot say.
    """
    lines: list[str] = []
    tables: list[tuple[str, Mapping[str, Any]]] = []
    for name, value in document.items():
        if isinstance(value, Mapping):
            tables.append((f"[{_key(name)}]", value))
        elif _is_tables(value):
            tables += [(f"[[{_key(name)}]]", item) for item in value]
        else:
            lines.append(f"{_key(name)} = {_value(value)}")
    for header, table in tables:
        lines += ["", header] if lines else [header]
        lines += [f"{_key(name)} = {_value(value)}" for name, value in table.items()]
    return "".join(f"{line}\n" for line in lines)
