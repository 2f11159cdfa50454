"""Every system call of the helper, of a second clone and of an init's start, failing and killed."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import faults
import pytest
from groups import made
from helper_sweep import (
    RANGES,
    REASONS,
    At,
    Check,
    Fault,
    Ran,
    Seen,
    Shape,
    Waiting,
    check_dead,
    check_failed,
    check_gone,
    check_step,
    covers,
    faults_of,
    ignored,
    unlike,
)
from helping import children_of, is_gone
from support import status
from sweep import IGNORED as ALSO_IGNORED
from sweep import ODD, Sweep
from test_faults import program_fds

import nsext
from nsext import _launch, _native
from nsext._compile import body_of, compile
from nsext._flags import CloneFlags
from nsext._hints_mounts import MOUNT_STEPS
from nsext._join import open_joins

LINES = [(0, 0, 1000)]
MAPPED: Any = {"uid_map": LINES, "gid_map": LINES}
FOREIGN = [(0, 1000, 5)]  # root is nobody in there

CASES: dict[str, dict[str, Any]] = {
    "ids": {"user": 1000, "group": 1000, "extra_groups": [1, 2], "kill_on_parent_exit": True},
    "group": {"group": 1000, "nice": 3, "umask": 0o35, "cwd": "/usr"},
    "paused": {"paused": True, "rlimits": {"core": 0}, "affinity": os.sched_getaffinity(0)},
    "init": {
        "paused": True,
        "init": True,
        "new": "all",
        "hostname": "faulty",
        "domainname": "example",
        "time_offsets": {"boottime": 5},
        "start_new_session": True,
        "kill_on_parent_exit": True,
    },
    "subreaper": {"init": True, "process_group": 0, "kill_on_parent_exit": True, "user": 1000},
    "plain init": {"init": True},
    # In a user namespace of its own root has all capabilities.
    "capable": {
        "new": "user",
        "uid_map": LINES,
        "gid_map": LINES,
        "user": 5,
        "capabilities": ["net_admin", "kill"],
        "oom_score_adj": 10,
    },
    "capable init": {"init": True, "new": "user pid", "capabilities": (), "paused": True},
    "ranges": {"new": "user pid mnt", "uid_map": LINES, "gid_map": LINES, "user": 5, "init": True},
    "raised": {"new": "user net", "uid_map": 7, "gid_map": 7, "paused": True},
    "join": {"join": "net uts ipc cgroup time mnt"},
    "inline join": {"join": "net uts ipc cgroup", "umask": 0o77},
    "inline pty": {"pty": True},
    "pty": {"pty": True, "init": True},
    "join user": {"join": "user pid net uts time", "new": "mnt cgroup", "init": True},
    "shown": {"join": "user pid", "new": "mnt uts", "init": True, "paused": True},
    "join pid": {"join": "pid net", "kill_on_parent_exit": True, "paused": True},
    "join, new user": {"join": "net", "new": "user pid mnt time", "init": True, "paused": True},
    "cgroup": {"cgroup": True, "new": "pid cgroup user", "paused": True},
    "join, cgroup": {"cgroup": True, "join": "uts pid", "new": "cgroup"},
    "no userns": {"disable_userns": True, "new": "user pid mnt", "init": True},
    "no userns, foreign": {
        "disable_userns": True,
        "new": "user",
        "uid_map": FOREIGN,
        "gid_map": FOREIGN,
        "cgroup": True,
    },
    "join, no userns": {"disable_userns": True, "join": "uts", "new": "user", **MAPPED, "user": 3},
    "join, ranges": {"join": "uts", "new": "user", "uid_map": LINES, "gid_map": LINES, "user": 3},
}


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[Any, Any]]:
    """Descriptors; and a thread that counts as the main one: it stays as long as its children."""
    monkeypatch.setattr(_launch, "get_native_id", os.getpid)
    with program_fds() as found, made() as group:
        yield {**found, "group": str(group)}


class Case:
    """A description with its arguments; a cat is the program, which is asked once."""

    before_resume: Callable[[], object] = staticmethod(lambda: None)
    before_end: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, name: str, numbers: dict[Any, Any], targets: Any) -> None:
        fields = dict(CASES[name])
        self.paused = fields.pop("paused", False)
        kinds: tuple[int, ...] = ()
        grouped = "cgroup" in fields
        if grouped:
            fields["cgroup"] = numbers["group"]
        if "join" in fields:
            fields["join"] = {fields["join"]: targets}
            opened = open_joins(nsext.Sandbox(**fields).join, 0)
            kinds = tuple(kind for _, kind in opened.pairs)
            opened.close()
        self.pty = fields.pop("pty", False)
        if self.pty:
            fields["start_new_session"] = True
        self.sandbox = nsext.Sandbox(**fields)
        self.more: dict[str, Any] = {"pass_fds": [numbers[42]]}
        if name == "init":
            self.more["fd_map"] = {numbers[6]: numbers[7], numbers[7]: numbers[6]}
        # So large a plan that an init gives some of it back.
        self.more["env"] = {"LONG": "x" * 8000}
        joined = sum(kinds)
        body = body_of(self.sandbox, self.paused, joined)
        assert body == ("inline" if name.startswith("inline") else "helper")
        terminal = (2, None) if self.pty else None
        compiled = compile(self.sandbox, True, body, self.paused, joined, terminal=terminal)
        self.shape = Shape(
            compiled,
            self._pairs(3, 4, 5),
            kinds,
            unmapped=bool(joined & CloneFlags.NEWUSER) or "foreign" in name,
            raised=name == "raised" or "foreign" in name,
            grouped=grouped,
        )

    def _pairs(self, reader: int, writer: int, tty: int) -> tuple[tuple[int, int], ...]:
        """What goes where, of what is close-on-exec here."""
        pairs = [(0, reader), (1, writer), *((fd, fd) for fd in self.more["pass_fds"])]
        pairs += [(2, tty)] if self.pty else []
        return *pairs, *self.more.get("fd_map", {}).items()

    def __call__(self) -> Ran:
        reader, stdin = os.pipe()
        stdout, writer = os.pipe()
        fds = [reader, stdin, stdout, writer]
        process = None
        facts = None
        try:
            process = nsext.Popen(
                ["/bin/cat"],
                sandbox=self.sandbox,
                stdin=reader,
                stdout=writer,
                paused=self.paused,
                pty=self.pty,
                **self.more,
            )
            if self.paused:
                self.before_resume()
                process.resume()
            os.close(fds.pop())
            try:
                os.write(stdin, b"x")
            except BrokenPipeError:
                pass  # killed
            if os.read(stdout, 1) == b"x":
                facts = program_facts(process)
                self.before_end()
            os.close(fds.pop(1))
            return Ran(facts, process.wait())
        finally:
            for fd in fds:
                os.close(fd)
            if process is not None:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                if process.pty is not None:
                    process.pty.close()


_FACTS = "Name SigBlk SigIgn Umask Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb"


def program_facts(process: Any) -> dict[str, Any] | None:
    """What the kernel says of the program; None: it has been killed meanwhile."""
    try:
        pid = process.program_pid
        words = status(pid)
        found: dict[str, Any] = {name: words.get(name) for name in _FACTS.split()}
        found["inner"] = process.inner_pid == int(words["NSpid"].split()[-1])
        found["fds"] = sorted(map(int, os.listdir(f"/proc/{pid}/fd")))
        found["group"] = os.getpgid(pid) == pid, os.getsid(pid) == process.pid
        found["cwd"] = os.readlink(f"/proc/{pid}/cwd")
        return found
    except (FileNotFoundError, ProcessLookupError):
        return None


@contextmanager
def target() -> Iterator[Any]:
    """A process in namespaces of its own, where root is nobody."""
    new = "user pid net uts ipc cgroup time mnt"
    with nsext.Popen(["/bin/sleep", "1000"], new=new, uid_map=FOREIGN, gid_map=FOREIGN) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def sweeping(name: str, numbers: dict[Any, Any], *more: faults.Range) -> Iterator[Swept]:
    with target() as process:
        case = Case(name, numbers, process)
        with Sweep(case, *RANGES, *more) as sweep:
            yield Swept(case, sweep)


class Swept:
    """A case under the filter, after one run without a fault."""

    def __init__(self, case: Case, sweep: Sweep) -> None:
        self.case, self.sweep = case, sweep
        at = At(0, -1, None)
        at.parent = sweep.injector.thread_id
        self.success, wrong = sweep.run(at)
        assert isinstance(self.success, Ran) and self.success.facts, self.success
        assert wrong == []
        self.seen = at.seen
        ranges = [call for calls in self.seen.calls for call in calls if call.name == "close_range"]
        table = [call for call in ranges if call.args[0] >= 3]  # not the init's
        assert covers(table, {child for child, _ in case.shape.pairs})
        self.shape = case.shape._replace(close_ranges=len(table))
        self.processes = faults_of(self.shape)

    def each(self) -> Iterator[tuple[str, int, Fault]]:
        for process, calls in enumerate(self.processes):
            for index, fault in enumerate(calls):
                yield f"{process}.{index} {fault.call}", index, fault

    def run(self, name: str, at: Any, check: Check) -> None:
        at.parent = self.sweep.injector.thread_id
        self.sweep.case(name, at, check)
        self.settle(name, at)

    def settle(self, name: str, at: Any) -> None:
        """Nothing of the case is left a second later."""
        pids = {*at.seen.pids, *at.seen.others}
        if not self.sweep.injector.drain(lambda: all(map(is_gone, pids)), 1):
            self.sweep.wrong.append(f"{name}: left are {[pid for pid in pids if not is_gone(pid)]}")
        if not at.done:
            self.sweep.wrong.append(f"{name}: never called")

    def number_of(self, step: str) -> int:
        return [item[0] for item in self.shape.compiled.steps].index(step)

    def reply(self, call: faults.Call) -> None:
        faults.reply(self.sweep.injector.listener, call)


@pytest.mark.parametrize("name", CASES)
def test_calls_are_those_of_the_steps(name: str, numbers: dict[Any, Any], root: None) -> None:
    with sweeping(name, numbers) as swept:
        wanted = [[fault.call for fault in calls] for calls in swept.processes]
        assert swept.seen.names == wanted
        swept.sweep.cases += 1


@pytest.mark.parametrize("name", CASES)
def test_each_call_fails(name: str, numbers: dict[Any, Any], root: None) -> None:
    with sweeping(name, numbers) as swept:
        seen = set()
        for text, index, fault in swept.each():
            # Where a loop makes one call after the other, EPERM for the first.
            again = (fault.step, fault.call, fault.fails) in seen
            seen.add((fault.step, fault.call, fault.fails))
            for number in {ODD, *([] if again else [errno.EPERM]), *fault.tolerated}:
                check = check_failed(swept.shape, fault, number, swept.success)
                at = At(fault.process, index, number)
                swept.run(f"{text} {errno.errorcode[number]}", at, check)


@pytest.mark.parametrize("name", CASES)
def test_each_call_is_killed(name: str, numbers: dict[Any, Any], root: None) -> None:
    with sweeping(name, numbers) as swept:
        for text, index, fault in swept.each():
            check = check_dead(swept.shape, fault, swept.success)
            swept.run(text, At(fault.process, index, faults.KILL), check)


@pytest.mark.parametrize("name", ["join", "inline join"])
def test_joining_one_by_one_fails(name: str, numbers: dict[Any, Any], root: None) -> None:
    """Several namespaces are entered at once by a pidfd; where that fails, this says which."""
    with sweeping(name, numbers) as swept:
        (kinds,) = swept.shape.joins
        each = [1 << bit for bit in range(32) if kinds >> bit & 1]
        for index, kind in enumerate(each):
            asked: list[faults.Call] = []

            def at_once_and_this(call: faults.Call, asked: Any = asked, index: int = index) -> Any:
                if call.name == "setns" and call.args[1]:  # not the hint's question
                    asked.append(call)
                return ODD if call in (asked[:1] + asked[index + 1 : index + 2]) else None

            fault = Fault(0, swept.number_of("join"), "setns", kind)
            check = check_failed(swept.shape, fault, ODD, swept.success)
            swept.sweep.case(str(kind), at_once_and_this, check)
            assert [call.args[1] for call in asked] == [kinds, *each[: index + 1]]


# ---- one process killed while another is at a call ---------------------------------------------

WITH_INIT = [name for name in CASES if CASES[name].get("init")]


@pytest.mark.parametrize("name", WITH_INIT)
def test_the_init_is_killed_at_each_call_of_its_program(
    name: str, numbers: dict[Any, Any], root: None
) -> None:
    with sweeping(name, numbers) as swept:
        program = len(swept.processes) - 1

        def kill_init(call: faults.Call, seen: Seen) -> None:
            os.kill(seen.pids[program - 1], signal.SIGKILL)

        check = check_gone(swept.shape, swept.number_of("init"))
        for index, fault in enumerate(swept.processes[program]):
            swept.run(f"{index} {fault.call}", At(program, index, kill_init), check)


@pytest.mark.parametrize("name", WITH_INIT)
def test_the_program_is_killed_at_each_call_of_its_init(
    name: str, numbers: dict[Any, Any], root: None
) -> None:
    with sweeping(name, numbers) as swept:
        init = len(swept.processes) - 2

        def kill_program(call: faults.Call, seen: Seen) -> None:
            for pid in children_of(call.pid):
                os.kill(pid, signal.SIGKILL)

        check = check_gone(swept.shape, swept.number_of("init"))
        calls = [fault.call for fault in swept.processes[init]]
        for index in range(calls.index("clone") + 1, calls.index("waitid")):
            swept.run(f"{index} {calls[index]}", At(init, index, kill_program), check)


# ---- what is called while one waits for another ------------------------------------------------

WAITS = {
    "relay": ("join pid", lambda call, seen: call.name == "exit_group"),
    "init": ("plain init", lambda call, seen: call.name == "chdir"),
    "checkpoint": ("paused", None),
    "gate": ("join, ranges", lambda call, seen: call.pid not in seen.pids),
}


@contextmanager
def waiting(step: str, numbers: dict[Any, Any], what: Any) -> Iterator[tuple[Swept, Waiting]]:
    """A case and the answer that makes it wait at *step*."""
    name, holds = WAITS[step]
    # At the gate it is the parent that is waited for.
    more = [(*faults.module_text(), "openat")] if step == "gate" else []
    with target() as process:
        case = Case(name, numbers, process)
        with Sweep(case, *RANGES, *more) as sweep:
            swept = Swept(case, sweep)
            answer = Waiting(holds, what, 6)
            if step == "checkpoint":
                event = threading.Event()
                case.before_resume = lambda: event.wait(10)
                answer.let_go = event.set
            else:
                answer.let_go = lambda: swept.reply(answer.held)
            yield swept, answer


@pytest.mark.parametrize("number", [ODD, errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT, errno.ENOSYS])
@pytest.mark.parametrize("step", WAITS)
def test_calls_of_a_wait_may_fail(
    step: str, number: int, numbers: dict[Any, Any], root: None
) -> None:
    """futex, ppoll: whatever they say, it goes on when the other is ready and not before."""
    with waiting(step, numbers, number) as (swept, answer):
        swept.run(step, answer, lambda value: unlike(value, swept.success))


@pytest.mark.parametrize("step", WAITS)
def test_killed_while_it_waits(step: str, numbers: dict[Any, Any], root: None) -> None:
    with waiting(step, numbers, faults.KILL) as (swept, answer):
        text = "the child was killed by SIGKILL"
        check = check_step(swept.shape, swept.number_of(step), errno.ECHILD, text)
        swept.run(step, answer, check)


# ---- an init that supervises -------------------------------------------------------------------


class First:
    """An answer: *what* to a process's first call of this name that waits for signals."""

    parent = 0

    def __init__(self, process: int, name: str, what: Any) -> None:
        self.process, self.name, self.what = process, name, what
        self.seen = Seen()
        self.event = threading.Event()

    @property
    def done(self) -> bool:
        return self.event.is_set()

    def __call__(self, call: faults.Call) -> Any:
        process, waits = self.seen.note(call)
        if not waits or process != self.process or call.name != self.name or self.done:
            return None
        self.event.set()
        return self.what(call)


