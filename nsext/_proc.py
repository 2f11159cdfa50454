"""Reading files of /proc."""

from __future__ import annotations


def read(path: str) -> str:
    """The text of a file.  By bytes: in a chroot a codec may be out of reach.  Raises OSError."""
    with open(path, "rb") as file:
        return file.read().decode("latin-1")


def field(path: str, name: str) -> str | None:
    """The value of the line "name: value", None where there is none.  Raises OSError."""
    for line in read(path).splitlines():
        key, colon, value = line.partition(":")
        if colon and key == name:
            return value.strip()
    return None
