"""The table of the child's descriptors."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _collections_abc import Iterable, Mapping
    from typing import Any, Protocol
else:
    Protocol = object

PIPE, STDOUT, DEVNULL = -1, -2, -3  # subprocess's


class HasFileno(Protocol):
    """Anything with a file descriptor."""

    def fileno(self) -> int: ...


def fileno(file: Any) -> int:
    """The descriptor of an int or of an object that has one."""
    if isinstance(file, bool) or not isinstance(file, int):
        number = file.fileno()  # type: ignore[union-attr]
    else:
        number = file
    if number < 0:
        raise ValueError(f"bad file descriptor: {number}")
    return int(number)


def above_stdio(fd: int) -> int:
    """The same file at a descriptor above 2: where those are closed, they are the program's.

    Takes *fd*.
    """
    if fd > 2:
        return fd
    import fcntl  # of no other use here

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def table(
    streams: Iterable[tuple[int, int]],
    pass_fds: Iterable[Any],
    fd_map: Mapping[int, Any],
) -> tuple[tuple[int, int], ...]:
    """(child, parent) for the standard streams, *pass_fds* and *fd_map*.

    Raises ValueError where one descriptor of the child is given two.
    """
    pairs = dict(streams)
    for fd in {fileno(file) for file in pass_fds}:
        if pairs.setdefault(fd, fd) != fd:
            raise ValueError(f"descriptor {fd} is in pass_fds and is redirected too")
    for child, file in fd_map.items():
        if isinstance(child, bool) or not isinstance(child, int):
            raise TypeError(f"fd_map maps descriptors of the child (int), not {child!r}")
        if child < 0:
            raise ValueError(f"fd_map: bad file descriptor {child}")
        if child in pairs:
            raise ValueError(f"descriptor {child} of the child is given twice")
        pairs[child] = fileno(file)
    return tuple(pairs.items())


def standard_streams(stdin: Any, stdout: Any, stderr: Any) -> tuple[list[tuple[int, int]], int]:
    """The pairs for spawn()'s streams, and a descriptor to close afterwards (-1: none).

    PIPE is a ValueError: a Process has no pipes.
    """
    pairs: list[tuple[int, int]] = []
    devnull = -1
    if stdin is None and stdout is None and stderr is None:
        return pairs, devnull
    try:
        for child, file in enumerate((stdin, stdout, stderr)):
            if file is None:
                continue
            if isinstance(file, int) and file == PIPE:
                raise ValueError("spawn() makes no pipes: use nsext.Popen, or os.pipe()")
            if isinstance(file, int) and file == STDOUT:
                if child != 2:
                    raise ValueError("STDOUT is for stderr only")
                pairs.append((2, dict(pairs).get(1, 1)))
            elif isinstance(file, int) and file == DEVNULL:
                if devnull < 0:
                    devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                pairs.append((child, devnull))
            else:
                pairs.append((child, fileno(file)))
    except BaseException:
        if devnull >= 0:
            os.close(devnull)
        raise
    return pairs, devnull
