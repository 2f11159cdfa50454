"""asyncio: how many spawns a loop makes, and for how long they hold it up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from contenders import FOUR, Tools, fields_of
from measure import undisturbed

import nsext

OURS = "nsext"
OURS_FOUR = "nsext, four namespaces"
ASYNCIO = "asyncio"
WORKERS = 4
TICK = 0.001  # seconds

Create = Callable[[], Awaitable[Any]]


@dataclass
class Loop:
    """Of one contender, by round: spawns per second, and the latest of a timer's ticks in ms."""

    rates: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)


async def _round(create: Create, seconds: float) -> tuple[float, float]:
    """(spawns per second, the largest stall in ms) of some workers that spawn in turn."""
    start = time.perf_counter()
    end, count, stall = start + seconds, 0, 0.0

    async def work() -> None:
        nonlocal count
        while time.perf_counter() < end:
            process = await create()
            if await process.wait():
                raise RuntimeError(f"the program ended with {process.returncode}")
            count += 1

    async def tick() -> None:
        nonlocal stall
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            stall = max(stall, time.perf_counter() - due)

    ticker = asyncio.create_task(tick())
    await asyncio.gather(*(work() for _ in range(WORKERS)))
    rate = count / (time.perf_counter() - start)
    ticker.cancel()
    return rate, stall * 1000


def loops(tools: Tools, seconds: float, rounds: int, kinds: str = FOUR) -> dict[str, Loop]:
    """Measure in turn, with a loop of its own for each round."""
    program, fields = tools.program, fields_of(kinds)
    creates: dict[str, Create] = {
        OURS: lambda: nsext.create_subprocess_exec(program),
        OURS_FOUR: lambda: nsext.create_subprocess_exec(program, **fields),
        ASYNCIO: lambda: asyncio.create_subprocess_exec(program),
    }
    found = {name: Loop() for name in creates}
    with undisturbed():
        for _ in range(rounds):
            for name, create in creates.items():
                asyncio.run(_round(create, 0.05))  # the first ones are dearer
                rate, stall = asyncio.run(_round(create, seconds))
                found[name].rates.append(rate)
                found[name].stalls.append(stall)
    return found
