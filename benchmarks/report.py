"""The results as tables, in plain text and in Markdown, and the targets."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sandbox
from contenders import (
    ALL,
    FORK,
    FOUR,
    KINDS,
    NAMES,
    PLAIN,
    POPEN,
    REFERENCE,
    SPAWN,
    SUBPROCESS,
)
from measure import Series, Table, available_memory

if TYPE_CHECKING:
    from bench import Results

Row = Sequence[str]
Layout = Callable[[str, Row, Sequence[Row]], str]

NOTES = (
    "nsext.spawn is given a Sandbox that was made before (sandbox=box), nsext.Popen the keywords.",
    "All but nsext make the namespaces and no more; nsext also writes the id maps of a new user "
    "namespace.",
    "subprocess.Popen and os.posix_spawn make no namespaces: they are the yardstick.",
    "preexec_fn=unshare leaves the program itself outside the new pid namespace.",
    "bwrap always makes a mount namespace and binds its root; it has no time namespace, which "
    '"all" is without there.',
    *sandbox.NOTES,
)


def machine() -> dict[str, str]:
    """What it was measured on."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": f"{model}, {len(os.sched_getaffinity(0))} CPUs",
        "load": f"load {os.getloadavg()[0]:.1f} before",
        "memory": f"{available_memory() / 2**30:.0f} GiB free",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


@dataclass(frozen=True)
class Target:
    """What was promised, and what was measured."""

    promise: str
    value: float | None  # None: it could not be measured here
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def verdict(self) -> str:
        return {None: "not measured", True: "met", False: "MISSED"}[self.met]

    def as_json(self) -> dict[str, Any]:
        return {
            "promise": self.promise,
            "value": self.value,
            "limit": self.limit,
            "at_least": self.at_least,
            "met": self.met,
        }


def _ratio(table: Table | None, name: str, other: str) -> float | None:
    if not table or name not in table or other not in table:
        return None
    return table[name].ratio(table[other])


def targets(results: Results) -> list[Target]:
    """The promises of the project, with what came out."""
    four, none = results.pinned.get(FOUR), results.pinned.get("")
    memory = results.memory
    to_c = "four namespaces, to the C reference"
    big = memory.get(2048)
    found = [
        Target(f"nsext.spawn, {to_c}", _ratio(four, SPAWN, REFERENCE), 1.15),
        Target(f"nsext.Popen, {to_c}", _ratio(four, POPEN, REFERENCE), 1.35),
        Target("nsext.Popen, no namespaces, to subprocess", _ratio(none, POPEN, SUBPROCESS), 0.9),
        Target("os.fork + unshare, 0 MiB, to nsext.spawn", _ratio(four, FORK, SPAWN), 8, True),
        Target("os.fork + unshare, 2 GiB, to nsext.spawn", _ratio(big, FORK, SPAWN), 100, True),
    ]
    for name in (SPAWN, POPEN):
        value = None
        if 4096 in memory:
            value = statistics.median(
                one[4096][name].median / one[0][name].median for one in results.passes
            )
        found.append(Target(f"{name}, 4 GiB resident, to none", value, 1.1))
    found += [Target(*target) for target in sandbox.targets(results.sandbox)]
    return found


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _times(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _kinds(kinds: str) -> str:
    return {"": "no namespaces", FOUR: "pid, uts, ipc and mnt", ALL: "all"}.get(kinds, kinds)


def _scenario(table: Table, yardsticks: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for name, series in table.items():
        row = [name, _number(series.median), _number(series.p95)]
        for yardstick in yardsticks:
            other = table.get(yardstick)
            ratios = (series.ratio(other), series.p95 / other.p95) if other else ()
            row += [_times(ratio) for ratio in ratios] or ["", ""]
        rows.append(row)
    return rows


def _by_key(columns: dict[Any, Table], cell: Callable[[Series, Table], str]) -> list[Row]:
    """A row for each contender, a column for each table."""
    names = [name for name in NAMES if any(name in table for table in columns.values())]
    return [
        [name, *(cell(table[name], table) if name in table else "" for table in columns.values())]
        for name in names
    ]


def _sections(results: Results, layout: Layout) -> list[str]:
    out = []
    for kinds in ("", FOUR):
        header = ["", "median µs", "p95 µs", "median ÷ C", "p95 ÷ C"]
        header += ["median ÷ subprocess", "p95 ÷ subprocess"]
        title = f"Spawn and wait, {_kinds(kinds)}"
        out.append(layout(title, header, _scenario(results.pinned[kinds], (REFERENCE, SUBPROCESS))))

    columns = {
        kinds: {name: series for name, series in table.items() if name not in PLAIN}
        for kinds in (*KINDS, ALL)
        if (table := results.pinned.get(kinds))
    }
    header = ["", *(_kinds(kinds) for kinds in columns)]
    rows = _by_key(columns, lambda series, table: _number(series.median))
    out.append(layout("Each kind of namespace alone, and all eight: median µs", header, rows))
    rows = _by_key(columns, lambda series, table: _times(series.ratio(table[REFERENCE])))
    out.append(layout("The same, ÷ C reference", header, rows[1:]))

    header = ["", *(f"{size} MiB" for size in results.memory)]
    rows = _by_key(results.memory, lambda series, table: _number(series.median))
    title = "Four namespaces, by memory resident in the parent: median µs"
    out.append(layout(title, header, rows))

    header = ["", *(f"{count} thread{'s' * (count > 1)}" for count in results.threads)]
    rows = [
        [name, *(f"{rates[name]:,.0f}" for rates in results.threads.values())]
        for name in next(iter(results.threads.values()))
    ]
    out.append(layout("Four namespaces, by threads, not pinned: spawns per second", header, rows))

    for kinds, table in results.unpinned.items():
        header = ["", "mean µs", "p95 µs", "mean ÷ C", "p95 ÷ C"]
        reference = table[REFERENCE]
        rows = [
            [
                name,
                _number(series.mean),
                _number(series.p95),
                _times(series.mean / reference.mean),
                _times(series.p95 / reference.p95),
            ]
            for name, series in table.items()
        ]
        out.append(layout(f"Not pinned, {_kinds(kinds)}", header, rows))

    out += sandbox.sections(results.sandbox, layout)

    rows = [
        [
            target.promise,
            "" if target.value is None else f"{_times(target.value)}x",
            f"{'at least' if target.at_least else 'at most'} {target.limit:g}x",
            target.verdict,
        ]
        for target in targets(results)
    ]
    out.append(layout("Targets", ["", "measured", "target", ""], rows))
    return out


def _where(results: Results) -> str:
    parts = ", ".join(results.machine.values())
    rights = "" if results.privileged else " Without privileges: a user namespace in every set."
    return f"Measured on: {parts}.{rights}"


def plain(title: str, header: Row, rows: Sequence[Row]) -> str:
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [title]
    for row in (header, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def as_markdown(title: str, header: Row, rows: Sequence[Row]) -> str:
    lines = [f"**{title}**", ""]
    lines += ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def text(results: Results) -> str:
    end = "\n".join((*NOTES, _where(results), f"{results.seconds:.0f} seconds."))
    return "\n".join((*_sections(results, plain), end))


def markdown(results: Results) -> str:
    notes = "\n".join(f"- {note}" for note in NOTES)
    return "\n".join((_where(results), "", *_sections(results, as_markdown), notes, ""))
