"""The checkpoint: a child that is set up, and waits there before it starts its program.

What is held of it (namespaces, root, its terminal's foreground) is taken while it waits.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import IO, TYPE_CHECKING, Any

from . import _flags, _native
from ._errors import SpawnError
from ._foreground import set_foreground
from ._launch import fail, how_it_ended
from ._namespace import Namespace, Namespaces, namespaces
from ._pids import is_dying
from ._process import PidfdChild
from ._root import Root

if TYPE_CHECKING:
    import threading

    from ._cgroupfs import Group
    from ._clone_flags import CloneFlags
    from ._idmaps import IdMaps
    from ._launch import Plan
    from ._shown import Shown
    from ._spec import Spec


class Checkpoint(PidfdChild):
    """What Popen does between the end of the set-up and exec."""

    _paused = False
    _passed = False  # the checkpoint
    _shown: Shown | None = None  # until the program starts
    _namespaces: Namespaces | None = None
    _keeps_root = True  # not for run() and its kin, who return none
    _root: Root | None = None
    _tty = -1
    _patience: float | None = None

    # Popen's:
    args: Any
    stdin: IO[Any] | None
    stdout: IO[Any] | None
    stderr: IO[Any] | None
    _spec: Spec
    _plan: Plan
    _executable: Any
    _spawn_timeout: float | None
    _pause: bool
    _hold: CloneFlags
    _handle: Any
    _maps: IdMaps | None
    _group: Group | None
    _fd_lock: threading.Lock
    _child_created: bool
    _reap: Callable[[float | None], int | None]
    _wait: Callable[[float | None], int]
    kill: Callable[[], None]
    _signal: Callable[[int], None]

    @property
    def program_pid(self) -> int:
        """The program's process id as seen from here."""
        raise NotImplementedError

    def _stops(self) -> bool:
        """Has the child to wait at its checkpoint?"""
        kept = self._keeps_root and self._spec.root is not None
        return self._pause or bool(self._hold) or self._tty >= 0 or kept

    def _fail(self, failure: Any) -> None:
        """Raise what C says of the set-up or of exec."""
        fail(
            failure,
            self._plan,
            self._spec,
            self._executable,
            self.args,
            self._spawn_timeout,
            self._group,
        )

    async def _finish(self, sleep: Callable[[float], Awaitable[object]]) -> None:
        """Wait for a set-up that has outlasted _patience; when that is cancelled, kill it."""
        timeout = self._spawn_timeout
        end = None if timeout is None else time.monotonic() + timeout
        try:
            delay = 0.001
            while self._pidfd < 0:
                await sleep(delay)  # no descriptor tells of exec, and a futex has none
                delay = min(2 * delay, 0.008)
                left = None if end is None else max(0.0, end - time.monotonic())
                handle, self._handle = self._handle, None
                failure = _native.finish(handle, left, 0, self, self._maps)
                if failure is not None:
                    self._fail(failure)
                if self._pidfd >= 0:
                    self._child_created = True
                    if self._stops() and not self._passed:
                        self._at_checkpoint()
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        """End the child, whatever it is at, and close the pipes."""
        handle = self._handle
        if self._pidfd >= 0:
            self.kill()
            self._wait(None)
        elif handle is not None:
            self._handle = None
            _native.abort(handle)
            self.returncode = -signal.SIGKILL
        if self._maps is not None:
            self._maps.close()
        if self._group is not None:
            self._group.discard()
        held: Any
        streams = self.stdin, self.stdout, self.stderr
        for held in (*streams, self._namespaces, self._root, self._shown):
            if held is not None:
                held.close()

    def _open_namespaces(self) -> Namespaces:
        if self._shown is not None:
            return self._shown.namespaces(int(self._hold))
        try:
            return namespaces(self, self._hold or None)
        except (PermissionError, FileNotFoundError) as error:
            # A set-up that fails is neither of them.
            raise SpawnError(
                error.errno or 0,
                error.strerror or "",
                stage="setup",
                step=f"open {error.filename}",
                path=error.filename,
                hint="/proc is not mounted" if error.errno == errno.ENOENT else None,
            ) from None

    def _holds_root(self) -> bool:
        kept = self._keeps_root and self._spec.root is not None
        return kept or bool(self._hold & _flags.NEWNS)

    def _open_root(self) -> Root:
        if self._shown is not None:
            return self._shown.root()
        try:
            return Root._of(self.pid, Namespace.of(self, "mnt"))
        except OSError as error:
            raise SpawnError(
                error.errno or 0,
                error.strerror or "",
                stage="setup",
                step="open the root of the child",
                path=error.filename,
            ) from None

    def _has_been_killed(self, error: OSError) -> bool:
        """Is that the error's cause?  What goes first of who ends, /proc lacks or refuses."""
        return error.errno == errno.ESRCH or is_dying(self.pid, self._pidfd)

    def _at_checkpoint(self) -> None:
        """The child is set up, and waits: hold what shall be held."""
        self._paused = True
        try:
            if self._shown is not None:
                self._shown.receive()
            if self._pause or self._hold:
                self._namespaces = self._open_namespaces()
            if self._holds_root():
                self._root = self._open_root()
            if self._tty >= 0:
                set_foreground(self._tty, self.program_pid)
            self._passed = True
            if not self._pause:
                self._go_on(self._patience)
                self._child_created = self._pidfd >= 0
        except BaseException as error:
            ended = self._paused and isinstance(error, OSError) and self._has_been_killed(error)
            if self._paused:
                self.kill()
                self._wait(None)
            if self._namespaces is not None:
                self._namespaces.close()
            if self._root is not None:
                self._root.close()
            if self._shown is not None:
                self._shown.close()
            if ended:  # somebody has killed it
                from ._describe import describe

                text = how_it_ended(self.returncode or 0)
                step = describe(("checkpoint",))
                raise SpawnError(errno.ECHILD, text, stage="setup", step=step) from None
            raise

    def resume(self) -> None:
        """Let a paused child start its program, and wait until it has.

        Raises what exec raises (FileNotFoundError ...); the process is gone then, and reaped.
        """
        with self._fd_lock:  # of two threads one does it
            paused, self._paused = self._paused, False
        if not paused:
            raise RuntimeError("the process is not paused")
        self._go_on(None)

    def _go_on(self, patience: float | None) -> None:
        """resume(); where it takes longer than *patience*, _pidfd is -1 until _finish()."""
        self._paused = False
        if self._shown is not None:
            self._shown.close()
            self._shown = None
        handle, self._handle = self._handle, None
        try:
            failure = _native.resume(handle, self._spawn_timeout, patience, self)
            if failure is not None:
                self._fail(failure)
        except BaseException:
            # Where C has reaped it, this says ESRCH; where we were interrupted, it must not stay.
            self._signal(signal.SIGKILL)
            self._reap(1.0)
            if self._pidfd >= 0:
                with self._fd_lock:
                    pidfd, self._pidfd = self._pidfd, -1
                    os.close(pidfd)
            self.returncode = 127
            raise

    @property
    def namespaces(self) -> Namespaces:
        """The child's namespaces, by kind; open until they are closed or this is dropped.

        Opened on first use, when ProcessLookupError says that the process has ended; held from
        before its start with ``hold=`` or ``paused=True``.
        """
        if self._namespaces is None:
            self._namespaces = namespaces(self)
        return self._namespaces

    @property
    def root(self) -> Root | None:
        """The child's root directory, taken before its program started: see open_in().

        Kept with root= and hold="mnt", and where it was asked for while paused, until it is closed
        or this is dropped; else None.
        """
        if self._root is None and self._paused:
            self._root = self._open_root()
        return self._root

    def _refuse_paused(self) -> None:
        if self._paused:
            raise RuntimeError("the process is paused: resume() it first")
