"""Beside a program until it ends: signals, job control, exit status.

The program is in nsext's own process group, as after exec: so the terminal and the shell treat it
as theirs.  What the terminal sends to the group has reached it by then; what was sent to nsext
alone is passed on.
"""

from __future__ import annotations

import os
import time

from .._proc import field
from .._spawn import spawn
from . import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .._process import Process
    from .._spec import Spec

_SLICE, GLANCE, BLIND = 0.01, 0.2, 1.0
_LONG = 3600.0  # what a time_t has room for
_PATIENCE = 3.0


def is_stopped(pid: int) -> bool:
    """Is the process stopped?"""
    try:
        return (field(f"/proc/{pid}/status", "State") or "").startswith("T")
    except OSError:
        return False


def program_of(init: int) -> int:
    """The program of an init that is PID 1: its first child."""
    from .._pids import child_with_inner_pid

    try:
        return child_with_inner_pid(init, 2)
    except OSError:
        return init


class Supervisor:
    """Waits for a program, and passes signals on to it."""

    def __init__(self, process: Process, spec: Spec) -> None:
        self.process = process
        self.pid = process.pid
        self.own_group = not (spec.start_new_session or spec.process_group is not None)
        self.first = process._is_first()
        # An init that is PID 1 cannot stop with its program, as a subreaper does.
        new_pid = int(spec.new) & 0x20000000  # type: ignore[arg-type]
        self.hidden = bool(new_pid) and not self.first
        self.watch_until = 0.0
        self.watched_for = 0
        self.glances = self.hidden and bool(signals.foreground())
        self.seen = 0
        self.blind_until = 0.0
        self.was_stopped = False  # and not continued since
        self.has_stopped = False
        self.ended_by = 0

    def received(self, info: Any) -> None:
        """Act on a signal that nsext has got."""
        number = info.si_signo
        if number == signals.SIGCHLD:
            self.child_changed()
        elif number == signals.SIGCONT:
            self.continued()
        else:
            typed = info.si_code > 0 and number in signals.STOPPING
            again = typed and self.was_stopped and not self.first
            if not self.has_it_too(info):
                self.process.send_signal(number)
            self.do_as_by_default(number)
            self.watch(number)
            if again:
                self.stopped_again(number)

    def stopped_again(self, number: int) -> None:
        """Ctrl-Z right after a continuation, of which the kernel has dropped the signal."""
        self.was_stopped = False
        if is_stopped(self.pid):
            self.stop(number)

    def start(self, early: list[int]) -> None:
        """Act on what came while the program was started."""
        self.child_changed()
        for number in early:
            # A stop that both have been through by now, and have been continued after.
            if not (self.has_stopped and number in signals.STOPPING):
                self.early(number)

    def early(self, number: int) -> None:
        """A signal that came while the program was started: nobody knows from whom."""
        if not (self.own_group and number in signals.BY_TERMINAL and signals.in_foreground()):
            self.process.send_signal(number)
        self.do_as_by_default(number)
        self.watch(number)

    def watch(self, number: int) -> None:
        """Ctrl-Z: nobody will tell us that a program below an init stops."""
        if self.hidden and number in signals.STOPPING:
            self.watched_for = number
            self.watch_until = time.monotonic() + _PATIENCE

    def has_it_too(self, info: Any) -> bool:
        """Has the signal reached the program by itself?"""
        if not self.own_group:
            return False
        if info.si_code > 0:  # SI_KERNEL: from the terminal
            return info.si_signo in signals.BY_TERMINAL
        # From the program itself, as by kill(0, SIGTSTP).
        return self.is_below(info.si_pid)

    def is_below(self, pid: int) -> bool:
        """Is the process the program, or one that it has started?"""
        try:
            while pid > 1:
                if pid == self.pid:
                    return True
                pid = int(field(f"/proc/{pid}/status", "PPid") or 0)
        except OSError:
            pass  # it has ended
        return False

    def do_as_by_default(self, number: int) -> None:
        """For a PID 1 without a handler the kernel drops the signal: do what it would do."""
        if not self.first or number in signals.HARMLESS:
            return
        if signals.has(self.pid, number):
            return
        if number in signals.STOPPING:
            self.process.send_signal(signals.SIGSTOP)
            # Not by number, which would be let through for that: one that comes before it is
            # blocked again would stop nsext alone.
            self.stop(signals.SIGSTOP)
        else:
            self.ended_by = number
            self.process.kill()

    def child_changed(self) -> None:
        """SIGCHLD: has it been stopped?  Its end is seen by poll()."""
        try:
            result = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:
            return
        # Where nsext was stopped for it and has been continued since, SIGCONT waits behind this.
        if result is not None and result.si_code == os.CLD_STOPPED and not self.was_stopped:
            self.stop(result.si_status)

    def stop(self, number: int) -> None:
        """Stop as the program has, for the shell to see.

        A shell that has stopped had the terminal for a group of its own: by fg nsext gets it.
        """
        self.was_stopped = self.has_stopped = True
        group = signals.foreground()
        signals.stop_by(number)
        signals.hand_over(group)

    def continued(self) -> None:
        """SIGCONT: from the shell to the group, or to nsext alone."""
        if not self.was_stopped or is_stopped(self.program()):
            self.process.send_signal(signals.SIGCONT)
        self.was_stopped = False
        self.blind_until = time.monotonic() + BLIND  # the init passes it on

    def program(self) -> int:
        """The program's process id; pid may be its init's, with which the program ends."""
        if self.hidden and not self.seen:
            found = program_of(self.pid)
            self.seen = 0 if found == self.pid else found
        return self.seen or self.pid

    def glance(self) -> None:
        """Has a shell below an init stopped itself?  Nobody else has the terminal then."""
        if self.was_stopped or time.monotonic() < self.blind_until:
            return
        if is_stopped(self.program()):
            self.stop(signals.SIGSTOP)

    def look(self) -> None:
        """Has it stopped?"""
        if is_stopped(self.program()):
            self.watch_until = 0.0
            self.stop(self.watched_for)
        elif time.monotonic() > self.watch_until:
            self.watch_until = 0.0

    def wait(self, deadline: float | None) -> int | None:
        """Wait for the end; return the return code, None when the time is over."""
        while True:
            code = self.process.poll()
            if code is not None:
                return code
            left = _LONG if deadline is None else min(_LONG, deadline - time.monotonic())
            if left <= 0:
                return None
            if self.watch_until:
                self.look()
                left = min(left, _SLICE)
            elif self.glances:
                self.glance()
                left = min(left, GLANCE)
            info = signals.wait(signals.WATCHED, left)
            if info is not None:
                self.received(info)


