"""From a description to a running child: the one way to the C core."""

from __future__ import annotations

import errno
import os
from _thread import get_native_id

from . import _flags, _native
from ._compile import body_of, compile, has_mounts
from ._helper import helper
from ._spec import FIELDS, Spec, check_names, has_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _collections_abc import Mapping
    from typing import Any, NoReturn

    from ._cgroupfs import Group
    from ._compile import Body, Compiled, Terminal
    from ._idmaps import IdMaps

EMPTY = Spec()
UNSET: Any = type("_Unset", (), {"__repr__": lambda self: "..."})()
"""Not given: a keyword given as None replaces the sandbox's field, too."""

_MEMO: dict[Any, Spec] = {}
_MEMO_SIZE = 256
_PLAIN = {str, bytes, int, bool, float, type(None), type(EMPTY.new)}


def resolve(sandbox: Spec | None, given: Mapping[str, Any]) -> Spec:
    """The description of a call: its fields replace those of *sandbox*, each as a whole.

    Raises TypeError for an unknown field and for a sandbox that is none.
    """
    if sandbox is not None and not isinstance(sandbox, Spec):
        raise TypeError(f"sandbox must be a nsext.Sandbox, not {type(sandbox).__name__}")
    if not given:
        return EMPTY if sandbox is None else sandbox
    if sandbox is not None:
        return _resolve(sandbox, given)
    # True == 1 and 1.0 == 1, but not here: so the types are part of the key.
    values = given.values()
    types = [*map(type, values)]
    key = (*given, *values, *types)
    try:
        spec = _MEMO[key] if key in _MEMO else None  # see kept_plan()
    except TypeError:  # what can be changed has no hash
        return _resolve(None, given)
    except KeyError:  # another thread has cleared it
        spec = None
    if spec is None:
        spec = _resolve(None, given)
        if _PLAIN.issuperset(types):
            if len(_MEMO) >= _MEMO_SIZE:
                _MEMO.clear()
            _MEMO[key] = spec
    return spec


def _resolve(sandbox: Spec | None, given: Mapping[str, Any]) -> Spec:
    unknown = given.keys() - FIELDS
    if unknown:
        raise TypeError(f"unexpected keyword argument: {', '.join(sorted(map(repr, unknown)))}")
    return Spec(**given) if sandbox is None else sandbox.replace(**given)


BARE: Any = "bare"
"""Key among a description's plans: of one for which launch() has nothing to do but call C."""


class Plan:
    """A compiled description, ready for C; kept with the description."""

    __slots__ = ("blob", "body", "compiled", "gated", "helper", "init")

    def __init__(
        self,
        spec: Spec,
        restore_signals: bool,
        body: Body,
        paused: bool,
        joined: int,
        init: bool,
        exact: bool,
        terminal: Terminal | None,
    ) -> None:
        self.body = body
        self.helper = helper() if body == "helper" else None
        self.init = init
        self.compiled: Compiled = compile(
            spec, restore_signals, body, paused, joined, init, exact, terminal
        )
        steps, flags = self.compiled.steps, self.compiled.clone_flags
        self.gated = ("gate",) in steps
        if spec.exec_label is not None:
            from ._labels import require

            require(spec.exec_label)
        self.blob = _native.pack(flags, steps, self.compiled.uid_map, self.compiled.gid_map)
        if body == "helper" and self.helper is None:
            from ._errors import UnsupportedError

            raise UnsupportedError(
                errno.ENOSYS,
                f"this build for {os.uname().machine} has no helper",
                stage="plan",
                step="start the helper",
            )


def kept_plan(spec: Spec, key: Any) -> Any:
    """What is kept for a description, or None.

    By subscript, here and wherever threads share a dictionary: in a free-threaded 3.13 get() takes
    its lock, and what a thread was about to be handed when another one forked is locked for good
    in the fork.  Nothing is ever removed from this one.
    """
    return spec._plans[key] if key in spec._plans else None


