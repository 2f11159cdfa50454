"""How long `nsext run` takes to start, beside the interpreter alone: interleaved, medians.

python3 benchmarks/startup.py [ROUNDS]
"""

from __future__ import annotations

import compileall
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import nsext


def seconds(job: object) -> float:
    begun = time.perf_counter()
    if callable(job):
        job()
    else:
        subprocess.run(job, check=True)  # type: ignore[call-overload]
    return time.perf_counter() - begun


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    compileall.compile_dir(Path(nsext.__file__).parent, quiet=2)
    command = shutil.which("nsext", path=Path(sys.executable).parent)
    if command is None:
        sys.exit("the nsext command is not beside this Python")
    box = nsext.Sandbox(new="pid")
    jobs: dict[str, object] = {
        "python3 -c pass": [sys.executable, "-c", "pass"],
        "the spawn": lambda: box.spawn(["true"]).wait(),
        "nsext run --new pid true": [command, "run", "--new", "pid", "true"],
    }
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            found[name].append(seconds(job))
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, median in medians.items():
        print(f"{name:<26} {median * 1000:8.2f} ms")
    base, spawn, run = medians.values()
    print(f"{'ratio':<26} {run / (base + spawn):8.2f}   (at most 1.3)")


main()
