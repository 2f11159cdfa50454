"""The sweep over the helper body: which calls each of its processes makes, and what a fault does.

Process 0 is the clone itself, first inline and then in the helper; each further one is a second
clone: the relay's, or the program's where process 0 or 1 stays as the init.  As in sweep.py the
calls are not recorded and believed, but said from the steps.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faults
from helping import HELPER_TEXT, children_of
from sweep import IGNORED as ALSO_IGNORED
from sweep import capability_calls, check_error, differences, fd_calls, step_calls

from nsext import _native
from nsext._compile import INIT_GROUP, INIT_PARENT, RELAY_CGROUP, RELAY_IDS, Compiled
from nsext._describe import describe
from nsext._flags import BY_KIND, CloneFlags

RANGES = faults.CHILD_TEXT, HELPER_TEXT
_FUTEX_WAIT = 0
# What goes with FUTEX_WAIT in a loop, and what an init does when it has told that it is ready.
SUPERVISING = "ppoll", "read", "rt_sigtimedwait", "munmap"

# What a fault of a call leads to, where it is no SpawnError of its step with its errno.
IGNORED = "the program runs as without it"
SILENT = "SpawnError of its step: the child has ended, and could not say why"
# And a kill, where it is no SpawnError that says so.
ANYWHERE = "the program is killed, wherever it is by then: in its set-up, too"
ORPHANED = "or the program has seen by itself that its init is gone"
PROGRAM = "the program has been started, or has ended: the init's end is what there is to see"


class Fault(NamedTuple):
    """A call that the helper body is to make, and what comes of it."""

    process: int
    step: int
    call: str
    aux: int = 0
    fails: Any = (
        None  # IGNORED, SILENT, an errno, or a return code; None: SpawnError with the errno
    )
    # errno that is ignored, though others are not
    tolerated: tuple[int, ...] = ()
    killed: Any = None  # IGNORED, ANYWHERE, ORPHANED, PROGRAM; None: SpawnError


# Why a failure of these is ignored: (step or "*", call).
REASONS = {
    ("*", "close"): "what is close-on-exec or closed by step fds",
    ("helper", "geteuid"): "asks what to do, and the thorough way is taken",
    ("helper", "prctl"): "likewise, and the name",
    ("helper", "fcntl"): "step fds makes a copy that is close-on-exec, and closes this one",
    ("join", "setns"): "of several kinds at once: each by itself is tried",
    ("relay", "exit_group"): "a trap ends it, too",
    ("init", "setpgid"): "both sides set it",
    ("init", "prctl"): "the name",
    ("init", "chdir"): "the init is in the directory of the caller",
    ("init", "futex"): "the wake-up; looked at again after a slice",
    ("init", "waitid"): "asked again",
    ("init", "kill"): "of what is left of the program's group: nothing here",
    ("outer_userns", "futex"): "the wake-up; looked at again after a slice",
    ("checkpoint", "futex"): "the wake-up; looked at again after a slice",
}


class Shape(NamedTuple):
    """What decides about calls beside the steps."""

    compiled: Compiled
    pairs: tuple[tuple[int, int], ...]  # all of them close-on-exec
    joins: tuple[int, ...] = ()  # kinds, in the order of the table
    unmapped: bool = False  # the own id, in the user namespace that is joined or the first new one
    raised: bool = False  # a nonzero uid inside, with capabilities
    grouped: bool = False  # into a control group
    close_ranges: int = 1  # as many as the table has gaps: see covers()


def _helper_faults(shape: Shape, waits: bool) -> Iterator[Fault]:
    """Step helper, and the helper's main."""

    def fault(call: str, aux: int = -1, **more: Any) -> Fault:
        return Fault(0, 0, call, aux, **more)

    for _ in range(2):  # F_GETFD, F_SETFD
        for child, _ in sorted(shape.pairs):
            yield fault("fcntl", child)
    ours = ["plan", *(["parent"] if waits else []), *(["group"] if shape.grouped else [])]
    ours += ["socket"] * any(step[0] == "show" for step in shape.compiled.steps)
    for _ in (*shape.joins, *ours):
        yield fault("fcntl")
    yield fault("capget")
    yield fault("prctl", fails=IGNORED)
    yield fault("geteuid", fails=IGNORED)
    if shape.raised:
        for _ in range(64):
            yield fault("prctl", tolerated=(errno.EINVAL,))
        yield fault("capset", tolerated=(errno.EPERM,))
        for _ in range(_last_capability() + 1):  # all, in a new user namespace
            yield fault("prctl")
    yield fault("execveat", tolerated=(errno.ENOENT, errno.EACCES))
    # No plan yet to report in.
    yield fault("lseek", fails=SILENT)
    yield fault("mmap", fails=SILENT)
    yield fault("gettid")
    yield fault("set_robust_list")
    yield fault("prctl", fails=IGNORED)
    yield fault("close", fails=IGNORED)
    if waits:
        yield fault("fcntl", fails=IGNORED)
    for call in ("prctl", "capget", "capset") if shape.raised else ("capget",):
        yield fault(call)


