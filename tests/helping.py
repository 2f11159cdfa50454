"""What the tests of the helper body share."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bodies
import support

import nsext

DEADLINE = 10
HELPER_TEXT = bodies.HELPER_TEXT


def other_fds(pid: Any = "self") -> dict[int, str]:
    """Open descriptors without those of the helper's image and of plans, which a process keeps."""
    return support.without_kept(support.open_fds(pid))  # type: ignore[no-any-return]


def kept_fds() -> dict[int, str]:
    """Those that are kept."""
    found = support.open_fds()
    return {fd: found[fd] for fd in found.keys() - other_fds().keys() if fd in found}


def wait_for(condition: Callable[[], Any], what: str = "", seconds: float = DEADLINE) -> Any:
    """Return the condition's value as soon as it is true; fail where it does not become so."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what or condition}"
        os.sched_yield()
    return value


def state_of(pid: int) -> str:
    """The letter of a process's state; "" where there is none."""
    try:
        return support.status(pid)["State"][0]
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return ""


def is_gone(pid: int) -> bool:
    """Has it ended?  A zombie that its parent has not waited for counts."""
    return state_of(pid) in ("", "Z", "X")


def gone(pid: int, seconds: float = DEADLINE) -> None:
    wait_for(lambda: is_gone(pid), f"process {pid} ends", seconds)


def ended(fd: int, seconds: float = DEADLINE) -> bool:
    """Whether a pidfd tells of its process's end in time."""
    return bool(select.select([fd], [], [], seconds)[0])


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def error_of(call: Callable[..., Any], *args: Any, **keywords: Any) -> nsext.SpawnError:
    """The SpawnError that a call must raise, without its traceback (and what that holds)."""
    error = support.failure(call, *args, **keywords)
    error.__traceback__ = None
    return error


@contextmanager
def talking(start: Callable[..., Any] = nsext.Popen, **keywords: Any) -> Iterator[Any]:
    """A cat that has started: its loader has closed what it had open."""
    with start(["cat"], stdin=nsext.PIPE, stdout=nsext.PIPE, bufsize=0, **keywords) as process:
        try:
            process.stdin.write(b"x")
            assert process.stdout.read(1) == b"x"
            yield process
        finally:
            process.kill()


def running_helper(args: Any, **keywords: Any) -> nsext.Popen:
    """A Popen that has been paused and resumed: what the helper body is forced with."""
    process = nsext.Popen(args, paused=True, **keywords)
    process.resume()
    return process


@contextmanager
def prepared(command: str, **keywords: Any) -> Iterator[nsext.Popen]:
    """A shell that has run a command, and stays."""
    args = ["sh", "-ec", f"{command}\necho ready\nexec sleep 1000"]
    with nsext.Popen(args, stdout=nsext.PIPE, text=True, **keywords) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()
