"""Faults on the parent's side: its own calls, the gate, and limits that are reached."""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import os
import resource
import time
from pathlib import Path
from typing import Any

import faults
import pytest
import support

import nsext
from nsext._compile import compile
from nsext._describe import describe

RANGES = [(0, 0, 1000)]
RANGED = nsext.Sandbox(new="user uts", uid_map=RANGES, gid_map=RANGES, hostname="ranged")
ODD = errno.EXFULL
KINDS = ("mnt", "uts", "ipc", "user", "pid", "net", "cgroup", "time")


def spawned() -> Any:
    """The return code of a child with ranged maps, or its error."""
    try:
        return RANGED.spawn([faults.noop()]).wait()
    except nsext.SpawnError as error:
        error.__traceback__ = None
        return error


def supervised(answer: Any) -> Any:
    """spawned(), with answers to the calls of parent and child; nothing may be left."""
    faults.need(faults.can_inject(), "no seccomp listener (CAP_SYS_ADMIN, Linux 5.5)")
    calls = ("clone3", "openat", "write", "futex", "ppoll")  # none of them with the GIL held
    text = faults.module_text()
    with faults.Injector(*((*text, name) for name in calls)) as injector:
        before = injector.run(faults.state).value
        outcome = injector.run(spawned, lambda call: answer(injector.listener, call))
        after = injector.run(faults.state).value
    assert outcome.error is None
    assert outcome.seconds < 2
    assert faults.changes(before, after) == []
    return outcome.value


class Parent:
    """An answer: *what* to the parent's *nth* call of this name."""

    def __init__(self, name: str, nth: int, what: Any) -> None:
        self.name, self.left, self.what = name, nth, what

    def __call__(self, listener: int, call: faults.Call) -> Any:
        if call.in_child or call.name != self.name:
            return None
        self.left -= 1
        return self.what if self.left == -1 else None


@pytest.mark.parametrize(
    "name, nth, stage, step",
    [
        ("clone3", 0, "clone", "clone"),
        ("openat", 0, "idmap", "write /proc/PID/gid_map"),
        ("write", 0, "idmap", "write /proc/PID/gid_map"),
        ("openat", 1, "idmap", "write /proc/PID/uid_map"),
        ("write", 1, "idmap", "write /proc/PID/uid_map"),
    ],
)
@pytest.mark.parametrize("number", [ODD, errno.EACCES, errno.ENOENT])
def test_a_call_of_the_parent_fails(
    name: str, nth: int, stage: str, step: str, number: int
) -> None:
    error = supervised(Parent(name, nth, number))
    assert type(error) is nsext.SpawnError
    assert (error.stage, error.step, error.errno) == (stage, step, number)


class Held:
    """The parent held before it writes a map, until the child has made some calls at its gate.

    Then *then(pid of the child)* runs, and the parent goes on.
    """

    def __init__(self, child_calls: int, error: int = 0, then: Any = None) -> None:
        self.left, self.error, self.then = child_calls, error, then
        self.parent: faults.Call | None = None

    def __call__(self, listener: int, call: faults.Call) -> Any:
        if not call.in_child:
            if call.name == "openat" and self.left > 0 and self.parent is None:
                self.parent = call
                return faults.HANG
            return None
        if call.name not in ("futex", "ppoll"):
            return None
        if self.parent:  # until then the child is ahead, and comes again
            self.left -= 1
            if self.left == 0:
                if self.then:
                    self.then(call.pid)
                faults.reply(listener, self.parent)
        return self.error


@pytest.mark.parametrize("number", [0, ODD, errno.EINTR, errno.EAGAIN, errno.ENOSYS])
def test_calls_at_the_gate_may_fail(number: int) -> None:
    """futex, ppoll: whatever they say, the child goes when the gate is open and not before."""
    assert supervised(Held(7, error=number)) == 0


def kill_and_see(pid: int) -> None:
    """Return when the child is a zombie: before the parent goes on."""
    pidfd = os.pidfd_open(pid)
    os.kill(pid, 9)
    assert faults.readable(pidfd, 2)
    os.close(pidfd)


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_killed_at_the_gate(calls: int) -> None:
    error = supervised(Held(calls, then=kill_and_see))
    assert type(error) is nsext.SpawnError
    assert (error.stage, error.errno) == ("idmap", errno.ECHILD)
    assert error.step == describe(compile(RANGED).steps[0])
    assert "SIGKILL" in error.strerror


# In a user namespace whose ids the kernel's root is not among.
KILLED_AT_THE_GATE = """
import faults
own = [(0, 0, 1)]
box = nsext.Sandbox(new="user", uid_map=own, gid_map=own)
killed = []

def answer(call):
    children = open(f"/proc/self/task/{injector.thread_id}/children").read().split()
    if children and not killed and not call.in_child:
        killed.append(int(children[0]))
        pidfd = os.pidfd_open(killed[0])
        os.kill(killed[0], 9)
        assert faults.readable(pidfd, 10)
        os.close(pidfd)

with faults.Injector((*faults.module_text(), "openat")) as injector:
    error = injector.run(lambda: box.spawn(["/bin/true"]).wait(), answer).error
assert killed
assert (error.stage, error.errno) == ("idmap", errno.ECHILD), error
assert "SIGKILL" in error.strerror, error
"""


def test_killed_at_the_gate_of_an_ordinary_user() -> None:
    """In /proc what was killed is root's: no map can be opened, and that is not the reason."""
    support.as_user(f"print(script({KILLED_AT_THE_GATE!r}, new='user'))")


# ---- RLIMIT_NOFILE ---------------------------------------------------------------------------