def _last_capability() -> int:
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def _join_faults(shape: Shape, in_helper: bool) -> Iterator[Fault]:
    if in_helper:
        for call in ("prctl", "openat", "fstatfs"):
            yield Fault(0, 0, call)
    user = CloneFlags.NEWUSER
    for kind in sorted(shape.joins, key=lambda kind: kind == user):  # stable
        later = () if kind == user else (errno.EPERM,)  # tried again in the user namespace
        yield Fault(0, 0, "fcntl", kind, tolerated=later)
        # Several at once by a pidfd; then one by one.
        fails = IGNORED if kind & (kind - 1) else None
        yield Fault(0, 0, "setns", kind, fails=fails, tolerated=later)


def _init_faults(flags: int, first: bool, limited: bool) -> Iterator[Fault]:
    """process: 0 the init, 1 the program.  limited: the init's capabilities, as the program's."""
    group = bool(flags & INIT_GROUP)
    yield Fault(0, 0, "rt_sigaction")
    # The program compares it with its getppid().
    yield Fault(0, 0, "getpid", fails=errno.ESRCH)
    if not first:
        yield Fault(0, 0, "prctl")
    yield Fault(0, 0, "clone")
    killed = None if first else ORPHANED
    if group:
        yield Fault(0, 0, "setpgid", fails=IGNORED, killed=killed)
    yield Fault(0, 0, "prctl", killed=killed)
    yield Fault(0, 0, "prctl", fails=IGNORED, killed=killed)
    if flags & INIT_PARENT:
        yield Fault(0, 0, "dup3", killed=killed)
    if limited:
        for call in ("capget", "capset", "prctl"):
            yield Fault(0, 0, call, killed=killed)
    yield Fault(0, 0, "close_range", killed=killed)
    yield Fault(0, 0, "chdir", fails=IGNORED, killed=killed)
    if flags & INIT_PARENT:
        yield Fault(0, 0, "signalfd4", killed=killed)
    # After that any number of calls that wait for signals: SUPERVISING.
    yield Fault(0, 0, "futex", fails=IGNORED, killed=ANYWHERE)
    yield Fault(0, 0, "waitid", fails=IGNORED, killed=PROGRAM)
    if group and not first:
        yield Fault(0, 0, "kill", fails=IGNORED, killed=PROGRAM)
    yield Fault(0, 0, "exit_group", fails=-signal.SIGILL, killed=PROGRAM)
    yield Fault(1, 0, "gettid")
    yield Fault(1, 0, "set_robust_list")
    if not first:
        yield Fault(1, 0, "prctl")
        yield Fault(1, 0, "getppid", fails=errno.ESRCH)
    if group:
        yield Fault(1, 0, "setpgid", fails=IGNORED)


def _fds_faults(shape: Shape, waits: bool) -> Iterator[Fault]:
    if waits:
        yield Fault(0, 0, "fcntl", -1)
        yield Fault(0, 0, "close", -1, fails=IGNORED)
    for call, aux in fd_calls(shape.pairs, close_fds=False):
        yield Fault(0, 0, call, aux)
    placed = {child for child, _ in shape.pairs}
    for _, parent in shape.pairs:
        if parent not in placed:  # close-on-exec again
            yield Fault(0, 0, "fcntl", -1)
    for _ in range(shape.close_ranges):
        yield Fault(0, 0, "close_range", -1)


