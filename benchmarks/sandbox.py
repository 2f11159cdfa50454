"""What a sandbox costs, beside bwrap, unshare(1), crun and runc; and one for what nobody trusts.

    python benchmarks/sandbox.py [--quick] [--unpinned] [--json FILE] [--markdown FILE]

boxes.py and hardened.py say what the sandboxes are.  Every contender starts the same static program
in it and waits for its end, as root, and as an ordinary user; and with 10, 100 and 1000 more
mounts.  They run in turn, pinned to one CPU; a ratio is the median over rounds.  bench.py has it as
a part.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import boxes
import hardened
from boxes import BWRAP, NSEXT, NSEXT_INIT, RUNC, Box
from contenders import LIBC, Tools, build, flags_of, unshare
from measure import Table, interleave, pinned, working

UID = 65534  # nobody
ROOT, ROOTLESS = "root", "rootless"
GROWING = (NSEXT, BWRAP, boxes.CRUN)
LIMITS = ((NSEXT_INIT, BWRAP, 0.5), (NSEXT, RUNC, 0.1))
HARDENED = ((hardened.UNTRUSTED, hardened.BWRAP, 0.5), (hardened.UNTRUSTED, hardened.NSJAIL, 1.0))

NOTES = (
    "A sandbox: a new root with /usr read-only and links that lead there, a /proc, /dev and /tmp "
    "of its own, the program; all kinds of namespaces but time, and user only where rootless.",
    "bwrap has an init in it, as nsext.spawn with init=True; with --as-pid-1 the program is PID 1.",
    "crun makes no cgroup, and rootless runc makes none either.",
    "Untrusted: Sandbox.untrusted(); bwrap with the same mounts, filter and --disable-userns, but "
    "no limits, keyring and time namespace; nsjail with these mounts, a shorter filter, and user "
    "namespaces left possible.",
)

Row = Sequence[str]
Layout = Callable[[str, Row, Sequence[Row]], str]


@dataclass(frozen=True)
class Times:
    """Seconds for one kind of user, and for a number of mounts; those numbers."""

    sandbox: float
    growth: float
    mounts: tuple[int, ...]


FULL = Times(sandbox=25, growth=6, mounts=(0, 10, 100, 1000))
QUICK = Times(sandbox=5, growth=1, mounts=(0, 10, 100))


@dataclass
class Results:
    """What was measured; times in microseconds.  The first contender is the reference."""

    sandbox: dict[str, Table] = field(default_factory=dict)  # by ROOT, ROOTLESS
    growth: dict[int, Table] = field(default_factory=dict)  # by the number of more mounts
    untrusted: dict[str, Table] = field(default_factory=dict)  # by ROOT, ROOTLESS

    def as_json(self) -> dict[str, Any]:
        return {
            part: {
                str(key): {name: one.summary(table.get(other)) for name, one in table.items()}
                for key, table in getattr(self, part).items()
            }
            for part, other in (
                ("sandbox", BWRAP),
                ("growth", BWRAP),
                ("untrusted", hardened.BWRAP),
            )
        }


@contextmanager
def _box(program: str, mounts: int = 0) -> Iterator[Box]:
    place = Path(tempfile.mkdtemp(prefix="nsext-bench-"))
    try:
        yield Box.of(program, place, mounts)
    finally:
        shutil.rmtree(place)


def _sandbox(tools: Tools, seconds: float) -> Table:
    with _box(tools.program) as box:
        return interleave(working(boxes.boxes(box)), seconds, slow=15)


def _untrusted(tools: Tools, seconds: float) -> Table:
    with _box(tools.program) as box:
        return interleave(working(hardened.boxes(box)), seconds, slow=15)


def _growth(tools: Tools, mounts: int, seconds: float) -> Table:
    with _box(tools.program, mounts) as box:
        return interleave(working(boxes.boxes(box, GROWING)), seconds, slow=2)


def _become_user() -> None:
    """For good.  The directory of temporary files is everybody's."""
    os.chdir("/")
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    # The change of ids has made /proc/self root's, where id maps are written.
    LIBC.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
    os.environ.pop("XDG_RUNTIME_DIR", None)


def _unify_cgroups() -> None:
    """crun knows cgroup v1 or v2, but not both at once: then for this process v2 alone."""
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return
    unshare(flags_of("mnt"))
    for source, target, fstype, flags in (
        (b"none", b"/", None, 0x44000),  # MS_PRIVATE | MS_REC
        (b"cgroup", b"/sys/fs/cgroup", b"cgroup2", 0),
    ):
        if LIBC.mount(source, target, fstype, flags, None) < 0:
            raise OSError(ctypes.get_errno(), "mount", target)


