"""Signals of the command: which are passed on, and how a process ends by one.

The C module _signal, not signal: that one makes enums, which takes longer than a spawn.
"""

from __future__ import annotations

import _thread
import os
import time

from .._proc import field

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import NoReturn
else:
    import _signal

SIGCHLD, SIGCONT, SIGWINCH = _signal.SIGCHLD, _signal.SIGCONT, _signal.SIGWINCH
SIGKILL, SIGSTOP, SIGTERM = _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGTERM

# What a fault raises is nsext's own.  The C library's are not valid ones: 2 of glibc, 3 of musl.
_OWN = {
    _signal.SIGKILL,
    _signal.SIGSTOP,
    _signal.SIGSEGV,
    _signal.SIGBUS,
    _signal.SIGFPE,
    _signal.SIGILL,
    _signal.SIGTRAP,
    _signal.SIGSYS,
}
WATCHED = frozenset(map(int, _signal.valid_signals())) - _OWN

STOPPING = frozenset((_signal.SIGTSTP, _signal.SIGTTIN, _signal.SIGTTOU))
HARMLESS = frozenset((SIGCHLD, SIGCONT, SIGWINCH, _signal.SIGURG))
# What a terminal sends to the whole foreground group.
BY_TERMINAL = STOPPING | {
    _signal.SIGINT,
    _signal.SIGQUIT,
    _signal.SIGHUP,
    SIGCONT,
    SIGWINCH,
}
_DUMPING = frozenset(
    (
        _signal.SIGQUIT,
        _signal.SIGILL,
        _signal.SIGTRAP,
        _signal.SIGABRT,
        _signal.SIGBUS,
        _signal.SIGFPE,
        _signal.SIGSEGV,
        _signal.SIGXCPU,
        _signal.SIGXFSZ,
        _signal.SIGSYS,
    )
)

block, default, wait = _signal.pthread_sigmask, _signal.signal, _signal.sigtimedwait


def has(pid: int, number: int) -> bool:
    """Does a process catch, block or ignore a signal?  True where that is not to be seen."""
    try:
        names = ("SigCgt", "SigBlk", "SigIgn")
        masks = [int(field(f"/proc/{pid}/status", name) or "0", 16) for name in names]
    except OSError:
        return True
    return any(mask >> (number - 1) & 1 for mask in masks)


class Interrupted(BaseException):
    """A signal that ends nsext, which has no program yet."""


class Early:
    """Signals while the program is being started: kept for it.

    It may run, and be signalled, before spawn() has returned here.  A set-up that hangs is ended
    by them, though, by Interrupted: when it is not over after a second, also by one that came
    before.
    """

    PATIENCE = 1.0

    def __init__(self) -> None:
        self.got: list[int] = []
        self._begun = time.monotonic()
        self._thread = _thread.get_ident()
        self._lock = _thread.allocate_lock()
        self._over = self._timed = False
        self._insisted = 0
        for number in WATCHED:
            if number != SIGCHLD and _signal.getsignal(number) in (
                _signal.SIG_DFL,
                _signal.default_int_handler,
            ):
                _signal.signal(number, self._keep)
        # Where it was inherited as ignored, children would reap themselves.
        _signal.signal(SIGCHLD, _signal.SIG_DFL)

    def _keep(self, number: int, frame: object) -> None:
        if number == SIGCONT:  # as the kernel has it: a stop that waits is void
            self.got = [kept for kept in self.got if kept not in STOPPING]
        if number in HARMLESS:
            return
        again = number == self._insisted
        if again:
            self._insisted = 0
        if not (self._over or number in STOPPING):
            if again or time.monotonic() - self._begun > self.PATIENCE:
                raise Interrupted(number)
            if not self._timed:
                self._timed = True
                # It has them all blocked: it would take the SIGCHLD that wait() waits for.
                before = block(_signal.SIG_BLOCK, WATCHED)
                _thread.start_new_thread(self._insist, (number,))
                block(_signal.SIG_SETMASK, before)
        if not again:
            self.got.append(number)

    def _insist(self, number: int) -> None:
        """Send it once more when the patience is over: it interrupts whatever hangs."""
        while (left := self._begun + self.PATIENCE - time.monotonic()) >= 0:
            time.sleep(left + 0.001)
        with self._lock:
            if not self._over:
                self._insisted = number
                _signal.pthread_kill(self._thread, number)

    def over(self) -> None:
        """The program runs: from here on they are only kept."""
        with self._lock:
            self._over = True


def foreground() -> int:
    """The foreground process group of nsext's terminal; 0 where it has none."""
    try:
        tty = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return 0
    try:
        return os.tcgetpgrp(tty)
    except OSError:
        return 0
    finally:
        os.close(tty)


def in_foreground() -> bool:
    """Is nsext in the foreground of its terminal?"""
    return foreground() == os.getpgrp()


def hand_over(group: int) -> None:
    """Let this group have the terminal again, which nsext has."""
    if group in (0, os.getpgrp()) or not in_foreground():
        return
    tty = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        os.tcsetpgrp(tty, group)
    except OSError:
        pass  # it has ended
    finally:
        os.close(tty)


def block_all() -> None:
    """From here on they wait to be asked for."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, WATCHED)


def stop_by(number: int) -> None:
    """Stop as by this signal; returns when continued, or at once where the kernel does not stop."""
    if number != SIGSTOP:
        _signal.signal(number, _signal.SIG_DFL)
    # Sent while blocked, so that one that waits already and ours are one.
    os.kill(os.getpid(), number)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [number])
    _signal.pthread_sigmask(_signal.SIG_BLOCK, WATCHED)


def die_by(number: int | str) -> NoReturn:
    """End by this signal, as the program did; without a core, which would be nsext's."""
    if isinstance(number, str):
        number = int(getattr(_signal, number))
    if number in _DUMPING:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != SIGKILL:
        _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [number])
    os._exit(128 + number)  # as PID 1, or in a group without a parent: it did not end us
