"""Keywords of the spawning functions, for type checkers: nothing here is used at run time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

from ._cgroup import CgroupLike
from ._fds import HasFileno
from ._flags import Kinds
from ._join import Joins
from ._landlock import Landlock
from ._mounts import MountSpec
from ._spec import (
    Capabilities,
    IdMap,
    Keyring,
    Propagation,
    Rlimits,
    Scheduling,
    Seccomp,
    Size,
    Spec,
    StrOrBytesPath,
)

Args: TypeAlias = "StrOrBytesPath | Sequence[StrOrBytesPath]"
File: TypeAlias = "int | HasFileno | None"
Env: TypeAlias = "Mapping[str, StrOrBytesPath] | Mapping[bytes, StrOrBytesPath]"


class NamespaceFields(TypedDict, total=False):
    """Fields of Sandbox that are no arguments of subprocess.Popen."""

    new: Kinds
    join: Joins | None
    uid_map: IdMap | None
    gid_map: IdMap | None
    hostname: str | None
    domainname: str | None
    time_offsets: Mapping[str, float]
    loopback: bool | None
    propagation: Propagation | None
    proc: bool | None
    root: StrOrBytesPath | MountSpec | None
    mounts: Sequence[MountSpec]
    rlimits: Rlimits
    affinity: Iterable[int] | None
    nice: int | None
    ionice: Scheduling | None
    scheduler: Scheduling | None
    oom_score_adj: int | None
    personality: int | None
    timer_slack: int | None
    dumpable: bool | None
    capabilities: Capabilities | None
    ambient: Iterable[str]
    securebits: int | None
    no_new_privs: bool | None
    seccomp: Seccomp | None
    landlock: Landlock | Mapping[str, Any] | None
    landlock_strict: bool
    disable_userns: bool
    keyring: Keyring | None
    exec_label: str | None
    cgroup: CgroupLike | None
    init: bool
    kill_on_parent_exit: bool


class SandboxFields(NamespaceFields, total=False):
    """All fields of Sandbox."""

    cwd: StrOrBytesPath | None
    env: Env | None
    user: str | int | None
    group: str | int | None
    extra_groups: Iterable[str | int] | None
    umask: int
    start_new_session: bool
    process_group: int | None


class PopenKeywords(NamespaceFields, total=False):
    """What Popen takes by keyword only, and run() too; text, encoding and errors apart."""

    user: str | int | None
    group: str | int | None
    extra_groups: Iterable[str | int] | None
    umask: int
    pipesize: int
    process_group: int | None
    fd_map: Mapping[int, int | HasFileno]
    spawn_timeout: float | None
    pty: bool | tuple[int, int]


class RunKeywords(PopenKeywords, total=False):
    """As PopenKeywords, for run()."""

    capture_output: bool
    check: bool
    timeout: float | None
    cpu_time_limit: float | None
    wall_time_limit: float | None
    output_limit: Size | None


class OutputKeywords(PopenKeywords, total=False):
    """As PopenKeywords, for check_output()."""

    timeout: float | None


class HeldKeywords(PopenKeywords, total=False):
    """As PopenKeywords, for who gets the process: nobody could resume one of run()."""

    paused: bool
    hold: Kinds


class _ProgramKeywords(TypedDict, total=False):
    """What subprocess.Popen takes by position, and all of us by keyword."""

    executable: StrOrBytesPath | None
    preexec_fn: None
    close_fds: bool
    cwd: StrOrBytesPath | None
    env: Env | None
    startupinfo: Any
    creationflags: int
    restore_signals: bool
    start_new_session: bool
    pass_fds: Collection[int]


class _BoxPositional(_ProgramKeywords, total=False):
    """What a Sandbox's methods take by keyword, and the functions by position too."""

    bufsize: int
    stdin: File
    stderr: File
    shell: bool


class BoxPopenKeywords(_BoxPositional, HeldKeywords, total=False):
    """For Sandbox.popen()."""

    stdout: File


class BoxRunKeywords(_BoxPositional, RunKeywords, total=False):
    """For Sandbox.run()."""

    stdout: File


class BoxOutputKeywords(_BoxPositional, OutputKeywords, total=False):
    """For Sandbox.check_output()."""


class BoxCallKeywords(_BoxPositional, OutputKeywords, total=False):
    """For Sandbox.call() and check_call()."""

    stdout: File


class ShellKeywords(_BoxPositional, OutputKeywords, total=False):
    """For getoutput() and getstatusoutput()."""

    input: str | None


class SpawnKeywords(SandboxFields, total=False):
    """For spawn()."""

    stdin: File
    stdout: File
    stderr: File
    executable: StrOrBytesPath | None
    pass_fds: Iterable[int]
    close_fds: bool
    fd_map: Mapping[int, int | HasFileno]
    spawn_timeout: float | None


class BoxAsyncioKeywords(_ProgramKeywords, HeldKeywords, total=False):
    """For Sandbox.create_subprocess_exec() and create_subprocess_shell()."""

    stdin: File
    stdout: File
    stderr: File
    limit: int


class AsyncioKeywords(BoxAsyncioKeywords, total=False):
    """For create_subprocess_exec() and create_subprocess_shell()."""

    sandbox: Spec | None


class BoxAnyioKeywords(_ProgramKeywords, HeldKeywords, total=False):
    """For Sandbox.open_process(); its streams apart."""

    shell: bool


class AnyioKeywords(BoxAnyioKeywords, total=False):
    """For open_process(); its streams apart."""

    sandbox: Spec | None
