"""Process: a child of spawn() or clone(), held by its pidfd."""

from __future__ import annotations

from . import _flags, _native
from ._native import child_wait
from ._proc import field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import SIGKILL, SIGTERM
    from types import TracebackType
    from typing import Any, Self

    from ._cgroup_handle import CgroupHandle
    from ._usage import Usage
else:
    from _signal import SIGKILL, SIGTERM  # without enum


def _handles(pid: int, sig: int) -> bool:
    """Has a process a handler for a signal?"""
    try:
        caught = field(f"/proc/{pid}/status", "SigCgt")
    except OSError:
        return False
    return caught is not None and bool(int(caught, 16) >> (sig - 1) & 1)


class PidfdChild:
    """A child that is held by its pidfd, which is closed when it has been waited for."""

    __slots__ = ()

    pid: int
    returncode: int | None
    _pidfd: int

    def _is_first(self) -> bool:
        """Is the program the PID 1 of its namespace?"""
        raise NotImplementedError

    def _terminate(self) -> None:
        """SIGTERM; SIGKILL for a PID 1, for which the kernel drops it without a handler."""
        first = self._is_first() and not _handles(self.pid, SIGTERM)
        self.send_signal(SIGKILL if first else SIGTERM)

    def send_signal(self, sig: int) -> None:
        """Send a signal."""
        raise NotImplementedError

    def fileno(self) -> int:
        """Return the pidfd, readable once the process has ended.  See pidfd_open(2).

        Raises ValueError when the process has been waited for: the pidfd is closed then.
        """
        pidfd = self._pidfd  # once: another thread may wait for it just now
        if pidfd < 0:
            raise ValueError("the process has been waited for, and its pidfd is closed")
        return pidfd


class Process(PidfdChild):
    """A running child, for who wants the bare speed: no pipes, no text, no buffers.

    pid: its process id, as seen from here.
    returncode: None while it runs; its exit status, or -N where signal N killed it.
    Used as a context manager it waits at the end, as subprocess.Popen does.
    """

    __slots__ = ("__weakref__", "_child", "_new", "args", "returncode")

    def __init__(self, args: Any, new: int) -> None:
        self.args = args
        self._new = new
        self.returncode = None
        self._child = _native.child()

    @property
    def pid(self) -> int:  # type: ignore[override]
        """Its process id, as seen from here."""
        return _native.child_state(self._child)[0]

    @property
    def pidfd(self) -> int:
        """The pidfd; -1 when the process has been waited for."""
        return _native.child_state(self._child)[1]

    @property
    def _pidfd(self) -> int:  # type: ignore[override]
        return self.pidfd

    @property
    def usage(self) -> Usage | None:
        """What it has used: None while it runs, and where somebody else has waited for it."""
        raw = _native.child_usage(self._child)
        if raw is None:
            return None
        from ._usage import usage_of

        return usage_of(raw)

    @property
    def cgroup(self) -> CgroupHandle | None:
        """The control group that it was born in, if cgroup= says one."""
        return None

    def poll(self) -> int | None:
        """Return the return code, None while it runs.  Never blocks."""
        if self.returncode is None:
            self.returncode = child_wait(self._child, 0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the return code.

        timeout: seconds.  Raises subprocess.TimeoutExpired when they are over.
        """
        code = self.returncode
        if code is None:
            code = child_wait(self._child, timeout)
            if code is None:
                from subprocess import TimeoutExpired

                raise TimeoutExpired(self.args, timeout or 0)
            self.returncode = code
        return code

    async def wait_async(self) -> int:
        """Wait for the end under asyncio, anyio or trio; return the return code."""
        from ._wait_async import readable

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
        return bool(self._new & _flags.NEWPID) and not _native.child_state(self._child)[2]

    def _signal(self, sig: int) -> None:
        _native.child_signal(self._child, sig)

    def _discard(self) -> None:
        """Interrupted before anybody got hold of it: nobody will ever have it."""
        _native.child_discard(self._child)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(SIGKILL)

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
