"""The tables of docs/kernels.md: what each kernel has, and which tests it makes pytest skip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vm_debian import NEWEST, ROOT

PAGE = ROOT / "docs" / "kernels.md"
FEATURES = "<!-- features:begin -->\n", "<!-- features:end -->"
SKIPS = "<!-- skips:begin -->\n", "<!-- skips:end -->"
NONE_SAID = "?"

Skip = tuple[str, str]  # reason, test


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _section(page: str, marks: tuple[str, str]) -> list[list[str]]:
    """The rows of a table, its head first."""
    begin, end = marks
    lines = page.partition(begin)[2].partition(end)[0].splitlines()
    return [_cells(line) for line in lines if line.startswith("|") and not line.startswith("|---")]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


class Tables:
    """What the page says, and what a run has told.

    kernels: the columns, in their order.
    features: {kernel: {what: "yes", "no" or a number}}
    skips: {kernel: {(reason, test)}}
    """

    def __init__(self, path: Path = PAGE) -> None:
        self.path = path
        self.page = path.read_text()
        head, *rows = _section(self.page, FEATURES)
        self.kernels = head[1:]
        self.names = [row[0] for row in rows]
        self.features: dict[str, dict[str, str]] = {
            kernel: {row[0]: row[column] for row in rows}
            for column, kernel in enumerate(self.kernels, 1)
        }
        self.skips: dict[str, set[Skip]] = {kernel: set() for kernel in self.kernels}
        for reason, tests, kernels in _section(self.page, SKIPS)[1:]:
            for kernel in kernels.split(", "):
                self.skips[kernel] |= {(reason, test.strip("` ")) for test in tests.split(", ")}

    def update(self, kernel: str, told: dict[str, Any]) -> list[str]:
        """Take over what a guest has told; the differences, in words.

        What the newest kernel has of features is no difference: it is another one each month.
        """
        if kernel not in self.kernels:
            self.kernels.append(kernel)
        features = dict(told.get("features", {}))
        self.names += [name for name in features if name not in self.names]
        skips = {(reason.replace("|", "/"), test) for test, reason in told.get("skipped", [])}
        old, before = self.features.get(kernel, {}), self.skips.get(kernel, set())
        differences = []
        if kernel != NEWEST:
            for name in self.names:
                said, found = old.get(name, NONE_SAID), features.get(name, NONE_SAID)
                if said != found:
                    differences.append(f"{kernel}: {name}: {found}; the table says {said}")
        differences += [
            f"{kernel}: skipped, and not in the table: {test}: {reason}"
            for reason, test in sorted(skips - before)
        ]
        differences += [
            f"{kernel}: in the table, and not skipped: {test}: {reason}"
            for reason, test in sorted(before - skips)
        ]
        self.features[kernel], self.skips[kernel] = features, skips
        return differences

    def feature_rows(self) -> list[str]:
        names = [name for name in self.names if any(name in row for row in self.features.values())]
        rows = [_row("", *self.kernels), "|---" * (len(self.kernels) + 1) + "|"]
        for name in names:
            rows.append(
                _row(name, *(self.features[kernel].get(name, NONE_SAID) for kernel in self.kernels))
            )
        return rows

    def skip_rows(self) -> list[str]:
        where: dict[Skip, list[str]] = {}
        for kernel in self.kernels:
            for skip in self.skips.get(kernel, ()):
                where.setdefault(skip, []).append(kernel)
        tests: dict[tuple[str, str], list[str]] = {}
        for (reason, test), kernels in where.items():
            tests.setdefault((reason, ", ".join(kernels)), []).append(f"`{test}`")
        rows = [_row("reason", "tests", "kernels"), "|---|---|---|"]
        for (reason, kernels), names in sorted(tests.items()):
            rows.append(_row(reason, ", ".join(sorted(names)), kernels))
        return rows

    def write(self) -> None:
        for (begin, end), rows in ((FEATURES, self.feature_rows()), (SKIPS, self.skip_rows())):
            first, _, rest = self.page.partition(begin)
            self.page = first + begin + "\n".join(rows) + "\n" + end + rest.partition(end)[2]
        self.path.write_text(self.page)
