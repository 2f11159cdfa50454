"""What makes it hard to spawn, during tests/soak.py: signals, and memory that comes and goes."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import random
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # mallopt(3)
_STUCK = 120.0  # seconds without anything done
_PAGE = 4096

LIBC = ctypes.CDLL(None)


def prepare_malloc() -> None:
    """Two arenas for all threads, which wait for each other's locks; memory goes back at once."""
    if hasattr(LIBC, "mallopt"):
        for name, value in (
            (_M_ARENA_MAX, 2),
            (_M_MMAP_THRESHOLD, 64 << 10),
            (_M_TRIM_THRESHOLD, 64 << 10),
        ):
            LIBC.mallopt(name, value)


def give_back_memory() -> None:
    """What is free to the kernel, so that what is resident is in use."""
    gc.collect()
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(ctypes.c_size_t(0))


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler: system calls are interrupted."""


class Pressure:
    """From set_up() to rest(), with a handler that does nothing:

    - SIGALRM, by setitimer(2), every 2 ms: to the process, so mostly to the main thread;
    - SIGUSR1 every ms to one of the working threads, by pthread_kill(3);
    - memory: up to eight blocks of up to 4 MiB, each mapped, touched and unmapped again.

    The thread that sends also watches: where nothing is done for two minutes, all stacks are
    printed, and the process ends.
    """

    def __init__(self, threads: Sequence[threading.Thread], done: Callable[[], int]) -> None:
        """done() is how much they have done."""
        self.signals = 0
        self._threads = threads
        self._done = done
        self._on = threading.Event()
        self._resting = threading.Barrier(3)
        signal.signal(signal.SIGALRM, _nothing)
        signal.signal(signal.SIGUSR1, _nothing)
        self._watch()
        for job in (self._signals, self._memory):
            threading.Thread(target=job, daemon=True).start()

    def set_up(self) -> None:
        self._on.set()
        self._resting.wait()
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)

    def rest(self) -> None:
        """Stop, and have nothing in hand."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._on.clear()
        self._resting.wait()

    def _watch(self) -> None:
        faulthandler.dump_traceback_later(_STUCK, exit=True)

    def _signals(self) -> None:
        pause = threading.Event()
        while True:
            self._on.wait()
            self._resting.wait()
            seen = -1
            while self._on.is_set():
                thread = self._threads[self.signals % len(self._threads)]
                assert thread.ident is not None
                signal.pthread_kill(thread.ident, signal.SIGUSR1)
                self.signals += 1
                if self.signals % 1000 == 0 and self._done() != seen:
                    seen = self._done()
                    self._watch()
                pause.wait(0.001)
            self._resting.wait()

    def _memory(self) -> None:
        pause = threading.Event()
        rng = random.Random(0)
        while True:
            self._on.wait()
            self._resting.wait()
            blocks: list[bytearray] = []
            while self._on.is_set():
                blocks.append(bytearray(rng.randrange(16, 1024) * _PAGE))
                blocks[-1][::_PAGE] = b"x" * (len(blocks[-1]) // _PAGE)
                if len(blocks) == 8:
                    del blocks[rng.randrange(8)]
                pause.wait(0.002)
            del blocks
            self._resting.wait()
