"""What a spawn costs: nsext beside the ways that people use today, and beside plain C.

    python benchmarks/bench.py [--quick] [--json FILE] [--markdown FILE] [--plot FILE]

Every contender starts the same program, a static one without a C library, and waits for its
end.  They run in turn, in blocks of 20, pinned to one CPU; a ratio is the median over rounds of
one block's median to the other's.  Needs a C compiler, and for most namespaces root; without,
every set of namespaces gets a new user namespace, too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

import measure
import report
import sandbox
from bodies import bodies
from contenders import (
    ALL,
    FORK,
    FOUR,
    KINDS,
    NAMES,
    PLAIN,
    POPEN,
    POSIX_SPAWN,
    PREEXEC,
    SPAWN,
    SUBPROCESS,
    Reference,
    Tools,
    build,
    contenders,
)
from loops import Loop, loops
from measure import MIB, Table, interleave, pinned, working

SIZES = (0, 256 * MIB, 1024 * MIB, 2048 * MIB, 4096 * MIB)
THREADS = (1, 2, 4, 8)
IN_MEMORY = (SPAWN, POPEN, SUBPROCESS, POSIX_SPAWN, FORK, PREEXEC)
IN_THREADS = (SPAWN, POPEN, SUBPROCESS, POSIX_SPAWN, FORK)


@dataclass(frozen=True)
class Times:
    """Seconds for each part: of a scenario, a size of memory, a number of threads."""

    plain: float
    four: float
    every: float
    kind: float
    unpinned: float
    memory: float
    passes: int
    threads: float
    sandbox: sandbox.Times
    bodies: float
    loops: float
    rounds: int


FULL = Times(
    plain=25,
    four=35,
    every=15,
    kind=9,
    unpinned=10,
    memory=1.6,
    passes=5,
    threads=0.5,
    sandbox=sandbox.FULL,
    bodies=35,
    loops=1.5,
    rounds=5,
)
QUICK = Times(
    plain=4,
    four=5,
    every=3,
    kind=0.8,
    unpinned=2,
    memory=0.6,
    passes=1,
    threads=0.15,
    sandbox=sandbox.QUICK,
    bodies=5,
    loops=0.5,
    rounds=3,
)


@dataclass
class Results:
    """All that was measured; times in microseconds."""

    machine: dict[str, str]
    privileged: bool = True
    pinned: dict[str, Table] = field(default_factory=dict)  # by kinds; "" is none
    unpinned: dict[str, Table] = field(default_factory=dict)
    passes: list[dict[int, Table]] = field(default_factory=list)  # each by MiB resident
    threads: dict[int, dict[str, float]] = field(default_factory=dict)  # spawns per second
    sandbox: sandbox.Results = field(default_factory=sandbox.Results)
    bodies: Table = field(default_factory=dict)
    loops: dict[str, Loop] = field(default_factory=dict)
    loops_resident: int = 0  # MiB
    seconds: float = 0

    @property
    def memory(self) -> dict[int, Table]:
        """All passes in one, by MiB."""
        merged: dict[int, Table] = {}
        for one in self.passes:
            for size, table in one.items():
                into = merged.setdefault(size, {})
                for name, series in table.items():
                    into.setdefault(name, measure.Series()).blocks.update(series.blocks)
        return merged

    def as_json(self) -> dict[str, Any]:
        tables = {
            part: {
                str(key) or "none": measure.as_json(table)
                for key, table in getattr(self, part).items()
            }
            for part in ("pinned", "unpinned", "memory")
        }
        return {
            "machine": self.machine,
            "privileged": self.privileged,
            **tables,
            "threads": self.threads,
            "sandbox": self.sandbox.as_json(),
            "bodies": measure.as_json(self.bodies) if self.bodies else {},
            "loops": {name: asdict(loop) for name, loop in self.loops.items()},
            "loops_resident": self.loops_resident,
            "targets": [target.as_json() for target in report.targets(self)],
            "seconds": self.seconds,
        }


class Benchmark:
    """The parts of a run, each of which adds to the results."""

    def __init__(self, tools: Tools, times: Times) -> None:
        self.tools = tools
        self.times = times
        self.results = Results(report.machine())
        self.results.privileged = self._is_privileged()

    def _is_privileged(self) -> bool:
        try:
            Reference(self.tools, "uts").sample(1)
        except OSError:
            return False
        return True

    def _ready(self, kinds: str, names: tuple[str, ...] = NAMES) -> list[Any]:
        if kinds and not self.results.privileged and "user" not in kinds.split():
            kinds = f"user {kinds}"
        return working(contenders(self.tools, kinds, names))

    def _measure(self, kinds: str, seconds: float, names: tuple[str, ...] = NAMES) -> Table:
        return interleave(self._ready(kinds, names), seconds)

    def namespaces(self) -> None:
        """No namespaces, four, each kind alone, all eight; on one CPU."""
        times, tables = self.times, self.results.pinned
        with_namespaces = tuple(name for name in NAMES if name not in PLAIN)
        with pinned():
            say("no namespaces")
            tables[""] = self._measure("", times.plain)
            say(FOUR)
            tables[FOUR] = self._measure(FOUR, times.four)
            for kinds in (*KINDS, ALL):
                say("all eight" if kinds == ALL else kinds)
                seconds = times.every if kinds == ALL else times.kind
                try:
                    tables[kinds] = self._measure(kinds, seconds, with_namespaces)
                except OSError as error:
                    say(f"  not here: {error}")

    def unpinned(self) -> None:
        for kinds in ("", FOUR):
            say(f"{kinds or 'no namespaces'}, not pinned")
            self.results.unpinned[kinds] = self._measure(kinds, self.times.unpinned)

    def memory(self) -> None:
        """Up through the sizes more than once, so that none of them has a time of its own."""
        ballast = measure.Ballast()
        sizes = [size for size in SIZES if size < measure.available_memory() * 0.7]
        with pinned():
            ready = self._ready(FOUR, IN_MEMORY)
            for number in range(self.times.passes):
                one: dict[int, Table] = {}
                for size in sizes:
                    say(f"{size // MIB} MiB resident, {number + 1} of {self.times.passes}")
                    ballast.grow(size)
                    one[size // MIB] = interleave(ready, self.times.memory, slow=2)
                self.results.passes.append(one)
                ballast.release()

    def bodies(self) -> None:
        say("helper, init and join")
        kinds = FOUR if self.results.privileged else f"user {FOUR}"
        with pinned(), bodies(self.tools, kinds) as found:
            self.results.bodies = interleave(working(found), self.times.bodies)

    def loops(self) -> None:
        """asyncio in a process with much memory."""
        ballast = measure.Ballast()
        fit = [size for size in SIZES if size < measure.available_memory() * 0.7]
        size = max(fit, default=0)
        say(f"asyncio, {size // MIB} MiB resident")
        ballast.grow(size)
        try:
            kinds = FOUR if self.results.privileged else f"user {FOUR}"
            self.results.loops = loops(self.tools, self.times.loops, self.times.rounds, kinds)
            self.results.loops_resident = size // MIB
        finally:
            ballast.release()

    def threads(self) -> None:
        ready = self._ready(FOUR, IN_THREADS)
        for count in THREADS:
            say(f"{count} thread{'s' * (count > 1)}")
            rates: dict[str, list[float]] = {}
            for _ in range(3):
                for contender in ready:
                    rate = measure.throughput(contender, count, self.times.threads)
                    rates.setdefault(contender.name, []).append(rate)
            self.results.threads[count] = {
                name: statistics.median(each) for name, each in rates.items()
            }

    def sandbox(self) -> None:
        """As root, and as an ordinary user; with more and more mounts."""
        with pinned():
            self.results.sandbox = sandbox.run(self.tools, self.times.sandbox, say)


def say(text: str) -> None:
    print(f"... {text}", flush=True)


def nothing_left() -> None:
    """No child may be left, running or dead."""
    try:
        pid, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    raise RuntimeError(f"a child is left behind: {pid or 'still running'}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a spawn costs.")
    parser.add_argument("--quick", action="store_true", help="about a minute, less exact")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument(
        "--markdown", metavar="FILE", help="write the tables as the README has them"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw them (needs matplotlib)")
    options = parser.parse_args()
    # Of os.fork in a process with threads: what is measured here is what people do.
    warnings.simplefilter("ignore", DeprecationWarning)

    start = time.monotonic()
    with build() as tools:
        benchmark = Benchmark(tools, QUICK if options.quick else FULL)
        for part in (
            benchmark.namespaces,
            benchmark.bodies,
            benchmark.unpinned,
            benchmark.memory,
            benchmark.threads,
            benchmark.sandbox,
            benchmark.loops,
        ):
            part()
    results = benchmark.results
    results.seconds = round(time.monotonic() - start, 1)
    nothing_left()

    print()
    print(report.text(results))
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write(report.markdown(results))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results.as_json(), file, indent=1)
            file.write("\n")
    if options.plot:
        try:
            import plot
        except ImportError as error:
            print(f"no plot: {error}")
        else:
            plot.draw(results, options.plot)


if __name__ == "__main__":
    main()
