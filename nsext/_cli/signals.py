"""Signals of the command: which are passed on, and how a process ends by one.

The C module _signal, not signal: that one makes enums, which takes longer than a spawn.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import NoReturn
else:
    import _signal

SIGCHLD, SIGCONT, SIGWINCH = _signal.SIGCHLD, _signal.SIGCONT, _signal.SIGWINCH
SIGKILL, SIGSTOP, SIGTERM = _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGTERM

# What a fault raises is nsext's own; 32 and 33 are the C library's.
_OWN = {
    _signal.SIGKILL,
    _signal.SIGSTOP,
    _signal.SIGSEGV,
    _signal.SIGBUS,
    _signal.SIGFPE,
    _signal.SIGILL,
    _signal.SIGTRAP,
    _signal.SIGSYS,
    32,
    33,
}
WATCHED = frozenset(range(1, 65)) - _OWN

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


def interruptible() -> None:
    """Until there is a program, Ctrl-C ends the command without a traceback."""
    if _signal.getsignal(_signal.SIGINT) is not _signal.SIG_IGN:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    # Where it was inherited as ignored, children would reap themselves.
    _signal.signal(SIGCHLD, _signal.SIG_DFL)


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
