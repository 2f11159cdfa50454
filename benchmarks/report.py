"""The results as tables, in plain text and in Markdown, and the targets."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import truediv
from typing import TYPE_CHECKING, Any

import sandbox
from bodies import HELPER, INIT, JOIN, NSENTER
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
from loops import ASYNCIO, OURS, OURS_FOUR
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
    "The helper body is asked for by hand here: the same steps, one exec more.",
    "create_subprocess_exec: four tasks that spawn in turn, in a loop of real-time priority (where "
    "that is allowed), so that stalls are its own; a stall is how late a timer of 1 ms comes.",
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
    unit: str = "x"

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
            "unit": self.unit,
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
    return [*found, *_helper_targets(results), *_loop_targets(results)]


def _helper_targets(results: Results) -> list[Target]:
    table = results.bodies
    more = None
    if HELPER in table:
        more = table[HELPER].more(table[SPAWN])
    return [
        Target("helper body, more than inline", more, 50, unit=" µs"),
        Target("init=True, to the C reference without", _ratio(table, INIT, REFERENCE), 2),
        Target("join= of four, to new= of the same", _ratio(table, JOIN, SPAWN), 1),
        Target("nsenter(1) of four, to join=", _ratio(table, NSENTER, JOIN), 1, True),
    ]


def _loop_targets(results: Results) -> list[Target]:
    rate = stall = None
    if results.loops:
        ours, theirs = results.loops[OURS], results.loops[ASYNCIO]
        rate = statistics.median(map(truediv, ours.rates, theirs.rates))
        stall = max(ours.stalls + results.loops[OURS_FOUR].stalls)
    where = f"{_size(results.loops_resident)} resident"
    return [
        Target(f"asyncio, {where}: spawns per second, to its own", rate, 1, True),
        Target(f"asyncio, {where}: largest stall of the loop", stall, 5, unit=" ms"),
    ]


def _size(mib: int) -> str:
    return f"{mib // 1024} GiB" if mib >= 1024 else f"{mib} MiB"


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


def _spawns(results: Results, layout: Layout) -> list[str]:
    header = ["", "median µs", "p95 µs", "median ÷ C", "p95 ÷ C"]
    header += ["median ÷ subprocess", "p95 ÷ subprocess"]
    return [
        layout(
            f"Spawn and wait, {_kinds(kinds)}",
            header,
            _scenario(results.pinned[kinds], (REFERENCE, SUBPROCESS)),
        )
        for kinds in ("", FOUR)
    ]


def _both(results: Results, layout: Layout) -> str:
    """The two scenarios in one table."""
    tables = [results.pinned[""], results.pinned[FOUR]]
    header = ["", "none: µs", "÷ C", f"{FOUR.replace(' ', ', ')}: µs", "÷ C"]
    rows: list[Row] = []
    for name in NAMES:
        row = [name]
        for table in tables:
            if name not in table or (name in PLAIN and table is tables[1]):
                row += ["", ""]
                continue
            row += [_number(table[name].median), _times(table[name].ratio(table[REFERENCE]))]
        rows.append(row)
    return layout("Spawn and wait, by new namespaces: median", header, rows)


def _kinds_apart(results: Results, layout: Layout) -> list[str]:
    columns = {
        kinds: {name: series for name, series in table.items() if name not in PLAIN}
        for kinds in (*KINDS, ALL)
        if (table := results.pinned.get(kinds))
    }
    header = ["", *(_kinds(kinds) for kinds in columns)]
    rows = _by_key(columns, lambda series, table: _number(series.median))
    ratios = _by_key(columns, lambda series, table: _times(series.ratio(table[REFERENCE])))
    return [
        layout("Each kind of namespace alone, and all eight: median µs", header, rows),
        layout("The same, ÷ C reference", header, ratios[1:]),
    ]


def _bodies(results: Results, layout: Layout) -> str:
    table = results.bodies
    header = ["", "median µs", "p95 µs", "median ÷ C", "median ÷ nsext.spawn"]
    rows = [
        [
            name,
            _number(series.median),
            _number(series.p95),
            _times(series.ratio(table[REFERENCE])),
            _times(series.ratio(table[SPAWN])),
        ]
        for name, series in table.items()
    ]
    return layout("Four namespaces: helper body, init, join", header, rows)


def _memory(results: Results, layout: Layout) -> str:
    header = ["", *(_size(size) for size in results.memory)]
    rows = _by_key(results.memory, lambda series, table: _number(series.median))
    title = "Four namespaces, by memory resident in the parent: median µs"
    return layout(title, header, rows)


def _threads(results: Results, layout: Layout) -> str:
    header = ["", *(f"{count} thread{'s' * (count > 1)}" for count in results.threads)]
    rows = [
        [name, *(f"{rates[name]:,.0f}" for rates in results.threads.values())]
        for name in next(iter(results.threads.values()))
    ]
    return layout("Four namespaces, by threads, not pinned: spawns per second", header, rows)


def _unpinned(results: Results, layout: Layout) -> list[str]:
    out = []
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
    return out


def _loops(results: Results, layout: Layout) -> str:
    header = ["", "spawns per second", "largest stall ms", "median of the rounds' largest ms"]
    rows = [
        [
            name,
            f"{statistics.median(loop.rates):,.0f}",
            _times(max(loop.stalls)),
            _times(statistics.median(loop.stalls)),
        ]
        for name, loop in results.loops.items()
    ]
    size = _size(results.loops_resident)
    return layout(f"create_subprocess_exec(), {size} resident, not pinned", header, rows)


def _targets(results: Results, layout: Layout) -> str:
    rows = [
        [
            target.promise,
            "" if target.value is None else f"{_times(target.value)}{target.unit}",
            f"{'at least' if target.at_least else 'at most'} {target.limit:g}{target.unit}",
            target.verdict,
        ]
        for target in targets(results)
    ]
    return layout("Targets", ["", "measured", "target", ""], rows)


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
    """All of it."""
    sections = [
        *_spawns(results, plain),
        *_kinds_apart(results, plain),
        _bodies(results, plain),
        _memory(results, plain),
        _threads(results, plain),
        *_unpinned(results, plain),
        _loops(results, plain),
        *sandbox.sections(results.sandbox, plain),
        _targets(results, plain),
    ]
    end = "\n".join((*NOTES, _where(results), f"{results.seconds:.0f} seconds."))
    return "\n".join((*sections, end))


def markdown(results: Results) -> str:
    """What is of most use, for the README."""
    layout = as_markdown
    tables = [
        _both(results, layout),
        _bodies(results, layout),
        _memory(results, layout),
        _loops(results, layout),
        *sandbox.sections(results.sandbox, layout),
        _targets(results, layout),
    ]
    notes = "\n".join(f"- {note}" for note in NOTES)
    return "\n".join((_where(results), "", *tables, notes, ""))
