"""explain(): a description's body and steps, in words.  No system call."""

from __future__ import annotations

from collections.abc import Iterable

from ._compile import body_of, compile
from ._describe import describe
from ._flags import ALL, kind_names
from ._join import Join
from ._spec import Spec


def explain(spec: Spec, args: Iterable[object], pty: bool = False) -> str:
    """Return where the steps of *spec* run, and which, in their order.

    pty: on a terminal of its own, which the command sets up while the child is paused.
    """
    terminal = None
    if pty:
        from ._pty import Pty, terminal_of

        spec = Pty.session(spec)
        terminal = terminal_of(spec)
    joined = 0
    if isinstance(spec.join, Join):
        # A bare target is known when it is opened: until then it may be of any kind.
        bare = any(kinds is None for kinds, _ in spec.join.pairs)
        joined = int(ALL) & ~int(spec.new) if bare else int(spec.join.kinds)
    body = body_of(spec, pty, joined)
    compiled = compile(spec, True, body, pty, joined, terminal=terminal)
    new = kind_names(compiled.clone_flags)
    lines = [f"body: {body}", f"clone{f' with new {new}' if new else ''}"]
    for step in compiled.steps[:-1]:
        lines.append(describe(step, compiled.steps))
    lines.append(f"exec {' '.join(map(str, args))}")
    return "\n".join(lines)
