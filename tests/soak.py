"""make soak: many spawns and failures of all kinds, and counts that have to stay flat.

    python tests/soak.py                    an hour
    python tests/soak.py --seconds 600
    python tests/soak.py --spawns 20000

Eight threads, the main one among them, each go again and again through all kinds of spawns (those of
tests/soak_kinds.py), in an order of their own that --seed repeats.  Children are killed at random
moments; signals and memory come and go meanwhile (tests/soak_pressure.py).

Ten times (--samples) all threads stand still, and a line of the table says what is there then
(tests/soak_counts.py).  Exit status 1 where something has grown, and where a spawn ended otherwise
than it should.

All of it runs in new namespaces of every kind, made by nsext, behind an init.  There the kernel's limits
of namespaces are its own, and tell how many it has, whoever holds them; and no other program of the
machine is in sight.  Root has all ids there and may make control groups, so all kinds of spawns work;
what an ordinary user's ids do not allow is left out, with a line.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import os
import random
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import sanitized  # noqa: E402

import nsext  # noqa: E402

WARM_UP = 2  # rounds of each thread through all kinds
INSIDE = "NSEXT_SOAK_INSIDE"
CGROUP = "NSEXT_SOAK_CGROUP"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--spawns", type=int, default=0, help="so many rounds, instead of a time")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument(
        "--patience", type=float, default=20.0, help="seconds for the kernel to clean up"
    )
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(1 << 32)))
    parser.add_argument("--kinds", default="*", help="only those, patterns with commas between")
    parser.add_argument("--leak", default="", help="on purpose: names of soak_leaks.py")
    return parser.parse_args(arguments)


# ---- outside ---------------------------------------------------------------------------------


@contextlib.contextmanager
def own_group() -> Iterator[dict[str, str]]:
    """A control group in which others may be made, and its variable; nothing where it cannot be."""
    import groups

    from nsext import _cgroupfs

    try:
        home = Path(_cgroupfs.own_group())
        path = home / f"soak-{os.getpid()}"
        path.mkdir()
    except OSError:
        yield {}
        return
    try:
        (path / "shared").mkdir()
        yield {CGROUP: str(path)}
    finally:
        groups.remove(path)


def enter(arguments: list[str]) -> int:
    """Run it in namespaces of its own; return its exit status."""
    ids = "auto" if os.geteuid() == 0 or nsext.check(())["id_ranges"] else "root"
    box = nsext.Sandbox(new="all", uid_map=ids, gid_map=ids, init=True)
    with own_group() as group, tempfile.TemporaryDirectory(prefix="nsext-soak-") as scratch:
        os.chmod(scratch, 0o755)
        environment = {**os.environ, **sanitized.RUNTIME, **group, INSIDE: "1", "TMPDIR": scratch}
        command = [sys.executable, __file__, *arguments]
        return box.call(command, env=environment, kill_on_parent_exit=True)


# ---- inside ----------------------------------------------------------------------------------


class Soak:
    """The threads, and what they do."""

    def __init__(self, options: argparse.Namespace) -> None:
        import soak_kinds
        import soak_leaks
        import soak_pressure

        here = soak_kinds.what_is_here()
        patterns = options.kinds.split(",")
        self.jobs: dict[str, soak_kinds.Job] = {}
        for name, (job, needs) in soak_kinds.KINDS.items():
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                continue
            if here[needs]:
                self.jobs[name] = job
            else:
                print(f"left out: {name}, which needs {needs}")
        for name in filter(None, options.leak.split(",")):
            self.jobs[f"leak of {name}"] = soak_leaks.leak(name)
        self.seed = options.seed
        self.wrong = ""
        self.done = [0] * options.threads
        self._may_go_on = self._in_time
        self._until = 0.0
        self._numbers: Iterator[int] = iter(())
        self._meeting = threading.Barrier(options.threads)
        threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(1, options.threads)
        ]
        self._deals = [self._deal(number) for number in range(options.threads)]
        workers = [threading.main_thread(), *threads]
        self.pressure = soak_pressure.Pressure(workers, lambda: sum(self.done))
        for thread in threads:
            thread.start()

    def _deal(self, number: int) -> Iterator[tuple[str, random.Random]]:
        """The kinds in a random order, and again in another one."""
        rng = random.Random(f"{self.seed} {number}")
        names = list(self.jobs)
        while True:
            rng.shuffle(names)
            for name in names:
                yield name, rng

    def _in_time(self) -> bool:
        return time.monotonic() < self._until

    def _is_left(self) -> bool:
        return next(self._numbers, None) is not None

    def _spawn(self, number: int) -> None:
        while not self.wrong and self._may_go_on():
            name, rng = next(self._deals[number])
            try:
                self.jobs[name](rng)
            except KeyboardInterrupt:
                raise
            except BaseException:
                self.wrong = f"{name}, in thread {number}:\n{traceback.format_exc()}"
            self.done[number] += 1

    def _work(self, number: int) -> None:
        while True:
            self._meeting.wait()
            self._spawn(number)
            self._meeting.wait()

    def go(self, rounds: int = 0, seconds: float = 0.0) -> None:
        """Spawn, under pressure, so many times or so long; then everybody stands still."""
        self._numbers = iter(range(rounds))
        self._until = time.monotonic() + seconds
        self._may_go_on = self._is_left if rounds else self._in_time
        self.pressure.set_up()
        self._meeting.wait()
        self._spawn(0)
        self._meeting.wait()
        self.pressure.rest()


def soak(options: argparse.Namespace) -> int:
    import soak_counts
    import soak_pressure

    soak_pressure.prepare_malloc()
    soak_counts.set_limits()
    start = soak_counts.counts(soak_counts.UNKNOWN, 0)
    job = Soak(options)
    print(f"{len(job.jobs)} kinds in {options.threads} threads, --seed {job.seed}")
    begin = time.monotonic()

    def stand_still() -> dict[str, int]:
        found = soak_counts.counts(start, options.patience)
        table.row(sum(job.done), time.monotonic() - begin, found)
        return found

    table = Table(start)
    job.go(rounds=WARM_UP * len(job.jobs) * options.threads)
    first = last = stand_still()
    # What the kernel counts has nothing to warm up.
    before = {**first, **{name: start[name] for name in soak_counts.SETTLING}}
    for _ in range(options.samples):
        if job.wrong:
            break
        spawns = -(-options.spawns // options.samples)
        job.go(spawns, options.seconds / options.samples)
        last = stand_still()
    grown = soak_counts.grown(before, last)
    if job.wrong:
        print(job.wrong)
    for text in grown:
        print("GROWS:", text)
    if not grown and not job.wrong:
        print("flat")
    return int(bool(grown or job.wrong))


class Table:
    """Printed line by line."""

    def __init__(self, names: Iterable[str]) -> None:
        self._widths = {name: max(len(name), 3) for name in names}
        self._line(["rounds", "seconds"], self._widths)

    def _line(self, left: list[object], cells: Iterable[object]) -> None:
        texts = [f"{cell:>9}" for cell in left]
        texts += [f"{cell:>{width}}" for cell, width in zip(cells, self._widths.values())]
        print(*texts, flush=True)

    def row(self, rounds: int, seconds: float, found: Mapping[str, int]) -> None:
        self._line([rounds, round(seconds)], found.values())


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)  # which says what is wrong with them
    return soak(options) if INSIDE in os.environ else enter(arguments)


if __name__ == "__main__":
    sys.exit(main())
