"""Popen: subprocess's, with the child made and waited for by pidfd."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from ._fds import table
from ._launch import UNSET, launch, resolve
from ._process import PidfdChild, _abandoned, sweep
from ._spec import Spec

_NO_FDS: Mapping[int, Any] = {}


class Popen(PidfdChild, subprocess.Popen):  # type: ignore[type-arg]
    """subprocess.Popen, plus namespaces.

    All of subprocess.Popen's arguments and methods are there, with their meanings; preexec_fn is
    refused.  Keyword arguments beyond them:

    sandbox: a nsext.Sandbox; every field of it may be given as a keyword, too, and then replaces
        the sandbox's as a whole.
    fd_map: {descriptor in the child: descriptor here}, cycles included.
    spawn_timeout: seconds that the set-up may take, up to exec.

    body: where the set-up ran: "inline", in the caller's memory on a stack of its own.
    fileno() is the pidfd, until the process has been waited for.

    Raises SpawnError, FileNotFoundError ... (which are SpawnErrors too) and SpawnTimeout;
    TypeError and ValueError for wrong arguments, before anything is cloned.
    See clone(2), namespaces(7).
    """

    _pidfd = -1
    body = "inline"

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
        self._spec = resolve(sandbox, fields)
        self._env = env
        self._fd_map = fd_map
        self._spawn_timeout = spawn_timeout
        self._fd_lock = threading.Lock()
        if _abandoned:
            sweep()
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
        if isinstance(args, (str, bytes)):
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
        if pass_fds or self._fd_map:
            fds = table(streams, pass_fds, self._fd_map)
        else:
            fds = tuple(streams)
        self.pid, self._pidfd = launch(
            spec, args, executable, env, fds, close_fds, restore_signals, self._spawn_timeout
        )
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]
            p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite
        )

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
                if self.returncode is None:
                    self._reap(0)
            except _error:
                if _deadstate is not None:
                    self.returncode = _deadstate
            finally:
                lock.release()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            limit = -1 if timeout is None else max(timeout, 0)
            lock = self._waitpid_lock  # type: ignore[attr-defined]
            if not lock.acquire(timeout=limit):
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