def in_child(work: Callable[[], Table], user: bool) -> Table:
    """What *work* returns in a process of its own, that of an ordinary user perhaps."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            if os.geteuid() == 0:
                _unify_cgroups()
                if user:
                    _become_user()
            with open(write, "wb") as file:
                pickle.dump(work(), file)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(1)
    os.close(write)
    with open(read, "rb") as file:
        answer = file.read()
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError("a part of the benchmark failed")
    return pickle.loads(answer)  # type: ignore[no-any-return]


def run(tools: Tools, times: Times, say: Callable[[str], None]) -> Results:
    """Measure all of it."""
    results = Results()
    if os.geteuid() == 0:
        say("a sandbox, as root")
        results.sandbox[ROOT] = in_child(lambda: _sandbox(tools, times.sandbox), False)
    say("a sandbox, rootless")
    results.sandbox[ROOTLESS] = in_child(lambda: _sandbox(tools, times.sandbox), True)
    for user in [ROOT, ROOTLESS] if os.geteuid() == 0 else [ROOTLESS]:
        say(f"a sandbox for what nobody trusts, {user}")
        work = partial(_untrusted, tools, times.sandbox)
        results.untrusted[user] = in_child(work, user == ROOTLESS)
    for mounts in times.mounts:
        say(f"a sandbox with {mounts} more mounts")
        results.growth[mounts] = in_child(partial(_growth, tools, mounts, times.growth), False)
    return results


def _times(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def targets(results: Results) -> Iterator[tuple[str, float | None, float]]:
    """(promise, measured or None, at most)."""
    for what, tables, limits in (
        ("a sandbox", results.sandbox, LIMITS),
        ("an untrusted one", results.untrusted, HARDENED),
    ):
        for user, table in tables.items():
            for name, other, limit in limits:
                if other == hardened.NSJAIL and other not in table:
                    continue  # no distribution has it
                both = name in table and other in table
                value = table[name].ratio(table[other]) if both else None
                yield f"{what}, {user}: {name}, to {other}", value, limit


def sections(results: Results, layout: Layout) -> list[str]:
    """The tables."""
    out = []
    for user, table in results.sandbox.items():
        header = ["", "median µs", "p95 µs", "median ÷ bwrap", "median ÷ runc"]
        rows = []
        for name, series in table.items():
            row = [name, f"{series.median:,.0f}", f"{series.p95:,.0f}"]
            others = (table.get(other) for other in (BWRAP, RUNC))
            rows.append([*row, *(_times(series.ratio(other)) if other else "" for other in others)])
        out.append(layout(f"A sandbox, {user}: start and wait", header, rows))
    for user, table in results.untrusted.items():
        header = ["", "median µs", "p95 µs", "median ÷ bwrap"]
        bwrap = table.get(hardened.BWRAP)
        rows = [
            [
                name,
                f"{series.median:,.0f}",
                f"{series.p95:,.0f}",
                _times(series.ratio(bwrap)) if bwrap else "",
            ]
            for name, series in table.items()
        ]
        out.append(layout(f"A sandbox for what nobody trusts, {user}", header, rows))
    header = ["", *(f"{mounts} mounts" for mounts in results.growth)]
    tables = results.growth.values()
    rows = [
        [name, *(f"{table[name].median:,.0f}" if name in table else "" for table in tables)]
        for name in GROWING
        if any(name in table for table in tables)
    ]
    rows.append(["nsext.spawn ÷ bwrap", *(_ratio(table) for table in tables)])
    out.append(layout("A sandbox, by the number of more mounts: median µs", header, rows))
    return out


def _ratio(table: Table) -> str:
    return _times(table[NSEXT].ratio(table[BWRAP])) if BWRAP in table else ""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a sandbox costs.")
    parser.add_argument("--quick", action="store_true", help="a quarter of a minute, less exact")
    parser.add_argument("--unpinned", action="store_true", help="on all CPUs")
    parser.add_argument("--json", metavar="FILE", help="write all figures")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables")
    options = parser.parse_args()
    import report

    def say(text: str) -> None:
        print(f"... {text}", flush=True)

    with build() as tools, nullcontext() if options.unpinned else pinned():
        results = run(tools, QUICK if options.quick else FULL, say)
    print()
    print("\n".join([*sections(results, report.plain), *NOTES, ""]))
    for promise, value, limit in targets(results):
        shown = "not measured" if value is None else f"{_times(value)}x"
        print(f"{promise}: {shown}, at most {limit:g}x")
    if options.markdown:
        Path(options.markdown).write_text("\n".join(sections(results, report.as_markdown)))
    if options.json:
        whole = {"machine": report.machine(), **results.as_json()}
        Path(options.json).write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
