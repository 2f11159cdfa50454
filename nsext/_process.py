"""Process: a child of spawn() or clone(), held by its pidfd."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import warnings
from types import TracebackType
from typing import Any, Self

from . import _native
from ._flags import CloneFlags
from ._proc import field
from ._wait_async import readable

_abandoned: list[Any] = []


def sweep() -> None:
    """Reap the children whose Process was dropped while they ran."""
    for process in list(_abandoned):
        if process.poll() is not None:
            try:
                _abandoned.remove(process)
            except ValueError:
                pass  # another thread was first


def _handles(pid: int, sig: int) -> bool:
    """Has a process a handler for a signal?"""
    try:
        caught = field(f"/proc/{pid}/status", "SigCgt")
    except OSError:
        return False
    return caught is not None and bool(int(caught, 16) >> (sig - 1) & 1)


class PidfdChild:
    """Waiting for a child and signalling it, by pidfd only.

    The pidfd is closed when the child has been reaped.  _fd_lock: nobody uses its number while
    another thread closes it, when the kernel may give it to somebody else's file.
    """

    __slots__ = ()

    pid: int
    returncode: int | None
    _pidfd: int
    _handle: Any
    _inner_pid: int
    _fd_lock: threading.Lock

    def _reap(
        self, timeout: float | None, _wait: Any = _native.wait, _close: Any = os.close
    ) -> int | None:
        """Wait; the caller holds the lock against other waiters."""
        if self._pidfd < 0:
            # Waited for already, and somebody has taken the return code away again: subprocess's
            # rule for a child that is no longer ours.
            self.returncode = 0  # type: ignore[misc]
            return 0
        code: int | None = _wait(self._pidfd, timeout)
        if code is not None:
            status = code if self._handle is None else self._program_code(code)
            self.returncode = status  # type: ignore[misc]
            with self._fd_lock:
                pidfd, self._pidfd = self._pidfd, -1  # type: ignore[misc]
                _close(pidfd)
        return code

    def _program_code(self, code: int) -> int:
        """An init has ended with *code*: what its program ended with is in its record."""
        handle, self._handle = self._handle, None
        self._inner_pid, status = _native.report(handle)  # type: ignore[misc]
        if status is None or code < 0:
            return code
        return os.waitstatus_to_exitcode(status)

    def _discard(self) -> None:
        """Interrupted before anybody got hold of it: nobody will ever have it."""
        if self._pidfd >= 0:
            self._signal(signal.SIGKILL)
            if self._reap(1.0) is None:  # stuck in the kernel
                _abandoned.append(self)

    def _signal(self, sig: int) -> None:
        with self._fd_lock:
            if self._pidfd >= 0:
                try:
                    _native.send_signal(self._pidfd, sig)
                except ProcessLookupError:
                    pass  # it has ended, and nobody has waited for it yet

    def _is_first(self) -> bool:
        """Is the program the PID 1 of its namespace?"""
        raise NotImplementedError

    def _terminate(self) -> None:
        """SIGTERM; SIGKILL for a PID 1, for which the kernel drops it without a handler."""
        first = self._is_first() and not _handles(self.pid, signal.SIGTERM)
        self.send_signal(signal.SIGKILL if first else signal.SIGTERM)

    def send_signal(self, sig: int) -> None:
        """Send a signal."""
        raise NotImplementedError

    def fileno(self) -> int:
        """Return the pidfd, readable once the process has ended.  See pidfd_open(2).

        Raises ValueError when the process has been waited for: the pidfd is closed then.
        """
        if self._pidfd < 0:
            raise ValueError("the process has been waited for, and its pidfd is closed")
        return self._pidfd


class Process(PidfdChild):
    """A running child, for who wants the bare speed: no pipes, no text, no buffers.

    pid: its process id, as seen from here.
    returncode: None while it runs; its exit status, or -N where signal N killed it.
    Used as a context manager it waits at the end, as subprocess.Popen does.
    """

    __slots__ = (
        "args",
        "pid",
        "returncode",
        "_pidfd",
        "_handle",
        "_inner_pid",
        "_fd_lock",
        "_wait_lock",
        "__weakref__",
        "_new",
    )

    def __init__(self, args: Any, new: int) -> None:
        self.args = args
        self._new = new
        self.pid = 0
        self.returncode = None
        self._pidfd = -1
        self._handle = None
        self._fd_lock = threading.Lock()
        self._wait_lock = threading.Lock()

    @property
    def pidfd(self) -> int:
        """The pidfd; -1 when the process has been waited for."""
        return self._pidfd

    def poll(self) -> int | None:
        """Return the return code, None while it runs.  Never blocks."""
        if self.returncode is None and self._wait_lock.acquire(blocking=False):
            try:
                if self.returncode is None:
                    self._reap(0)
            finally:
                self._wait_lock.release()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the return code.

        timeout: seconds.  Raises subprocess.TimeoutExpired when they are over.
        """
        if timeout is None:
            with self._wait_lock:
                if self.returncode is None:
                    self._reap(None)
        elif self.returncode is None:
            if not self._wait_lock.acquire(timeout=max(timeout, 0)):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            try:
                if self.returncode is None and self._reap(timeout) is None:
                    raise subprocess.TimeoutExpired(self.args, timeout)
            finally:
                self._wait_lock.release()
        assert self.returncode is not None
        return self.returncode

    async def wait_async(self) -> int:
        """Wait for the end under asyncio, anyio or trio; return the return code."""
        while self.poll() is None:
            await readable(self.fileno())
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process has ended.  See pidfd_send_signal(2)."""
        self.poll()
        if self.returncode is None:
            self._signal(sig)

    def terminate(self) -> None:
        """Send SIGTERM; SIGKILL to a PID 1 without a handler, for which the kernel drops it."""
        self._terminate()

    def _is_first(self) -> bool:
        return bool(self._new & CloneFlags.NEWPID) and self._handle is None

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.wait()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: pid: {self.pid} returncode: {self.returncode}>"

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if getattr(self, "_pidfd", -1) < 0:
            return
        _warn(f"process {self.pid} is still running", ResourceWarning, source=self)
        if self.poll() is None:
            _abandoned.append(self)
