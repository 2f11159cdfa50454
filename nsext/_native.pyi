from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

_Failure: TypeAlias = tuple[str, int, int, int, int]  # kind, step, errno, aux, signal
_Child: TypeAlias = Any  # a capsule
_Held: TypeAlias = Any  # a capsule

CHILD_TEXT: Final[tuple[int, int]]
STEPS: Final[dict[str, tuple[str, str]]]
HELPER_STEPS: Final[frozenset[str]]

def pack(
    new_flags: int,
    steps: tuple[tuple[Any, ...], ...],
    uid_map: bytes | None,
    gid_map: bytes | None,
    /,
) -> bytes: ...
def spawn(
    blob: bytes,
    argv: Iterable[Any],
    executable: Any,
    env: Mapping[Any, Any] | None,
    fds: tuple[tuple[int, int], ...],
    close_fds: bool,
    timeout: float | None,
    helper: str | None,
    joins: tuple[tuple[int, int], ...],
    patience: float | None,
    owner: object,
    /,
) -> _Failure | None: ...
def finish(
    child: _Child, timeout: float | None, patience: float | None, owner: object, /
) -> _Failure | None: ...
def abort(child: _Child, /) -> None: ...
def report(child: _Child, /) -> tuple[int, int | None]: ...  # inner pid, wait status
def resume(child: _Child, timeout: float | None, owner: object, /) -> _Failure | None: ...
def clone(
    blob: bytes,
    entry: int,
    arg: int,
    stack_size: int,
    timeout: float | None,
    owner: object,
    /,
) -> _Failure | None: ...
def child() -> _Held: ...
def child_wait(child: _Held, timeout: float | None, /) -> int | None: ...
def child_signal(child: _Held, sig: int, /) -> None: ...
def child_state(child: _Held, /) -> tuple[int, int, bool]: ...  # pid, pidfd, has an init
def child_usage(child: _Held, /) -> bytes | None: ...
def child_discard(child: _Held, /) -> None: ...
def adopt(pidfd: int, /) -> None: ...
def wait(pidfd: int, timeout: float | None, owner: object, /) -> int | None: ...
def send_signal(pidfd: int, sig: int, /) -> None: ...
def capsule_pointer(capsule: object, /) -> int: ...
def unshare(flags: int, /) -> None: ...
def setns(fd: int, nstype: int, /) -> None: ...
def pidfd_open(pid: int, flags: int, /) -> int: ...
