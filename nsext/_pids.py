"""Process ids across pid namespaces, from /proc."""

from __future__ import annotations

from ._proc import field, read


def inner_pid(pid: int) -> int:
    """The id that a process has in its own pid namespace (NSpid of proc(5))."""
    numbers = field(f"/proc/{pid}/status", "NSpid")
    return int(numbers.split()[-1]) if numbers else pid


def child_with_inner_pid(parent: int, inner: int) -> int:
    """The child of *parent* that is *inner* in its own pid namespace.

    Raises ProcessLookupError.
    """
    try:
        for child in read(f"/proc/{parent}/task/{parent}/children").split():
            if inner_pid(int(child)) == inner:
                return int(child)
    except FileNotFoundError:
        pass
    raise ProcessLookupError(f"process {parent} has no child that is {inner} inside")
