"""Asks cibuildwheel what it would build, and holds it against what is to be published."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHONS = ["cp311", "cp312", "cp314t"]  # later free-threaded ones may come
OTHERS = ["cp310", "cp313", "cp314"]  # cp312-abi3 serves them, or nothing does
COMMAND = [sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", "linux"]


def main():
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CIBW_")
    }
    for arch in ("x86_64", "aarch64"):
        command = [*COMMAND, "--archs", arch, str(ROOT)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stdout + done.stderr)
        planned = set(done.stdout.split())
        for python, libc in itertools.product(PYTHONS, ("manylinux", "musllinux")):
            if f"{python}-{libc}_{arch}" not in planned:
                sys.exit(f"cibuildwheel would not build {python}-{libc}_{arch}")
        if extra := {name for name in planned if name.split("-")[0] in OTHERS}:
            sys.exit(f"cibuildwheel would build {', '.join(sorted(extra))}, too")
        print(f"cibuildwheel, {arch}: {' '.join(sorted(planned))}")


if __name__ == "__main__":
    main()
