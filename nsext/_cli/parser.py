"""argparse, for help and for every command but run and enter, which read their own options."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

from .._version import __version__
from . import FAILED
from .options import FIELD_OPTIONS, Option, UsageError
from .run import OPTIONS, complain

_PROGRAM = """\
Programs in Linux namespaces of their own, or in those of others.
"""

_EXAMPLES = """\
examples:
  nsext run --new user,pid,mnt bash           a shell that sees its own processes only
  nsext run --new net --timeout 60 make test  without a network
  nsext enter 4711 --only net ip addr         the network of process 4711
  nsext list net                              all network namespaces

exit status: that of the program; 124 after --timeout; 125 where nsext itself fails; 126 where the
program cannot be executed, 127 where it is not found.  A program that is killed by a signal ends
nsext by the same signal.
"""

_RUN = """\
examples:
  nsext run --new user,pid,uts --hostname box -- sh -c 'hostname; echo $$'
  nsext run --new user,pid,mnt --init bash    with an init that reaps as PID 1
  nsext run --rlimits nofile=64,core=0 --nice 10 --affinity 0-3 make
  nsext run --new user,net --write-toml >box.toml
  nsext run --from box.toml --cwd /tmp make test

nsext run stands before a program as env(1) does: standard streams and inherited descriptors are
the program's, signals are passed on, and when nsext is killed the program is killed too.  The
fields are those of nsext.Sandbox.  A field that is given replaces that of --from as a whole.
"""

_ENTER = """\
examples:
  nsext enter 4711                            a shell in all namespaces of process 4711
  nsext enter 4711 --only net -- ss -lnt      in its network namespace
  nsext enter /run/netns/blue ip addr         in a namespace that is bound to a file

Without PROGRAM it is $SHELL.  The options are those of nsext run.
"""


class Parser(argparse.ArgumentParser):
    """Ends with 125, as the other errors of nsext itself."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Say what is wrong, and end."""
        self.exit(125, f"nsext: {message}\nnsext: '{self.prog} --help' tells more\n")


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    """The options of run and enter, as argparse has them."""
    fields = parser.add_argument_group("the program's surroundings")
    others = parser.add_argument_group("nsext itself")
    for option in options:
        group = fields if option in FIELD_OPTIONS else others
        text = option.help.replace("%", "%%")
        if option.metavar is None:
            group.add_argument(
                option.name, dest=option.name, action="store_const", const=True, help=text
            )
            if option.opposite:
                hidden = option.opposite.startswith("--no-")
                group.add_argument(
                    option.opposite,
                    dest=option.name,
                    action="store_const",
                    const=False,
                    help=argparse.SUPPRESS if hidden else f"not {option.name}",
                )
        else:
            group.add_argument(
                option.name, dest=option.name, action="append", metavar=option.metavar, help=text
            )


def _formatter(prog: str) -> argparse.RawDescriptionHelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=36)


def build() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
        prog="nsext",
        description=_PROGRAM,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nsext {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)

    def add(name: str, help: str, epilog: str, usage: str | None = None) -> Any:
        return commands.add_parser(
            name, help=help, description=help, epilog=epilog, usage=usage,
            formatter_class=_formatter,
        )  # fmt: skip

    run = add(
        "run",
        "run a program in namespaces of its own",
        _RUN,
        "nsext run [options] [--] PROGRAM [ARGUMENT ...]",
    )
    add_options(run, OPTIONS["run"])
    run.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM", help=argparse.SUPPRESS)
    enter = add(
        "enter",
        "run a program in namespaces that exist",
        _ENTER,
        "nsext enter [options] PID|PATH|NAME [options] [--] [PROGRAM [ARGUMENT ...]]",
    )
    enter.add_argument("target", metavar="PID|PATH|NAME", help=argparse.SUPPRESS)
    add_options(enter, OPTIONS["enter"])
    enter.add_argument("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    from . import completion, namespaces

    namespaces.add_parsers(add)
    completion.add_parser(add)
    return parser


def command(words: list[str]) -> int:
    """Read a command line, and call the command."""
    parser = build()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what is half done is undone
    try:
        given = parser.parse_args(words)
    except SystemExit as end:
        sys.stdout.flush()
        return int(end.code or 0)
    function: Callable[[argparse.Namespace], int] = given.function
    if sys.stdout is None:
        complain("standard output is closed")
        return 1
    try:
        return function(given)
    except BrokenPipeError:
        raise
    except UsageError as error:
        complain(f"{error}\nnsext: '{parser.prog} {given.command} --help' tells more")
        return FAILED
    except (OSError, ValueError) as error:
        from .namespaces import failed

        return failed(error)
