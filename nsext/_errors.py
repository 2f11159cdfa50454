"""Exceptions: subprocess's and OSError's families, with the step that failed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

Stage: TypeAlias = "Literal['plan', 'clone', 'idmap', 'setup', 'cwd', 'exec']"


class SpawnError(OSError):
    """A process could not be started as asked; nothing of it is left.

    errno, strerror, filename: as in every OSError; filename is set for the program and the
        working directory only, as subprocess sets it.
    stage: how far it came: "plan", "clone", "idmap", "setup", "cwd" or "exec".
    step: what was being done, in words: "mount proc on /proc".
    path: the file that the step was about, or None.
    hint: the likely cause and its remedy, or None.

    With stage "exec" or "cwd" it is also the FileNotFoundError, PermissionError ... that
    subprocess would raise; with any other stage it is never one of these.
    """

    stage: Stage
    step: str
    path: str | None
    hint: str | None

    def __init__(
        self,
        errno: int,
        strerror: str,
        filename: Any = None,
        *,
        stage: Stage = "setup",
        step: str = "",
        path: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(errno, strerror, *(() if filename is None else (filename,)))
        self.stage = stage
        self.step = step
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        if self.stage in ("exec", "cwd") and self.filename is not None:
            text = super().__str__()
        else:
            text = f"[Errno {self.errno}] {self.step}: {self.strerror}"
        return f"{text} ({self.hint})" if self.hint else text

    def _state(self) -> dict[str, Any]:
        return {"stage": self.stage, "step": self.step, "path": self.path, "hint": self.hint}

    def __reduce__(self) -> tuple[Any, ...]:
        base = next(known for known in type(self).__mro__ if known.__module__.startswith("nsext._"))
        args = (self.errno, self.strerror, self.filename)
        return _rebuild, (base, args, self._state(), self.__dict__)


class UnsupportedError(SpawnError, NotImplementedError):
    """This kernel or machine cannot do it; the text says what could."""


_EXEC_CLASSES: dict[type, type[SpawnError]] = {OSError: SpawnError}


def _exec_class(errno: int) -> type[SpawnError]:
    """SpawnError that is also the OSError subclass of *errno*, if it has one."""
    builtin = type(OSError(errno, ""))
    if builtin not in _EXEC_CLASSES:
        space = {"__module__": "nsext"}
        made = type(f"Spawn{builtin.__name__}", (SpawnError, builtin), space)
        return _EXEC_CLASSES.setdefault(builtin, made)
    return _EXEC_CLASSES[builtin]


def make_error(errno: int, strerror: str, filename: Any, **state: Any) -> SpawnError:
    """A SpawnError of the class that its stage and errno ask for."""
    base = _exec_class(errno) if state["stage"] in ("exec", "cwd") else SpawnError
    return base(errno, strerror, filename, **state)


def _rebuild(
    base: type[SpawnError], args: tuple[Any, ...], state: dict[str, Any], extra: dict[str, Any]
) -> SpawnError:
    if base is SpawnError:
        error = make_error(*args, **state)
    else:
        error = base(*args, **state)
    error.__dict__.update(extra)
    return error
