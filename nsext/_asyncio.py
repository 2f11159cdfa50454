"""create_subprocess_exec() and create_subprocess_shell() for asyncio.

The child is made by our Popen; its exit is seen by the loop's own reader on the pidfd, so there is
no watcher and no thread.  A set-up that takes longer than a moment is looked at again and again
while the loop goes on.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from asyncio import subprocess as aio
from typing import Any
from weakref import WeakKeyDictionary

from ._popen import Popen

PATIENCE = 0.001  # seconds of set-up that the loop is held for in one of its turns, in all
_LIMIT = 2**16

_left: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()
"""What is left of that in this turn, where some of it is used."""


def _patience_left(loop: asyncio.AbstractEventLoop) -> float:
    if loop not in _left:
        _left[loop] = PATIENCE
        loop.call_soon(_left.pop, loop, None)
    return _left[loop]


class _PatientPopen(Popen):
    """Started in two parts."""

    _has_transport = False

    @property
    def _patience(self) -> float:  # type: ignore[override]
        return _patience_left(asyncio.get_running_loop())

    def __del__(self, _del: Any = Popen.__del__, _unused: Any = None) -> None:
        if not self._has_transport:  # which warns, and ends it
            _del(self)


class _Transport(asyncio.SubprocessTransport):
    """What asyncio.subprocess.Process asks of a transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop, popen: _PatientPopen) -> None:
        super().__init__()
        self._loop = loop
        self._popen = popen
        popen._has_transport = True
        self._pipes: dict[int, Any] = {}
        self._waiters: list[asyncio.Future[int]] = []
        self._protocol: Any = None
        self._watched = -1
        self._closed = False

    async def connect(self, protocol: Any) -> None:
        """Connect the pipes, and watch for the exit."""
        self._protocol = protocol
        loop, popen = self._loop, self._popen
        self._watched = os.dup(popen.fileno())
        try:
            if popen.stdin is not None:
                write: Any = lambda: _WritePipe(self, 0)  # noqa: E731
                self._pipes[0], _ = await loop.connect_write_pipe(write, popen.stdin)
            for fd, pipe in ((1, popen.stdout), (2, popen.stderr)):
                if pipe is not None:
                    read: Any = lambda fd=fd: _ReadPipe(self, fd)  # noqa: E731
                    self._pipes[fd], _ = await loop.connect_read_pipe(read, pipe)
            protocol.connection_made(self)
        finally:
            loop.add_reader(self._watched, self._exited)

    def _exited(self) -> None:
        code = self._popen.poll()
        if code is None:
            return
        self._unwatch()
        self._protocol.process_exited()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(code)
        self._waiters.clear()
        self._maybe_lost()

    def _unwatch(self) -> None:
        fd, self._watched = self._watched, -1
        if fd >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(fd)
            os.close(fd)

    def _pipe_lost(self, fd: int, error: BaseException | None) -> None:
        self._protocol.pipe_connection_lost(fd, error)
        self._pipes.pop(fd, None)
        self._maybe_lost()

    def _maybe_lost(self) -> None:
        if self._popen.returncode is not None and not self._pipes and not self._closed:
            self._closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    async def _wait(self) -> int:
        if self._popen.returncode is not None:
            return self._popen.returncode
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._waiters.append(waiter)
        return await waiter

    def get_pid(self) -> int:
        return self._popen.pid

    def get_returncode(self) -> int | None:
        return self._popen.returncode

    def get_pipe_transport(self, fd: int) -> Any:
        return self._pipes.get(fd)

    def send_signal(self, signal: int) -> None:
        self._check_running()
        self._popen.send_signal(signal)

    def terminate(self) -> None:
        self._check_running()
        self._popen.terminate()

    def kill(self) -> None:
        self._check_running()
        self._popen.kill()

    def _check_running(self) -> None:
        if self._popen.returncode is not None:
            raise ProcessLookupError

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Close the pipes; kill and reap what still runs."""
        for pipe in list(self._pipes.values()):
            pipe.close()
        if self._popen.returncode is None:
            self._popen.kill()

    def __del__(self, _warn: Any = warnings.warn) -> None:
        # While the loop lives it watches, and holds this: so it was closed before the child ended.
        if self._popen.returncode is None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            if not self._loop.is_closed():
                self.close()
            self._unwatch()
            self._popen._discard()

    def __repr__(self) -> str:
        code = self._popen.returncode
        state = "running" if code is None else f"returncode={code}"
        return f"<{type(self).__name__} pid={self._popen.pid} {state}>"

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._popen if name == "subprocess" else default


class _WritePipe(asyncio.BaseProtocol):
    def __init__(self, transport: _Transport, fd: int) -> None:
        self._owner, self._fd = transport, fd

    def connection_lost(self, error: Exception | None) -> None:
        self._owner._pipe_lost(self._fd, error)

    def pause_writing(self) -> None:
        self._owner._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._owner._protocol.resume_writing()


class _ReadPipe(asyncio.Protocol):
    def __init__(self, transport: _Transport, fd: int) -> None:
        self._owner, self._fd = transport, fd

    def data_received(self, data: bytes) -> None:
        self._owner._protocol.pipe_data_received(self._fd, data)

    def connection_lost(self, error: Exception | None) -> None:
        self._owner._pipe_lost(self._fd, error)


class Process(aio.Process):
    """asyncio.subprocess.Process, and an ``async with`` that kills and reaps on the way out."""

    def __init__(self, transport: Any, protocol: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport, protocol, loop)
        self.popen: Popen = transport.get_extra_info("subprocess")

    def fileno(self) -> int:
        """The pidfd."""
        return self.popen.fileno()

    async def __aenter__(self) -> Process:
        return self

    async def __aexit__(self, *exception: Any) -> None:
        if self.returncode is None:
            self.kill()
        if self.stdin is not None:
            self.stdin.close()
        await asyncio.shield(self.wait())
        self._transport.close()  # type: ignore[attr-defined]


async def start(args: Any, **kwargs: Any) -> _PatientPopen:
    """A Popen, started without holding the loop; on cancellation killed and reaped."""
    for name in ("text", "universal_newlines", "encoding", "errors"):
        if kwargs.get(name):
            raise ValueError(f"{name} is not for asyncio: its streams carry bytes")
    if kwargs.pop("bufsize", 0):
        raise ValueError("bufsize must be 0")
    loop = asyncio.get_running_loop()
    left, began = _patience_left(loop), loop.time()
    try:
        popen = _PatientPopen(args, bufsize=0, **kwargs)
    finally:
        _left[loop] = max(0.0, left - (loop.time() - began))
    if not popen._child_created:
        await popen._finish(asyncio.sleep)
    return popen


async def _create(args: Any, limit: int, kwargs: dict[str, Any]) -> Process:
    loop = asyncio.get_running_loop()
    popen = await start(args, **kwargs)
    transport = _Transport(loop, popen)
    protocol = aio.SubprocessStreamProtocol(limit=limit, loop=loop)
    try:
        await transport.connect(protocol)
    except BaseException:
        transport._unwatch()
        transport.close()
        popen._drop()
        raise
    return Process(transport, protocol, loop)


async def create_subprocess_exec(
    program: Any,
    *args: Any,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    limit: int = _LIMIT,
    **kwargs: Any,
) -> Process:
    """Start a program under asyncio: an asyncio.subprocess.Process, with its streams.

    As asyncio.create_subprocess_exec, plus the keywords of nsext.Popen.  Its ``async with`` kills
    and reaps on the way out.  Cancelling it during the set-up kills and reaps the child.

    Raises what nsext.Popen raises.
    """
    kwargs.update(stdin=stdin, stdout=stdout, stderr=stderr)
    return await _create((program, *args), limit, kwargs)


async def create_subprocess_shell(
    cmd: str | bytes,
    *,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    limit: int = _LIMIT,
    **kwargs: Any,
) -> Process:
    """Run a shell command under asyncio.  As create_subprocess_exec()."""
    if not isinstance(cmd, (str, bytes)):
        raise ValueError("cmd must be a string")
    kwargs.update(stdin=stdin, stdout=stdout, stderr=stderr, shell=True)
    return await _create(cmd, limit, kwargs)
