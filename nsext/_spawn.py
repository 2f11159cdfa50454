"""spawn(): a program in namespaces of its own, at the cost of the bare system call."""

from __future__ import annotations

import os
from sys import audit

from ._fds import standard_streams, table
from ._launch import BARE, UNSET, fail, launch, resolve
from ._native import spawn as native_spawn
from ._process import Process
from ._spec import Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _collections_abc import Iterable, Mapping, Sequence
    from typing import Any, TypeAlias, Unpack

    from ._fds import HasFileno
    from ._keywords import SandboxFields
    from ._spec import StrOrBytesPath

Args: TypeAlias = "StrOrBytesPath | Sequence[StrOrBytesPath]"
File: TypeAlias = "int | HasFileno | None"
_NO_FDS: Mapping[int, Any] = {}


def argument_list(args: Any) -> list[Any]:
    """*args* as subprocess takes them, as a list.  Raises ValueError where it is empty."""
    if isinstance(args, (str, bytes, os.PathLike)):
        return [args]
    argv = list(args)
    if not argv:
        raise ValueError("args is empty: the program is its first item")
    return argv


def spawn(
    args: Args,
    *,
    sandbox: Spec | None = None,
    stdin: File = None,
    stdout: File = None,
    stderr: File = None,
    executable: StrOrBytesPath | None = None,
    pass_fds: Iterable[int] = (),
    close_fds: bool = True,
    fd_map: Mapping[int, int | HasFileno] = _NO_FDS,
    spawn_timeout: float | None = None,
    **fields: Unpack[SandboxFields],
) -> Process:
    """Start a program and return its Process.

    args, stdin, stdout, stderr, executable, pass_fds, close_fds: as in subprocess.Popen, without
        PIPE.
    fd_map: {descriptor in the child: descriptor here}, cycles included.
    sandbox: a nsext.Sandbox; *fields* are fields of it, and replace them as a whole.
    spawn_timeout: seconds that the set-up may take, up to exec.

    Raises SpawnError, FileNotFoundError ... (which are SpawnErrors too) and SpawnTimeout;
    TypeError and ValueError for wrong arguments.  See clone(2), namespaces(7).
    """
    argv = args[:] if type(args) is list and args else argument_list(args)
    env = fields.pop("env", UNSET) if fields else UNSET
    spec = sandbox if not fields and isinstance(sandbox, Spec) else resolve(sandbox, fields)
    if executable is None:
        executable = argv[0]
    audit("nsext.spawn", executable, argv, spec)
    devnull = -1
    fds: tuple[tuple[int, int], ...] = ()
    if stdin is not None or stdout is not None or stderr is not None or pass_fds or fd_map:
        streams, devnull = standard_streams(stdin, stdout, stderr)
    else:
        streams = None
    group = None
    if spec.cgroup is None:
        process = Process(args, spec.new)  # type: ignore[arg-type]
    else:
        from ._grouped import GroupedProcess

        process = grouped = GroupedProcess(args, int(spec.new), spec.cgroup)  # type: ignore[arg-type]
        group = grouped._group
    try:
        if streams is not None:
            fds = table(streams, pass_fds, fd_map)
        values = (spec, argv, executable, env, fds, close_fds, True, spawn_timeout)
        launch(*values, process._child, group=group)
    except BaseException:
        process._discard()
        raise
    finally:
        if devnull >= 0:
            os.close(devnull)
    return process


_spawn = spawn
if not TYPE_CHECKING:

    def spawn(args, *, sandbox=None, **options):
        """See _spawn."""
        # The short way, where there is nothing but a sandbox, and that needs nothing prepared.
        # All code that runs here is cold after the last exec, and each keyword that is not given
        # is looked up: 10 us less.
        if not options and type(args) is list and args and isinstance(sandbox, Spec):
            plans = sandbox._plans
            if BARE in plans:  # see kept_plan()
                plan = plans[BARE]
                argv = args[:]
                executable = argv[0]
                audit("nsext.spawn", executable, argv, sandbox)
                process = Process(args, sandbox.new)
                try:
                    failure = native_spawn(
                        plan.blob,
                        argv,
                        executable,
                        sandbox.env,
                        (),
                        True,
                        None,
                        plan.helper,
                        (),
                        None,
                        process._child,
                    )
                    if failure is None:
                        return process
                except BaseException:
                    process._discard()
                    raise
                fail(failure, plan, sandbox, executable, argv, None)
        return _spawn(args, sandbox=sandbox, **options)

    spawn.__doc__ = _spawn.__doc__
    spawn.__wrapped__ = _spawn  # for inspect.signature()
