"""The files of a guest of tools/vm.py, and the archive of them that a kernel unpacks.

The layout is that of a Debian: /bin, /sbin, /lib and /lib64 lead to those below /usr.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

MERGED = ("bin", "sbin", "lib", "lib64")
EMPTY = "dev proc sys run root tmp mnt srv home opt newroot modules var/tmp".split()


def merged(path: str) -> str:
    """Where a path leads."""
    return re.sub(rf"^/({'|'.join(MERGED)})/", r"/usr/\1/", path)


class Tree:
    """What goes into the guest: {path there: file here}, texts and symbolic links."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.texts: dict[str, tuple[bytes, int]] = {}
        self.links: dict[str, str] = {f"/{name}": f"usr/{name}" for name in MERGED}

    def add(self, file: Path, there: str | None = None) -> None:
        """A file, and where it is a symbolic link what that leads to."""
        self.links.pop(merged(there or str(file)), None)
        self.files[merged(there or str(file))] = file.resolve()

    def link(self, there: str, target: str) -> None:
        self.links[merged(there)] = target

    def text(self, there: str, text: str | bytes, mode: int = 0o644) -> None:
        self.texts[merged(there)] = (text.encode() if isinstance(text, str) else text), mode

    def directory(self, place: Path, there: str, leave: re.Pattern[str] | None = None) -> None:
        """All files of a directory, without the paths that *leave* finds."""
        for directory, names, files in os.walk(place):
            below = os.path.relpath(directory, place)
            names[:] = [
                name
                for name in names
                if not (leave and leave.search(f"{below}/{name}/".removeprefix("./")))
            ]
            for name in files:
                path = os.path.normpath(f"{there}/{below}/{name}")
                if not (leave and leave.search(f"{below}/{name}".removeprefix("./"))):
                    self.add(Path(directory, name), path)

    def system(self, place: Path, leave: re.Pattern[str]) -> None:
        """A directory that is to be the root: its symbolic links as they are."""
        for directory, names, files in os.walk(place):
            below = os.path.relpath(directory, place)
            for name in [*names, *files]:
                file = Path(directory, name)
                inside = f"{below}/{name}".removeprefix("./")
                if leave.search(f"{inside}/" if file.is_dir() else inside):
                    if name in names:
                        names.remove(name)
                elif file.is_symlink():
                    if f"/{inside}" not in self.links:
                        self.link(f"/{inside}", os.readlink(file))
                elif file.is_file():
                    self.files[merged(f"/{inside}")] = file

    def entries(self) -> Iterator[tuple[str, int, bytes, int]]:
        """(path, mode, content, mtime), directories before what is in them.

        Bytecode is valid for one mtime of its source only.
        """
        seen: set[str] = {"/", ""}

        def parents(path: str) -> Iterator[tuple[str, int, bytes, int]]:
            for parent in reversed(Path(path).parents):
                if str(parent) not in seen:
                    seen.add(str(parent))
                    yield str(parent), stat.S_IFDIR | 0o755, b"", 0

        for name in EMPTY:
            yield from parents(f"/{name}/x")
        for name in MERGED:
            yield from parents(f"/usr/{name}/x")
        for path, target in self.links.items():
            yield from parents(path)
            yield path, stat.S_IFLNK | 0o777, target.encode(), 0
        for path, file in self.files.items():
            yield from parents(path)
            status = file.stat()
            mode = stat.S_IFREG | status.st_mode & 0o7777
            yield path, mode, file.read_bytes(), int(status.st_mtime)
        for path, (text, mode) in self.texts.items():
            yield from parents(path)
            yield path, stat.S_IFREG | mode, text, 0

    def write(self, path: Path) -> None:
        """As a cpio archive of the kind that the kernel unpacks."""
        with open(path, "wb") as out:
            number = 0

            def put(name: str, mode: int, content: bytes, mtime: int) -> None:
                nonlocal number
                number += 1
                raw = name.encode() + b"\0"
                values = (number, mode, 0, 0, 1, mtime, len(content), 0, 0, 0, 0, len(raw), 0)
                head = b"070701" + b"".join(b"%08x" % value for value in values)
                out.write(head + raw + b"\0" * (-(len(head) + len(raw)) % 4))
                out.write(content + b"\0" * (-len(content) % 4))

            for name, mode, content, mtime in self.entries():
                put(name.lstrip("/"), mode, content, mtime)
            put("TRAILER!!!", 0, b"", 0)
