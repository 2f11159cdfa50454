"""Popen: subprocess's, with the child made and waited for by pidfd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import _flags, _native
from ._cgroup_handle import CgroupHandle, CgroupStats
from ._cgroupfs import Group
from ._checkpoint import Checkpoint
from ._compile import Body
from ._fds import table
from ._flags import Kinds, parse_kinds
from ._foreground import own_terminal, set_foreground
from ._launch import UNSET, launch, resolve
from ._pids import child_with_inner_pid
from ._spec import Spec
from ._usage import Usage, usage_of
from ._wait_async import readable

if TYPE_CHECKING:
    import io

    from ._idmaps import IdMaps
    from ._pty import Pty

_NO_FDS: Mapping[int, Any] = {}
_INHERITED = (-1,) * 6
_NOTHING = parse_kinds(())


class Popen(Checkpoint, subprocess.Popen):  # type: ignore[type-arg]
    """subprocess.Popen, plus namespaces.

    All of subprocess.Popen's arguments and methods are there, with their meanings; preexec_fn is
    refused.  Keyword arguments beyond them:

    sandbox: a nsext.Sandbox; every field of it may be given as a keyword, too, and then replaces
        the sandbox's as a whole.
    paused: return when the set-up is complete; the program starts at resume().
    hold: kinds of namespaces to keep open in ``namespaces``, whenever the program ends.
    pty: True or (rows, columns): a terminal of its own.  The program leads a new session whose
        controlling terminal it is; standard streams that are not redirected are on it.
    fd_map: {descriptor in the child: descriptor here}, cycles included.
    spawn_timeout: seconds that the set-up may take, up to exec.

    body: where the set-up ran: "inline", in the caller's memory on a stack of its own, or
        "helper", in a tiny program's.
    fileno() is the pidfd, until the process has been waited for.

    Raises SpawnError, FileNotFoundError ... (which are SpawnErrors too) and SpawnTimeout;
    TypeError and ValueError for wrong arguments, before anything is cloned.
    See clone(2), namespaces(7).
    """

    # _fd_lock: nobody uses the pidfd's number while another thread closes it, when the kernel may
    # give it to somebody else's file.
    _pidfd = -1
    _handle: Any = None
    _inner_pid = 0
    _program_pid = 0
    _exact = False
    _group: Group | None = None
    _begun = 0
    _ended: bytes | None = None
    _pty: Pty | None = None
    _maps: IdMaps | None = None

    def __init__(
        self,
        args: Any,
        bufsize: int = -1,
        executable: Any = None,
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        preexec_fn: Any = None,
        close_fds: bool = True,
        shell: bool = False,
        cwd: Any = UNSET,
        env: Any = UNSET,
        universal_newlines: bool | None = None,
        startupinfo: Any = None,
        creationflags: int = 0,
        restore_signals: bool = True,
        start_new_session: Any = UNSET,
        pass_fds: Any = (),
        *,
        user: Any = UNSET,
        group: Any = UNSET,
        extra_groups: Any = UNSET,
        encoding: str | None = None,
        errors: str | None = None,
        text: bool | None = None,
        umask: Any = UNSET,
        pipesize: int = -1,
        process_group: Any = UNSET,
        sandbox: Spec | None = None,
        fd_map: Mapping[int, Any] = _NO_FDS,
        spawn_timeout: float | None = None,
        paused: bool = False,
        hold: Kinds = (),
        # The common fields by name: what lands in **fields is compared with every name above.
        new: Any = UNSET,
        uid_map: Any = UNSET,
        gid_map: Any = UNSET,
        hostname: Any = UNSET,
        loopback: Any = UNSET,
        propagation: Any = UNSET,
        proc: Any = UNSET,
        **fields: Any,
    ) -> None:
        if preexec_fn is not None:
            raise TypeError(
                "preexec_fn would run Python in a child that shares this process's memory; say "
                "what it did in keywords: new=, rlimits=, umask=, process_group=, "
                "start_new_session=, nice=, affinity= ..."
            )
        if cwd is not UNSET:
            fields["cwd"] = cwd
        if start_new_session is not UNSET:
            fields["start_new_session"] = start_new_session
        if user is not UNSET:
            fields["user"] = user
        if group is not UNSET:
            fields["group"] = group
        if extra_groups is not UNSET:
            fields["extra_groups"] = extra_groups
        if umask is not UNSET:
            fields["umask"] = umask
        if process_group is not UNSET:
            fields["process_group"] = process_group
        if new is not UNSET:
            fields["new"] = new
        if uid_map is not UNSET:
            fields["uid_map"] = uid_map
        if gid_map is not UNSET:
            fields["gid_map"] = gid_map
        if hostname is not UNSET:
            fields["hostname"] = hostname
        if loopback is not UNSET:
            fields["loopback"] = loopback
        if propagation is not UNSET:
            fields["propagation"] = propagation
        if proc is not UNSET:
            fields["proc"] = proc
        pty = fields.pop("pty", False) if fields else False
        self._spec = resolve(sandbox, fields)
        self._env = env
        self._fd_map = fd_map
        spec = self._spec
        if spec.init and spec.process_group is not None and not spec.start_new_session:
            self._tty = own_terminal()
        self._spawn_timeout = spawn_timeout
        self._pause = bool(paused)
        self._hold = parse_kinds(hold) if hold else _NOTHING
        self._fd_lock = threading.Lock()
        if pty:
            from ._pty import Pty

            self._spec = Pty.session(self._spec)
            self._pty = Pty(self._spec, pty)
        try:
            super().__init__(
                args,
                bufsize,
                executable,
                stdin,
                stdout,
                stderr,
                None,
                close_fds,
                shell,
                None,
                None,
                universal_newlines,
                startupinfo,
                creationflags,
                restore_signals,
                False,
                pass_fds,
                encoding=encoding,
                errors=errors,
                text=text,
                pipesize=pipesize,
            )
        except BaseException:
            self._discard()
            if self._pty is not None:
                self._pty.close()
            if self._shown is not None:
                self._shown.close()
            raise

    def _reap(
        self, timeout: float | None, _wait: Any = _native.wait, _close: Any = os.close
    ) -> int | None:
        """Wait; the caller holds the lock against other waiters."""
        if self._pidfd < 0:
            # Waited for already, and somebody has taken the return code away again: subprocess's
            # rule for a child that is no longer ours.
            self.returncode = 0
            return 0
        code: int | None = _wait(self._pidfd, timeout, self)
        if code is not None:
            status = code if self._handle is None else self._program_code(code)
            self.returncode = status
            with self._fd_lock:
                pidfd, self._pidfd = self._pidfd, -1
                _close(pidfd)
            if self._group is not None:
                self._group.end()
        return code

    def _program_code(self, code: int) -> int:
        """An init has ended with *code*: what its program ended with is in its record."""
        handle, self._handle = self._handle, None
        self._inner_pid, status = _native.report(handle, True)
        if status is not None and code >= 0:
            code = os.waitstatus_to_exitcode(status)
        tty, self._tty = self._tty, -1
        if tty >= 0:
            set_foreground(tty, os.getpgrp())  # the program's group is gone
            os.close(tty)
        return code

    def _discard(self) -> None:
        """Interrupted before anybody got hold of it: nobody will ever have it."""
        if self._pidfd >= 0:
            self._signal(signal.SIGKILL)
            if self._reap(1.0) is None:  # stuck in the kernel
                pidfd, self._pidfd = self._pidfd, -1
                _native.adopt(pidfd)
        if self._group is not None:
            self._group.discard()

    def _signal(self, sig: int) -> None:
        with self._fd_lock:
            if self._pidfd >= 0:
                try:
                    _native.send_signal(self._pidfd, sig)
                except ProcessLookupError:
                    pass  # it has ended, and nobody has waited for it yet

    def _get_handles(self, stdin: Any, stdout: Any, stderr: Any) -> Any:
        if stdin is None and stdout is None and stderr is None:
            return _INHERITED
        return super()._get_handles(stdin, stdout, stderr)  # type: ignore[misc]

    def _execute_child(
        self,
        args: Any,
        executable: Any,
        preexec_fn: Any,
        close_fds: bool,
        pass_fds: Any,
        cwd: Any,
        env: Any,
        startupinfo: Any,
        creationflags: int,
        shell: bool,
        p2cread: int,
        p2cwrite: int,
        c2pread: int,
        c2pwrite: int,
        errread: int,
        errwrite: int,
        restore_signals: bool,
        *unused: Any,
    ) -> None:
        """Replaces subprocess's: the same contract, without fork, pipe and preexec_fn."""
        if type(args) is list:
            args = args[:]
        elif isinstance(args, (str, bytes)):
            args = [args]
        elif isinstance(args, os.PathLike):
            if shell:
                raise TypeError("path-like args is not allowed when shell is true")
            args = [args]
        else:
            args = list(args)
        if shell:
            args = ["/bin/sh", "-c", *args]
            if executable:
                args[0] = executable
        if not args:
            raise ValueError("args is empty: the program is its first item")
        if executable is None:
            executable = args[0]
        spec = self._spec
        env = spec.env if self._env is UNSET else self._env
        sys.audit("subprocess.Popen", executable, args, spec.cwd, env)

        streams = []
        if p2cread >= 0:
            streams.append((0, p2cread))
        if c2pwrite >= 0:
            streams.append((1, c2pwrite))
        if errwrite >= 0:
            streams.append((2, errwrite))
        if self._pty is not None:
            self._pty.add_to(streams)
        if pass_fds or self._fd_map:
            fds = table(streams, pass_fds, self._fd_map)
        else:
            fds = tuple(streams)
        if spec.cgroup is not None:
            self._group = Group(spec.cgroup)
        self._begun = time.monotonic_ns()
        self._plan = launch(
            spec,
            args,
            executable,
            env,
            fds,
            close_fds,
            restore_signals,
            self._spawn_timeout,
            self,
            self._stops(),
            self._patience,
            self._exact,
            None if self._pty is None else self._pty.terminal,
            self._group,
        )
        if self._pty is not None:
            self._pty.started()
        self._executable = executable
        if self._pidfd >= 0:
            self._child_created = True
            if self._stops():
                self._at_checkpoint()
        # Where it is busy yet, who has set _patience awaits _finish().
        if streams:
            self._close_pipe_fds(  # type: ignore[attr-defined]
                p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite
            )
        else:  # there are none; 10 us, since all that it would run is cold
            self._closed_child_pipe_fds = True

    async def wait_async(self) -> int:
        """Wait for the end under asyncio, anyio or trio; return the return code."""
        self._refuse_paused()
        while self.poll() is None:
            await readable(self.fileno())
        assert self.returncode is not None
        return self.returncode

    def __del__(self, _del: Any = subprocess.Popen.__del__, _close: Any = os.close) -> None:
        if self._child_created and self.returncode is None:
            _del(self)
        # Whoever waits by pid, as asyncio does, sets the return code and knows of no pidfd.
        if self._pidfd >= 0 and self.returncode is not None:
            pidfd, self._pidfd = self._pidfd, -1
            _close(pidfd)

    # subprocess calls _internal_poll from __del__, perhaps when the interpreter ends: what it
    # needs is bound as default arguments.
    def _internal_poll(
        self, _deadstate: int | None = None, _error: type[OSError] = OSError
    ) -> int | None:
        if self.returncode is None and self._child_created:
            lock = self._waitpid_lock  # type: ignore[attr-defined]
            if not lock.acquire(False):
                return None  # another thread is waiting; nothing is known yet
            try:
                if self._paused and _deadstate is not None:  # dropped, and nobody can resume it
                    self.kill()
                    self._reap(None)
                if self.returncode is None:
                    self._reap(0)
            except _error:
                if _deadstate is not None:
                    self.returncode = _deadstate
            finally:
                lock.release()
        return self.returncode

    @property
    def body(self) -> Body:
        """Where the set-up ran; chosen by what it has to do."""
        return self._plan.body

    @property
    def usage(self) -> Usage | None:
        """What it has used: None while it runs, and where somebody else has waited for it."""
        if self._ended is None:
            return None
        return usage_of(self._ended, self._begun, self._last_stats())

    def _last_stats(self) -> CgroupStats | None:
        """What its own control group had counted when it ended."""
        group = self._group
        return None if group is None or group.handle is None else group.handle._last

    @property
    def cgroup(self) -> CgroupHandle | None:
        """The control group that it was born in, if cgroup= says one."""
        return None if self._group is None else self._group.handle

    @property
    def _new(self) -> int:
        return int(self._spec.new)  # type: ignore[arg-type]

    @property
    def inner_pid(self) -> int:
        """The program's process id as it sees itself, in its own pid namespace."""
        handle = self._handle  # once: another thread may resume or wait just now
        if handle is not None:
            inner: int = _native.report(handle, False)[0]
            if inner:
                self._inner_pid = inner
        if self._inner_pid:
            return self._inner_pid
        return 1 if self._new & _flags.NEWPID else self.pid

    @property
    def program_pid(self) -> int:
        """The program's process id as seen from here; the init's, if there is one, is pid.

        Raises ProcessLookupError where the program has ended and its init has reaped it.
        """
        if not self._plan.init:
            return self.pid
        if not self._program_pid:
            self._program_pid = child_with_inner_pid(self.pid, self.inner_pid)
        return self._program_pid

    @property
    def pty(self) -> io.FileIO | None:
        """The master of its terminal, with ``pty=True``; else None.  See pty(7).

        Reading it is EIO (OSError) when nobody has the terminal open any more.
        """
        return None if self._pty is None else self._pty.master

    def communicate(self, input: Any = None, timeout: float | None = None) -> Any:
        """As subprocess.Popen.communicate.  RuntimeError while the process is paused.

        With ``pty=True`` *input* is typed at the terminal, followed by end-of-file, and what it
        shows is returned in place of the standard output.
        """
        self._refuse_paused()
        if self._pty is not None:
            return self._pty.communicate(self, input, timeout)
        return super().communicate(input, timeout)

    def __exit__(self, *exception: Any) -> None:
        if self._paused:
            self.kill()
        if self._pty is not None:
            self._pty.close()
        super().__exit__(*exception)

    def kill(self) -> None:
        """Send SIGKILL.  Ends a paused process, too."""
        super().kill()
        self._paused = False

    def terminate(self) -> None:
        """Send SIGTERM; SIGKILL to a PID 1, for which the kernel drops SIGTERM without a handler.

        With init=True the init is PID 1, and passes SIGTERM on.
        """
        self._terminate()

    def _is_first(self) -> bool:
        return bool(self._new & _flags.NEWPID) and not self._plan.init

    def _wait(self, timeout: float | None) -> int:
        if self._paused:
            self._refuse_paused()
        if self.returncode is None:
            lock = self._waitpid_lock  # type: ignore[attr-defined]
            if not (lock.acquire() if timeout is None else lock.acquire(timeout=max(timeout, 0))):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            try:
                if self.returncode is None and self._reap(timeout) is None:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
            finally:
                lock.release()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process has ended.  See pidfd_send_signal(2)."""
        self.poll()
        if self.returncode is None:
            self._signal(sig)
