"""How long `nsext run` takes to start, beside the interpreter alone: interleaved, medians.

python3 benchmarks/startup.py [ROUNDS]
"""

from __future__ import annotations

import compileall
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nsext

SCRIPT = """\
import sys
from nsext._cli import script
if __name__ == "__main__":
    sys.exit(script())
"""


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
    with tempfile.TemporaryDirectory() as place:
        script = Path(place, "nsext")
        script.write_text(SCRIPT)
        box = nsext.Sandbox(new="pid")
        jobs: dict[str, object] = {
            "python3 -c pass": [sys.executable, "-c", "pass"],
            "the spawn": lambda: box.spawn(["true"]).wait(),
            "nsext run --new pid true": [
                sys.executable,
                str(script),
                "run",
                "--new",
                "pid",
                "true",
            ],
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
