"""Mounts and roots on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._hostlike import hostlike
from .._mounts import Bind, Dev, Mask, MountSpec, ReadOnly, Symlink, Tmpfs
from .._text_mounts import load
from .options import UsageError

_WHETHER = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_BOOL = {"readonly", "recursive", "nosuid", "nodev", "noexec", "optional", "subset_pid"}
_LISTS = {"lower", "flags"}


def _value(name: str, text: str) -> Any:
    if name in _BOOL:
        if text not in _WHETHER:
            raise ValueError(f"{name}={text}: say true or false")
        return _WHETHER[text]
    if name == "mode":
        return int(text, 8)
    if name in ("nr_inodes", "hide_pid"):
        return int(text)
    return text.split(":") if name in _LISTS else text


def _spec(text: str) -> Any:
    """type=bind,source=/usr,target=/usr; a key without a value is true."""
    fields: dict[str, Any] = {}
    for item in text.split(","):
        name, equals, value = item.partition("=")
        name = name.replace("-", "_")
        fields[name] = _value(name, value) if equals else True
    return load(fields)


def _bind(text: str) -> Bind:
    parts = text.split(":")
    readonly = True
    if len(parts) > 1 and parts[-1] in ("ro", "rw"):
        readonly = parts.pop() == "ro"
    if not 1 <= len(parts) <= 2:
        raise ValueError(f"{text!r} is not SRC[:DST][:ro|rw]")
    bind = Bind(*parts, readonly=readonly)
    bind.place  # noqa: B018  # says what is wrong with a relative path
    return bind


def _tmpfs(text: str) -> Tmpfs:
    target, colon, size = text.partition(":")
    return Tmpfs(target, size=size if colon else None)


def _symlink(text: str) -> Symlink:
    to, colon, path = text.partition(":")
    if not colon:
        raise ValueError(f"{text!r} is not TO:PATH")
    return Symlink(to, path)


_SHORT: dict[str, Any] = {
    "--bind": _bind,
    "--tmpfs": _tmpfs,
    "--dev": Dev,
    "--mask": Mask,
    "--read-only": ReadOnly,
    "--symlink": _symlink,
}


def mounts(words: Sequence[str]) -> list[MountSpec]:
    """Mount specs, in their order; a word that begins with an option's name is that option's."""
    specs: list[MountSpec] = []
    for word in words:
        name, _, value = word.partition("=")
        if name not in _SHORT:
            name = name if name == "--hostlike" else "--mounts"
        try:
            if name == "--hostlike":
                specs += hostlike()
            elif name in _SHORT:
                specs.append(_SHORT[name](value))
            else:
                specs.append(_spec(word))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name}: {error}") from None
    return specs


def root(word: str) -> Any:
    """A root: a path, tmpfs, or a spec."""
    if word == "tmpfs":
        return Tmpfs()
    return _spec(word) if word.startswith("type=") else word
