"""The sweep: which calls a child of given steps makes, and one case for each.

The sequence of calls is not recorded and believed: calls_of() says, from compile()'s steps, which
calls there are to be, and each run is held against it.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faults

import nsext
from nsext import _native
from nsext._compile import Compiled
from nsext._describe import describe, describe_failure
from nsext._privileges import CAPS_EXACT, CAPS_KEPT, CAPS_SECUREBITS

ODD = errno.EXFULL  # no call of ours gives this by itself
DEADLINE = 2.0

# Failures that do not fail the spawn.  Each with the reason; test_ignored_* say what happens.
IGNORED = {
    ("*", "close"): "what was written counts; the descriptor is CLOEXEC and step fds closes it",
    ("umask", "umask"): "umask(2) cannot fail",
    ("capabilities", "geteuid"): "likewise",
    ("exec", "rt_sigprocmask"): "cannot fail with a valid set and how",
    ("call", "rt_sigprocmask"): "likewise",
    ("call", "futex"): "the wake-up; the parent looks by itself after a slice",
    ("gate", "futex"): "the gate's word is looked at again after it, whatever it returned",
    ("gate", "ppoll"): "asked again after the next slice",
}


class Expected(NamedTuple):
    """A call that the child is to make."""

    step: int
    call: str
    aux: int
    ignored: bool


def fd_calls(pairs: tuple[tuple[int, int], ...], close_fds: bool) -> Iterator[tuple[str, int]]:
    """(call, aux) of step fds: what another entry overwrites moves away first."""
    table = sorted(pairs)
    taken = dict(table)
    for child, parent in table:
        if parent in taken and parent != child:
            yield "fcntl", child
    for child, parent in table:
        yield ("fcntl" if child == parent else "dup3"), child
    named = [child for child in taken if child >= 3]
    if close_fds:
        for start in [3, *(child + 1 for child in named)]:
            if start not in taken:
                yield "close_range", -1


def capability_calls(
    wanted: int, ambient: int, flags: int, securebits: int, root: bool = True
) -> Iterator[tuple[str, int]]:
    """(call, aux) of step capabilities, of who has every capability there is."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    yield "capget", 0
    if flags & CAPS_EXACT:
        if not flags & CAPS_SECUREBITS:
            yield "prctl", 0
        yield "geteuid", 0
        if securebits & 1 or not root:
            ambient |= wanted
    yield "prctl", 0
    yield "capset", 0
    for number in range(last + 2) if flags & CAPS_EXACT else ():  # EINVAL ends it
        if not wanted >> number & 1:
            yield "prctl", 2 * 64 + number
    for number in range(last + 1):
        if ambient >> number & 1:
            yield "prctl", 3 * 64 + number
    if flags & (CAPS_SECUREBITS | CAPS_KEPT):
        yield "prctl", 5 * 64
    yield "capset", 0
    yield "capget", 0
    for number in range(last + 1):
        if ambient >> number & 1:
            yield "prctl", 0
    if flags & CAPS_EXACT:
        for _ in range(last + 2):
            yield "prctl", 0


def step_calls(step: Any, pairs: Any, close_fds: bool, programs: int) -> list[tuple[str, int]]:
    match step[0]:
        case "gate":
            return []  # any number of futex and ppoll: in_gate()
        case "setgroups_deny" | "gid_map" | "uid_map" | "time_offsets" | "exec_label":
            return [("openat", 1), ("write", 2), ("close", 2)]
        case "enter_time":
            return [("openat", 1), ("setns", 2), ("close", 2)]
        case "loopback":
            return [("socket", 1), ("ioctl", 2), ("ioctl", 3), ("close", 3)]
        case "propagation" | "mount_proc":
            return [("mount", 0)]
        case "fds":
            return list(fd_calls(pairs, close_fds))
        case "landlock":
            return [("landlock_create_ruleset", -1), ("landlock_create_ruleset", -1)]
        case "landlock_path":
            return [("openat", 1), ("landlock_add_rule", 0), ("close", 0)]
        case "landlock_port":
            return [("landlock_add_rule", 0)]
        case "landlock_restrict":
            return [("landlock_restrict_self", 0), ("close", 0)]
        case "capabilities":
            return list(capability_calls(*step[1:]))
        case "default_signals":
            numbers = [number for number in range(1, 65) if step[1] >> (number - 1) & 1]
            return [("rt_sigaction", number) for number in numbers]
        case "exec":
            return [("rt_sigprocmask", 0), *[("execve", i) for i in range(programs)]]
        case "call":
            return [("rt_sigprocmask", 0), ("futex", 0), ("exit_group", 0)]
        case name:
            calls = {
                "hostname": "sethostname",
                "domainname": "setdomainname",
                "rlimit": "prlimit64",
                "affinity": "sched_setaffinity",
                "nice": "setpriority",
                "ionice": "ioprio_set",
                "scheduler": "sched_setscheduler",
                "timer_slack": "prctl",
                "dumpable": "prctl",
                "no_new_privs": "prctl",
                "keyring": "keyctl",
                "seccomp": "prctl",
            }
            return [(calls.get(name, name), 0)]


