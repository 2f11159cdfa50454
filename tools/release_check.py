"""make release-check: all that proves a release, one after the other, and one table of it.

The table goes to standard output and between the marks in docs/release.md: what ran, how many tests
and skips, how long, and whether it passed.  `--only wheels,fuzz` runs some of it.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "release.md"
LOGS = ROOT / "build" / "release"

# name, make's arguments, what it is
CHECKS = (
    ("lint", ["lint"], "style, types, warnings, gcc's analyzer"),
    ("test", ["test"], "this Python, none skipped"),
    ("wheels", ["wheels"], "all wheels, twice, the same bytes"),
    ("pytest-all", ["pytest-all"], "every CPython here, with the wheels"),
    ("containertest", ["containertest"], "the wheel in podman's containers"),
    ("vmtest", ["vmtest"], "Debian's kernels in qemu"),
    ("sanitize", ["sanitize"], "AddressSanitizer, UBSan, TSan, valgrind"),
    ("fuzz", ["fuzz", "FUZZ_SECONDS=120"], "hostile plans, any keywords"),
    ("soak", ["soak", "SOAK_ARGS=--seconds 600"], "mixed spawns for ten minutes"),
)
COUNT = re.compile(r"(\d+) (passed|failed|skipped|error)s?\b")


def counts(log: str) -> str:
    """ "2149 passed, 4 skipped": of all summaries of pytest in a log."""
    total: dict[str, int] = {}
    for line in log.splitlines():
        if re.search(r"\b\d+ (passed|failed)\b.* in [\d.]+s", line):
            for number, what in COUNT.findall(line):
                total[what] = total.get(what, 0) + int(number)
    return ", ".join(f"{number:,} {what}" for what, number in total.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names, with commas between")
    only = set(filter(None, parser.parse_args().only.split(",")))
    LOGS.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, arguments, what in CHECKS:
        if only and name not in only:
            continue
        start = time.monotonic()
        done = subprocess.run(
            ["make", "--no-print-directory", *arguments],
            cwd=ROOT,
            env={**os.environ, "NSEXT_MUST_WORK": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        (LOGS / f"{name}.log").write_text(done.stdout)
        outcome = "passed" if done.returncode == 0 else f"failed (exit status {done.returncode})"
        minutes, seconds = divmod(round(time.monotonic() - start), 60)
        rows.append(
            (f"`make {name}`", what, counts(done.stdout), f"{minutes}:{seconds:02}", outcome)
        )
        print("  ".join(rows[-1]), flush=True)
    head = ("what", "", "tests", "minutes", "outcome")
    table = [f"| {' | '.join(head)} |", "|---|---|---|---:|---|"]
    table += [f"| {' | '.join(row)} |" for row in rows]
    machine = (
        f"Linux {platform.release()} {platform.machine()}, CPython {platform.python_version()}"
    )
    text = f"On {time.strftime('%Y-%m-%d')}, {machine}.\n\n" + "\n".join(table) + "\n"
    if not only:
        page = PAGE.read_text()
        begin, end = "<!-- release:begin -->\n", "<!-- release:end -->"
        first, _, rest = page.partition(begin)
        PAGE.write_text(first + begin + text + end + rest.partition(end)[2])
    print("\n" + text)
    sys.exit(any(row[4] != "passed" for row in rows))


if __name__ == "__main__":
    main()
