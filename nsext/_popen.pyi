import io
import subprocess
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, AnyStr, Literal, Unpack, overload

from ._cgroup_handle import CgroupHandle
from ._cgroupfs import Group
from ._fds import HasFileno
from ._flags import Kinds
from ._keywords import Args, Env, File, NamespaceFields
from ._namespace import Namespaces
from ._process import PidfdChild
from ._root import Root
from ._sandbox import Sandbox
from ._spec import Spec, StrOrBytesPath
from ._usage import Usage

class Popen(PidfdChild, subprocess.Popen[AnyStr]):
    pid: int
    returncode: int | Any
    @overload  # text is True
    def __init__(
        self: Popen[str],
        args: Args,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        preexec_fn: None = None,
        close_fds: bool = True,
        shell: bool = False,
        cwd: StrOrBytesPath | None = ...,
        env: Env | None = ...,
        universal_newlines: bool | None = None,
        startupinfo: Any = None,
        creationflags: int = 0,
        restore_signals: bool = True,
        start_new_session: bool = ...,
        pass_fds: Collection[int] = (),
        *,
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        user: str | int | None = ...,
        group: str | int | None = ...,
        extra_groups: Iterable[str | int] | None = ...,
        umask: int = ...,
        pipesize: int = -1,
        process_group: int | None = ...,
        sandbox: Sandbox | None = None,
        fd_map: Mapping[int, int | HasFileno] = ...,
        spawn_timeout: float | None = None,
        paused: bool = False,
        hold: Kinds = ...,
        pty: bool | tuple[int, int] = False,
        **fields: Unpack[NamespaceFields],
    ) -> None: ...
    @overload  # encoding is given
    def __init__(
        self: Popen[str],
        args: Args,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        preexec_fn: None = None,
        close_fds: bool = True,
        shell: bool = False,
        cwd: StrOrBytesPath | None = ...,
        env: Env | None = ...,
        universal_newlines: bool | None = None,
        startupinfo: Any = None,
        creationflags: int = 0,
        restore_signals: bool = True,
        start_new_session: bool = ...,
        pass_fds: Collection[int] = (),
        *,
        text: bool | None = None,
        encoding: str,
        errors: str | None = None,
        user: str | int | None = ...,
        group: str | int | None = ...,
        extra_groups: Iterable[str | int] | None = ...,
        umask: int = ...,
        pipesize: int = -1,
        process_group: int | None = ...,
        sandbox: Sandbox | None = None,
        fd_map: Mapping[int, int | HasFileno] = ...,
        spawn_timeout: float | None = None,
        paused: bool = False,
        hold: Kinds = ...,
        pty: bool | tuple[int, int] = False,
        **fields: Unpack[NamespaceFields],
    ) -> None: ...
    @overload  # errors is given
    def __init__(
        self: Popen[str],
        args: Args,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        preexec_fn: None = None,
        close_fds: bool = True,
        shell: bool = False,
        cwd: StrOrBytesPath | None = ...,
        env: Env | None = ...,
        universal_newlines: bool | None = None,
        startupinfo: Any = None,
        creationflags: int = 0,
        restore_signals: bool = True,
        start_new_session: bool = ...,
        pass_fds: Collection[int] = (),
        *,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str,
        user: str | int | None = ...,
        group: str | int | None = ...,
        extra_groups: Iterable[str | int] | None = ...,
        umask: int = ...,
        pipesize: int = -1,
        process_group: int | None = ...,
        sandbox: Sandbox | None = None,
        fd_map: Mapping[int, int | HasFileno] = ...,
        spawn_timeout: float | None = None,
        paused: bool = False,
        hold: Kinds = ...,
        pty: bool | tuple[int, int] = False,
        **fields: Unpack[NamespaceFields],
    ) -> None: ...
    @overload  # universal_newlines is True
    def __init__(
        self: Popen[str],
        args: Args,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        preexec_fn: None = None,
        close_fds: bool = True,
        shell: bool = False,
        cwd: StrOrBytesPath | None = ...,
        env: Env | None = ...,
        *,
        universal_newlines: Literal[True],
        startupinfo: Any = None,
        creationflags: int = 0,
        restore_signals: bool = True,
        start_new_session: bool = ...,
        pass_fds: Collection[int] = (),
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        user: str | int | None = ...,
        group: str | int | None = ...,
        extra_groups: Iterable[str | int] | None = ...,
        umask: int = ...,
        pipesize: int = -1,
        process_group: int | None = ...,
        sandbox: Sandbox | None = None,
        fd_map: Mapping[int, int | HasFileno] = ...,
        spawn_timeout: float | None = None,
        paused: bool = False,
        hold: Kinds = ...,
        pty: bool | tuple[int, int] = False,
        **fields: Unpack[NamespaceFields],
    ) -> None: ...
    @overload  # none of them
    def __init__(
        self: Popen[bytes],
        args: Args,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        preexec_fn: None = None,
        close_fds: bool = True,
        shell: bool = False,
        cwd: StrOrBytesPath | None = ...,
        env: Env | None = ...,
        universal_newlines: Literal[False] | None = None,
        startupinfo: Any = None,
        creationflags: int = 0,
        restore_signals: bool = True,
        start_new_session: bool = ...,
        pass_fds: Collection[int] = (),
        *,
        text: Literal[False] | None = None,
        encoding: None = None,
        errors: None = None,
        user: str | int | None = ...,
        group: str | int | None = ...,
        extra_groups: Iterable[str | int] | None = ...,
        umask: int = ...,
        pipesize: int = -1,
        process_group: int | None = ...,
        sandbox: Sandbox | None = None,
        fd_map: Mapping[int, int | HasFileno] = ...,
        spawn_timeout: float | None = None,
        paused: bool = False,
        hold: Kinds = ...,
        pty: bool | tuple[int, int] = False,
        **fields: Unpack[NamespaceFields],
    ) -> None: ...
    @overload  # whatever
    def __init__(
        self: Popen[Any],
        args: Args,
        bufsize: int = -1,
        executable: StrOrBytesPath | None = None,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        preexec_fn: None = None,
        close_fds: bool = True,
        shell: bool = False,
        cwd: StrOrBytesPath | None = ...,
        env: Env | None = ...,
        universal_newlines: bool | None = None,
        startupinfo: Any = None,
        creationflags: int = 0,
        restore_signals: bool = True,
        start_new_session: bool = ...,
        pass_fds: Collection[int] = (),
        *,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        user: str | int | None = ...,
        group: str | int | None = ...,
        extra_groups: Iterable[str | int] | None = ...,
        umask: int = ...,
        pipesize: int = -1,
        process_group: int | None = ...,
        sandbox: Sandbox | None = None,
        fd_map: Mapping[int, int | HasFileno] = ...,
        spawn_timeout: float | None = None,
        paused: bool = False,
        hold: Kinds = ...,
        pty: bool | tuple[int, int] = False,
        **fields: Unpack[NamespaceFields],
    ) -> None: ...
    @property
    def body(self) -> Literal["inline", "helper"]: ...
    @property
    def inner_pid(self) -> int: ...
    @property
    def program_pid(self) -> int: ...
    @property
    def cgroup(self) -> CgroupHandle | None: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def namespaces(self) -> Namespaces: ...
    @property
    def pty(self) -> io.FileIO | None: ...
    @property
    def root(self) -> Root | None: ...
    def resume(self) -> None: ...
    def send_signal(self, sig: int) -> None: ...
    async def wait_async(self) -> int: ...
    # For _limits, _asyncio and _anyio.
    _begun: int
    _group: Group | None
    def _is_first(self) -> bool: ...
    _exact: bool
    _spec: Spec
    def _execute_child(self, *args: Any) -> None: ...
    _child_created: bool
    _patience: float | None
    async def _finish(self, sleep: Callable[[float], Awaitable[object]]) -> None: ...
    def _drop(self) -> None: ...
    def _discard(self) -> None: ...