def _faults_of(step: Any, shape: Shape, waits: bool, in_helper: bool) -> Iterator[Fault]:
    """process: 0 the one that runs the step, 1 the one that it makes."""
    match step[0]:
        case "helper":
            yield from _helper_faults(shape, waits)
        case "join":
            yield from _join_faults(shape, in_helper)
        case "join_as_root":
            yield Fault(0, 0, "geteuid")
            yield Fault(0, 0, "getegid")
            if shape.unmapped:
                yield Fault(0, 0, "setgroups", tolerated=(errno.EPERM,))
                yield Fault(0, 0, "setresgid")
                yield Fault(0, 0, "setresuid")
        case "relay":
            if step[2] & RELAY_IDS:
                for aux in (3, 4):
                    for call in ("openat", "read", "read"):
                        yield Fault(0, 0, call, aux)
                    yield Fault(0, 0, "close", aux, fails=IGNORED)
            if step[2] & RELAY_CGROUP:  # where it is refused, the helper goes there itself
                yield Fault(0, 0, "clone3", tolerated=(errno.EPERM, errno.ENOSYS))
            else:
                yield Fault(0, 0, "clone")
            if step[2] & RELAY_IDS:
                for aux in (5, 6):
                    yield Fault(0, 0, "openat", aux)
                    yield Fault(0, 0, "write", aux)
                    yield Fault(0, 0, "close", aux, fails=IGNORED)
            yield Fault(0, 0, "exit_group", fails=IGNORED, killed=IGNORED)
            yield Fault(1, 0, "gettid")
            yield Fault(1, 0, "set_robust_list")
            if step[2] & RELAY_CGROUP:
                yield Fault(1, 0, "close", fails=IGNORED)
        case "outer_userns":
            yield Fault(0, 0, "unshare")
            yield Fault(0, 0, "futex", fails=IGNORED)
        case "mapped_id":
            if shape.unmapped:
                yield Fault(0, 0, "setresgid")
                yield Fault(0, 0, "setresuid")
            yield Fault(0, 0, "prctl")
        case "limit_userns":
            yield Fault(0, 0, "openat", 1)
            yield Fault(0, 0, "write", 2)
            yield Fault(0, 0, "close", 2, fails=IGNORED)
        case "no_userns":
            yield Fault(0, 0, "unshare", tolerated=(errno.ENOSPC,))
        case "cgroup":
            yield Fault(0, 0, "openat", 1)
            yield Fault(0, 0, "write", 2)
            yield Fault(0, 0, "close", 2, fails=IGNORED)
            yield Fault(0, 0, "close", 2, fails=IGNORED)
        case "init":
            limited = any(other[0] == "capabilities" for other in shape.compiled.steps)
            yield from _init_faults(step[1], init_is_first(shape), limited)
        case "fds" if in_helper:
            yield from _fds_faults(shape, waits)
        case "checkpoint":
            yield Fault(0, 0, "futex", fails=IGNORED)  # then it waits
        case "setgroups":
            yield Fault(0, 0, "setgroups")
        case "setgid" | "setuid" as name:
            yield Fault(0, 0, name.replace("set", "setres"))
        case "show":
            for part in range(1, len(BY_KIND) + 2):
                yield Fault(0, 0, "openat", part)
            yield Fault(0, 0, "sendmsg", len(BY_KIND) + 2)
            for _ in range(len(BY_KIND) + 2):
                yield Fault(0, 0, "close", fails=IGNORED)
        case "oom_score_adj":
            yield Fault(0, 0, "openat", 1)
            yield Fault(0, 0, "write", 2)
            yield Fault(0, 0, "close", 2, fails=IGNORED)
        case "ctty":
            yield Fault(0, 0, "ioctl")
        case "foreground":
            yield Fault(0, 0, "getpid", fails=errno.EINVAL)
            yield Fault(0, 0, "ioctl")
        case "keep_capabilities":
            yield Fault(0, 0, "prctl")
        case "capabilities":
            root = all(other != "setuid" for other, *_ in shape.compiled.steps)
            for call, aux in capability_calls(*step[1:], root=root):
                fails = IGNORED if ("capabilities", call) in ALSO_IGNORED else None
                yield Fault(0, 0, call, aux, fails=fails)
        case "parent_death":
            yield Fault(0, 0, "prctl")
            yield Fault(0, 0, "ppoll")
        case "init_death":
            yield Fault(0, 0, "prctl")
            yield Fault(0, 0, "getppid", fails=errno.ESRCH)
        case _:
            for call, aux in step_calls(step, shape.pairs, True, 1):
                ignored = call == "close" or {(step[0], call)} & {*REASONS, *ALSO_IGNORED}
                yield Fault(0, 0, call, aux, fails=IGNORED if ignored else None)


