"""make release-check: all that proves a release, in two lanes, and one table of it.

The table goes to standard output and between the marks in docs/release.md: what ran, where, how
many tests and skips, how long, and whether it passed.  What has failed runs once more, as in
continuous integration: machines are shared.  `--only wheels,fuzz` runs some once more, after a
mend: each row names the commit that it is of.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import nsext

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "release.md"
LOGS = ROOT / "build" / "release"
OUTCOMES = LOGS / "outcomes.json"
BEGIN, END = "<!-- release:begin -->\n", "<!-- release:end -->"
COUNT = re.compile(r"(\d+) (passed|failed|skipped|error)s?\b")


def counts(log: str) -> str:
    """ "2149 passed, 4 skipped": of all summaries of pytest and unittest in a log."""
    total: dict[str, int] = {}
    for line in log.splitlines():
        if ran := re.match(r"Ran (\d+) tests? in", line):
            total["ran"] = total.get("ran", 0) + int(ran[1])
        if re.search(r"\b\d+ (passed|failed)\b.* in [\d.]+s", line):
            for number, what in COUNT.findall(line):
                total[what] = total.get(what, 0) + int(number)
    return ", ".join(f"{number:,} {what}" for what, number in total.items())


def tables(log: str) -> str:
    """The tables that it has printed."""
    return "\n".join(line for line in log.splitlines() if line.startswith("|"))


def kernels(log: str) -> str:
    """A row for each guest: tools/vm.py ends with lines "6.12  6.12.57-...: exit status 0, ..."."""
    rows = re.findall(r"^(?!vm:)(\S+) +(\S+): (exit status .*|differs .*)$", log, re.MULTILINE)
    rows += [(name, "", "left out") for name in re.findall(r"^(\S+) +left out$", log, re.MULTILINE)]
    head = ["| kernel | release | |", "|---|---|---|"]
    return "\n".join(head + [f"| {' | '.join(row)} |" for row in rows])


def soak_table(log: str) -> str:
    """tests/soak.py begins with "48 kinds in 8 threads, --seed 207692962"; to the end."""
    found = re.search(r"^\d+ kinds in .*\Z", log, re.MULTILINE | re.DOTALL)
    return f"```\n{found[0].rstrip()}\n```" if found else ""


LAST_FAILED = ("PYTEST_ARGS=--last-failed",)


class Check(NamedTuple):
    """A target of make: what it is, its variables, more of them for a second try, its detail.

    Lanes 1 and 2 are used side by side, since most of it waits more than it computes; what is in
    none comes after them, alone.
    """

    name: str
    lane: int
    what: str
    variables: tuple[str, ...] = ()
    again: tuple[str, ...] | None = ()  # None: it has a second try of its own
    detail: Callable[[str], str] | None = None


class Outcome(NamedTuple):
    """What came of it: its row of the table, what it tells in detail, whether it has passed."""

    row: list[str]
    detail: str
    passed: bool


CHECKS = (
    Check("lint", 2, "style, types, warnings, the analyzers of gcc and clang"),
    Check("test-suite", 1, "this Python, none skipped", again=LAST_FAILED),
    Check("test-helper", 1, "the core once more, all in the helper body", again=LAST_FAILED),
    Check("test-stdlib", 1, "CPython's own tests of subprocess and asyncio"),
    Check("wheels", 2, "all wheels, twice, the same bytes"),
    Check("containertest", 2, "the wheel in podman's containers"),
    Check("pytest-all", 2, "every CPython to be had, with the wheels", again=None, detail=tables),
    Check("vmtest", 0, "Debian's kernels in qemu", detail=kernels),
    Check("sanitize", 1, "AddressSanitizer, UBSan, TSan, valgrind"),
    Check("fuzz", 1, "hostile plans, any keywords", ("FUZZ_SECONDS=120",)),
    Check(
        "soak", 0, "mixed spawns for five minutes", ("SOAK_ARGS=--seconds 300",), detail=soak_table
    ),
)


def make(check: Check, more: tuple[str, ...] = ()) -> tuple[int, str]:
    """The exit status, and all that it has printed.

    As root in a mount namespace of its own: what podman mounts in one lane is no change to see for
    the tests in the other one.
    """
    done = nsext.run(
        ["make", "--no-print-directory", check.name, *check.variables, *more],
        cwd=ROOT,
        # Elsewhere a program may be missing: podman in a root of another release.
        env={**os.environ, "NSEXT_MUST_WORK": "1" if check.name.startswith("test-") else ""},
        new="mnt" if os.geteuid() == 0 else None,
        stdin=nsext.DEVNULL,
        stdout=nsext.PIPE,
        stderr=nsext.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def perform(check: Check) -> Outcome:
    """Run it, and once more where it fails."""
    words = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    start = time.monotonic()
    status, log = make(check)
    outcome = "passed"
    (LOGS / f"{check.name}.log").write_text(log)
    shown = log
    if status and check.again is not None:
        some = ", ".join(re.findall(r"^FAILED (\S+)", log, re.MULTILINE)[:5])
        outcome = f"passed at the second try ({some or f'exit status {status}'})"
        status, again = make(check, check.again)
        (LOGS / f"{check.name}.again.log").write_text(again)
        if not check.again:
            shown = again
    if status:
        outcome = f"failed (exit status {status})"
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    took = f"{minutes}:{seconds:02}"
    row = [f"`make {check.name}`", check.what, commit.stdout.strip(), counts(shown), took, outcome]
    detail = check.detail(shown) if check.detail else ""
    return Outcome(row, f"`make {check.name}`:\n\n{detail}\n" if detail else "", status == 0)


def follow(lane: list[Check], outcomes: dict[str, Outcome]) -> None:
    """One after the other; what came of each is told at once."""
    for check in lane:
        outcomes[check.name] = perform(check)
        print("  ".join(outcomes[check.name].row), flush=True)


def write(text: str) -> None:
    """Put it between the marks of the page."""
    first, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(first + BEGIN + text + END + rest.partition(END)[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names, with commas between")
    only = set(filter(None, parser.parse_args().only.split(",")))
    LOGS.mkdir(parents=True, exist_ok=True)
    known = json.loads(OUTCOMES.read_text()) if only and OUTCOMES.exists() else {}
    outcomes = {name: Outcome(*value) for name, value in known.items()}
    checks = [check for check in CHECKS if not only or check.name in only]
    with ThreadPoolExecutor(2) as pool:
        lanes = [[check for check in checks if check.lane == lane] for lane in (1, 2)]
        list(pool.map(lambda lane: follow(lane, outcomes), lanes))
    follow([check for check in checks if check.lane == 0], outcomes)
    OUTCOMES.write_text(json.dumps(outcomes))
    ordered = [outcomes[check.name] for check in CHECKS if check.name in outcomes]
    head = ["| what | | commit | tests | minutes | outcome |", "|---|---|---|---|---:|---|"]
    table = "\n".join(head + [f"| {' | '.join(outcome.row)} |" for outcome in ordered])
    machine = (
        f"Linux {platform.release()} {platform.machine()}, {os.cpu_count()} processors, "
        f"CPython {platform.python_version()}"
    )
    text = f"On {time.strftime('%Y-%m-%d')}, {machine}.\n\n{table}\n\n"
    text += "\n".join(outcome.detail for outcome in ordered if outcome.detail)
    if len(ordered) == len(CHECKS):
        write(text)
    print("\n" + text)
    sys.exit(not all(outcome.passed for outcome in ordered))


if __name__ == "__main__":
    main()
