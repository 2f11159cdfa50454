"""make pytest-all: the suite on every CPython that can be had here, with the wheel for it.

Those of this machine, and of the others what Debian's sid has (sid_root.py).  The tests run against
the installed wheel (those of `make wheels`), not against this tree; 3.12 and later get one and the
same file.  PYTHONS="3.12 3.13" in the environment says which, all by default; --jobs how many at a
time.  Other arguments go to pytest.  What has failed runs once more, when the others have ended.
Prints a table; exit status 1 where one has failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import sid_root
from pytest_run import BUILD, Failed, Run
from vm_debian import NotServed

import nsext


def version_of(python: str) -> tuple[int, int, str] | None:
    """(3, 12, ""): the version, and "t" for a free-threaded build; None: it does not run."""
    code = (
        "import sys, sysconfig as s;"
        "print(*sys.version_info[:2], 't' if s.get_config_var('Py_GIL_DISABLED') else '')"
    )
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    words = done.stdout.split()
    if done.returncode or len(words) < 2:
        return None
    return int(words[0]), int(words[1]), words[2] if len(words) > 2 else ""


def order(version: str) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", version)], version


def interpreters() -> dict[str, str]:
    """{"3.12": path} of what is on PATH and under pyenv, 3.11 and later."""
    candidates = [sys.executable]
    candidates += [
        path for n in range(11, 20) for s in ("", "t") if (path := shutil.which(f"python3.{n}{s}"))
    ]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True)
        candidates += map(str, sorted(Path(root.stdout.strip(), "versions").glob("3.*/bin/python")))
    found: dict[str, str] = {}
    for python in candidates:
        version = version_of(python)
        if version and version >= (3, 11, ""):
            found.setdefault(f"{version[0]}.{version[1]}{version[2]}", python)
    return found


class Here:
    """An interpreter of this machine.  As root, in a mount namespace of its own."""

    def __init__(self, version: str, home: Path, python: str) -> None:
        self.version = version
        self.home = self.seen = home
        self.python = python

    def run(self, command: list[str], *, pip: bool = False, **keywords: object) -> int:
        """The exit status of a program there."""
        # Not below home, which may be for its owner only; and a socket's path has to be short.
        with tempfile.TemporaryDirectory(prefix=f"py{self.version}-") as temporary:
            os.chmod(temporary, 0o1777)
            path = f"{self.seen / 'venv' / 'bin'}:{os.environ['PATH']}"  # as in `make test`
            return nsext.run(
                command,
                new="mnt" if os.geteuid() == 0 else None,
                env={**os.environ, "PATH": path, "TMPDIR": temporary},
                stdin=nsext.DEVNULL,
                **keywords,
            ).returncode


def chosen(wanted: list[str]) -> list[Run]:
    """What is to be run; what of it cannot be had is told."""
    found = interpreters()
    runs = [
        Run(Here(version, BUILD / version, python))
        for version, python in found.items()
        if not wanted or version in wanted
    ]
    if not wanted or set(wanted) - found.keys():
        try:
            more = [version for version in sid_root.served() if order(version) >= ([3, 11], "")]
        except NotServed as error:
            print(f"sid: left out: {error}", flush=True)
            more = []
        for version in more:
            if version not in found and (not wanted or version in wanted):
                runs.append(Run(sid_root.Interpreter(version, BUILD / version)))
    for version in sorted(set(wanted) - {run.version for run in runs}, key=order):
        print(f"{version}: left out: it is neither here nor in sid", flush=True)
    return sorted(runs, key=lambda run: order(run.version))


def one_file(runs: list[Run]) -> bool:
    """Has every version from 3.12 on installed one and the same extension?"""
    stable = {run.version: run.extension for run in runs if ".abi3." in run.extension}
    late = [run.version for run in runs if run.extension and order(run.version) >= ([3, 12], "")]
    versions = ", ".join(stable)
    print(f"\n{versions}: one file, {' and '.join(sorted(set(stable.values())))}" if stable else "")
    missing = [version for version in late if version not in stable and version[-1] != "t"]
    if missing:
        print(f"{', '.join(missing)}: not of the stable ABI")
    return len(set(stable.values())) <= 1 and not missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="interpreters at a time")
    options, arguments = parser.parse_known_args()
    runs = chosen(os.environ.get("PYTHONS", "").split())
    left_out: list[Run] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        tasks = {pool.submit(run.first, arguments): run for run in runs}
        for task in as_completed(tasks):
            run = tasks[task]
            try:
                task.result()
            except NotServed as error:
                print(f"{run.version}: left out: {error}", flush=True)
                left_out.append(run)
                continue
            except (Failed, OSError, subprocess.SubprocessError) as error:
                run.trouble = str(error)
            print(f"{run.version}: {run.first_told()}", flush=True)
    runs = [run for run in runs if run not in left_out]
    for run in runs:
        run.again(arguments)
        print(f"{run.version}: {run.summary()}", flush=True)
    same = one_file(runs)
    print("\n| CPython | wheel | passed | failed | skipped | seconds | |")
    print("|---|---|---:|---:|---:|---:|---|")
    for run in runs:
        print(f"| {' | '.join(run.row())} |")
    if not runs:
        print("no Python has run")
    sys.exit(not runs or not same or any(not run.passed for run in runs))


if __name__ == "__main__":
    main()
