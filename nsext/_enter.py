"""Namespace.enter(): the calling thread in another namespace, for a while."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from . import _native
from ._flags import BY_KIND

if TYPE_CHECKING:
    from ._namespace import Namespace

_WHY_NOT = {
    "mnt": "threads share their root and working directory, and then setns(2) is EINVAL",
    "user": "setns(2) is EINVAL in a process with threads, and nobody comes back from one",
    "pid": "setns(2) moves future children only, and then no thread can be started",
    "time": "setns(2) is EUSERS in a process with threads, which share its clocks' page",
}


class Entered:
    """What Namespace.enter() returns: a context manager, for one thread and one use."""

    __slots__ = ("_back", "_namespace", "_thread")

    def __init__(self, namespace: Namespace) -> None:
        kind = namespace.kind
        if kind in _WHY_NOT:
            raise ValueError(
                f"a thread cannot enter a {kind} namespace and come back: {_WHY_NOT[kind]}; "
                f"start a program there with join="
            )
        self._namespace = namespace
        self._back = -1
        self._thread = 0

    def __enter__(self) -> None:
        if self._back >= 0:
            raise RuntimeError("it has been entered already")
        kind = self._namespace.kind
        self._thread = threading.get_native_id()
        back = os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # To where it is already, which changes nothing: EPERM where there is no way back, when
            # the caller's user namespace does not own it.
            _native.setns(back, BY_KIND[kind])
            _native.setns(self._namespace.fileno(), BY_KIND[kind])
        except BaseException:
            os.close(back)
            raise
        self._back = back

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if threading.get_native_id() != self._thread:
            raise RuntimeError("another thread has entered, and only that one can come back")
        _native.setns(self._back, BY_KIND[self._namespace.kind])
        back, self._back = self._back, -1
        os.close(back)

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        back = getattr(self, "_back", -1)
        if back >= 0:
            _close(back)
