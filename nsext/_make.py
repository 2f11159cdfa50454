"""Namespace.new(): a namespace with no process in it."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any

from . import _nsfs
from ._causes import NO_PRIVILEGE, Cause
from ._errors import SpawnError
from ._flags import BY_KIND
from ._helper import HELPER
from ._process import Process
from ._spawn import spawn

if TYPE_CHECKING:
    from ._namespace import Namespace

_NO_PRIVILEGE = Cause(
    "this needs CAP_SYS_ADMIN", "an ordinary user gives user=Namespace.new('user')"
)


def make(kind: str, user: Namespace | None, loopback: bool) -> int:
    """Return a descriptor of a new namespace.  Raises ValueError, SpawnError.

    Somebody has to be in it for a moment.  He cannot be left at a checkpoint: there the helper
    is non-dumpable in a joined user namespace, and not to be looked into.
    """
    if kind not in BY_KIND:
        raise ValueError(f"unknown namespace kind {kind!r}: one of {' '.join(BY_KIND)}")
    if kind == "pid":
        raise ValueError(
            "a pid namespace lives as long as its PID 1, and is of no use without: start one, "
            "Popen(..., new='pid', hold='pid')"
        )
    if user is not None and not hasattr(user, "kind"):
        raise TypeError(f"user: a Namespace, not {type(user).__name__}")
    if user is not None and user.kind != "user":
        raise ValueError(f"user: it is a {user.kind} namespace")
    fields: dict[str, Any] = {"env": {}}
    nested = kind == "user" and user is not None
    if user is not None:
        fields["join"] = {"user": user}
    if not nested:
        fields["new"] = kind
    if kind == "net":
        fields["loopback"] = bool(loopback)
    inner, outer = socket.socketpair()
    with inner, outer:
        try:
            process = spawn(_placeholder(nested), stdin=inner, stdout=inner, **fields)
        except SpawnError as error:
            if error.hint is NO_PRIVILEGE:
                error.hint = _NO_PRIVILEGE
            raise
        inner.close()
        with process:
            try:
                _await(process, outer)
                return _nsfs.of_process(process.pidfd, process.pid, kind)
            finally:
                process.kill()


def _placeholder(nested: bool) -> list[str]:
    """A program that does as cat(1); nested: in a new user namespace of its own."""
    if nested or os.path.exists(HELPER):
        return [HELPER, "-user" if nested else "-"]
    return ["cat"]


def _await(process: Process, peer: socket.socket) -> None:
    """Until it answers its exec is not over, and its files in /proc are root's."""
    try:
        peer.sendall(b"x")
        answer = peer.recv(1)
    except (BrokenPipeError, ConnectionResetError):
        answer = b""
    if not answer:
        number = process.wait()
        text = os.strerror(number) if number > 0 else "it was killed"
        step = "make a user namespace in the given one"
        raise SpawnError(number if number > 0 else errno.ECHILD, text, step=step)