def let_go() -> None:
    """Close what nsext has inherited: it is the program's now, who may close it."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if fd < 3:
                os.dup2(null, fd)
            elif os.get_inheritable(fd):
                os.close(fd)
        except OSError:
            pass  # the directory's own
    os.close(null)


def finish(code: int, ended_by: int = 0) -> NoReturn:
    """End as the program has."""
    if ended_by:
        signals.die_by(ended_by)
    if code < 0:
        signals.die_by(-code)
    os._exit(code)


def run(spec: Spec, argv: list[str], timeout: float | None, pass_fds: list[int] | None) -> NoReturn:
    """Run a program, and end as it does.  Raises what spawn() does, when there is no program."""
    deadline = None if timeout is None else time.monotonic() + timeout
    early = signals.Early()
    if pass_fds is None and spec.root is not None:
        pass_fds = []  # a descriptor of a directory would lead out of it
    try:
        if pass_fds is None:
            process = spawn(argv, sandbox=spec, close_fds=False, spawn_timeout=timeout)
        else:
            process = spawn(argv, sandbox=spec, pass_fds=pass_fds, spawn_timeout=timeout)
        early.over()
        signals.block_all()
    except signals.Interrupted as signal:
        signals.die_by(signal.args[0])
    let_go()
    supervisor = Supervisor(process, spec)
    supervisor.start(early.got)
    code = supervisor.wait(deadline)
    if code is None:
        process.kill()
        process.wait()
        os._exit(124)
    finish(code, supervisor.ended_by)
