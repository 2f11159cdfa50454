"""init=True: PID 1, or a subreaper, that reaps, passes signals on and ends with its program."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helping import children_of, ended, gone, is_gone, kept_fds, state_of, wait_for
from support import DEADLINE, as_user, open_fds, python, running, script, stat_field, status

import nsext
from nsext import _native

PID1 = {"new": "pid mnt", "init": True}
PLACES: dict[str, dict[str, Any]] = {
    "PID 1": PID1,
    "user": {"new": "user pid mnt", "init": True},
    "subreaper": {"init": True},
}
LED: list[dict[str, Any]] = [{"start_new_session": True}, {"process_group": 0}]

places = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)

# A program that says which signals it gets, each once, until SIGRTMAX.
LISTENER = """
import signal, sys
signals = signal.valid_signals() - {signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print("ready", flush=True)
while (number := signal.sigwaitinfo(signals).si_signo) != signal.SIGRTMAX:
    print(number, flush=True)
"""


class Listening:
    """The program above, behind an init."""

    def __init__(self, **keywords: Any) -> None:
        self.process = nsext.Popen(python(LISTENER), stdout=nsext.PIPE, text=True, **keywords)
        assert self.line() == "ready"

    def line(self) -> str:
        return str(self.process.stdout.readline()).strip()

    def rest(self) -> list[int]:
        """End it with its last signal; return what it got before."""
        self.process.send_signal(signal.SIGRTMAX)
        with self.process:
            found = self.process.stdout.read().split()
        assert self.process.returncode == 0
        return [int(number) for number in found]


# ---- who is who ------------------------------------------------------------------------------


@places
def test_pids(place: dict[str, Any], root: None) -> None:
    with running(**place) as process:
        program = process.program_pid
        assert process.pid != program and children_of(process.pid) == [program]
        inner = status(program)["NSpid"].split()
        assert int(inner[-1]) == process.inner_pid
        assert process.inner_pid == (2 if "new" in place else program)
        wait_for(lambda: status(program)["Name"] == "sleep")  # exec wakes us, then sets that
        assert status(process.pid)["Name"] == "nsext-init"
        assert process.body == "helper"
    assert process.inner_pid == int(inner[-1]) and process.program_pid == program


def test_the_program_has_ended_before_anybody_asked() -> None:
    with nsext.Popen(["true"], init=True) as process:
        assert ended(process.fileno())
        with pytest.raises(ProcessLookupError):
            _ = process.program_pid


@places
def test_it_is_small(place: dict[str, Any], root: None) -> None:
    """Below 72 KiB resident, with the plan and the code shared; gcc's helper has two pages less."""
    with running(**place) as process:
        wait_for(lambda: state_of(process.pid) == "S")
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        words = {line.split()[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
        assert 0 < words["Rss:"] < 72, rollup


@places
def test_it_holds_nothing_of_the_programs(place: dict[str, Any], root: None) -> None:
    """A pipe that it held would not end with the program; a cwd would keep a mount busy."""
    reader, writer = os.pipe()
    with running(pass_fds=[writer], cwd="/usr", **place) as process:
        os.close(writer)
        wait_for(lambda: state_of(process.pid) == "S")
        assert open_fds(process.pid) == {}
        assert os.readlink(f"/proc/{process.pid}/cwd") == "/"
        os.kill(process.program_pid, signal.SIGKILL)
        assert os.read(reader, 1) == b""
    os.close(reader)


def test_it_is_not_dumpable() -> None:
    """The files in its /proc are root's, though it is an ordinary user's."""
    code = """
    with running(init=True) as p:
        # Until its exec the program has the init's memory, which is not dumpable.
        while status(p.pid)["State"][0] != "S" or status(p.program_pid)["Name"] == "nsext-helper":
            os.sched_yield()
        owners = [os.stat(f"/proc/{pid}/environ").st_uid for pid in (p.pid, p.program_pid)]
        assert owners == [0, os.getuid()], owners
        try:
            os.listdir(f"/proc/{p.pid}/fd")
        except PermissionError:
            sys.exit()
    raise AssertionError("its descriptors are to be seen")
    """
    as_user(code)


# ---- the end ---------------------------------------------------------------------------------


@places
@pytest.mark.parametrize("code", [0, 1, 42, 125, 127, 128, 137, 255])
def test_exit_statuses(place: dict[str, Any], code: int, root: None) -> None:
    assert nsext.run(["sh", "-c", f"exit {code}"], **place).returncode == code


@places
@pytest.mark.parametrize("name", ["SEGV", "KILL", "TERM", "ABRT", "HUP"])
def test_the_true_wait_status(place: dict[str, Any], name: str, root: None) -> None:
    """-11 for a segfault, and no 139."""
    number = signal.Signals[f"SIG{name}"]
    code = f"import os; os.kill(os.getpid(), {int(number)})"
    done = nsext.run(python(code), rlimits={"core": 0}, **place)
    assert done.returncode == -number


@places
def test_the_core_flag(place: dict[str, Any], root: None, tmp_path: Path) -> None:
    """The wait status says that core was dumped, as it does without an init."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    keywords: dict[str, Any] = {"cwd": tmp_path, "rlimits": {"core": (hard, hard)}}
    args = python("import os; os.abort()")
    with nsext.Popen(args, **keywords) as process:
        assert ended(process.fileno())
        wanted = os.waitpid(process.pid, 0)[1]
    with nsext.Popen(args, **keywords, **place) as process:
        assert ended(process.fileno())
        assert _native.report(process._handle, False)[1] == wanted
    assert process.returncode == -signal.SIGABRT


def test_sigchld_is_ignored_by_the_caller() -> None:
    """Trap 28: an init that inherited that would have no status to hand back."""
    code = """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for fields in ({}, {"new": "user pid mnt"}):
        for code in (3, -15):
            text = f"exit {code}" if code > 0 else f"kill {code} $$"
            with nsext.Popen(["sh", "-c", text], init=True, **fields) as p:
                p.wait(10)
            assert p.returncode == code, p.returncode
    """
    script(code)


def test_background_children_end_with_the_namespace(root: None) -> None:
    with nsext.Popen(["sh", "-c", "sleep 1000 & echo; read x"], stdin=-1, stdout=-1, **PID1) as p:
        p.stdout.readline()
        (child,) = children_of(p.program_pid)
        pidfd = os.pidfd_open(child)
        p.communicate(b"\n", timeout=DEADLINE)
    assert ended(pidfd, 0)
    os.close(pidfd)
    assert p.returncode == 0


def test_timeout_leaves_no_grandchild(root: None) -> None:
    """Trap 32: unlike subprocess."""
    reader, writer = os.pipe()
    with pytest.raises(nsext.TimeoutExpired):
        command = ["sh", "-c", "sleep 1000 & sleep 1000"]
        nsext.run(command, timeout=0.2, pass_fds=[writer], **PID1)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.parametrize("led", LED)
def test_a_subreaper_ends_the_programs_group(led: dict[str, Any]) -> None:
    command = ["sh", "-c", "sleep 1000 & echo $!"]
    with nsext.Popen(command, stdout=-1, init=True, **led) as process:
        child = int(process.stdout.readline())
    gone(child)
    assert process.returncode == 0


@places
def test_orphans_are_reaped(place: dict[str, Any], root: None) -> None:
    """Each is the init's at once, and gone soon."""
    orphans = "for i in 1 2 3 4 5 6 7 8; do (sh -c 'sleep 0.01' &) ; done; echo; exec sleep 1000"
    with nsext.Popen(["sh", "-c", orphans], stdout=-1, **place) as process:
        process.stdout.readline()
        program = process.program_pid
        wait_for(lambda: children_of(process.pid) == [program], "the orphans are reaped")
        process.kill()
    gone(program)


def test_an_orphan_is_the_subreapers(root: None) -> None:
    with nsext.Popen(["sh", "-c", "(sleep 1000 & echo $!)"], stdout=-1, init=True) as process:
        orphan = int(process.stdout.readline())
        process.wait(DEADLINE)
    # It goes on, as after any program: its parent is no more the init.
    assert not is_gone(orphan) and int(stat_field(4, orphan)) != process.pid
    os.kill(orphan, signal.SIGKILL)
    gone(orphan)


@places
def test_killing_the_init_kills_the_program(place: dict[str, Any], root: None) -> None:
    # What the program has started goes on where there is no namespace to end.
    command = "sleep 1000; :" if "new" in place else "exec sleep 1000"
    with running(["sh", "-c", command], **place) as process:
        program = process.program_pid
        pidfd = os.pidfd_open(program)
        process.kill()
        assert process.wait(DEADLINE) == -signal.SIGKILL
        assert ended(pidfd)
        os.close(pidfd)
        if "new" not in place:
            return
    gone(program)


def test_killing_a_subreaper_after_a_change_of_user(root: None) -> None:
    """PDEATHSIG is cleared by each change of ids."""
    with running(init=True, user=12345, group=12345) as process:
        pidfd = os.pidfd_open(process.program_pid)
        process.kill()
        assert ended(pidfd)
        os.close(pidfd)


# ---- signals ---------------------------------------------------------------------------------


@places
def test_every_signal_is_passed_on(place: dict[str, Any], root: None) -> None:
    passed = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
    passed -= {signal.SIGRTMAX}
    program = Listening(**place)
    for number in sorted(passed):
        program.process.send_signal(number)
        assert program.line() == str(int(number))
    assert program.rest() == []


@places
@pytest.mark.parametrize("led", [{}, *LED], ids=["plain", "session", "group"])
def test_exactly_once(place: dict[str, Any], led: dict[str, Any], root: None) -> None:
    """To the init alone, or to the group that it leads: the program has each signal once."""
    program = Listening(**place, **led)
    pid = program.process.pid
    queued = signal.SIGRTMIN + 1  # that one is queued as often as it is sent
    for _ in range(100):
        if led:
            os.killpg(pid, queued)
        else:
            os.kill(pid, queued)
    assert program.rest() == [queued] * 100


@places
@pytest.mark.parametrize("led", LED, ids=["session", "group"])
def test_groups_and_sessions(place: dict[str, Any], led: dict[str, Any], root: None) -> None:
    with running(**place, **led) as process:
        pid, program = process.pid, process.program_pid
        assert os.getpgid(pid) == pid and os.getpgid(program) == program
        session = pid if "start_new_session" in led else os.getsid(0)
        assert os.getsid(pid) == os.getsid(program) == session


def test_without_either_all_are_in_the_callers_group() -> None:
    with running(init=True) as process:
        groups = {os.getpgid(pid) for pid in (0, process.pid, process.program_pid)}
        assert len(groups) == 1


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU])
@pytest.mark.parametrize("place", [PLACES["subreaper"], PID1], ids=["subreaper", "PID 1"])
def test_stop_and_continue(place: dict[str, Any], number: int, root: None) -> None:
    """The program is suspended; so is its init, for whoever waits for that; both go on."""
    with running(process_group=0, **place) as process:
        program = process.program_pid
        for _ in range(3):
            process.send_signal(number)
            wait_for(lambda: state_of(program) == "T", "the program is stopped")
            if "new" not in place:
                info = os.waitid(os.P_PID, process.pid, os.WSTOPPED)
                assert info is not None and info.si_pid == process.pid
            process.send_signal(signal.SIGCONT)
            wait_for(lambda: state_of(program) == "S", "the program goes on")
            wait_for(lambda: state_of(process.pid) == "S", "the init goes on")
        process.terminate()
        assert process.wait(DEADLINE) == -signal.SIGTERM


def test_a_stopped_program_can_be_killed(root: None) -> None:
    for place in PLACES.values():
        with running(process_group=0, **place) as process:
            process.send_signal(signal.SIGTSTP)
            wait_for(lambda: state_of(process.program_pid) == "T")
            process.kill()
            assert process.wait(DEADLINE) == -signal.SIGKILL


# ---- trap 16: terminate() and PID 1 ----------------------------------------------------------


@places
def test_terminate_with_an_init(place: dict[str, Any], root: None) -> None:
    with running(**place) as process:
        process.terminate()
        assert process.wait(DEADLINE) == -signal.SIGTERM


def test_terminate_of_pid_1_is_a_kill(root: None) -> None:
    with running(new="pid") as process:
        process.send_signal(signal.SIGTERM)  # literal: the kernel drops it
        process.send_signal(signal.SIGHUP)
        assert not ended(process.fileno(), 0) and process.poll() is None
        process.terminate()
        assert process.wait(DEADLINE) == -signal.SIGKILL


def test_terminate_of_pid_1_that_handles_it(root: None) -> None:
    code = """
    import os, signal, sys
    signal.signal(15, lambda *_: sys.exit(7))
    print(flush=True)
    while True:  # signal.pause() would miss one that comes just before
        os.sched_yield()
    """
    with nsext.Popen(python(code), stdout=-1, new="pid") as process:
        process.stdout.readline()
        process.terminate()
        assert process.wait(DEADLINE) == 7


def test_terminate_of_a_pid_1_below_joined_namespaces(root: None) -> None:
    with running(new="user mnt net") as other:
        for joins in ({"user mnt": other.pid}, {"net": other.pid}, {"mnt": other.pid}):
            with running(join=joins, new="pid") as process:
                assert process.inner_pid == 1 == int(status(process.pid)["NSpid"].split()[-1])
                process.terminate()
                assert process.wait(DEADLINE) == -signal.SIGKILL


def test_terminate_without_a_pid_namespace_is_literal() -> None:
    with running() as process:
        process.terminate()
        assert process.wait(DEADLINE) == -signal.SIGTERM


# ---- the terminal ----------------------------------------------------------------------------

TERMINAL = """
import fcntl, termios, tty
def terminal():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    signal.alarm(30)
    master, slave = os.openpty()
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    return master, slave
def start(code="import time; time.sleep(1000)", **keywords):
    args = [sys.executable, "-I", "-S", "-c", code]
    return nsext.Popen(args, stdout=nsext.PIPE, init=True, process_group=0, **keywords)
"""


def _terminal(code: str) -> None:
    """In a process that leads no group, as setsid(2) wants it."""
    script(
        "if os.fork():\n    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n" + TERMINAL + code
    )


@pytest.mark.parametrize("stdin", ["inherited", "given", "none"])
@pytest.mark.parametrize("new", ["", "user pid mnt"])
def test_the_program_is_in_the_foreground(new: str, stdin: str) -> None:
    """A Ctrl-C that is typed reaches it, once; afterwards the terminal is the caller's again.

    The terminal is the session's, whoever has it as stdin.
    """
    _terminal(f"""
master, slave = terminal()
if {stdin!r} == "inherited":
    os.dup2(slave, 0)
own = os.getpgid(0)
assert os.tcgetpgrp(slave) == own
code = '''
import signal
number = {{signal.SIGINT}}
signal.pthread_sigmask(signal.SIG_BLOCK, number)
print(flush=True)
signal.sigwait(number)
print(1 + len(signal.sigpending()), flush=True)
'''
p = start(code, new={new!r}, stdin=slave if {stdin!r} == "given" else None)
p.stdout.readline()
assert os.getpgid(p.program_pid) == p.program_pid
assert os.tcgetpgrp(slave) == p.program_pid, "not in the foreground"
os.write(master, b"\\x03")
assert p.stdout.readline() == b"1\\n"
p.wait(10)
p.stdout.close()
assert os.tcgetpgrp(slave) == own, "the terminal is nobody's"
""")


def test_no_terminal_is_taken_by_who_is_in_the_background() -> None:
    """A job in the background does not become the foreground one by starting a program."""
    _terminal("""
master, slave = terminal()
os.dup2(slave, 0)
own = os.getpgid(0)
background = os.fork()
if not background:
    os.setpgid(0, 0)
    p = start()
    foreground = os.tcgetpgrp(slave)
    p.kill(); p.wait(); p.stdout.close()
    os._exit(0 if foreground == own else 1)
assert os.waitpid(background, 0)[1] == 0
""")


def test_the_suite_of_init_needs_no_terminal() -> None:
    """stdin that is none: nothing is asked of it."""
    args = [sys.executable, "-c", "pass"]
    done = nsext.run(args, stdin=subprocess.DEVNULL, init=True, process_group=0)
    assert done.returncode == 0


# ---- the plan, which an init maps to its end -------------------------------------------------


def _plans() -> set[int]:
    """The inodes of the plans that are kept for other spawns."""
    return {os.fstat(fd).st_ino for fd, what in kept_fds().items() if "nsext-plan" in what}


UNTRUSTED: dict[str, dict[str, Any]] = {
    "root over its init": {"new": "user pid"},
    "no PID 1": {},
    "other ids": {"new": "pid", "user": 65534},
    "confined": {"new": "pid", "no_new_privs": True},
    "no capabilities": {"new": "pid", "capabilities": ()},
}


@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen])
def test_a_plan_goes_on_where_its_program_was_as_privileged_as_we(start: Any, root: None) -> None:
    assert start(["true"], new="pid", init=True).wait() == 0
    plans = _plans()
    assert plans
    for end in ("exit 3", "kill -9 $$"):
        start(["sh", "-c", end], new="pid", init=True).wait()
        assert _plans() == plans


@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen])
@pytest.mark.parametrize("fields", UNTRUSTED.values(), ids=UNTRUSTED)
def test_a_plan_is_given_up_where_it_was_not(
    fields: dict[str, Any], start: Any, root: None
) -> None:
    """What it may hold of the memory must not be the next one's."""
    assert start(["true"], kill_on_parent_exit=True).wait() == 0  # there is one, at least
    plans = _plans()
    assert start(["true"], init=True, **fields).wait() == 0
    assert len(plans - _plans()) == 1 and _plans() < plans


def test_a_plan_is_given_up_where_nobody_has_waited(root: None) -> None:
    process = nsext.Popen(["sleep", "60"], new="pid", init=True)
    pidfd = os.dup(process.fileno())
    plans = _plans()
    process.returncode = 0  # as somebody who waits by pid has it
    del process
    assert len(plans - _plans()) == 1
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert ended(pidfd)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
