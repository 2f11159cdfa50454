"""``nsext completion``: what a shell needs to complete the command line."""

from __future__ import annotations

import argparse
from typing import Any

from .._flags import BY_KIND
from . import COMMANDS
from .options import Option
from .run import OPTIONS

_BASH = """\
# bash completion of nsext: source <(nsext completion bash)
_nsext() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local command=${COMP_WORDS[1]} options takes kinds="@KINDS@ all" at
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "@COMMANDS@" -- "$cur"))
        return
    fi
    case $command in
@CASES@    *) return ;;
    esac
    # After the options of run, and after the target of enter, there is a program.
    if [[ $command == run || $command == enter ]]; then
        local targets=0
        [[ $command == enter ]] && targets=1
        for ((at = 2; at < COMP_CWORD; at++)); do
            case ${COMP_WORDS[at]} in
            --) ((at++)); break ;;
            -*=*) ;;
            -*) [[ $takes == *" ${COMP_WORDS[at]} "* ]] && ((at++)) ;;
            *) ((targets-- > 0)) || break ;;
            esac
        done
        # Past COMP_CWORD: this word is an option's argument.
        if ((targets <= 0 && at <= COMP_CWORD)) &&
            [[ $at -lt $COMP_CWORD || $cur != -* || $prev == -- ]]; then
            if declare -F _command_offset >/dev/null; then
                _command_offset $at
            elif ((at == COMP_CWORD)); then
                COMPREPLY=($(compgen -c -- "$cur"))
            else
                COMPREPLY=($(compgen -f -- "$cur"))
            fi
            return
        fi
    fi
    case $prev in
    --new | --only)
        local before=${cur%"${cur##*,}"}
        COMPREPLY=($(compgen -P "$before" -W "$kinds" -- "${cur##*,}"))
        compopt -o nospace
        return
        ;;
    --root | --cwd) COMPREPLY=($(compgen -d -- "$cur")); return ;;
    --from | --bind) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    --user) COMPREPLY=($(compgen -u -- "$cur")); return ;;
    --group) COMPREPLY=($(compgen -g -- "$cur")); return ;;
    --propagation) COMPREPLY=($(compgen -W "private slave shared unchanged" -- "$cur")); return ;;
    esac
    [[ $takes == *" $prev "* ]] && return
    case $command in
    list | check) [[ $cur != -* ]] && options=$kinds ;;
    show) [[ $cur != -* ]] && options=$(command ls /proc | command grep '^[0-9]') ;;
    enter | drop)
        [[ $cur != -* ]] && options=$(command ls /run/netns /run/nsext 2>/dev/null |
            command grep -v ':$')
        ;;
    completion) options="bash zsh fish" ;;
    esac
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
}
complete -F _nsext nsext
"""

_MORE = {
    "list": ("--json", "--tree"),
    "show": ("--json",),
    "hold": ("--new",),
    "drop": (),
    "check": ("--json",),
    "completion": (),
}


def _names(options: tuple[Option, ...]) -> list[str]:
    return [name for option in options for name in (option.name, option.opposite) if name]


def bash() -> str:
    """The script for bash."""
    cases = []
    for command in COMMANDS:
        if command in OPTIONS:
            names = _names(OPTIONS[command])
            takes = [option.name for option in OPTIONS[command] if option.metavar]
        else:
            names = [*_MORE[command]]
            takes = ["--new"] if command == "hold" else []
        cases.append(
            f'    {command}) options="{" ".join(names)} --help" takes=" {" ".join(takes)} " ;;\n'
        )
    return (
        _BASH.replace("@KINDS@", " ".join(BY_KIND))
        .replace("@COMMANDS@", f"{' '.join(COMMANDS)} --help --version")
        .replace("@CASES@", "".join(cases))
    )


def zsh() -> str:
    """The script for zsh, which understands bash's."""
    head = "# zsh completion of nsext: source <(nsext completion zsh)\n"
    return f"{head}autoload -U +X bashcompinit && bashcompinit\n{bash().partition(chr(10))[2]}"


def fish() -> str:
    """The script for fish."""
    lines = ["# fish completion of nsext: nsext completion fish | source"]
    first = "__fish_use_subcommand"
    lines += [f"complete -c nsext -n {first} -f -a {command}" for command in COMMANDS]
    for command in COMMANDS:
        seen = f"'__fish_seen_subcommand_from {command}'"
        for option in OPTIONS.get(command, ()):
            text = option.help.replace("\\", "\\\\").replace("'", "\\'")
            needs = " -r" if option.metavar else ""
            lines.append(f"complete -c nsext -n {seen} -l {option.name[2:]}{needs} -d '{text}'")
            if option.opposite:
                lines.append(f"complete -c nsext -n {seen} -l {option.opposite[2:]}")
        lines += [f"complete -c nsext -n {seen} -l {name[2:]}" for name in _MORE.get(command, ())]
        if command in ("list", "check"):
            lines.append(f"complete -c nsext -n {seen} -f -a '{' '.join(BY_KIND)} all'")
    return "\n".join(lines) + "\n"


_SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def show(given: argparse.Namespace) -> int:
    """nsext completion"""
    print(_SHELLS[given.shell](), end="")
    return 0


def add_parser(add: Any) -> None:
    """Its command line."""
    parser = add(
        "completion",
        "print what a shell needs to complete the command line",
        "examples:\n"
        "  source <(nsext completion bash)\n"
        "  nsext completion bash >/usr/share/bash-completion/completions/nsext\n"
        "  nsext completion fish >~/.config/fish/completions/nsext.fish\n",
    )
    parser.add_argument("shell", choices=sorted(_SHELLS))
    parser.set_defaults(function=show)
