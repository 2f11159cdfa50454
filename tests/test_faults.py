"""Every system call of the inline child, and of the copy, failing and being killed."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faults
import pytest
import support
from sweep import (
    ODD,
    At,
    Expected,
    Sweep,
    calls_of,
    check_error,
    check_ignored,
    check_killed,
    differences,
)

import nsext
from nsext import _labels, _native
from nsext._compile import compile

# ---- what is spawned -------------------------------------------------------------------------

RANGES = [(0, 0, 1000), (1000, 5000, 10)]
EVERYTHING = nsext.Sandbox(
    new="all",
    hostname="faulty",
    domainname="example",
    time_offsets={"boottime": 5, "monotonic": 7},
    rlimits={"core": 0, "nofile": (64, 128)},
    affinity=os.sched_getaffinity(0),
    nice=faults.NICE,
    cwd="/usr",
    umask=0o35,
    start_new_session=True,
)
SANDBOXES = {
    "everything": EVERYTHING,
    "ranges": nsext.Sandbox(
        new="user pid mnt uts", uid_map=RANGES, gid_map=RANGES, hostname="r", process_group=0
    ),
    "uid-range": nsext.Sandbox(new="user net", uid_map=RANGES, gid_map="self", cwd=b"/"),
    "gid-range": nsext.Sandbox(new="user time", uid_map=7, gid_map=RANGES, umask=0o77),
    "root": nsext.Sandbox(
        new="pid mnt ipc cgroup time", propagation="slave", time_offsets={"boottime": 1.5}
    ),
    "plain": nsext.Sandbox(process_group=0, nice=faults.NICE),
    "capabilities": nsext.Sandbox(
        new="user",
        capabilities=["kill", "chown"],
        ambient=["kill"],
        securebits=2,
        seccomp=["default", "default"],
        landlock=nsext.Landlock(read=["/"], execute=["/usr", "/bin", "/lib"], tcp_bind=[80]),
    ),
    "attributes": nsext.Sandbox(
        ionice=("best-effort", 7), scheduler="batch", personality=0, timer_slack=1000
    ),
}
LOW = {6: 7, 7: 8, 8: 6, 40: 41}  # a cycle of three, and one with nothing in its way


@contextmanager
def program_fds() -> Iterator[dict[int, int]]:
    """Descriptors for a child, all of them at numbers that LOW and pass_fds name."""
    numbers = {}
    for name in (6, 7, 8, 41, 42):
        fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        # As high as it takes to overwrite nothing of pytest's; the same in each run.
        os.dup2(fd, 700 + name, inheritable=False)
        os.close(fd)
        numbers[name] = 700 + name
    try:
        yield numbers
    finally:
        for fd in numbers.values():
            os.close(fd)


class Case:
    """A description, with the arguments that go with it; cat is the program."""

    def __init__(self, name: str, numbers: dict[int, int]) -> None:
        self.sandbox = SANDBOXES[name]
        self.program = "/bin/cat"
        self.programs = 1
        self.more: dict[str, Any] = {"pass_fds": [numbers[42]]}
        if name in ("everything", "plain"):
            self.more["fd_map"] = {numbers.get(c, c): numbers[p] for c, p in LOW.items()}
        if name == "plain":
            self.more["env"] = {"PATH": "/nonexistent:/usr/bin/cat:/bin"}
            self.program, self.programs = "cat", 3
        self.compiled = compile(self.sandbox)

    def __call__(self) -> Any:
        """Spawn and return what the program finds; the descriptors here are closed again."""
        reader, stdin = os.pipe()
        stdout, writer = os.pipe()
        self.pairs = [(0, reader), (1, writer), *((fd, fd) for fd in self.more["pass_fds"])]
        self.pairs += self.more.get("fd_map", {}).items()
        process = None
        try:
            streams = {"stdin": reader, "stdout": writer}
            process = self.sandbox.spawn([self.program], **streams, **self.more)
            os.close(writer)
            writer = -1
            os.write(stdin, b"x")
            if os.read(stdout, 1) != b"x":
                return process.wait()
            return facts(process.pid)
        finally:
            for fd in (reader, stdin, stdout, writer):
                if fd >= 0:
                    os.close(fd)
            if process:
                process.wait()

    def calls(self) -> list[Expected]:
        return calls_of(self.compiled, tuple(self.pairs), True, self.programs)


def facts(pid: int) -> dict[str, str]:
    """What the kernel says of a program."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {
        "fds": " ".join(sorted(os.listdir(f"/proc/{pid}/fd"), key=int)),
        "SigBlk": found["SigBlk"],
        "Umask": found["Umask"],
        "Name": found["Name"],
    }


