"""What check() has found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Whether a kind of namespace, or a feature, works here.

    name: "user", "net" ..., or a feature's: see check().
    ok: it was tried, and works.
    new: what to say in ``new=`` for it: "net", or for an ordinary user "user net".
    reason: what stops it; None where it works.
    remedy: what would mend it, a command where there is one; or None.
    note: more about what works: a version, what there is to be had.
    """

    name: str
    ok: bool
    new: str = ""
    reason: str | None = None
    remedy: str | None = None
    note: str = ""

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return self._line() + (f"\n{'':<19}{self.remedy}" if self.remedy else "")

    def _line(self) -> str:
        if not self.ok:
            return f"{self.name:<13} no    {self.reason}"
        more = self.note or (f"new={self.new!r}" if self.new not in ("", self.name) else "")
        return f"{self.name:<13} yes   {more}".rstrip()


class Report(Mapping[str, Finding]):
    """The findings of check(), by name; first the kinds of namespaces, then the features.

    True where all kinds that were asked for work.  As a str a table, with each remedy once.
    """

    __slots__ = ("_findings", "kinds")

    kinds: tuple[str, ...]
    """The kinds that were asked for."""

    def __init__(self, findings: Iterable[Finding], kinds: Iterable[str]) -> None:
        self._findings = {finding.name: finding for finding in findings}
        self.kinds = tuple(kinds)

    def __getitem__(self, name: str) -> Finding:
        return self._findings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._findings)

    def __len__(self) -> int:
        return len(self._findings)

    def __bool__(self) -> bool:
        return all(self._findings[kind].ok for kind in self.kinds)

    def __str__(self) -> str:
        lines = []
        said = set()
        for finding in self._findings.values():
            lines.append(str(finding) if finding.remedy not in said else finding._line())
            said.add(finding.remedy)
        return "\n".join(lines)

    def __repr__(self) -> str:
        failing = " ".join(name for name, finding in self._findings.items() if not finding.ok)
        return f"<Report {'ok' if self else 'not ok'}{': not ' + failing if failing else ''}>"