def init_is_first(shape: Shape) -> bool:
    """Is the init PID 1?  In a pid namespace that is joined somebody else is."""
    made = shape.compiled.clone_flags
    made |= sum(step[1] for step in shape.compiled.steps if step[0] == "relay")
    return bool(made & CloneFlags.NEWPID)


def faults_of(shape: Shape) -> list[list[Fault]]:
    """Each process's calls, without those of its waits."""
    steps = shape.compiled.steps
    names = {step[0] for step in steps}
    waits = bool(names & {"gate", "relay", "checkpoint", "parent_death"})
    waits |= any(step[0] == "init" and step[1] & INIT_PARENT for step in steps)
    in_helper, running = False, 0
    processes: list[list[Fault]] = [[]]
    for index, step in enumerate(steps):
        for fault in _faults_of(step, shape, waits, in_helper):
            number = running + fault.process
            if number == len(processes):
                processes.append([])
            processes[number].append(fault._replace(process=number, step=index))
        running = len(processes) - 1
        in_helper |= step[0] == "helper"
    return processes


# ---- a case ------------------------------------------------------------------------------------


class Seen:
    """The calls, told apart by process; what is made while waiting is counted apart."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.names: list[list[str]] = []
        self.calls: list[list[faults.Call]] = []
        self.waits: list[int] = []
        self.others: list[int] = []  # that have made no call yet
        self._waiting: list[bool] = []

    def note(self, call: faults.Call) -> tuple[int, bool]:
        """(process, whether it is the call of a wait)."""
        if call.pid not in self.pids:
            self.pids.append(call.pid)
            self.names.append([])
            self.calls.append([])
            self.waits.append(0)
            self._waiting.append(False)
        at = self.pids.index(call.pid)
        wait = call.name == "futex" and call.args[1] & 0x7F == _FUTEX_WAIT
        if wait or (call.name in SUPERVISING and self._waiting[at]):
            self._waiting[at] = True
            self.waits[at] += 1
            return at, True
        self._waiting[at] = call.name == "futex"
        self.names[at].append(call.name)
        self.calls[at].append(call)
        return at, False


class Waiting:
    """An answer: others have to wait, until they have made some calls of their wait.

    holds(call, seen): the one whose answer is kept back until then (None: let_go() does what is
    needed).  *calls* calls of the wait are answered with *what*; only the last is killed, since the
    first may be another step's.
    """

    parent = 0

    def __init__(self, holds: Any, what: Any, calls: int) -> None:
        self.holds, self.what, self.left = holds, what, calls
        self.let_go: Callable[[], None] = lambda: None
        self.seen = Seen()
        self.held: faults.Call | None = None

    def __call__(self, call: faults.Call) -> Any:
        waits = call.pid != self.parent and self.seen.note(call)[1]
        if self.holds and not self.held and not waits and self.holds(call, self.seen):
            self.held = call
            return faults.HANG
        if not waits or not self.left or (self.holds and not self.held):
            return None
        self.left -= 1
        if not self.left:
            self.let_go()
        return None if self.left and self.what == faults.KILL else self.what

    @property
    def done(self) -> bool:
        return not self.left


class At:
    """An answer: *what* to call *index* of a process, not counting those of its waits."""

    parent = 0  # the thread of the injector: when a call has failed it asks why

    def __init__(self, process: int, index: int, what: Any) -> None:
        self.process, self.index, self.what = process, index, what
        self.seen = Seen()
        self.done = False

    def __call__(self, call: faults.Call) -> Any:
        if call.pid == self.parent:
            return None
        at, waits = self.seen.note(call)
        if self.done or waits or at != self.process:
            return None
        if len(self.seen.names[at]) != self.index + 1:
            return None
        self.done = True
        if self.what == faults.KILL:
            self.seen.others += children_of(call.pid)
        return self.what(call, self.seen) if callable(self.what) else self.what


def covers(calls: list[faults.Call], named: set[int]) -> bool:
    """Do these calls of close_range(2) leave nothing from 3 up, but what is named and one more?"""
    left, start = 0, 3
    for first, last in sorted((call.args[0], call.args[1]) for call in calls):
        left += sum(number not in named for number in range(start, first))
        start = last + 1
    return start == 1 << 32 and left <= 1


# ---- what has to come of it --------------------------------------------------------------------


class Ran(NamedTuple):
    """A program that ran: what the kernel said of it, if it lived long enough; its return code."""

    facts: Any
    code: int


Check = Callable[[Any], list[str]]


def unlike(value: Any, wanted: Ran) -> list[str]:
    """What is not as wanted of a program that ran."""
    if not isinstance(value, Ran):
        return [f"did not run: {value!r}"]
    found = dict(value.facts or {}, code=value.code)
    right = dict(wanted.facts, code=wanted.code)
    return [f"{n}: {found.get(n)!r}, not {right[n]!r}" for n in right if found.get(n) != right[n]]


def check_ran(wanted: Ran, fault: Fault) -> Check:
    """As without the fault, but for what the call was to do."""
    facts = dict(wanted.facts)
    if fault.call == "rt_sigprocmask":
        facts["SigBlk"] = f"{~(1 << 8 | 1 << 18) & (1 << 64) - 1:016x}"  # not KILL, STOP
    elif fault.call == "umask":
        umask = os.umask(0)
        os.umask(umask)
        facts["Umask"] = f"{umask:04o}"
    return lambda value: unlike(value, Ran(facts, wanted.code))


def check_step(shape: Shape, index: int, number: int, text: str) -> Check:
    step = shape.compiled.steps[index]
    stage = _native.STEPS[step[0]][0]
    wanted = {"stage": stage, "step": describe(step), "errno": number, "strerror": text}
    return lambda value: differences(value, **wanted)


def check_failed(shape: Shape, fault: Fault, number: int, success: Ran) -> Check:
    if fault.fails == IGNORED or number in fault.tolerated:
        return check_ran(success, fault)
    if fault.fails == SILENT:
        return check_step(shape, fault.step, errno.ECHILD, "the child ended")
    if fault.fails is None or fault.fails > 0:
        return check_error(shape.compiled, fault, fault.fails or number)
    return lambda value: unlike(value, success._replace(code=fault.fails))


def check_gone(shape: Shape, first: int) -> Check:
    """Killed in a step from *first* on, or when the program had started; or its own notice."""
    steps = range(first, len(shape.compiled.steps))

    def check(value: Any) -> list[str]:
        if isinstance(value, Ran):
            return [] if value.code == -signal.SIGKILL else [repr(value)]
        how = "the child was killed by SIGKILL"
        tries = [check_step(shape, at, errno.ECHILD, how)(value) for at in steps]
        text = os.strerror(errno.ESRCH)
        for at in steps:
            if shape.compiled.steps[at][0] in ("init", "init_death"):
                tries.append(check_step(shape, at, errno.ESRCH, text)(value))
        return min(tries, key=len)

    return check


def check_dead(shape: Shape, fault: Fault, success: Ran) -> Check:
    if fault.killed == IGNORED:
        return check_ran(success, fault)
    end = len(shape.compiled.steps)
    last = fault.step == end - 1
    reached = range(fault.step, end if fault.killed == ANYWHERE else fault.step + 1)

    def check(value: Any) -> list[str]:
        if isinstance(value, Ran) and (fault.killed in (ANYWHERE, PROGRAM) or last):
            return [] if value.code == -signal.SIGKILL else [repr(value)]
        if fault.killed == PROGRAM:
            return [repr(value)]
        how = "the child was killed by SIGKILL"
        tries = [check_step(shape, at, errno.ECHILD, how)(value) for at in reached]
        if fault.killed in (ORPHANED, ANYWHERE):
            gone = [at for at in reached if shape.compiled.steps[at][0] in ("init", "init_death")]
            text = os.strerror(errno.ESRCH)
            tries += [check_step(shape, at, errno.ESRCH, text)(value) for at in gone]
        return min(tries, key=len)

    return check


def ignored(shape: Shape) -> set[tuple[str, str]]:
    """(step, call) of the failures that are ignored."""
    processes = faults_of(shape)
    return {
        (shape.compiled.steps[fault.step][0], fault.call)
        for process in processes
        for fault in process
        if fault.fails == IGNORED
    }
