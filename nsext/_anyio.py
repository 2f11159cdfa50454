"""open_process() for anyio, on asyncio and trio.  Imported on first use, as anyio is optional."""

from __future__ import annotations

import os
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel

from ._popen import Popen


class _Reader(anyio.abc.ByteReceiveStream):
    def __init__(self, file: Any) -> None:
        self._file = file
        os.set_blocking(file.fileno(), False)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while True:
            if self._file.closed:
                raise anyio.ClosedResourceError
            try:
                data = os.read(self._file.fileno(), max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._file)
                continue
            if not data:
                raise anyio.EndOfStream
            await anyio.lowlevel.checkpoint()
            return data

    async def aclose(self) -> None:
        if not self._file.closed:
            anyio.notify_closing(self._file)
            self._file.close()


class _Writer(anyio.abc.ByteSendStream):
    def __init__(self, file: Any) -> None:
        self._file = file
        os.set_blocking(file.fileno(), False)

    async def send(self, item: bytes) -> None:
        view = memoryview(item)
        await anyio.lowlevel.checkpoint()
        while view:
            if self._file.closed:
                raise anyio.ClosedResourceError
            try:
                view = view[os.write(self._file.fileno(), view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._file)
            except BrokenPipeError as error:
                raise anyio.BrokenResourceError from error

    async def aclose(self) -> None:
        if not self._file.closed:
            anyio.notify_closing(self._file)
            self._file.close()


class Process(anyio.abc.Process):
    """An anyio.abc.Process over nsext.Popen, which is ``popen``."""

    def __init__(self, popen: Popen) -> None:
        self.popen = popen
        self._stdin = None if popen.stdin is None else _Writer(popen.stdin)
        self._stdout = None if popen.stdout is None else _Reader(popen.stdout)
        self._stderr = None if popen.stderr is None else _Reader(popen.stderr)

    async def aclose(self) -> None:
        """Close the streams and wait; on cancellation kill and reap."""
        with anyio.CancelScope(shield=True) as scope:
            for stream in (self._stdin, self._stdout, self._stderr):
                if stream is not None:
                    await stream.aclose()
            scope.shield = False
            try:
                await self.wait()
            except BaseException:
                scope.shield = True
                self.kill()
                await self.wait()
                raise

    async def wait(self) -> int:
        return await self.popen.wait_async()

    def terminate(self) -> None:
        self.popen.terminate()

    def kill(self) -> None:
        self.popen.kill()

    def send_signal(self, signal: int) -> None:
        self.popen.send_signal(signal)

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def returncode(self) -> int | None:
        return self.popen.poll()

    @property
    def stdin(self) -> anyio.abc.ByteSendStream | None:
        return self._stdin

    @property
    def stdout(self) -> anyio.abc.ByteReceiveStream | None:
        return self._stdout

    @property
    def stderr(self) -> anyio.abc.ByteReceiveStream | None:
        return self._stderr


class _PatientPopen(Popen):
    _patience = 0.002


async def open_process(command: Any, kwargs: dict[str, Any]) -> Process:
    """See nsext.open_process()."""
    kwargs.setdefault("shell", isinstance(command, (str, bytes)))
    popen = _PatientPopen(command, bufsize=0, **kwargs)
    if not popen._child_created:
        await popen._finish(anyio.sleep)
    return Process(popen)