@pytest.fixture
def numbers() -> Iterator[dict[int, int]]:
    with program_fds() as found:
        yield found


# ---- the sweeps ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SANDBOXES)
def test_calls_are_those_of_the_steps(name: str, numbers: dict[int, int]) -> None:
    case = Case(name, numbers)
    with Sweep(case) as sweep:
        at = At(-1, None)
        sweep.case(name, at, lambda value: [] if value["Name"] == "cat" else [repr(value)])
        assert at.names == [expected.call for expected in case.calls()]


@pytest.mark.parametrize("name", SANDBOXES)
def test_each_call_fails(name: str, numbers: dict[int, int]) -> None:
    case = Case(name, numbers)
    with Sweep(case) as sweep:
        success, _ = sweep.run(faults.pass_all)
        for index, at in enumerate(case.calls()):
            # By name an ENOENT or EPERM could be a missing program.  close_range's ENOSYS
            # has a fallback, with a test below.
            for number in (ODD, errno.EACCES, errno.ENOENT, errno.EPERM):
                if at.ignored:
                    check: Any = check_ignored(at, success)
                elif at.call == "execve" and case.programs > 1:
                    continue  # test_search_of_path
                else:
                    check = check_error(case.compiled, at, number)
                sweep.case(f"{index} {at.call} {errno.errorcode[number]}", At(index, number), check)


@pytest.mark.parametrize("name", SANDBOXES)
def test_each_call_is_killed(name: str, numbers: dict[int, int]) -> None:
    case = Case(name, numbers)
    with Sweep(case) as sweep:
        sweep.run(faults.pass_all)
        for index, at in enumerate(case.calls()):
            check = check_killed(case.compiled, at)
            sweep.case(f"{index} {at.call}", At(index, faults.KILL), check)


def test_killed_in_the_last_call() -> None:
    """Races: the parent is woken when the child has left its memory, before it is a zombie."""
    sandbox = nsext.Sandbox(new="pid net mnt")
    compiled = compile(sandbox)
    last = calls_of(compiled)[-1]
    with Sweep(lambda: sandbox.spawn([faults.noop()]).wait()) as sweep:
        for number in range(100):
            answer = lambda call: faults.KILL if call.name == "execve" else None  # noqa: E731
            sweep.case(f"{number}", answer, check_killed(compiled, last))