def plan_of(
    spec: Spec,
    restore_signals: bool = True,
    body: Body | None = None,
    paused: bool = False,
    joined: int = 0,
    exact: bool = False,
    terminal: Terminal | None = None,
) -> Plan:
    """Return the plan of *spec*, made on first use.  *body* None: the one it has to have."""
    # A child's PDEATHSIG comes when the *thread* that made it ends; the main one ends with the
    # process, for a child of any other one an init keeps watch.
    init = spec.init or (spec.kill_on_parent_exit and get_native_id() != os.getpid())
    # launch() looks for the most common one by its restore_signals alone.
    common = body is None and not (
        paused or joined or exact or terminal or spec.kill_on_parent_exit
    )
    key: Any = restore_signals
    if not common:
        key = (restore_signals, body, paused, joined, init, exact, terminal)
    plan: Plan | None = kept_plan(spec, key)
    if plan is None:
        named = has_names(spec)
        numbers = _by_number(spec) if named else spec
        body = body or body_of(spec, paused, joined, exact)
        if body == "inline" and not _inline_will_do(int(spec.new)) and helper() is not None:  # type: ignore[arg-type]
            body = "helper"
        plan = Plan(numbers, restore_signals, body, paused, joined, init, exact, terminal)
        if not named:  # those are looked up anew each time
            spec._plans[key] = plan
    return plan


def _by_number(spec: Spec) -> Spec:
    """The same with names of users and groups looked up.  Raises KeyError, as subprocess does."""
    import grp
    import pwd

    def uid(value: Any) -> Any:
        return pwd.getpwnam(value).pw_uid if isinstance(value, str) else value

    def gid(value: Any) -> Any:
        return grp.getgrnam(value).gr_gid if isinstance(value, str) else value

    groups = spec.extra_groups
    return spec.replace(
        user=uid(spec.user),
        group=gid(spec.group),
        extra_groups=None if groups is None else [gid(group) for group in groups],
    )


def _kernel(_known: list[tuple[int, int]] = []) -> tuple[int, int]:  # noqa: B006
    """The version of the running kernel."""
    if not _known:
        major, minor = (
            int("".join(filter(str.isdigit, part))) for part in os.uname().release.split(".")[:2]
        )
        _known.append((major, minor))
    return _known[0]


def _inline_will_do(new: int) -> bool:
    """Before Linux 5.16 a core dump of a child in our memory kills us, too; and before 6.2 exec
    does not move a process into its new time namespace."""
    return _kernel() >= (6, 2) or (_kernel() >= (5, 16) and not new & _flags.NEWTIME)


def launch(
    spec: Spec,
    args: Any,
    executable: Any,
    env: Any,
    fds: tuple[tuple[int, int], ...],
    close_fds: bool,
    restore_signals: bool,
    timeout: float | None,
    owner: Any,
    paused: bool = False,
    patience: float | None = None,
    exact: bool = False,
    terminal: Terminal | None = None,
    group: Group | None = None,
) -> Plan:
    """Start the program, as *owner*'s: see _native.spawn().

    env: UNSET: spec's; None: the caller's own.
    patience: seconds; where the set-up takes longer, return with _pidfd -1 and a handle for
        finish() or _native.abort().
    exact: let its usage tell its own peak of memory, wherever there is a helper.
    terminal: the session's, for a description with start_new_session.
    group: of spec's cgroup, not opened yet; the caller ends it, whatever comes.

    Raises SpawnError and its kin; what is wrong in the arguments is TypeError or ValueError.
    """
    if env is UNSET:
        env = spec.env
    if exact and helper() is None:
        exact = False
    joins: tuple[tuple[int, int], ...] = ()
    if spec.join is None:
        known: Plan | None = (
            None if paused or exact or terminal else kept_plan(spec, restore_signals)
        )
        opened = None
        if known is None:
            plan = plan_of(spec, restore_signals, None, paused, 0, exact, terminal)
            # Where a spawn needs anything prepared, its plan must not get here: spawn() takes a
            # bare one straight to C.
            bare = restore_signals and group is None and not has_mounts(spec)
            if bare and not plan.gated and kept_plan(spec, True) is plan:
                spec._plans[BARE] = plan
        else:
            plan = known
    else:
        from ._join import open_joins

        opened = open_joins(spec.join, int(spec.new))  # type: ignore[arg-type]
        joins = tuple(opened.pairs)
    handed = maps = None
    try:
        if has_mounts(spec):
            handed = _hand(spec, close_fds)
            joins = (*handed.pairs, *joins)
        if opened is not None:
            check_names(spec, int(opened.kinds))
            plan = plan_of(spec, restore_signals, None, paused, int(opened.kinds), exact, terminal)
            if paused and opened.kinds & _flags.NEWUSER:
                from ._shown import Shown

                owner._shown = Shown()
                joins = (*joins, (opened.keep(owner._shown.childs_end()), 0))
        if plan.gated:
            maps = maps_of(spec)
        failure = _native.spawn(
            plan.blob,
            args,
            executable,
            env,
            fds,
            close_fds,
            timeout,
            plan.helper,
            joins,
            patience,
            owner,
            -1 if group is None else group.open(),
            maps,
        )
        if maps is not None and patience is not None and owner._pidfd < 0:
            owner._maps, maps = maps, None  # for finish()
    finally:
        if maps is not None:
            maps.close()
        if opened is not None:
            opened.close()
        if handed is not None:
            handed.close()
    if failure is not None:
        fail(failure, plan, spec, executable, args, timeout, group)
    return plan


