"""What the helper body costs, and what is built on it: an init, and joining namespaces."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from contenders import (
    FOUR,
    SPAWN,
    Call,
    Contender,
    Reference,
    Tools,
    fields_of,
    run_and_wait,
)

import nsext
from nsext._launch import BARE, plan_of

HELPER = "nsext.spawn, helper body"
INIT = "nsext.spawn, init=True"
JOIN = "nsext.spawn, join="
NSENTER = "nsenter(1)"
NSENTER_WORDS = {"mnt": "--mount", "uts": "--uts", "ipc": "--ipc", "pid": "--pid", "user": "--user"}


def _call(tools: Tools, **fields: Any) -> Call:
    args, spawn, box = [tools.program], nsext.spawn, nsext.Sandbox(**fields)
    return lambda: spawn(args, sandbox=box).wait()


def _in_helper(tools: Tools, kinds: str) -> Call:
    """The same steps in the other body, which a spawn has where what it does demands it."""
    args, spawn, box = [tools.program], nsext.spawn, nsext.Sandbox(**fields_of(kinds))
    box._plans[True] = box._plans[BARE] = plan_of(box, True, "helper")
    return lambda: spawn(args, sandbox=box).wait()


@contextmanager
def bodies(tools: Tools, kinds: str = FOUR) -> Iterator[list[Contender]]:
    """The contenders; a process holds the namespaces that are joined."""
    fields = fields_of(kinds)
    with nsext.Popen(["sleep", "infinity"], **fields) as holder:
        try:
            found = [
                Reference(tools, kinds),
                Reference(tools, kinds, twice=True),
                Contender(SPAWN, _call(tools, **fields)),
                Contender(HELPER, _in_helper(tools, kinds)),
                Contender(INIT, _call(tools, **fields, init=True)),
                Contender(JOIN, _call(tools, join={kinds: holder.pid})),
            ]
            tool = shutil.which("nsenter")
            if tool is not None:
                words = [NSENTER_WORDS[kind] for kind in kinds.split()]
                argv = [tool, "--target", str(holder.pid), *words, tools.program]
                found.append(Contender(NSENTER, run_and_wait(argv)))
            yield found
        finally:
            holder.kill()
