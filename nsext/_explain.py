"""explain(): a description's body and steps, in words.  No system call."""

from __future__ import annotations

from collections.abc import Iterable

from ._compile import body_of, compile
from ._describe import describe
from ._flags import ALL, kind_names
from ._join import Join
from ._spec import Spec


def explain(spec: Spec, args: Iterable[object]) -> str:
    """Return where the steps of *spec* run, and which, in their order."""
    joined = 0
    if isinstance(spec.join, Join):
        # A bare target is known when it is opened: until then it may be of any kind.
        bare = any(kinds is None for kinds, _ in spec.join.pairs)
        joined = int(ALL) & ~int(spec.new) if bare else int(spec.join.kinds)
    body = body_of(spec, False, joined)
    compiled = compile(spec, True, body, False, joined)
    new = kind_names(compiled.clone_flags)
    lines = [f"body: {body}", f"clone{f' with new {new}' if new else ''}"]
    for step in compiled.steps[:-1]:
        lines.append(describe(step, compiled.steps))
    lines.append(f"exec {' '.join(map(str, args))}")
    return "\n".join(lines)
