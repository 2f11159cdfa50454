"""The nsext command.

``nsext run`` is to start in little more than the interpreter takes: nothing is imported here that
it does not need.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

FAILED = 125  # as env(1) and timeout(1): nsext itself failed, not the program

# Where each command is, imported when it is called.
COMMANDS = {
    "run": "run",
    "enter": "run",
    "list": "parser",
    "show": "parser",
    "hold": "parser",
    "drop": "parser",
    "check": "parser",
    "completion": "parser",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit status.  What a program is run for does not return."""
    words = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(words)
    except BrokenPipeError:
        # Whoever read our output has gone, as head(1) does: end as a program without a handler.
        from .signals import die_by

        die_by("SIGPIPE")
    except KeyboardInterrupt:
        from .signals import die_by

        die_by("SIGINT")
    except Exception:
        import traceback

        traceback.print_exc()
        return FAILED


def _dispatch(words: list[str]) -> int:
    name = words[0] if words else ""
    place = COMMANDS.get(name)
    if place == "run":
        # By python -m: the interpreter drops a KeyboardInterrupt in what import calls back.
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        from . import run

        return run.command(name, words[1:])
    from . import parser

    return parser.command(words)


def script() -> None:
    """The entry of the installed script, and of python -m nsext."""
    status = main()
    try:
        if sys.stdout is not None:  # as it is where the descriptor is closed
            sys.stdout.flush()
    except BrokenPipeError:
        from .signals import die_by

        die_by("SIGPIPE")
    except OSError as error:
        os.write(2, f"nsext: standard output: {error.strerror}\n".encode())
        status = status or 1
    # Not sys.exit(): to take the interpreter apart costs as much as a spawn.
    if sys.stderr is not None:
        sys.stderr.flush()
    os._exit(status)
