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
            if [[ -n $BASH_VERSION ]] && declare -F _command_offset >/dev/null; then
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
        [[ -n $BASH_VERSION ]] && compopt -o nospace
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
    head += "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }\n"
    return f"{head}autoload -U +X bashcompinit && bashcompinit\n{bash().partition(chr(10))[2]}"


_FISH = """\
# fish completion of nsext: nsext completion fish | source
# The words after the options of run, and after the target of enter: a program's.
function __nsext_program
    set -l words (commandline -opc) (commandline -ct)
    set -l targets 0
    test "$words[2]" = enter; and set targets 1
    set words $words[3..-1]
    while set -q words[1]
        switch $words[1]
            case --
                set words $words[2..-1]
                break
            case '-*=*'
                set words $words[2..-1]
            case @TAKES@
                set words $words[3..-1]
            case '-*'
                set words $words[2..-1]
            case '*'
                test $targets -gt 0; or break
                set targets (math $targets - 1)
                set words $words[2..-1]
        end
    end
    set -q words[1]; and printf '%s\\n' $words
end
function __nsext_options
    contains -- (commandline -opc)[2] $argv; and test (count (__nsext_program)) -le 1
end
function __nsext_complete_program
    set -l words (__nsext_program)
    set -q words[1]; and complete -C "$words"
end
function __nsext_kinds
    printf '%s\\n' @KINDS@ all
end
function __nsext_held
    command ls /run/netns /run/nsext 2>/dev/null | string match -v -- '*:' | string match -r -- '.+'
end
"""

_WHAT = {
    "--new": "(__fish_complete_list , __nsext_kinds)",
    "--only": "(__fish_complete_list , __nsext_kinds)",
    "--propagation": "private slave shared unchanged",
    "--keyring": "new inherit",
    "--uid-map": "root self auto",
    "--gid-map": "root self auto",
    "--cwd": "(__fish_complete_directories)",
    "--user": "(__fish_complete_users)",
    "--group": "(__fish_complete_groups)",
}
_ARGUMENTS = {
    "list": "(__nsext_kinds)",
    "check": "(__nsext_kinds)",
    "show": "(__fish_complete_pids)",
    "drop": "(__nsext_held)",
    "completion": "bash zsh fish",
}


def _fish_option(seen: str, name: str, needs: bool, text: str = "") -> str:
    line = f"complete -c nsext -n {seen} -l {name[2:]}"
    if name in _WHAT:
        line += f" -x -a '{_WHAT[name]}'"
    elif needs:
        line += " -r"
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"{line} -d '{quoted}'" if text else line


def fish() -> str:
    """The script for fish."""
    takes = dict.fromkeys(
        option.name for options in OPTIONS.values() for option in options if option.metavar
    )
    lines = [_FISH.replace("@TAKES@", " ".join(takes)).replace("@KINDS@", " ".join(BY_KIND))]
    lines += [f"complete -c nsext -n __fish_use_subcommand -f -a {command}" for command in COMMANDS]
    for command in COMMANDS:
        if command in OPTIONS:
            seen = f"'__nsext_options {command}'"
            for option in OPTIONS[command]:
                needs = option.metavar is not None
                lines.append(_fish_option(seen, option.name, needs, option.help))
                if option.opposite:
                    lines.append(_fish_option(seen, option.opposite, False))
            words = "(__nsext_complete_program)"
            if command == "enter":
                lines.append(f"complete -c nsext -n {seen} -a '(__nsext_held)'")
            program = f"'__fish_seen_subcommand_from {command}'"
            lines.append(f"complete -c nsext -n {program} -f -a '{words}'")
            continue
        seen = f"'__fish_seen_subcommand_from {command}'"
        lines += [_fish_option(seen, name, name == "--new") for name in _MORE[command]]
        if command in _ARGUMENTS:
            lines.append(f"complete -c nsext -n {seen} -f -a '{_ARGUMENTS[command]}'")
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