JOBS = {
    "spawn": lambda: nsext.spawn([faults.noop()], stdin=nsext.DEVNULL).wait(),
    "ranged": spawned,
    "pipes": lambda: nsext.run([faults.noop()], capture_output=True, new="pid user").returncode,
    "offsets": lambda: nsext.spawn(
        [faults.noop()], new="all", hostname="n", time_offsets={"boottime": 1}
    ).wait(),
}


def _free_fd() -> int:
    fd = os.dup(0)
    os.close(fd)
    return fd


@pytest.mark.parametrize("job", JOBS)
def test_descriptors_run_out(job: str) -> None:
    """From none left to enough: EMFILE or success, and nothing leaks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    JOBS[job]()  # what is imported late
    lowest = _free_fd()
    results = []
    for limit in range(lowest, lowest + 9):
        with faults.unchanged():
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                result = JOBS[job]()
            except OSError as error:
                error.__traceback__ = None
                result = error
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        results.append(getattr(result, "errno", result))
        if isinstance(result, nsext.SpawnError):
            assert type(result) is nsext.SpawnError
        del result
    failures = results.count(errno.EMFILE)
    assert failures >= 1
    assert results == [errno.EMFILE] * failures + [0] * (9 - failures)


# ---- RLIMIT_NPROC ----------------------------------------------------------------------------


def inner_nproc() -> None:
    program = faults.noop()
    os.setgroups([])
    os.setresgid(54321, 54321, 54321)
    uid = 3_000_000 + os.getpid()  # nobody's
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: for faults.state()
    threads = len(os.listdir("/proc/self/task"))
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (threads, hard))
    with faults.unchanged():
        for _ in range(60):
            try:
                nsext.spawn([program])
                raise AssertionError("started")
            except nsext.SpawnError as error:
                assert type(error) is nsext.SpawnError
                assert (error.errno, error.stage) == (errno.EAGAIN, "clone")
                assert "RLIMIT_NPROC" in (error.hint or "")
    resource.setrlimit(resource.RLIMIT_NPROC, (threads + 1, hard))
    with faults.unchanged():
        for _ in range(20):  # one at a time: a child that were left would be one too many
            assert nsext.spawn([program]).wait() == 0
            try:
                nsext.spawn(["/nonexistent"])
            except FileNotFoundError:
                pass


def test_processes_run_out() -> None:
    faults.need(os.geteuid() == 0, "needs root, to become an ordinary user")
    faults.in_subprocess(inner_nproc, timeout=30)


# ---- namespaces: user.max_*_namespaces -------------------------------------------------------


def _own_user_namespace() -> None:
    faulthandler.cancel_dump_traceback_later()  # its thread, or unshare is EINVAL
    while len(os.listdir("/proc/self/task")) > 1:
        os.sched_yield()
    uid, gid = os.geteuid(), os.getegid()
    nsext.unshare("user")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")


def _set_limit(kind: str, value: int) -> None:
    Path(f"/proc/sys/user/max_{kind}_namespaces").write_text(str(value))


def _failure(program: str, **fields: Any) -> nsext.SpawnError | None:
    try:
        nsext.spawn([program], **fields).wait()
    except nsext.SpawnError as error:
        return error
    return None


def inner_limit_zero() -> None:
    program = faults.noop()
    _own_user_namespace()
    for kind in KINDS:
        limit = int(Path(f"/proc/sys/user/max_{kind}_namespaces").read_text())
        _set_limit(kind, 0)
        with faults.unchanged():
            for _ in range(10):
                error = _failure(program, new="all")
                assert error is not None, kind
                where = ("setup", "unshare time") if kind == "time" else ("clone", "clone")
                assert (error.errno, error.stage, error.step) == (errno.ENOSPC, *where)
                assert type(error) is nsext.SpawnError
                assert f"user.max_{kind}_namespaces" in (error.hint or ""), error.hint
        _set_limit(kind, limit)
    assert _failure(program, new="all") is None


def test_no_namespace_is_left_to_make() -> None:
    faults.in_subprocess(inner_limit_zero, timeout=30)


def _settled(program: str, wanted: Any, **fields: Any) -> int:
    """Spawn until the outcome is *wanted* and not ENOSPC; return how often it was.

    The kernel takes a net, user, ipc or pid namespace off its count in its own time.
    """
    deadline = time.monotonic() + 10
    again = 0
    while True:
        error = _failure(program, new="all", **fields)
        if error is None or error.errno != errno.ENOSPC:
            assert type(error) is wanted, repr(error)
            return again
        assert time.monotonic() < deadline, f"a namespace is left: {error}"
        again += 1


def inner_limit_one() -> None:
    program = faults.noop()
    missing = type(_failure("/nonexistent"))
    _own_user_namespace()
    for kind in KINDS:
        _set_limit(kind, 1)
    with faults.unchanged():
        for _ in range(30):
            _settled("/nonexistent", missing)
            # A step in between fails: more open files than the kernel's fs.nr_open.
            _settled(program, nsext.SpawnError, rlimits={"nofile": (1 << 40, 1 << 40)})
        for _ in range(5):
            _settled(program, type(None))


def test_no_namespace_leaks() -> None:
    """With a limit of one of each kind, a namespace that were left would be the last."""
    faults.in_subprocess(inner_limit_one, timeout=60)


def inner_limit_one_held() -> None:
    """The detector detects: a process that stays holds its namespaces."""
    _own_user_namespace()
    _set_limit("uts", 1)
    with nsext.Popen(["/bin/cat"], new="user uts", stdin=nsext.PIPE):
        error = _failure("/bin/true", new="user uts")
        assert error is not None and error.errno == errno.ENOSPC
    assert _settled_uts() is None


def _settled_uts() -> Any:
    return _failure("/bin/true", new="uts")


def test_a_namespace_in_use_is_counted() -> None:
    faults.in_subprocess(inner_limit_one_held, timeout=30)
