"""Tables and JSON on standard output.  Colour in a terminal only, and not with NO_COLOR."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

BOLD, GREEN, RED, DIM = "1", "32", "31", "2"


def coloured() -> bool:
    """May there be colours?  See no-color.org."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and _term() != "dumb"


def _term() -> str:
    return os.environ.get("TERM", "dumb")


def paint(text: str, colour: str) -> str:
    """*text* in a colour, where there are any."""
    return f"\033[{colour}m{text}\033[m" if coloured() and text else text


def plain(text: str) -> str:
    """Without what a terminal would act upon: a command line may hold anything."""
    return "".join(char if unicodedata.category(char)[0] != "C" else "?" for char in text)


def _width() -> int | None:
    """Columns of the terminal; None where the output goes elsewhere."""
    if not sys.stdout.isatty():
        return None
    try:
        return os.get_terminal_size(1).columns or None
    except OSError:
        return None


def show(header: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[int] = ()) -> None:
    """Print a table; the last column is cut to the terminal's width."""
    lines = [[plain(str(cell)) for cell in row] for row in rows]
    right = set(right)
    widths = [max(map(len, column)) for column in zip(header, *lines)]
    limit = _width()
    for number, row in enumerate([list(header), *lines]):
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths))
        ]
        line = " ".join(cells).rstrip()
        line = line if limit is None else line[:limit]
        print(paint(line, BOLD) if number == 0 else line)


def show_json(value: Any) -> None:
    """Print JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
