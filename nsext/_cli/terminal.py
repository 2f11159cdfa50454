"""``nsext run --pty``: between the caller's terminal and the program's.

The caller's is in raw mode meanwhile, so that what is typed reaches the program's as it is: Ctrl-C
and Ctrl-Z are signals there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import struct
import termios
import time
import tty
from typing import Any, NoReturn

from .. import _flags
from .._namespace import Namespaces
from .._popen import Popen
from .._spec import Spec
from . import signals
from .supervise import BLIND, GLANCE, finish, is_stopped, program_of

_CHUNK = 4096  # a pipe that is ready takes so much at once: PIPE_BUF
_PATIENCE, _SLICE = 3.0, 0.01
_KEYS = {
    termios.VINTR: signal.SIGINT,
    termios.VQUIT: signal.SIGQUIT,
    termios.VSUSP: signal.SIGTSTP,
}


def _attributes(fd: int) -> list[Any] | None:
    try:
        return termios.tcgetattr(fd)
    except termios.error:
        return None


def _set_attributes(fd: int, attributes: list[Any]) -> None:
    """tcsetattr(3), from the background too."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, attributes)
    except termios.error:
        pass  # it has hung up
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class CallersTerminal:
    """The terminal on standard input, if it is one: raw for a while, and always restored.

    Even when nsext is killed by SIGKILL: a process of its own waits for that.
    """

    def __init__(self) -> None:
        self.saved = _attributes(0)
        self.raw: list[Any] = []
        self.starting: list[Any] = []
        self._guard = 0
        self._alive = -1
        if self.saved is not None:
            self.raw = [*self.saved[:6], [*self.saved[6]]]
            _make_raw(self.raw)
            # While the program is started, which may hang, Ctrl-C is a signal; Ctrl-Z is its own.
            self.starting = [*self.raw[:6], [*self.raw[6]]]
            self.starting[tty.LFLAG] |= termios.ISIG
            self.starting[tty.CC][termios.VSUSP] = b"\0"
            self._guard, self._alive = self._watch()

    def _watch(self) -> tuple[int, int]:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid:
            os.close(reader)
            return pid, writer
        try:
            for number in (*signals.BY_TERMINAL, signal.SIGTERM):
                if number != signal.SIGCONT:
                    signal.signal(number, signal.SIG_IGN)
            os.closerange(1, reader)
            os.closerange(reader + 1, 1 << 16)
            os.read(reader, 1)  # until nsext has ended
            # Where anybody has set the terminal since, it is his.
            if _attributes(0) in (self.raw, self.starting):
                assert self.saved is not None
                _set_attributes(0, self.saved)
        finally:
            os._exit(0)

    def in_foreground(self) -> bool:
        """May nsext read it?"""
        if self.saved is None:
            return True
        try:
            return os.tcgetpgrp(0) == os.getpgrp()
        except OSError:
            return False

    def enter(self, starting: bool = False) -> None:
        """Make it raw, where nsext is in its foreground."""
        if self.saved is not None and self.in_foreground():
            _set_attributes(0, self.starting if starting else self.raw)

    def leave(self) -> None:
        """As it was before."""
        if self.saved is not None and _attributes(0) in (self.raw, self.starting):
            _set_attributes(0, self.saved)

    def close(self) -> None:
        """The same for good."""
        self.leave()
        if self._guard:
            os.close(self._alive)
            os.waitpid(self._guard, 0)