def maps_of(spec: Spec) -> IdMaps | None:
    """What writes the id maps of a child that is gated, if C does not.  Raises SpawnError."""
    from ._idmaps import id_maps

    return id_maps(spec)


def _hand(spec: Spec, close_fds: bool) -> Any:
    """The descriptors of mount specs."""
    from ._handed import Handed

    if spec.root is not None and not close_fds:
        raise ValueError(
            "close_fds=False with root=: a descriptor of a directory leads out of the root; name "
            "those to pass in pass_fds or fd_map"
        )
    return Handed(spec)


def fail(
    failure: tuple[str, int, int, int, int, bytes],
    plan: Plan,
    spec: Spec,
    executable: Any,
    args: Any,
    timeout: float | None,
    group: Group | None = None,
) -> NoReturn:
    """Raise what C reported as (kind, step, errno, aux, signal, text)."""
    from ._describe import describe, describe_failure, is_about_cgroup, step_path
    from ._errors import SpawnError, UnsupportedError, make_error
    from ._hints import cgroup_hint, clone_hint, killed_hint, plan_hint, step_hint
    from ._hints_mounts import MOUNT_STEPS, file_hint, mount_hint
    from ._privilege_words import unsupported

    kind, index, number, aux, signum, text = failure
    if kind == "plan":
        raise SpawnError(
            number,
            os.strerror(number),
            stage="plan",
            step="start the helper" if aux else "make the plan",
            hint=plan_hint(number, bool(aux)),
        )
    if kind == "clone":
        hint = None if group is None else cgroup_hint(number)
        raise SpawnError(
            number,
            os.strerror(number),
            stage="clone",
            step="clone",
            hint=hint or clone_hint(number, plan.compiled.clone_flags),
        )
    step = plan.compiled.steps[index]
    name = step[0]
    stage: Any = _native.STEPS[name][0]
    steps = plan.compiled.steps
    words = describe_failure(step, aux, steps) if kind == "step" else describe(step, steps)
    state = {"stage": stage, "step": words, "path": step_path(step)}
    if kind == "timeout":
        from ._timeout import SpawnTimeout

        late = f"not done within {timeout} seconds"
        raise SpawnTimeout(errno.ETIMEDOUT, late, cmd=args, timeout=timeout or 0.0, **state)
    if kind == "ended":
        hint = killed_hint(signum) if signum else None
        if group is not None and group.oom_kills():
            hint = "the memory limit of its cgroup is reached"
        raise SpawnError(errno.ECHILD, how_it_ended(-signum), hint=hint, **state)
    filename = None
    if stage == "exec":
        filename = executable
        state["path"] = os.fsdecode(text or executable)
        hint = file_hint(os.fsdecode(text), number, spec, filename)
        if spec.exec_label is not None and number in (errno.EACCES, errno.EPERM):
            hint = hint or f"the security module may refuse it the label {spec.exec_label!r}"
    elif stage == "cwd":
        filename = _own_directory() if name == "reenter" else spec.cwd
        state["path"] = os.fsdecode(filename or "")
        hint = file_hint("", number, spec, filename or "", name == "reenter")
        if not filename:
            hint = "the caller's working directory has no path, since it was removed: say cwd="
    elif has_mounts(spec) and name in MOUNT_STEPS:
        hint = mount_hint(step, number, aux, spec, os.fsdecode(text), steps)
        hint = hint or step_hint(name, number, int(spec.new))  # type: ignore[arg-type]
    else:
        hint = step_hint(name, number, int(spec.new))  # type: ignore[arg-type]
    if group is not None and group.handle is not None and is_about_cgroup(step):
        state["path"] = group.handle.path
        hint = cgroup_hint(number) or hint
    if (lacking := unsupported(step, number, aux)) is not None:
        raise UnsupportedError(number, lacking, **state)
    raise make_error(number, os.strerror(number), filename, hint=hint, **state)


def how_it_ended(code: int) -> str:
    """In words, from a return code."""
    return f"the child was killed by {_signal_name(-code)}" if code < 0 else "the child ended"


def _own_directory() -> str | None:
    """The caller's working directory, if it has a path."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
