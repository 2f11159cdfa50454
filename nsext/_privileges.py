"""Steps on what a program may do, in the order that the kernel demands.  Pure.

Whatever the set-up needs privileges for comes before; each of these makes a later one harder.
"""

from __future__ import annotations

from . import _flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from ._spec import Spec

Step: TypeAlias = "tuple[Any, ...]"
"""(name, argument, ...), as csrc/steps.def lists them."""

# enum nsx_caps_flag
CAPS_EXACT, CAPS_ALL, CAPS_KEPT, CAPS_SECUREBITS, CAPS_NO_GAIN = 1, 2, 4, 8, 16


def wants_no_new_privs(spec: Spec, new: int) -> bool:
    """Whether the program shall gain nothing by exec; see Sandbox."""
    if spec.no_new_privs is not None:
        return spec.no_new_privs
    given = spec.capabilities is not None or spec.seccomp or spec.landlock is not None
    return bool(new & _flags.NEWUSER or given)


def keyring_steps(spec: Spec, new: int) -> list[Step]:
    """A session keyring of its own, where the program is not to have the caller's keys."""
    if spec.keyring == "inherit":
        return []
    if spec.keyring == "new":
        return [("keyring", 1)]
    apart = new & _flags.NEWUSER or spec.root is not None
    return [("keyring", 0)] if apart else []


def label_steps(spec: Spec) -> list[Step]:
    """The label of a security module, which the next exec of this task takes on."""
    if spec.exec_label is None:
        return []
    from ._labels import place_and_text

    return [("exec_label", *place_and_text(spec.exec_label))]


def ruleset_steps(spec: Spec) -> list[Step]:
    """A Landlock ruleset: as soon as descriptors are laid out, before a limit on them."""
    if spec.landlock is None:
        return []
    from . import _landlock

    return _landlock.ruleset_steps(spec)


def _has_capabilities(spec: Spec) -> bool:
    """Is there anything to be said of capabilities?"""
    return spec.capabilities is not None or bool(spec.ambient) or spec.securebits is not None


def before_ids(spec: Spec) -> list[Step]:
    """What has to be done while the child still is who it was."""
    if _has_capabilities(spec) and spec.user is not None:
        return [("keep_capabilities",)]
    return []


def _capability_step(spec: Spec, new: int) -> Step:
    from . import _capabilities

    flags = wanted = 0
    if spec.capabilities is not None:
        flags |= CAPS_EXACT
        if spec.capabilities == _capabilities.ALL:
            flags |= CAPS_ALL
        else:
            wanted = _capabilities.mask(spec.capabilities)
    if before_ids(spec):
        flags |= CAPS_KEPT
    if spec.securebits is not None:
        flags |= CAPS_SECUREBITS
    if wants_no_new_privs(spec, new):
        flags |= CAPS_NO_GAIN
    return ("capabilities", wanted, _capabilities.mask(spec.ambient), flags, spec.securebits or 0)


def capability_steps(spec: Spec, new: int) -> list[Step]:
    """What follows the ids, which it could not be changed without."""
    return [_capability_step(spec, new)] if _has_capabilities(spec) else []


def last_steps(spec: Spec, new: int) -> list[Step]:
    """What holds for all that comes after, exec included."""
    steps: list[Step] = []
    if wants_no_new_privs(spec, new):
        steps.append(("no_new_privs",))
    if spec.landlock is not None:
        steps.append(("landlock_restrict",))
    for program in spec.seccomp or ():  # type: ignore[union-attr]
        steps.append(("seccomp", program))
    return steps
