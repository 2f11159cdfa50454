"""What ``nsext enter`` enters."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def joins(target: str, only: str | None) -> Any:
    """join= for a process id or a path.  Raises ValueError."""
    where: int | str
    if target.isdecimal():
        where = int(target)
    elif "/" in target:
        where = target
    else:
        raise ValueError(f"{target!r} is neither a process id nor a path")
    return where if only is None else {only: where}
