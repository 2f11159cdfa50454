"""A thread that lives as long as the process, to clone from.

The kernel ties a child's PR_SET_PDEATHSIG to the thread that made it: a child of a thread that
ends is killed with the thread.  So kill_on_parent_exit clones from the main thread or from here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_queue: SimpleQueue[Callable[[], None]] | None = None
_owner = 0


def _serve(queue: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        queue.get()()


def _keeper() -> SimpleQueue[Callable[[], None]]:
    global _queue, _owner
    with _lock:
        if _queue is None or _owner != os.getpid():  # a fork has no copy of the thread
            _queue, _owner = SimpleQueue(), os.getpid()
            threading.Thread(
                target=_serve, args=(_queue,), name="nsext-keeper", daemon=True
            ).start()
        return _queue


def lives_as_long_as_the_process() -> bool:
    """Is the calling thread the one that the process ends with?"""
    return threading.get_native_id() == os.getpid()


def call(function: Callable[..., T], *args: Any) -> T:
    """Return function(*args), called on the lasting thread."""
    result: list[T] = []
    error: list[BaseException] = []
    done = threading.Event()

    def job() -> None:
        try:
            result.append(function(*args))
        except BaseException as caught:
            error.append(caught)
        done.set()

    _keeper().put(job)
    done.wait()
    if error:
        raise error[0]
    return result[0]


def on_lasting_thread(function: Callable[..., T]) -> Callable[..., T]:
    """The same function, called there."""
    return partial(call, function)


os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))
