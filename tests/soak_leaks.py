"""Leaks on purpose: soak.py --leak NAME has to find each, and name it."""

from __future__ import annotations

import itertools
import os
import random
import socket
import threading
from collections.abc import Callable
from typing import Any

import soak_kinds

import nsext

_kept: list[Any] = []
_SOCKETS = socket.socketpair()
_numbers = itertools.count()


def _zombie() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _orphan() -> None:
    """Of the init's, so no child here."""
    nsext.run(["/bin/sh", "-c", "sleep 1000 & exit"], check=True)


def _namespace() -> None:
    """In flight from a socket to another one: nobody has it open."""
    with nsext.Namespace.new("uts") as new:
        socket.send_fds(_SOCKETS[0], [b"x"], [new.fileno()])


def _namespace_of_a_process() -> None:
    """Whom nobody here sees: it is in a pid namespace whose PID 1 it is."""
    _kept.append(nsext.spawn(soak_kinds.SLEEP, new="user pid net"))


def _cgroup() -> None:
    os.mkdir(f"{soak_kinds.GROUP}/leak-{next(_numbers)}")


LEAKS: dict[str, Callable[[], Any]] = {
    "fds": lambda: os.dup(0),
    "threads": lambda: threading.Thread(target=threading.Event().wait, daemon=True).start(),
    "children": _zombie,
    "processes": _orphan,
    "RSS KiB": lambda: _kept.append(b"x" * (4 << 20)),
    "uts": _namespace,
    "pid": _namespace_of_a_process,
    "cgroups": _cgroup,
}
"""By what grows."""


def leak(name: str) -> Callable[[random.Random], Any]:
    return lambda rng: LEAKS[name]()