@pytest.mark.parametrize("what", [ODD, errno.EINTR, errno.EPERM, faults.KILL])
@pytest.mark.parametrize(
    "name, call",
    [
        ("init", "ppoll"),
        ("init", "read"),
        ("init", "munmap"),
        ("plain init", "rt_sigtimedwait"),
        ("plain init", "munmap"),
    ],
)
def test_an_init_that_supervises(
    name: str, call: str, what: Any, numbers: dict[Any, Any], root: None
) -> None:
    """The program lives until the call has been made; of failures nobody hears."""
    with sweeping(name, numbers) as swept:
        page = os.sysconf("SC_PAGESIZE")

        def check_and_answer(made: faults.Call) -> Any:
            assert call != "munmap" or made.args[0] % page == 0 < made.args[1]
            return what

        answer = First(0, call, check_and_answer)
        swept.case.before_end = lambda: answer.event.wait(10)
        check: Check = lambda value: unlike(value, swept.success)  # noqa: E731
        if what == faults.KILL:
            check = check_gone(swept.shape, swept.number_of("init"))
        swept.run(call, answer, check)


# ---- and that is all ---------------------------------------------------------------------------


def test_the_cases_run_every_step_of_the_helper(numbers: dict[Any, Any], root: None) -> None:
    with target() as process:
        shapes = [Case(name, numbers, process).shape for name in CASES]
    ran = {step[0] for shape in shapes for step in shape.compiled.steps}
    wanted = _native.HELPER_STEPS - MOUNT_STEPS - {"fs_begin", "fs_end", "fs_ids", "reenter", "pty"}
    assert {*wanted, "helper", "join", "ctty"} <= ran
    found = set().union(*map(ignored, shapes)) - ALSO_IGNORED.keys()
    found = {("*", call) if ("*", call) in REASONS else (step, call) for step, call in found}
    assert found == REASONS.keys()