def test_each_call_of_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a step that fails here, at the latest in its second call: no security module."""
    monkeypatch.setattr(_labels, "require", lambda value: None)
    support.needs(os.path.exists("/proc/self/attr/exec"), "needs a kernel with CONFIG_SECURITY")
    sandbox = nsext.Sandbox(exec_label="user:role:type")
    compiled = compile(sandbox)
    with Sweep(lambda: sandbox.spawn([faults.noop()]).wait()) as sweep:
        for index, at in enumerate(calls_of(compiled)[:2]):
            assert compiled.steps[at.step][0] == "exec_label"
            for number in (ODD, errno.EACCES, errno.ENOENT, errno.EPERM):
                check = check_error(compiled, at, number)
                sweep.case(f"{at.call} {errno.errorcode[number]}", At(index, number), check)
            sweep.case(at.call, At(index, faults.KILL), check_killed(compiled, at))


def test_the_sandboxes_run_every_step() -> None:
    ran = {step[0] for sandbox in SANDBOXES.values() for step in compile(sandbox).steps}
    ran |= {step[0] for step in compile(COPIED, body="copy").steps}
    ran |= {"join", "helper", "ctty", "cgroup"}  # test_helper_faults.py
    ran.add("exec_label")  # which succeeds with few kernels: below
    assert ran == set(_native.STEPS) - _native.HELPER_STEPS


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ENOEXEC])
def test_exec_errors_have_subprocess_classes(number: int) -> None:
    program = faults.noop()
    with Sweep(lambda: nsext.spawn([program])) as sweep:
        error, wrong = sweep.run(lambda call: number if call.name == "execve" else None)
        sweep.cases = 1
        assert wrong == []
        assert isinstance(error, nsext.SpawnError) and isinstance(error, type(OSError(number, "")))
        assert (error.errno, error.filename, error.stage) == (number, program, "exec")


@pytest.mark.parametrize(
    "answers, wanted",
    [
        ([errno.ENOENT, errno.ENOTDIR, errno.ENOENT], errno.ENOENT),
        ([errno.ENOENT, errno.EACCES, errno.ENOENT], errno.EACCES),
        ([ODD, errno.EACCES, errno.ENOTDIR], ODD),
        ([errno.ENOTDIR, errno.ENOENT, ODD], ODD),
    ],
)
def test_search_of_path(answers: list[int], wanted: int, numbers: dict[int, int]) -> None:
    case = Case("plain", numbers)
    left = list(answers)
    with Sweep(case) as sweep:
        sweep.case(
            "search",
            lambda call: left.pop(0) if call.name == "execve" else None,
            lambda error: differences(error, errno=wanted, stage="exec", filename="cat"),
        )
    assert left == []


def test_close_range_is_missing(numbers: dict[int, int]) -> None:
    """ENOSYS: closed one by one, by /proc/self/fd; each call of that failing, and killed."""
    case = Case("plain", numbers)
    names: list[str] = []

    def at(index: int, what: Any) -> Any:
        names.clear()

        def answer(call: faults.Call) -> Any:
            if names or call.name == "close_range":
                names.append(call.name)
                if call.name == "close_range":
                    return errno.ENOSYS
                return what if len(names) == index + 1 else None
            return None

        return answer

    step = next(index for index, step in enumerate(case.compiled.steps) if step[0] == "fds")
    with Sweep(case) as sweep:
        success, _ = sweep.run(faults.pass_all)
        value, wrong = sweep.run(at(-1, None))
        assert value == success and wrong == []
        end = names.index("setpgid")
        for index, call in enumerate(names[1:end], 1):
            expected = Expected(step, call, -1, False)
            if call in ("openat", "getdents64"):
                check = check_error(case.compiled, expected, ODD)
                sweep.case(f"{index} {call}", at(index, ODD), check)
            check = check_killed(case.compiled, expected)
            sweep.case(f"{index} {call} killed", at(index, faults.KILL), check)


# ---- the copy: clone(entry) ------------------------------------------------------------------

LIBC = ctypes.CDLL(None)
COPIED = EVERYTHING.replace(rlimits={"core": 0}, dumpable=False)


def test_each_call_of_a_copy_fails_and_is_killed() -> None:
    compiled = compile(COPIED, body="copy")
    with Sweep(lambda: nsext.clone(LIBC.abs, 0, sandbox=COPIED).wait()) as sweep:
        at = At(-1, None)
        assert sweep.run(at) == (0, [])
        expected = calls_of(compiled)
        assert at.names == [call.call for call in expected]
        for index, at_call in enumerate(expected):
            name = f"{index} {at_call.call}"
            if at_call.call != "exit_group":  # which cannot fail
                check: Any = check_error(compiled, at_call, ODD)
                if at_call.ignored:
                    check = lambda value: [] if value == 0 else [repr(value)]  # noqa: E731
                sweep.case(name, At(index, ODD), check)
            check = check_killed(compiled, at_call)
            if at_call.call in ("futex", "exit_group"):  # the entry has been announced, or run
                check = lambda value: [] if value == -9 else [repr(value)]  # noqa: E731
            sweep.case(f"{name} killed", At(index, faults.KILL), check)


# Not raise(3): musl's goes by the id of the thread that has cloned.
DIE = """
#include <signal.h>
#include <unistd.h>

int die(void *signal) { return kill(getpid(), (int)(long)signal); }
"""


def test_an_entry_that_dies_at_once_has_started() -> None:
    """The wake-up fails, so that the entry is dead when the parent looks."""
    die = faults.compile_library(DIE).die
    with Sweep(lambda: nsext.clone(die, int(signal.SIGKILL)).wait()) as sweep:
        for number in range(3):
            sweep.case(
                f"{number}",
                lambda call: ODD if call.name == "futex" else None,
                lambda value: [] if value == -signal.SIGKILL else [repr(value)],
            )