def calls_of(
    compiled: Compiled, pairs: Any = (), close_fds: bool = True, programs: int = 1
) -> list[Expected]:
    """The calls of a child of these steps, without those of its gate."""
    expected = []
    for index, step in enumerate(compiled.steps):
        calls = step_calls(step, pairs, close_fds, programs)
        for at, (call, aux) in enumerate(calls):
            ignored = ("*", call) in IGNORED or (step[0], call) in IGNORED
            ignored |= call == "execve" and at + 1 < len(calls)  # the search of PATH goes on
            expected.append(Expected(index, call, aux, ignored))
    return expected


# ---- a case ------------------------------------------------------------------------------------


def in_gate(call: faults.Call, so_far: int) -> bool:
    return so_far == 0 and call.name in ("futex", "ppoll")


class At:
    """An answer: *what* to the call at *index*, not counting those at the gate."""

    def __init__(self, index: int, what: Any) -> None:
        self.index, self.what, self.names = index, what, list[str]()

    def __call__(self, call: faults.Call) -> Any:
        if in_gate(call, len(self.names)):
            return None
        self.names.append(call.name)
        return self.what if len(self.names) == self.index + 1 else None


class Sweep:
    """Cases on one thread, each with all that has to hold after it."""

    def __init__(self, job: Callable[[], Any], *ranges: faults.Range) -> None:
        self.job, self.ranges = job, ranges
        self.cases = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Sweep:
        faults.need(faults.can_inject(), "no seccomp listener (CAP_SYS_ADMIN, Linux 5.5)")
        self.injector = faults.Injector(*self.ranges)
        self.injector.__enter__()
        self._before = self.injector.run(faults.state).value
        return self

    def __exit__(self, kind: Any, *unused: object) -> None:
        self.injector.__exit__()
        if kind is None:
            text = "\n".join(self.wrong[:20])
            assert self.wrong == [], f"{len(self.wrong)} of {self.cases} cases:\n{text}"
            assert self.cases

    def run(self, answer: Any) -> tuple[Any, list[str]]:
        """(the outcome, what is wrong in the state after it)."""
        result: list[str] = []

        def job() -> Any:
            try:
                return self.job()
            except BaseException as error:
                error.__traceback__ = None
                return error
            finally:
                result.extend(faults.changes(self._before, faults.state()))

        outcome = self.injector.run(job, answer)
        if outcome.error:
            raise outcome.error
        if outcome.seconds > DEADLINE:
            result.append(f"took {outcome.seconds:.1f} s")
        return outcome.value, result

    def case(self, name: str, answer: Any, check: Callable[[Any], list[str]]) -> None:
        self.cases += 1
        value, wrong = self.run(answer)
        self.wrong += [f"{name}: {text}" for text in [*check(value), *wrong]]


def differences(error: Any, **wanted: Any) -> list[str]:
    """What is not as wanted in a SpawnError."""
    if not isinstance(error, nsext.SpawnError):
        return [f"no SpawnError but {error!r}"]
    got = {name: getattr(error, name) for name in wanted}
    return [f"{n}: {got[n]!r}, not {wanted[n]!r}" for n in wanted if got[n] != wanted[n]]


def check_error(compiled: Compiled, at: Expected, number: int) -> Callable[[Any], list[str]]:
    step = compiled.steps[at.step]
    stage = _native.STEPS[step[0]][0]
    builtin = type(OSError(number, ""))

    def check(error: Any) -> list[str]:
        wrong = differences(
            error,
            stage=stage,
            step=describe_failure(step, at.aux),
            errno=number,
            strerror=os.strerror(number),
        )
        # A failed set-up is never taken for a missing program.
        if stage in ("exec", "cwd"):
            wrong += [] if isinstance(error, builtin) else [f"{type(error)} is no {builtin}"]
        elif type(error) is not nsext.SpawnError:
            wrong.append(f"{type(error)} for a set-up")
        return wrong

    return check


def check_killed(compiled: Compiled, at: Expected) -> Callable[[Any], list[str]]:
    step = compiled.steps[at.step]
    wanted = {"stage": _native.STEPS[step[0]][0], "step": describe(step), "errno": errno.ECHILD}

    def check(error: Any) -> list[str]:
        # In the last step the parent may be woken before there is a zombie to ask whether the
        # program took over; then it is what it is with subprocess: a program that was killed.
        if step[0] == "exec" and error == -signal.SIGKILL:
            return []
        wrong = differences(error, **wanted)
        if not wrong and "SIGKILL" not in error.strerror:
            wrong.append(f"no SIGKILL in {error.strerror!r}")
        return wrong or ([] if type(error) is nsext.SpawnError else [f"{type(error)}"])

    return check


def check_ignored(at: Expected, success: dict[str, str]) -> Callable[[Any], list[str]]:
    """The program runs, as it does without the failure but for what the call was to do."""
    wanted = dict(success)
    if at.call == "rt_sigprocmask":
        wanted["SigBlk"] = f"{~(1 << 8 | 1 << 18) & (1 << 64) - 1:016x}"  # not KILL, STOP
    elif at.call == "umask":
        umask = os.umask(0)
        os.umask(umask)
        wanted["Umask"] = f"{umask:04o}"
    return lambda value: [] if value == wanted else [f"{value!r}, not {wanted!r}"]
