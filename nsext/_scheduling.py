"""Names of I/O priority classes and scheduling policies.  Everything here is pure."""

from __future__ import annotations

from ._values import integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# ioprio_set(2) and sched(7): numbers of the kernel's interface.
IO_CLASSES = {"none": 0, "realtime": 1, "best-effort": 2, "idle": 3}
POLICIES = {"other": 0, "fifo": 1, "rr": 2, "batch": 3, "idle": 5}
_ALIASES = {"normal": "other"}
IO_CLASS_SHIFT = 13
_DEFAULT_LEVEL = 4  # as ionice(1) and the kernel have it


def _parts(value: Any, what: str, names: dict[str, int]) -> tuple[str, int | None]:
    """(name, number or None) of a name or a pair."""
    number: int | None = None
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{what}: (name, number), not {value!r}")
        value, number = value[0], integer(value[1], f"the number in {what}")
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a name or (name, number), not {type(value).__name__}")
    name = _ALIASES.get(value.lower(), value.lower())
    if name not in names:
        raise ValueError(f"{what}: {value!r} is none of {' '.join(names)}")
    return name, number


def _number(number: int, low: int, high: int, what: str) -> int:
    if not low <= number <= high:
        raise ValueError(f"{what}: {number} is not in {low} to {high}")
    return number


def ionice(value: Any) -> tuple[str, int]:
    """(class, level): the level of "realtime" and "best-effort" is 0 (first) to 7."""
    name, level = _parts(value, "ionice", IO_CLASSES)
    if name in ("none", "idle"):
        return name, _number(level or 0, 0, 0, f"ionice {name!r}")
    return name, _number(_DEFAULT_LEVEL if level is None else level, 0, 7, f"ionice {name!r}")


def scheduler(value: Any) -> tuple[str, int]:
    """(policy, priority): the priority of "fifo" and "rr" is 1 to 99 (first)."""
    name, priority = _parts(value, "scheduler", POLICIES)
    if name in ("fifo", "rr"):
        if priority is None:
            raise ValueError(f"scheduler: {name!r} needs a priority, as in ({name!r}, 1)")
        return name, _number(priority, 1, 99, f"scheduler {name!r}")
    return name, _number(priority or 0, 0, 0, f"scheduler {name!r}")


def ionice_number(value: tuple[str, int]) -> int:
    """What ioprio_set(2) takes."""
    return IO_CLASSES[value[0]] << IO_CLASS_SHIFT | value[1]


def ionice_words(number: int) -> str:
    """The class and level of such a number."""
    name = next(name for name, known in IO_CLASSES.items() if known == number >> IO_CLASS_SHIFT)
    return name if name in ("none", "idle") else f"{name} {number & (1 << IO_CLASS_SHIFT) - 1}"


def scheduler_words(policy: int, priority: int) -> str:
    """The name of a policy, with its priority where it has one."""
    name = next(name for name, known in POLICIES.items() if known == policy)
    return f"{name} {priority}" if priority else name
