"""Measuring: contenders in turn, in blocks, so that all meet the same weather."""

from __future__ import annotations

import gc
import itertools
import mmap
import os
import random
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from contenders import REFERENCE, Contender

BLOCK = 20
WARM_UP = 2  # calls before each block that are not counted: the caches are the last contender's
MIB = 1 << 20


class Series:
    """The samples of one contender in one scenario, in microseconds: a block for each round."""

    def __init__(self) -> None:
        self.blocks: dict[int, list[float]] = {}

    @property
    def samples(self) -> list[float]:
        return [sample for block in self.blocks.values() for sample in block]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.samples)

    @property
    def p95(self) -> float:
        samples = sorted(self.samples)
        return samples[min(len(samples) - 1, int(len(samples) * 0.95))]

    def ratio(self, other: Series) -> float:
        """How many times *other*: the median over rounds of the ratios of their medians.

        Block against block of the same round: what slows a machine down for a while slows both.
        """
        return statistics.median(
            statistics.median(block) / statistics.median(other.blocks[number])
            for number, block in self.blocks.items()
            if number in other.blocks
        )

    def more(self, other: Series) -> float:
        """How many microseconds more than *other*, likewise."""
        return statistics.median(
            statistics.median(block) - statistics.median(other.blocks[number])
            for number, block in self.blocks.items()
            if number in other.blocks
        )

    def summary(self, reference: Series | None = None) -> dict[str, float]:
        result = {
            "median_us": self.median,
            "p95_us": self.p95,
            "mean_us": self.mean,
            "count": len(self.samples),
        }
        if reference is not None:
            result |= {
                "median_ratio": self.ratio(reference),
                "p95_ratio": self.p95 / reference.p95,
                "mean_ratio": self.mean / reference.mean,
            }
        return result


Table = dict[str, Series]
"""Contender -> Series, the reference first."""

_numbers = itertools.count()
"""Of rounds, in the whole run."""


def _size_of_block(contender: Contender) -> int:
    """Fewer of the slow ones, for which a few are exact enough."""
    typical = min(contender.sample(3))
    return BLOCK if typical < 2e6 else 5 if typical < 20e6 else 1


def working(contenders: Sequence[Contender]) -> list[Contender]:
    """Those that do not fail here: a namespace may be forbidden, a tool too old."""
    result = []
    for contender in contenders:
        try:
            contender.sample(1)
        except (OSError, RuntimeError) as error:
            if contender.name == REFERENCE:
                raise
            print(f"  without {contender.name}: {error}", flush=True)
        else:
            result.append(contender)
    return result


def interleave(contenders: Sequence[Contender], seconds: float, slow: int = 5) -> Table:
    """Measure in rounds, each a block of every contender in a new order, for so long.

    slow: samples of a contender that takes more than 20 ms.
    """
    sizes = {contender.name: _size_of_block(contender) for contender in contenders}
    table: Table = {contender.name: Series() for contender in contenders}
    shuffler = random.Random(1)
    order = list(contenders)
    gc.collect()
    gc.disable()
    try:
        end = time.monotonic() + seconds
        for rounds in itertools.count():
            if rounds >= 2 and time.monotonic() > end:
                break
            number = next(_numbers)
            shuffler.shuffle(order)
            for contender in order:
                size = sizes[contender.name]
                if size == 1 and rounds >= slow:
                    continue
                skip = WARM_UP if size > 1 else 0
                samples = contender.sample(skip + size)[skip:]
                table[contender.name].blocks[number] = [sample / 1000 for sample in samples]
    finally:
        gc.enable()
    return table


@contextmanager
def pinned() -> Iterator[None]:
    """This process, and so its children, on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """This thread before all others of the machine, where that is allowed; its children are not.

    What holds it up is then its own doing.  See sched(7).
    """
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(1))
    except OSError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def available_memory() -> int:
    """Bytes that can be had without swapping; 0 where nobody knows."""
    with suppress(OSError), open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


class Ballast:
    """Resident memory in pages of the common size, to be made larger and let go."""

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []
        self._size = 0

    def grow(self, size: int) -> None:
        more = size - self._size
        if more <= 0:
            return
        part = mmap.mmap(-1, more, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._maps.append(part)
        with suppress(OSError):  # a kernel without huge pages
            part.madvise(mmap.MADV_NOHUGEPAGE)
        for start in range(0, more, 64 * MIB):
            end = min(start + 64 * MIB, more)
            part[start : end : mmap.PAGESIZE] = bytes(len(range(start, end, mmap.PAGESIZE)))
        self._size = size

    def release(self) -> None:
        for part in self._maps:
            part.close()
        self._maps.clear()
        self._size = 0


def throughput(contender: Contender, threads: int, seconds: float) -> float:
    """Spawns per second of so many threads at once."""
    start = threading.Barrier(threads + 1)
    with ThreadPoolExecutor(threads) as pool:
        counts = [pool.submit(contender.spawn_until, start, seconds) for _ in range(threads)]
        start.wait()
        began = time.monotonic()
        done = sum(count.result() for count in counts)
        return done / (time.monotonic() - began)


def as_json(table: Table) -> dict[str, Any]:
    reference = table[REFERENCE]
    return {name: series.summary(reference) for name, series in table.items()}