def _make_raw(mode: list[Any]) -> None:
    """cfmakeraw(3), as tty.cfmakeraw() of Python 3.12."""
    mode[tty.IFLAG] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    mode[tty.OFLAG] &= ~termios.OPOST
    mode[tty.CFLAG] = mode[tty.CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[tty.LFLAG] &= ~(
        termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
    )
    mode[tty.CC][termios.VMIN], mode[tty.CC][termios.VTIME] = 1, 0


def _window_size() -> tuple[int, int] | None:
    """Rows and columns of the caller's terminal."""
    for fd in (0, 1, 2):
        try:
            rows, columns = struct.unpack("4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))[:2]
        except OSError:
            continue
        if rows and columns:
            return rows, columns
    return None


class Relay:
    """Copies between the two, and acts on signals, until the program ends."""

    def __init__(self, process: Popen, spec: Spec, terminal: CallersTerminal) -> None:
        assert process.pty is not None
        self.process = process
        self.terminal = terminal
        self.master = process.pty.fileno()
        os.set_blocking(self.master, False)
        self.hidden = bool(int(spec.new) & _flags.NEWPID) and spec.init  # type: ignore[arg-type]
        self.first = process._is_first()
        self.ended_by = 0
        self.typed = b""
        self.shown = b""
        self.reading = True
        self.open = True
        self.watch_until = 0.0
        self.blind_until = 0.0
        self.resumed = False
        self.away = not terminal.in_foreground()
        self.wakeup, self._writer = os.pipe()

    # ---- signals

    def listen(self) -> None:
        """From here on signals wake it."""
        for end in (self.wakeup, self._writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in signals.WATCHED:
            try:
                if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGPIPE:
                    signal.signal(number, lambda *unused: None)
            except (OSError, ValueError):
                pass  # the C library's own

    def woken(self) -> None:
        """Act on the signals that have come."""
        try:
            numbers = os.read(self.wakeup, 256)
        except BlockingIOError:
            return
        for number in numbers:
            if number == signal.SIGCHLD:
                self.child_changed()
            elif number == signal.SIGWINCH:
                self.resize()
            elif number == signal.SIGCONT:
                if not self.resumed:
                    self.pass_on(number)
                self.resumed = False
            elif number in signals.STOPPING:
                self.suspended(number)
            elif number != signal.SIGPIPE:
                self.pass_on(number)

    def resize(self) -> None:
        """Give the program's terminal the size of the caller's."""
        size = _window_size()
        if size is not None:
            try:
                fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
            except OSError:
                pass

    def child_changed(self) -> None:
        """SIGCHLD: has it stopped?"""
        try:
            result = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:
            return
        if result is not None and result.si_code == os.CLD_STOPPED:
            self.suspend(signal.SIGSTOP)

    def suspended(self, number: int) -> None:
        """SIGTSTP and its kin: from a shell, or typed before the terminal was raw."""
        if self.first or not signals.has(self.process.pid, signal.SIGTSTP):
            # Whoever leads a session is not stopped by SIGTSTP.
            self.process.send_signal(signal.SIGSTOP)
        else:
            self.process.send_signal(signal.SIGTSTP)
        self.suspend(number)

    def suspend(self, number: int) -> None:
        """Stop, with the terminal as it was; when continued go on, and the program too."""
        self.terminal.leave()
        if number == signal.SIGSTOP:
            os.kill(os.getpid(), number)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            signal.signal(number, lambda *unused: None)
        self.resumed = True
        self.away = True
        self.terminal.enter()
        self.resize()
        self.process.send_signal(signal.SIGCONT)
        self.blind_until = time.monotonic() + BLIND  # an init passes it on
        try:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOHANG)  # that is over
        except ChildProcessError:
            pass

    def pass_on(self, number: int) -> None:
        """A signal for the program; what it would do to one that the kernel drops it for, too."""
        self.process.send_signal(number)
        if self.first and number not in signals.HARMLESS:
            self.do_as_by_default(number)

    def do_as_by_default(self, number: int) -> None:
        if signals.has(self.process.pid, number):
            return
        if number in signals.STOPPING:
            self.process.send_signal(signal.SIGSTOP)
        else:
            self.ended_by = number
            self.process.kill()

    def keys(self, data: bytes, characters: list[Any]) -> None:
        """Ctrl-C, Ctrl-\\ and Ctrl-Z were perhaps among what was typed.

        A program that is PID 1 and has no handler is neither ended nor stopped by them, one that
        leads the session not stopped; and of one that stops below an init that is PID 1 nobody
        tells us.
        """
        try:
            group = os.tcgetpgrp(self.master)
        except OSError:
            return
        leads = group == self.process.pid
        for which, number in _KEYS.items():
            if characters[which] == b"\0" or characters[which] not in data:
                continue
            if number != signal.SIGTSTP:
                if leads and self.first:
                    self.do_as_by_default(number)
            elif self.hidden:
                self.watch_until = time.monotonic() + _PATIENCE
            elif leads and not signals.has(group, number):
                os.killpg(group, signal.SIGSTOP)  # our child, not waited for: its group is its own

    def look(self) -> None:
        """Has the program below an init stopped?"""
        if is_stopped(program_of(self.process.pid)):
            self.watch_until = 0.0
            self.suspend(signal.SIGSTOP)
        elif time.monotonic() > self.watch_until:
            self.watch_until = 0.0

    def glance(self) -> None:
        """Has a shell below an init stopped itself?"""
        if time.monotonic() < self.blind_until:
            return
        if is_stopped(program_of(self.process.pid)):
            self.suspend(signal.SIGSTOP)

    # ---- data

    def control(self, which: int) -> bytes:
        """The character that means this on the program's terminal."""
        try:
            char: Any = termios.tcgetattr(self.master)[tty.CC][which]
        except termios.error:
            return b""
        return char if isinstance(char, bytes) and char != b"\0" else b""

    def read_typed(self) -> None:
        """From standard input, for the program."""
        try:
            data = os.read(0, _CHUNK)
        except OSError:  # hung up, or taken from the background
            data = b""
        if data:
            self.typed += data
            if self.terminal.saved is None:
                return
            mode = _attributes(self.master)  # before the program reads it, and changes the mode
            self.write_typed()
            if mode is not None and mode[tty.LFLAG] & termios.ISIG:
                self.keys(data, mode[tty.CC])
            return
        self.reading = False
        if self.terminal.saved is None:
            self.typed += self.control(termios.VEOF)  # the end of a file or a pipe
        else:
            self.pass_on(signal.SIGHUP)  # raw, it has no end but this

    def write_typed(self) -> None:
        try:
            self.typed = self.typed[os.write(self.master, self.typed) :]
        except BlockingIOError:
            pass
        except OSError:
            self.typed = b""

    def read_shown(self) -> None:
        """From the program, for standard output."""
        try:
            self.shown = os.read(self.master, _CHUNK)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self.open = False  # nobody has the other end any more

    def write_shown(self) -> None:
        try:
            self.shown = self.shown[os.write(1, self.shown) :]
        except OSError:
            # Nobody reads it any more: the program is told as by a terminal that hangs up.
            self.shown = b""
            self.process.send_signal(signal.SIGHUP)

    def turn(self, left: float | None) -> None:
        """Wait for something, at most so many seconds, and do it."""
        reading = self.reading and self.terminal.in_foreground()
        if reading and self.away:  # fg: the shell tells nobody
            self.away = False
            self.terminal.enter()
            self.resize()
        elif self.reading and not reading:
            self.away = True
            left = GLANCE if left is None else min(left, GLANCE)
        poll = select.poll()
        poll.register(self.wakeup, select.POLLIN)
        poll.register(self.process.fileno(), select.POLLIN)
        if reading and len(self.typed) < _CHUNK:
            poll.register(0, select.POLLIN)
        if self.open:
            wanted = (select.POLLOUT if self.typed else 0) | (0 if self.shown else select.POLLIN)
            poll.register(self.master, wanted)
        if self.shown:
            poll.register(1, select.POLLOUT)
        for fd, events in poll.poll(None if left is None else max(0, left) * 1000):
            if fd == self.wakeup:
                self.woken()
            elif fd == 1:
                self.write_shown()
            elif fd == self.master:
                if events & select.POLLOUT:
                    self.write_typed()
                if events & (select.POLLIN | select.POLLHUP) and not self.shown:
                    self.read_shown()
            elif fd == 0:
                self.read_typed()

    def drain(self) -> None:
        """What the program has shown last."""
        while self.open:
            self.read_shown()
            if not self.shown:
                return
            while self.shown:
                self.write_shown()

    def run(self, deadline: float | None) -> int | None:
        """Until the program ends; return its code, None when the time is over."""
        while True:
            code = self.process.poll()
            if code is not None:
                while self.shown:
                    self.write_shown()
                self.drain()
                return code
            left = None if deadline is None else min(3600.0, deadline - time.monotonic())
            if left is not None and left <= 0:
                return None
            if self.watch_until:
                self.look()
                left = _SLICE if left is None else min(left, _SLICE)
            elif self.hidden and self.terminal.saved is not None:
                self.glance()
                left = GLANCE if left is None else min(left, GLANCE)
            self.turn(left)


class _Popen(Popen):
    """Paused for its terminal's sake: nobody wants its namespaces and its root."""

    _keeps_root = False

    def _open_namespaces(self) -> Namespaces:
        return Namespaces(())


def _open_streams() -> None:
    """Where a standard stream is closed, what is opened next would be taken for it."""
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) < 3:
        pass
    os.close(fd)


def run(spec: Spec, argv: list[str], timeout: float | None, pass_fds: list[int] | None) -> NoReturn:
    """Run a program on a terminal of its own, and end as it does."""
    _open_streams()
    deadline = None if timeout is None else time.monotonic() + timeout
    early = signals.Early()
    close = pass_fds is not None or spec.root is not None
    box: Any = spec  # its methods, which a Sandbox has, are of no use here
    try:
        process = _Popen(
            argv,
            sandbox=box,
            paused=True,
            pty=_window_size() or True,
            close_fds=close,
            pass_fds=pass_fds or (),
            spawn_timeout=timeout,
        )
    except signals.Interrupted as ended:
        signals.die_by(ended.args[0])
    terminal = CallersTerminal()
    try:
        relay = Relay(process, spec, terminal)
        if terminal.saved is not None:
            # What is set on the caller's (the erase character, UTF-8 ...) holds for the program's.
            termios.tcsetattr(relay.master, termios.TCSANOW, terminal.saved)
        terminal.enter(starting=True)
        process.resume()
        early.over()
        relay.listen()
        terminal.enter()
        for number in early.got:
            relay.suspended(number) if number in signals.STOPPING else relay.pass_on(number)
        code = relay.run(deadline)
        if code is None:
            process.kill()
            process.wait()
            relay.drain()
    except signals.Interrupted as ended:
        process.kill()
        terminal.close()
        signals.die_by(ended.args[0])
    finally:
        terminal.close()
    if code is None:
        finish(124)
    finish(code, relay.ended_by)
