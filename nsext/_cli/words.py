"""The library's errors in the command line's words: it says hostname=, who types it --hostname."""

from __future__ import annotations

from .options import FIELD_OPTIONS

_NAMES = {option.field: option for option in FIELD_OPTIONS if option.field}
_SHORT = {"mounts": "--mounts (--bind, --tmpfs ...)"}


def in_options(text: str) -> str:
    """Fields as the options that they are: "add 'uts' to new=" becomes "add 'uts' to --new"."""
    import re

    def option(found: re.Match[str]) -> str:
        name, value = found[1], found[2] or ""
        given = _NAMES.get(name)
        if given is None:
            return found[0]
        if value == "False" and given.opposite:
            return given.opposite
        if not value:
            return _SHORT.get(name, given.name)
        return given.name if value == "True" else f"{given.name} {value}"

    def first(found: re.Match[str]) -> str:
        return f"{_NAMES[found[1]].name}: " if found[1] in _NAMES else found[0]

    text = re.sub(r"(?<![\w/,(-])([a-z_]+)=(\w+|'\w+')?", option, text)
    text = re.sub(r"^([a-z_]+): ", first, text)
    return re.sub(r"\('([a-z-]+)', (\d+)\)", r"\1:\2", text)
