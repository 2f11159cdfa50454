"""compile(): a description into the ordered steps of its child.

Pure: no system calls, no descriptors; the same description always gives the same steps.  The
order is decided here and nowhere else; C does as told.
"""

from __future__ import annotations

import os

from . import _flags
from ._privileges import (
    before_ids,
    capability_steps,
    keyring_steps,
    label_steps,
    last_steps,
    ruleset_steps,
)
from ._scheduling import POLICIES, ionice_number
from ._values import rlimit_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

    from ._privileges import Step
    from ._spec import Spec

Body: TypeAlias = "Literal['inline', 'helper', 'copy']"


def body_of(spec: Spec, paused: bool = False, joined: int = 0, exact: bool = False) -> Body:
    """Where the steps of *spec* have to run.  The reasons, and no flag to forget:

    Joining a user or pid namespace puts the child where others may trace it, and with it the
    memory it runs in; in a joined mount namespace "#!/proc/self/exe" would be this interpreter,
    for somebody else to run and to overwrite; joining a time namespace is refused while that
    memory is shared.  New user and time namespaces inside joined ones need a second clone, which
    only the helper makes.

    A change of kernel uid or gid makes the memory it happens in non-dumpable: inline, the
    caller's own, for good.  Groups go with it.

    oom_score_adj is set for all who share the memory.
    In a root of somebody else's files, or among mounts of them, "#!/proc/self/exe" is the same
    threat; and what is mounted may take long.

    disable_userns takes a second clone as well, and files of /proc for it.

    In a control group with a limit of memory, the OOM killer would take all who share it.  So a
    child in our memory is never in another group than ours: the helper's second clone is the one
    that is born there.

    A paused child and an init would share the caller's memory for as long as they live, where
    the OOM killer takes all who share it.  The wait for the caller's death starts before exec.

    exact: the kernel counts the memory that a process leaves at exec as its own; only a second
    clone, from the helper's few pages, has a peak that is the program's.
    """
    new = int(spec.new)  # type: ignore[arg-type]
    own = _flags.NEWUSER | _flags.NEWTIME
    if joined & (own | _flags.NEWPID | _flags.NEWNS) or (joined and new & own):
        return "helper"
    if spec.user is not None or spec.group is not None or spec.extra_groups is not None:
        return "helper"
    if spec.oom_score_adj is not None:
        return "helper"
    if spec.cgroup is not None or spec.disable_userns:
        return "helper"
    if paused or exact or spec.init or spec.kill_on_parent_exit or has_mounts(spec):
        return "helper"
    return "inline"


MS_SHARED, MS_SLAVE, MS_PRIVATE = 1 << 20, 1 << 19, 1 << 18
_PROPAGATION = {"private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED}

SIGPIPE, SIGXFSZ = 13, 25
_RESTORED = 1 << (SIGPIPE - 1) | 1 << (SIGXFSZ - 1)  # what Python ignores


Terminal: TypeAlias = "tuple[int, tuple[int, int] | None]"
"""A descriptor of the child that is its terminal; rows and columns of one that is made inside."""


class Compiled:
    """What a spawn needs of a description."""

    __slots__ = ("clone_flags", "gid_map", "steps", "uid_map")

    def __init__(
        self,
        clone_flags: int,
        steps: tuple[Step, ...],
        uid_map: bytes | None,  # lines for the parent to write
        gid_map: bytes | None,
    ) -> None:
        self.clone_flags = clone_flags
        self.steps = steps
        self.uid_map = uid_map
        self.gid_map = gid_map

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Compiled):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]


def _map_lines(ranges: tuple[tuple[int, int, int], ...]) -> bytes:
    return b"".join(b"%d %d %d\n" % line for line in ranges)


def is_parents(value: Any) -> bool:
    """Is it a map of more than the own id, for the parent to write?"""
    return value == "auto" or isinstance(value, tuple)


def _own_id(value: Any) -> int:
    """The id inside for the caller's own; -1: the same."""
    return {"root": 0, "self": -1}.get(value, value)  # type: ignore[no-any-return]


def _id_steps(spec: Spec) -> tuple[list[Step], bytes | None, bytes | None]:
    """The child maps its own single id; more is the parent's to write, behind the gate.

    What "auto" stands for is known at the spawn: see _idmaps.
    """
    uid_map = "root" if spec.uid_map is None else spec.uid_map
    gid_map = "root" if spec.gid_map is None else spec.gid_map
    steps: list[Step] = []
    parents: list[bytes | None] = []
    for value in (uid_map, gid_map):
        parents.append(_map_lines(value) if isinstance(value, tuple) else None)
    if is_parents(uid_map) or is_parents(gid_map):
        steps.append(("gate",))
    if not is_parents(gid_map):
        steps += [("setgroups_deny",), ("gid_map", _own_id(gid_map))]
    if not is_parents(uid_map):
        steps.append(("uid_map", _own_id(uid_map)))
    return steps, parents[0], parents[1]


