"""make release-check: all that proves a release, one after the other, and one table of it.

The table goes to standard output and between the marks in docs/release.md: what ran, where, how
many tests and skips, how long, and whether it passed.  What has failed runs once more, as in
continuous integration: machines are shared.  `--only wheels,fuzz` runs some, and writes no page.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "release.md"
LOGS = ROOT / "build" / "release"
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
    rows = re.findall(r"^(\S+) +(\S+): (exit status .*|differs .*)$", log, re.MULTILINE)
    rows += [(name, "", "left out") for name in re.findall(r"^(\S+) +left out$", log, re.MULTILINE)]
    head = ["| kernel | release | |", "|---|---|---|"]
    return "\n".join(head + [f"| {' | '.join(row)} |" for row in rows])


def soak_table(log: str) -> str:
    """tests/soak.py begins with "48 kinds in 8 threads, --seed 207692962"; to the end."""
    found = re.search(r"^\d+ kinds in .*\Z", log, re.MULTILINE | re.DOTALL)
    return f"```\n{found[0].rstrip()}\n```" if found else ""


LAST_FAILED = ("PYTEST_ARGS=--last-failed",)


class Check(NamedTuple):
    """A target of make: what it is, its variables, more of them for a second try, its detail."""

    name: str
    what: str
    variables: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    detail: Callable[[str], str] | None = None


CHECKS = (
    Check("lint", "style, types, warnings, the analyzers of gcc and clang"),
    Check("test-suite", "this Python, none skipped", again=LAST_FAILED),
    Check("test-helper", "the core once more, all in the helper body", again=LAST_FAILED),
    Check("test-stdlib", "CPython's own tests of subprocess and asyncio"),
    Check("wheels", "all wheels, twice, the same bytes"),
    Check("pytest-all", "every CPython to be had, with the wheels", detail=tables),
    Check("containertest", "the wheel in podman's containers"),
    Check("vmtest", "Debian's kernels in qemu", detail=kernels),
    Check("sanitize", "AddressSanitizer, UBSan, TSan, valgrind"),
    Check("fuzz", "hostile plans, any keywords", ("FUZZ_SECONDS=120",)),
    Check("soak", "mixed spawns for five minutes", ("SOAK_ARGS=--seconds 300",), detail=soak_table),
)


def make(check: Check, more: tuple[str, ...] = ()) -> tuple[int, str]:
    """The exit status, and all that it has printed."""
    done = subprocess.run(
        ["make", "--no-print-directory", check.name, *check.variables, *more],
        cwd=ROOT,
        # Elsewhere a program may be missing: podman in a root of another release.
        env={**os.environ, "NSEXT_MUST_WORK": "1" if check.name.startswith("test-") else ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def perform(check: Check) -> tuple[tuple[str, ...], str, bool]:
    """Its row of the table, what it tells in detail, and whether it has passed."""
    start = time.monotonic()
    status, log = make(check)
    outcome = "passed"
    (LOGS / f"{check.name}.log").write_text(log)
    shown = log
    if status:
        some = ", ".join(re.findall(r"^FAILED (\S+)", log, re.MULTILINE)[:5])
        outcome = f"passed at the second try ({some or f'exit status {status}'})"
        status, again = make(check, check.again)
        (LOGS / f"{check.name}.again.log").write_text(again)
        if not check.again:
            shown = again
    if status:
        outcome = f"failed (exit status {status})"
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    row = (f"`make {check.name}`", check.what, counts(shown), f"{minutes}:{seconds:02}", outcome)
    detail = check.detail(shown) if check.detail else ""
    return row, f"`make {check.name}`:\n\n{detail}\n" if detail else "", status == 0


def write(text: str) -> None:
    """Put it between the marks of the page."""
    first, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(first + BEGIN + text + END + rest.partition(END)[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names, with commas between")
    only = set(filter(None, parser.parse_args().only.split(",")))
    LOGS.mkdir(parents=True, exist_ok=True)
    rows, details, passed = [], [], True
    for check in CHECKS:
        if only and check.name not in only:
            continue
        row, detail, good = perform(check)
        rows.append(row)
        details.append(detail)
        passed = passed and good
        print("  ".join(row), flush=True)
    head = ["| what | | tests | minutes | outcome |", "|---|---|---|---:|---|"]
    table = "\n".join(head + [f"| {' | '.join(row)} |" for row in rows])
    machine = (
        f"Linux {platform.release()} {platform.machine()}, {os.cpu_count()} processors, "
        f"CPython {platform.python_version()}"
    )
    text = f"On {time.strftime('%Y-%m-%d')}, {machine}.\n\n{table}\n\n"
    text += "\n".join(filter(None, details))
    if not only:
        write(text)
    print("\n" + text)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
