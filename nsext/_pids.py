"""Process ids across pid namespaces, from /proc."""

from __future__ import annotations


def inner_pid(pid: int) -> int:
    """The id that a process has in its own pid namespace (NSpid of proc(5))."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return pid


def child_with_inner_pid(parent: int, inner: int) -> int:
    """The child of *parent* that is *inner* in its own pid namespace.

    Raises ProcessLookupError.
    """
    try:
        with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
        for child in children:
            if inner_pid(child) == inner:
                return child
    except FileNotFoundError:
        pass
    raise ProcessLookupError(f"process {parent} has no child that is {inner} inside")
