"""``nsext run`` and ``nsext enter``: a transparent prefix of a program."""

from __future__ import annotations

import os
import sys

from .._spec import Spec
from . import FAILED
from .options import FIELD_OPTIONS, RUN_OPTIONS, HelpWanted, Option, UsageError, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


TIMED_OUT, NOT_EXECUTABLE, NOT_FOUND = 124, 126, 127

_ONLY = Option("--only", "of these kinds alone", "KINDS", lambda words: " ".join(words))
OPTIONS = {
    "run": (*FIELD_OPTIONS, *RUN_OPTIONS),
    "enter": (_ONLY, *(option for option in FIELD_OPTIONS if option.field != "join"), *RUN_OPTIONS),
}


def complain(text: str) -> None:
    """A line on standard error, if there is one."""
    try:
        os.write(2, f"nsext: {text}\n".encode(errors="surrogateescape"))
    except OSError:
        pass


def describe(given: dict[Option, Any], target: str | None) -> Spec:
    """The description that the options give.  Raises TypeError, ValueError, OSError."""
    options = {option.name: value for option, value in given.items()}
    fields = {option.field: value for option, value in given.items() if option.field}
    source = options.get("--from")
    if source is not None:
        from pathlib import Path

        from .._text import from_toml

        try:
            fields = {**from_toml(Path(source)), **fields}
        except (TypeError, ValueError) as error:
            raise ValueError(f"{source}: {error}") from None
    if target is not None:
        from .target import joins

        fields["join"] = joins(target, options.get("--only"))
    if options.get("--untrusted"):
        from .._sandbox import Sandbox

        return Sandbox.untrusted(**fields)
    return Spec(**fields)


def command(name: str, words: list[str]) -> int:
    """Run the program that *words* give."""
    try:
        given, argv = read(OPTIONS[name], words)
        target = None
        if name == "enter":
            if not argv:
                raise UsageError("a process or a namespace to enter: PID, PATH or NAME")
            target, *argv = argv
            given_after, argv = read(OPTIONS[name], argv)
            given.update(given_after)
            argv = argv or [os.environ.get("SHELL") or "/bin/sh"]
        spec = describe(given, target)
    except HelpWanted:
        from .parser import command as show

        return show([name, "--help"])
    except UsageError as error:
        complain(f"{error}\nnsext: 'nsext {name} --help' tells more")
        return FAILED
    except OSError as error:
        return _failed(error)
    except (TypeError, ValueError) as error:
        return _wrong(error)
    return _start(spec, {option.name: value for option, value in given.items()}, argv)


def _start(spec: Spec, options: dict[str, Any], argv: list[str]) -> int:
    if options.get("--write-toml") or options.get("--explain"):
        return _show(spec, options, argv)
    spec = _bound(spec, options)
    if not argv:
        complain("no program to run\nnsext: 'nsext run --help' tells more")
        return FAILED
    if not argv[0]:
        complain("'': No such file or directory")
        return NOT_FOUND
    variables = options.get("--setenv")
    if variables:
        spec = spec.replace(env={**(os.environ if spec.env is None else spec.env), **variables})
    timeout = options.get("--timeout")
    if options.get("--pty"):
        from .terminal import run
    else:
        from .supervise import run

    try:
        run(spec, argv, timeout, options.get("--pass-fds"))
    except OSError as error:
        return _failed(error)
    except (KeyError, TypeError, ValueError) as error:
        return _wrong(error)


def _bound(spec: Spec, options: dict[str, Any]) -> Spec:
    """With kill_on_parent_exit, unless an option says otherwise."""
    if "--kill-on-parent-exit" in options or spec.kill_on_parent_exit:
        return spec
    return spec.replace(kill_on_parent_exit=True)


def _wrong(error: Exception) -> int:
    """Say which value is wrong; return the exit status."""
    from .words import in_options

    text = str(error)
    if isinstance(error, KeyError):  # pwd's and grp's
        database, _, name = str(error.args[0]).rpartition(": ")
        text = f"there is no {'group' if database.startswith('getgr') else 'user'} {name}"
    complain(in_options(text))
    return FAILED


def _failed(error: OSError) -> int:
    """Say why there is no program; return the exit status."""
    from .._errors import SpawnError
    from .words import in_options

    if not isinstance(error, SpawnError):
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        complain(f"{place}{error.strerror or error}")
        return FAILED
    import errno

    if error.errno == errno.ETIMEDOUT and (error.strerror or "").startswith("not done"):
        return TIMED_OUT
    if error.filename is not None:
        complain(f"{os.fsdecode(error.filename)}: {error.strerror}")
    else:
        complain(f"{error.step}: {error.strerror}")
    if error.hint:
        complain(f"hint: {in_options(error.hint)}")
    if error.stage != "exec":
        return FAILED
    return NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE


def _show(spec: Spec, options: dict[str, Any], argv: list[str]) -> int:
    """--write-toml and --explain."""
    if sys.stdout is None:
        complain("standard output is closed")
        return FAILED
    try:
        if options.get("--write-toml"):
            if options.get("--setenv"):
                raise ValueError("--setenv is no part of a description: say --env")
            from .._text import to_toml

            sys.stdout.write(to_toml(spec))
        if options.get("--explain"):
            from .._explain import explain

            words = explain(_bound(spec, options), argv or ["PROGRAM"], bool(options.get("--pty")))
            sys.stdout.write(f"{words}\n")
        sys.stdout.flush()
    except (TypeError, ValueError) as error:
        return _wrong(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _failed(error)
    return 0
