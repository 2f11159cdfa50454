"""What a control group costs: a spawn and wait of a no-op, with and without one.

    python benchmarks/cgroup.py [--rounds N]

Interleaved in blocks, pinned to one CPU, medians; ratios are to the spawn without a group.  "by
hand" is what a shell or another program would do: a directory, a fork that writes itself to
cgroup.procs, and rmdir.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nsext
from nsext._cgroupfs import own_group

BLOCK = 20


def noop(place: Path) -> str:
    """A static program that ends at once."""
    source = Path(__file__).parent / "noop.c"
    path = place / "noop"
    flags = ["-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector"]
    subprocess.run(["gcc", *flags, "-o", path, source], check=True)
    return str(path)


def by_hand(program: str, parent: str) -> Callable[[], None]:
    def spawn() -> None:
        path = f"{parent}/by-hand-{os.getpid()}"
        os.mkdir(path)
        pid = os.fork()
        if pid == 0:
            with open(f"{path}/cgroup.procs", "w") as file:
                file.write("0")
            os.execv(program, [program])
        os.waitpid(pid, 0)
        os.rmdir(path)

    return spawn


def contenders(program: str, parent: str, given: str) -> dict[str, Callable[[], object]]:
    leaf = nsext.Cgroup(parent=parent)
    args = [program]
    return {
        "spawn()": lambda: nsext.spawn(args).wait(),
        "spawn(user=0), the helper": lambda: nsext.spawn(args, user=0).wait(),
        "spawn(cgroup=path)": lambda: nsext.spawn(args, cgroup=given).wait(),
        "spawn(cgroup=Cgroup())": lambda: nsext.spawn(args, cgroup=leaf).wait(),
        "by hand": by_hand(program, parent),
    }


def measure(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median microseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        for _ in range(5):
            job()
    for _ in range(rounds):
        for name, job in jobs.items():
            for _ in range(BLOCK):
                begun = time.perf_counter_ns()
                job()
                times[name].append((time.perf_counter_ns() - begun) / 1000)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    parent = f"{own_group()}/bench-{os.getpid()}"  # where nobody else has any
    given = f"{parent}/given"
    os.makedirs(given)
    try:
        with tempfile.TemporaryDirectory() as place:
            medians = measure(contenders(noop(Path(place)), parent, given), options.rounds)
    finally:
        os.rmdir(given)
        os.rmdir(parent)
    base = medians["spawn()"]
    for name, median in medians.items():
        print(f"{name:28} {median:8.0f} us {median / base:6.2f}")


if __name__ == "__main__":
    main()