def first_inside(ranges: Any) -> int:
    """The lowest id inside of a map with ranges; 0 for another one."""
    return min(first for first, _, _ in ranges) if isinstance(ranges, tuple) else 0


def _mapped_id(spec: Spec) -> list[Step]:
    """Ranges may leave out the caller's own id, and then he may make no user namespace."""
    maps = spec.uid_map, spec.gid_map
    if not any(isinstance(ranges, tuple) for ranges in maps):
        return []
    return [("mapped_id", *(first_inside(ranges) for ranges in maps))]


def _offset_lines(offsets: Any) -> bytes:
    lines = []
    for clock, offset in offsets.items():
        whole = int(offset)
        seconds, rest = divmod(whole * 10**9 + round((offset - whole) * 10**9), 10**9)
        lines.append(f"{clock} {seconds} {rest}\n")
    return "".join(lines).encode()


def _cpu_mask(cpus: tuple[int, ...]) -> bytes:
    import struct

    bits = struct.calcsize("@L") * 8
    words = [0] * (cpus[-1] // bits + 1)
    for cpu in cpus:
        words[cpu // bits] |= 1 << cpu % bits
    return struct.pack(f"@{len(words)}L", *words)


def _group_list(gids: tuple[int, ...]) -> bytes:
    import struct

    return struct.pack(f"={len(gids)}I", *gids)


def _identity_steps(spec: Spec, new: int) -> list[Step]:
    """Ids are numbers by now.  With one of them supplementary groups go."""
    steps: list[Step] = []
    if spec.extra_groups is not None:
        steps.append(("setgroups", _group_list(spec.extra_groups), 0))  # type: ignore[arg-type]
    elif spec.user is not None or spec.group is not None:
        # A user namespace whose gids the child mapped itself has denied setgroups(2) for good.
        if not new & _flags.NEWUSER or is_parents(spec.gid_map):
            steps.append(("setgroups", b"", 1))
    if spec.group is not None:
        steps.append(("setgid", spec.group))
    if spec.user is not None:
        steps.append(("setuid", spec.user))
    return steps


def _early_steps(spec: Spec) -> list[Step]:
    """What is written to the caller's own /proc: before a join, or a root, brings another."""
    if spec.oom_score_adj is None:
        return []
    return [("oom_score_adj", b"%d" % spec.oom_score_adj)]


def _namespace_steps(spec: Spec, new: int, body: Body) -> list[Step]:
    steps: list[Step] = []
    if new & _flags.NEWCGROUP and spec.cgroup is not None:
        steps.append(("unshare", _flags.NEWCGROUP))
    if new & _flags.NEWTIME:
        # Not by the clone: a time namespace takes its offsets before its first process.
        steps.append(("unshare", _flags.NEWTIME))
        if spec.time_offsets:
            steps.append(("time_offsets", _offset_lines(spec.time_offsets)))
        if body != "inline":  # there, exec switches
            steps.append(("enter_time",))
    if spec.hostname is not None:
        steps.append(("hostname", os.fsencode(spec.hostname)))
    if spec.domainname is not None:
        steps.append(("domainname", os.fsencode(spec.domainname)))
    if new & _flags.NEWNET and spec.loopback is not False:
        steps.append(("loopback",))
    if new & _flags.NEWNS:
        if has_mounts(spec):
            from ._compile_mounts import mount_steps

            return steps + mount_steps(spec)
        propagation = spec.propagation or "private"
        if propagation != "unchanged":
            steps.append(("propagation", _PROPAGATION[propagation]))
        fresh = bool(new & _flags.NEWPID) if spec.proc is None else spec.proc
        if fresh:
            steps.append(("mount_proc", b"/proc"))
    return steps


def has_mounts(spec: Spec) -> bool:
    """Does *spec* lay out a file system of its own?"""
    return spec.root is not None or bool(spec.mounts)


def _session_steps(spec: Spec) -> list[Step]:
    steps: list[Step] = []
    if spec.start_new_session:
        steps.append(("setsid",))
    if spec.process_group is not None:
        steps.append(("setpgid", spec.process_group))
    return steps


INIT_PARENT, INIT_GROUP = 1, 2
RELAY_CGROUP, RELAY_IDS = 1, 2


def _init_step(spec: Spec) -> Step:
    flags = INIT_PARENT if spec.kill_on_parent_exit else 0
    if spec.start_new_session or spec.process_group is not None:
        flags |= INIT_GROUP
    return ("init", flags)


def _process_steps(spec: Spec) -> list[Step]:
    steps: list[Step] = []
    for name, (soft, hard) in spec.rlimits.items():  # type: ignore[misc, str-unpack]
        steps.append(("rlimit", rlimit_number(name), soft, hard))
    if spec.affinity is not None:
        steps.append(("affinity", _cpu_mask(spec.affinity)))  # type: ignore[arg-type]
    if spec.nice is not None:
        steps.append(("nice", spec.nice))
    if spec.ionice is not None:
        steps.append(("ionice", ionice_number(spec.ionice)))  # type: ignore[arg-type]
    if spec.scheduler is not None:
        policy, priority = spec.scheduler  # type: ignore[str-unpack]
        steps.append(("scheduler", POLICIES[policy], priority))
    if spec.personality is not None:
        steps.append(("personality", spec.personality))
    if spec.timer_slack is not None:
        steps.append(("timer_slack", spec.timer_slack))
    if spec.cwd is not None:
        steps.append(("chdir", os.fsencode(spec.cwd)))
    if spec.umask >= 0:
        steps.append(("umask", spec.umask))
    if spec.dumpable is not None:
        steps.append(("dumpable", int(spec.dumpable)))
    return steps


def compile(
    spec: Spec,
    restore_signals: bool = True,
    body: Body = "inline",
    paused: bool = False,
    joined: int = 0,
    init: bool = False,
    exact: bool = False,
    terminal: Terminal | None = None,
) -> Compiled:
    """Return the steps of a child of *spec*, in their order.

    joined: the CLONE_NEW* flags of what is joined.
    init: there has to be one, whether *spec* asks for it or not.
    exact: in the helper body, clone again, so that the peak of memory is the program's.
    terminal: the session's.
    """
    if spec.dumpable is not None and body != "copy":
        raise ValueError(
            "dumpable= is for clone(entry): exec makes every program dumpable whose file may be "
            "read, whatever its process was before: prctl(2), PR_SET_DUMPABLE"
        )
    init = init or spec.init
    new = int(spec.new)  # type: ignore[arg-type]
    at_clone: int = new & ~_flags.NEWTIME
    grouped = spec.cgroup is not None
    if grouped:
        # The root of a cgroup namespace is the group that its maker is in.
        at_clone &= ~_flags.NEWCGROUP
    ids: list[Step] = []
    uid_map = gid_map = None
    if new & _flags.NEWUSER:
        ids, uid_map, gid_map = _id_steps(spec)
    steps: list[Step] = []
    if spec.disable_userns:
        # The other namespaces are the inner user namespace's, so that its root has them.
        begin = [("helper",), *_early_steps(spec)]
        if grouped:
            begin.append(("cgroup",))  # another id may not be allowed to
        if joined:
            steps += [*begin, ("join",), ("outer_userns",), *ids]
        else:
            steps += [*ids, *begin]
        steps += [*_mapped_id(spec), ("limit_userns",), ("relay", at_clone, RELAY_IDS)]
        steps.append(("no_userns",))
        at_clone = 0 if joined else _flags.NEWUSER
    elif body == "helper" and (joined or exact or grouped):
        # New namespaces belong inside the joined ones: they are made after, by a second clone,
        # which alone comes into a joined pid namespace.
        steps += [("helper",), *_early_steps(spec)]
        if joined and grouped:
            steps.append(("cgroup",))  # who has joined a namespace may not be allowed to
        if joined:
            steps.append(("join",))
        if joined & _flags.NEWUSER:
            steps.append(("join_as_root",))
        into = grouped and not joined
        if at_clone or exact or into or joined & _flags.NEWPID:
            steps.append(("relay", at_clone, RELAY_CGROUP if into else 0))
        steps += ids
        at_clone = 0
    else:
        if grouped:
            steps.append(("cgroup",))
        # Maps before the helper's exec, which takes the capabilities of an id that is not mapped.
        steps += ids
        if body == "helper":
            steps.append(("helper",))
        steps += _early_steps(spec)
        if joined:
            steps.append(("join",))
    steps += _namespace_steps(spec, new, body)
    steps += keyring_steps(spec, new)
    if paused and joined & _flags.NEWUSER:
        steps.append(("show",))  # an ordinary user may not look into it from outside
    if terminal is not None and terminal[1] is not None:
        steps.append(("pty", terminal[0], *terminal[1]))
    if init or terminal is not None:
        # The init leads the session; what follows is the program's.
        steps += _session_steps(spec)
    if terminal is not None:
        steps.append(("ctty", terminal[0]))
    if init:
        steps.append(_init_step(spec))
        if terminal is not None:
            steps.append(("foreground", terminal[0]))
    steps += label_steps(spec)
    if body != "copy":
        steps.append(("fds",))
    steps += ruleset_steps(spec)
    if not init and terminal is None:
        steps += _session_steps(spec)
    steps += _process_steps(spec)
    if paused:
        steps.append(("checkpoint",))
    steps += before_ids(spec)
    steps += _identity_steps(spec, new)
    steps += capability_steps(spec, new)
    if init:
        if not new & _flags.NEWPID:
            steps.append(("init_death",))
    elif spec.kill_on_parent_exit:
        steps.append(("parent_death",))
    steps += last_steps(spec, new)
    steps.append(("default_signals", _RESTORED if restore_signals else 0))
    steps.append(("call",) if body == "copy" else ("exec",))
    return Compiled(at_clone, tuple(steps), uid_map, gid_map)
