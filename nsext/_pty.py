"""pty=True: a terminal of the program's own.  See pty(7)."""

from __future__ import annotations

import errno
import fcntl
import io
import locale
import os
import select
import socket
import struct
import subprocess
import termios
import time
from typing import Any

from . import _values
from ._compile import Terminal
from ._errors import SpawnError
from ._fds import above_stdio
from ._spec import Spec

TIOCSPTLCK, TIOCGPTPEER = 0x40045431, 0x5441
_ROWS, _COLUMNS = 24, 80
_CHUNK = 1 << 15
_CTRL_D = b"\x04"


def _failed(step: str, error: OSError) -> SpawnError:
    number = error.errno or 0
    hint = "is a devpts mounted on /dev/pts?" if number == errno.ENOENT else None
    return SpawnError(number, os.strerror(number), stage="plan", step=step, hint=hint)


def _own_devpts(spec: Spec) -> bool:
    """Will the child have another devpts than the caller?"""
    if not spec.mounts:
        return False
    from ._mounts import Dev, Mount

    return any(
        (isinstance(item, Dev) and item.target == "/dev")
        or (isinstance(item, Mount) and item.fstype == "devpts" and item.target == "/dev/pts")
        for item in spec.mounts
    )


def terminal_of(spec: Spec) -> Terminal:
    """What compile() is told of a terminal on standard input, of the usual size."""
    return 0, (_ROWS, _COLUMNS) if _own_devpts(spec) else None


def _checked(size: Any) -> tuple[int, int]:
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise TypeError(f"pty: True or (rows, columns), not {size!r}")
    rows, columns = (_values.integer(number, "pty") for number in size)
    if not (0 < rows < 1 << 16 and 0 < columns < 1 << 16):
        raise ValueError(f"pty: {rows} rows and {columns} columns are no size of a window")
    return rows, columns


class Pty:
    """A pseudoterminal: its master here, its slave for the child.

    The slave is of the devpts that the program will see: the caller's; or, where the mounts bring
    another one, that, and then the child opens it and sends the master here.
    """

    def __init__(self, spec: Spec, size: tuple[int, int] | bool = True) -> None:
        self._master: io.FileIO | None = None
        self._socket: socket.socket | None = None
        self._size = (_ROWS, _COLUMNS) if size is True else _checked(size)
        self._inside = self._size if _own_devpts(spec) else None
        self._child = -1
        self._unsent = b""
        self._shown: list[bytes] = []
        self.terminal: Terminal = (0, self._inside)
        if self._inside:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket, self._child = ours, above_stdio(theirs.detach())
        else:
            self._open()

    def _open(self) -> None:
        try:
            master = above_stdio(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError as error:
            raise _failed("open /dev/ptmx", error) from None
        self._master = io.FileIO(master, "r+")
        try:
            fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", *self._size, 0, 0))
            flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
            self._child = above_stdio(fcntl.ioctl(master, TIOCGPTPEER, flags))
        except OSError as error:
            self.close()
            raise _failed("open the slave of /dev/ptmx", error) from None

    @staticmethod
    def session(spec: Spec) -> Spec:
        """The same with a session of its own, whose terminal this will be."""
        if spec.start_new_session:
            return spec
        led: Spec | None = spec._plans.get("session")
        if led is None:
            led = spec._plans["session"] = spec.replace(start_new_session=True)
        return led

    def add_to(self, streams: list[tuple[int, int]]) -> None:
        """Make the terminal of those standard streams that are nothing else."""
        taken = {child for child, _ in streams}
        free = [child for child in (0, 1, 2) if child not in taken]
        if not free:
            raise ValueError(
                "pty=True with all three standard streams redirected: nothing is on the terminal"
            )
        streams += [(child, self._child) for child in free]
        self.terminal = (free[0], self._inside)

    def started(self) -> None:
        """The child has its own."""
        if self._child >= 0:
            os.close(self._child)
            self._child = -1

    @property
    def master(self) -> io.FileIO | None:
        """The master; from inside it comes when the child has got there."""
        if self._master is None and self._socket is not None:
            with self._socket as ours:
                self._socket = None
                _, fds, _, _ = socket.recv_fds(ours, 1, 1)
            if fds:
                os.set_inheritable(fds[0], False)
                self._master = io.FileIO(above_stdio(fds[0]), "r+")
        return self._master

    def close(self) -> None:
        """Close what is open here: the program's session gets SIGHUP."""
        self.started()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._master is not None:
            self._master.close()

    # ---- communicate()

    def communicate(
        self, process: subprocess.Popen[Any], data: Any, timeout: float | None
    ) -> tuple[Any, None]:
        """Type *data* and end-of-file; return what the terminal has shown."""
        if process.stdin or process.stdout or process.stderr:
            raise ValueError("communicate() with pty=True reads no pipes beside: do it by hand")
        text: Any = process.text_mode  # type: ignore[attr-defined]
        encoding = process.encoding or locale.getencoding()  # type: ignore[attr-defined]
        errors = process.errors or "strict"  # type: ignore[attr-defined]
        if data is not None and not self._unsent:
            self._unsent = (data.encode(encoding, errors) if text else bytes(data)) + _CTRL_D
        end = None if timeout is None else time.monotonic() + timeout
        try:
            self._relay(end)
            process.wait(None if end is None else max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            shown = b"".join(self._shown)
            raise subprocess.TimeoutExpired(process.args, timeout or 0.0, output=shown) from None
        shown = b"".join(self._shown)
        if not text:
            return shown, None
        return shown.decode(encoding, errors).replace("\r\n", "\n"), None

    def _relay(self, end: float | None) -> None:
        """Until nobody has the slave open any more."""
        master = self.master
        assert master is not None
        fd = master.fileno()
        os.set_blocking(fd, False)
        poll = select.poll()
        while True:
            poll.register(fd, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            left = None if end is None else max(0.0, end - time.monotonic())
            ready = poll.poll(None if left is None else left * 1000)
            if not ready:
                raise subprocess.TimeoutExpired("", 0.0)
            events = ready[0][1]
            if events & (select.POLLIN | select.POLLHUP):
                try:
                    self._shown.append(os.read(fd, _CHUNK))
                except BlockingIOError:
                    pass
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                    return
            if self._unsent and events & select.POLLOUT:
                try:
                    self._unsent = self._unsent[os.write(fd, self._unsent) :]
                except BlockingIOError:
                    pass
                except OSError as error:  # nobody reads it any more
                    if error.errno != errno.EIO:
                        raise
                    self._unsent = b""
