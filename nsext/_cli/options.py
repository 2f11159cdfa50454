"""The options of ``nsext run``: one for each field of Sandbox, and those of the command itself.

They are read here and not by argparse, whose import costs as much as the interpreter's own start.
argparse shows them in the help (_cli/parser.py); a test holds the two readings together.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _collections_abc import Callable, Iterable, Sequence
    from typing import Any


class UsageError(Exception):
    """A wrong command line; the text says what is wrong."""


class HelpWanted(Exception):
    """--help, wherever it stands among the options."""


class Option:
    """One option.

    name: "--rlimits"; with the field's name where it is one's.
    metavar: what stands for its argument in the help; None: it takes none.
    parse: from its arguments, of which there is one for each time it is given, to the value.
    opposite: the option that says False.
    into: the option that its arguments are arguments of, with its name before them.
    """

    __slots__ = ("field", "help", "into", "metavar", "name", "opposite", "parse")

    def __init__(
        self,
        name: str,
        help: str,
        metavar: str | None = None,
        parse: Callable[[Sequence[str]], Any] | None = None,
        opposite: str | None = None,
        field: str | None = None,
        into: Option | None = None,
    ) -> None:
        self.name = name
        self.help = help
        self.metavar = metavar
        self.parse = parse
        self.opposite = opposite
        self.field = field
        self.into = into


# ---- from words to values; ValueError says what is wrong


def _last(words: Sequence[str]) -> str:
    return words[-1]


def _joined(words: Sequence[str]) -> str:
    return " ".join(words)


def _items(words: Sequence[str]) -> list[str]:
    """Comma-separated items; the option may be repeated; "" is none at all."""
    return [item for word in words for item in word.replace(",", " ").split()]


def _integer(text: str) -> int:
    try:
        return int(text, 16) if text.lower().startswith("0x") else int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None


def _number(words: Sequence[str]) -> int:
    return _integer(words[-1])


def _octal(words: Sequence[str]) -> int:
    try:
        return int(words[-1], 8)
    except ValueError:
        raise ValueError(f"{words[-1]!r} is no octal number") from None


def _seconds(words: Sequence[str]) -> float:
    try:
        return float(words[-1])
    except ValueError:
        raise ValueError(f"{words[-1]!r} is no number of seconds") from None


def _timeout(words: Sequence[str]) -> float:
    seconds = _seconds(words)
    if not seconds >= 0:
        raise ValueError(f"{words[-1]!r} is no number of seconds")
    return seconds


def _id(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _identity(words: Sequence[str]) -> int | str:
    return _id(words[-1])


def _identities(words: Sequence[str]) -> list[int | str]:
    return [_id(item) for item in _items(words)]


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{text!r} is not {form}")
    return name, value


def _variables(words: Sequence[str]) -> dict[str, str]:
    return dict(_pair(word, "NAME=VALUE") for word in words)


def _targets(words: Sequence[str]) -> Any:
    """PID or PATH alone, or KINDS=PID|PATH, which may be repeated."""
    targets: dict[str, int | str] = {}
    for word in words:
        kinds, equals, target = word.partition("=")
        if not equals or "/" in kinds:
            if len(words) > 1:
                raise ValueError(f"{word!r} is one of several, and names no kinds: net,mnt={word}")
            return _id(word)
        targets[kinds] = _id(target)
    return targets


def _id_map(words: Sequence[str]) -> Any:
    if ":" not in "".join(words):
        return _id(words[-1])
    ranges = []
    for item in _items(words):
        numbers = item.split(":")
        if len(numbers) != 3:
            raise ValueError(f"{item!r} is not INSIDE:OUTSIDE:COUNT")
        ranges.append(tuple(_integer(number) for number in numbers))
    return ranges


def _offsets(words: Sequence[str]) -> dict[str, float]:
    pairs = (_pair(item, "CLOCK=SECONDS") for item in _items(words))
    return {clock: _seconds([seconds]) for clock, seconds in pairs}


def _limits(words: Sequence[str]) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for item in _items(words):
        name, value = _pair(item, "NAME=LIMIT or NAME=SOFT:HARD")
        soft, colon, hard = value.partition(":")
        limits[name] = (soft, hard) if colon else soft
    return limits


_CPUS = 1 << 16  # more than any kernel has; a range is written out


def _cpus(words: Sequence[str]) -> list[int]:
    cpus: list[int] = []
    for item in _items(words):
        first, dash, last = item.partition("-")
        start = end = _integer(first)
        if dash:
            end = _integer(last)
        if not 0 <= start <= end <= _CPUS:
            raise ValueError(f"{item!r} is no CPU, and no range of CPUs")
        cpus += range(start, end + 1)
    return cpus


def _scheduling(words: Sequence[str]) -> Any:
    name, colon, number = words[-1].partition(":")
    return (name, _integer(number)) if colon else name


def _descriptors(words: Sequence[str]) -> list[int]:
    return [_integer(item) for item in _items(words)]


def _capabilities(words: Sequence[str]) -> Any:
    names = _items(words)
    return "all" if names == ["all"] else names


def _landlock(words: Sequence[str]) -> Any:
    """Each is one path or port; "tcp-bind=" is no port at all."""
    rules: dict[str, list[Any]] = {}
    for word in words:
        name, value = _pair(word, "KEY=VALUE")
        values = rules.setdefault(name.replace("-", "_"), [])
        if value:
            values.append(_integer(value) if name.startswith("tcp") else value)
    unknown = rules.keys() - {"read", "write", "execute", "tcp_bind", "tcp_connect"}
    if unknown:
        raise ValueError(
            f"unknown: {' '.join(sorted(unknown))}; one of read, write, execute, tcp-bind, "
            "tcp-connect"
        )
    return rules


def _filters(words: Sequence[str]) -> Any:
    filters: list[Any] = []
    for word in words:
        if word == "default":
            filters.append(word)
            continue
        try:
            with open(word, "rb") as file:
                filters.append(file.read())
        except OSError as error:
            raise ValueError(f"{word}: {error.strerror}") from None
    return filters


def _cgroup(words: Sequence[str]) -> Any:
    """A path, or limits: KEY=VALUE,KEY=VALUE; a piece without a key belongs to the one before."""
    from .._cgroup import Cgroup

    if "=" not in words[-1]:
        return words[-1]
    pairs: list[list[str]] = []
    for piece in ",".join(words).split(","):
        name, equals, value = piece.partition("=")
        if equals:
            pairs.append([name.replace("-", "_"), value])
        elif pairs:
            pairs[-1][1] += f",{piece}"
        else:
            raise ValueError(f"{piece!r} is not KEY=VALUE")
    fields: dict[str, Any] = dict(pairs)
    for name in ("pids_max", "cpu_weight"):
        if fields.get(name, "").isdecimal():
            fields[name] = int(fields[name])
    if fields.get("cpu_max", "max") != "max":
        quota, colon, period = fields["cpu_max"].partition(":")
        fields["cpu_max"] = (_integer(quota), _integer(period)) if colon else _seconds([quota])
    try:
        return Cgroup(**fields)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _root(words: Sequence[str]) -> Any:
    from .mounts import root

    return root(words[-1])


def _mounts(words: Sequence[str]) -> Any:
    from .mounts import mounts

    return mounts(words)


# ---- the options


def _field(
    field: str,
    help: str,
    metavar: str | None = None,
    parse: Callable[[Sequence[str]], Any] | None = None,
) -> Option:
    """The option of a field: of the same name, with dashes."""
    dashed = field.replace("_", "-")
    opposite = None
    if metavar is None:
        opposite = f"--no-{dashed}"
        if field.startswith("no_"):
            opposite = f"--{dashed.removeprefix('no-')}"
    return Option(f"--{dashed}", help, metavar, parse, opposite, field)


_MOUNTS = _field("mounts", "type=TYPE,KEY=VALUE: any mount spec; done in order", "MOUNT", _mounts)

FIELD_OPTIONS: tuple[Option, ...] = (
    _field(
        "new", "namespaces to make: mnt uts ipc user pid net cgroup time; all", "KINDS", _joined
    ),
    _field("join", "namespaces to enter, of a process or a file", "[KINDS=]PID|PATH", _targets),
    _field(
        "uid_map", "of a new user namespace: root, self, auto, an id, or ranges", "MAP", _id_map
    ),
    _field("gid_map", "likewise", "MAP", _id_map),
    _field("hostname", "in a new uts namespace", "NAME", _last),
    _field("domainname", "likewise", "NAME", _last),
    _field("time_offsets", "of new clocks: boottime, monotonic", "CLOCK=SECONDS", _offsets),
    _field("loopback", "bring lo up (in a new net namespace the default)"),
    _field("propagation", "of mounts: private, slave, shared, unchanged", "HOW", _last),
    _field("proc", "mount a fresh /proc (with new pid and mnt the default)"),
    _field("root", "a directory, tmpfs, or type=TYPE,KEY=VALUE", "ROOT", _root),
    _MOUNTS,
    Option("--bind", "bind it there", "SRC[:DST][:ro|rw]", into=_MOUNTS),
    Option("--tmpfs", "an empty file system in memory", "DST[:SIZE]", into=_MOUNTS),
    Option("--dev", "a /dev of its own", "DST", into=_MOUNTS),
    Option("--mask", "cover it", "DST", into=_MOUNTS),
    Option("--read-only", "make what is there read-only", "DST", into=_MOUNTS),
    Option("--symlink", "make a link", "TO:PATH", into=_MOUNTS),
    Option("--hostlike", "for --root tmpfs: the host's programs and libraries", into=_MOUNTS),
    _field("cwd", "the working directory", "DIR", _last),
    _field("env", "the whole environment, in place of this one", "NAME=VALUE", _variables),
    _field("user", "become this user", "USER", _identity),
    _field("group", "become this group", "GROUP", _identity),
    _field("extra_groups", "supplementary groups; '' for none", "GROUPS", _identities),
    _field("umask", "the file mode mask, octal", "MASK", _octal),
    _field("start_new_session", "setsid(2)"),
    _field("process_group", "setpgid(2); 0: a new one", "PGID", _number),
    _field("rlimits", "resource limits, as nofile=64:128 or core=unlimited", "NAME=LIMIT", _limits),
    _field("affinity", "CPUs to run on, as 0-3,6", "CPUS", _cpus),
    _field("nice", "the nice value itself, -20 to 19", "N", _number),
    _field("ionice", "none, idle, best-effort:0-7, realtime:0-7", "CLASS[:N]", _scheduling),
    _field("scheduler", "other, batch, idle, fifo:1-99, rr:1-99", "POLICY[:N]", _scheduling),
    _field("oom_score_adj", "-1000 to 1000", "N", _number),
    _field("personality", "personality(2), a number", "FLAGS", _number),
    _field("timer_slack", "in nanoseconds", "NS", _number),
    _field("dumpable", "for C functions only: clone() in Python"),
    _field("capabilities", "exactly what the program has; all; '' for none", "CAPS", _capabilities),
    _field("ambient", "ambient capabilities", "CAPS", _items),
    _field("securebits", "PR_SET_SECUREBITS, a number", "BITS", _number),
    _field("no_new_privs", "PR_SET_NO_NEW_PRIVS"),
    _field(
        "landlock",
        "read, write, execute: a path; tcp-bind, tcp-connect: a port",
        "KEY=VALUE",
        _landlock,
    ),
    _field("landlock_strict", "all of it, or none (the default)"),
    _field("disable_userns", "the program can make no user namespace"),
    _field("seccomp", "default, or a file with BPF; loaded in order", "default|FILE", _filters),
    _field("keyring", "the session keyring: new or inherit", "HOW", _last),
    _field("exec_label", "of SELinux or AppArmor, for the program", "LABEL", _last),
    _field("cgroup", "a group's directory; or limits of a new one", "PATH|KEY=VALUE", _cgroup),
    _field("init", "a small init as PID 1, or as a subreaper"),
    _field("kill_on_parent_exit", "the program dies with nsext (the default)"),
)

RUN_OPTIONS: tuple[Option, ...] = (
    Option("--untrusted", "all that Sandbox.untrusted() has; options replace its fields"),
    Option("--pty", "on a terminal of its own"),
    Option("--setenv", "add to the environment", "NAME=VALUE", _variables),
    Option("--pass-fds", "pass on 0, 1, 2 and these descriptors only", "FDS", _descriptors),
    Option("--timeout", "kill the program then; the exit status is 124", "SECONDS", _timeout),
    Option("--from", "a file with a description; options replace its fields", "FILE", _last),
    Option("--write-toml", "print the description for --from, and run nothing"),
    Option("--explain", "print what would be done, step by step, and run nothing"),
)


def table(options: Iterable[Option]) -> dict[str, tuple[Option, bool]]:
    """{"--name": (option, True), "--no-name": (option, False)}."""
    names = {}
    for option in options:
        names[option.name] = option, True
        if option.opposite:
            names[option.opposite] = option, False
    return names


def _find(names: dict[str, Any], word: str) -> Any:
    """What *word* or an unambiguous beginning of a name stands for."""
    found = names.get(word)
    if found is None:
        close = [name for name in names if name.startswith(word)] if word[:2] == "--" else []
        if len(close) > 1:
            raise UsageError(f"{word} is ambiguous: {', '.join(close)}")
        if not close:
            raise UsageError(f"unknown option {word}")
        found = names[close[0]]
    return found


def read(options: Iterable[Option], words: Sequence[str]) -> tuple[dict[Option, Any], list[str]]:
    """Read options up to the first word that is none, or to "--".

    Returns {option: value}, and the words after.  Raises UsageError.
    """
    names = table(options)
    given: dict[Option, Any] = {}
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            at += 1
            break
        if not word.startswith("-") or word == "-":
            break
        if word in ("-h", "--help"):
            raise HelpWanted
        name, equals, value = word.partition("=")
        option, yes = _find(names, name)
        at += 1
        if option.metavar is None:
            if equals:
                raise UsageError(f"{name} takes no argument")
            if option.into:
                given.setdefault(option.into, []).append(f"{option.name}=")
            else:
                given[option] = yes
            continue
        if not equals:
            if at == len(words):
                raise UsageError(f"{name} needs an argument: {option.metavar}")
            value = words[at]
            at += 1
        if option.into:
            option, value = option.into, f"{option.name}={value}"
        given.setdefault(option, []).append(value)
    for option, value in given.items():
        if option.parse is not None:
            try:
                given[option] = option.parse(value)
            except ValueError as error:
                raise UsageError(f"{option.name}: {error}") from None
    return given, list(words[at:])
