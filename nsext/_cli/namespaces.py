"""``nsext list``, ``show``, ``hold``, ``drop`` and ``check``."""

from __future__ import annotations

import argparse
import errno
import os
from dataclasses import asdict
from typing import Any, cast

from .._causes import CAP_SYS_ADMIN, may
from .._flags import BY_KIND, NEWPID, Kind, Kinds, kind_names, parse_kinds
from .._listing import NamespaceInfo, list_namespaces, namespace_tree
from .._namespace import Namespace, namespaces
from .._persist import unpersist
from .._proc import field, read
from . import tables
from .options import UsageError
from .run import complain
from .target import HELD, NAMED_NETS, held


def kinds_of(words: list[str]) -> Kinds:
    """Kinds as the command line has them.  Raises UsageError."""
    try:
        return parse_kinds(" ".join(words)) if words else "all"
    except ValueError as error:
        raise UsageError(str(error)) from None


def _user(uid: int | None) -> str:
    if uid is None:
        return ""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _held_by(info: NamespaceInfo) -> str:
    """The command; for a namespace without a process, what keeps it."""
    paths = " ".join(info.paths)
    if info.nprocs:
        return f"{info.command}  {paths}" if paths else info.command
    fds = " ".join(f"{pid}:{fd}" for pid, fd in info.fds)
    return paths or (f"open in {fds}" if fds else "")


def show_list(given: argparse.Namespace) -> int:
    """nsext list"""
    infos = list_namespaces(kinds_of(given.kinds))
    if given.json:
        tables.show_json([asdict(info) for info in infos])
        return 0
    order = namespace_tree(infos) if given.tree else [(0, info) for info in infos]
    rows = [
        (
            f"{'  ' * depth}{info.id}",
            info.kind,
            info.nprocs,
            "" if info.pid is None else info.pid,
            _user(info.uid),
            _held_by(info),
        )
        for depth, info in order
    ]
    header = ("NS", "TYPE", "NPROCS", "PID", "USER", "COMMAND")
    tables.show(header, rows, right=(2, 3) if given.tree else (0, 2, 3))
    return 0


def _maps(pid: int, which: str) -> list[list[int]]:
    return [
        [int(word) for word in line.split()] for line in read(f"/proc/{pid}/{which}").splitlines()
    ]


def show_process(given: argparse.Namespace) -> int:
    """nsext show"""
    pid: int = given.pid
    if not os.path.exists(f"/proc/{pid}/ns"):
        raise ProcessLookupError(errno.ESRCH, f"there is no process {pid}")
    facts: dict[str, Any] = {
        "pid": pid,
        "command": read(f"/proc/{pid}/cmdline").rstrip("\0").replace("\0", " ")
        or f"[{field(f'/proc/{pid}/status', 'Name')}]",
        "inner_pids": [int(word) for word in (field(f"/proc/{pid}/status", "NSpid") or "").split()],
        "uid_map": _maps(pid, "uid_map"),
        "gid_map": _maps(pid, "gid_map"),
        "namespaces": [],
    }
    with namespaces(pid) as found, namespaces("self") as own:
        for kind, namespace in found.items():
            facts["namespaces"].append(
                {
                    "kind": kind,
                    "id": namespace.id,
                    "own": namespace == own.get(kind),
                    "owner_uid": _owner(namespace),
                    "processes": len(namespace.processes()),
                }
            )
    if given.json:
        tables.show_json(facts)
        return 0
    print(f"process  {facts['pid']}  {tables.plain(facts['command'])}")
    if len(facts["inner_pids"]) > 1:
        print(f"inside   {' '.join(map(str, facts['inner_pids'][1:]))}")
    for which in ("uid_map", "gid_map"):
        print(f"{which}  {', '.join(' '.join(map(str, line)) for line in facts[which]) or 'none'}")
    rows = [
        (
            item["kind"],
            item["id"],
            item["processes"],
            "" if item["owner_uid"] is None else _user(item["owner_uid"]),
            "the caller's" if item["own"] else "another",
        )
        for item in facts["namespaces"]
    ]
    tables.show(("TYPE", "NS", "NPROCS", "OWNER", "WHOSE"), rows, right=(1, 2))
    return 0


def _owner(namespace: Namespace) -> int | None:
    try:
        return namespace.owner_uid
    except OSError:
        return None


def _place(name: str, kind: str) -> str:
    """Where a namespace is held: net where ip-netns(8) looks for it."""
    return f"{NAMED_NETS}/{name}" if kind == "net" else f"{HELD}/{name}/{kind}"


def hold(given: argparse.Namespace) -> int:
    """nsext hold"""
    name: str = given.name
    _check_name(name)
    flags = int(cast(int, kinds_of(given.new)))
    if not flags:
        raise UsageError("--new names no kind")
    if flags & NEWPID:
        raise UsageError(
            "a pid namespace lives as long as its PID 1: start one by nsext run --new pid, and "
            "enter it by the id of that process"
        )
    if not may(CAP_SYS_ADMIN):
        raise PermissionError(errno.EPERM, "to hold namespaces needs CAP_SYS_ADMIN")
    if held(name):
        raise FileExistsError(f"{name} is held already: {', '.join(held(name).values())}")
    # First the user namespace, which owns the others.
    kinds = sorted(kind_names(flags).split(), key=lambda kind: kind != "user")
    user: Namespace | None = None
    done: list[str] = []
    try:
        for kind in kinds:
            place = _place(name, kind)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            made = Namespace.new(cast(Kind, kind), user=user)
            made.persist(place)
            done.append(place)
            if kind == "user":
                user = made
            else:
                made.close()
    except BaseException:
        for place in done:
            unpersist(place)
        _remove_directory(name)
        raise
    finally:
        if user is not None:
            user.close()
    for place in done:
        print(place)
    return 0


def drop(given: argparse.Namespace) -> int:
    """nsext drop"""
    _check_name(given.name)
    places = held(given.name)
    if not places:
        raise FileNotFoundError(f"no namespace is held as {given.name}")
    for place in places.values():
        unpersist(place)
    _remove_directory(given.name)
    return 0


def _check_name(name: str) -> None:
    if not name or "/" in name or name in (".", "..") or name.isdecimal():
        raise UsageError(f"{name!r} is no name: one without a slash, and not a number")


def _remove_directory(name: str) -> None:
    try:
        os.rmdir(f"{HELD}/{name}")
    except OSError:
        pass


def check(given: argparse.Namespace) -> int:
    """nsext check"""
    from .._check import check as check_all

    report = check_all(kinds_of(given.kinds))
    if given.json:
        findings = [{**asdict(finding), "ok": bool(finding.ok)} for finding in report.values()]
        tables.show_json({"ok": bool(report), "findings": findings})
    else:
        for line in str(report).splitlines():
            for word, colour in (("yes", tables.GREEN), ("no", tables.RED)):
                if line[14:18].rstrip() == word:
                    line = f"{line[:14]}{tables.paint(word, colour)}{line[14 + len(word) :]}"
                    break
            print(line)
    return 0 if report else 1


def add_parsers(add: Any) -> None:
    """Their command lines."""
    some = " ".join(BY_KIND)

    listing = add("list", "list namespaces, as lsns(8)", _LIST)
    listing.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {some}; all")
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.add_argument("--tree", action="store_true", help="below the namespace that owns it")
    listing.set_defaults(function=show_list)

    show = add("show", "show the namespaces of a process", _SHOW)
    show.add_argument("pid", type=int, metavar="PID")
    show.add_argument("--json", action="store_true", help="for programs")
    show.set_defaults(function=show_process)

    holding = add("hold", "make namespaces that live without a process", _HOLD)
    holding.add_argument("name", metavar="NAME")
    holding.add_argument(
        "--new", action="append", required=True, metavar="KINDS", help="not pid, which needs one"
    )
    holding.set_defaults(function=hold)

    dropping = add("drop", "let go what hold made", _DROP)
    dropping.add_argument("name", metavar="NAME")
    dropping.set_defaults(function=drop)

    checking = add("check", "try what works here, and say what stops the rest", _CHECK)
    checking.add_argument(
        "kinds", nargs="*", metavar="KIND", help=f"that have to work: {some}; all"
    )
    checking.add_argument("--json", action="store_true", help="for programs")
    checking.set_defaults(function=check)


_LIST = """\
examples:
  nsext list                  all that may be seen
  nsext list net mnt
  nsext list --tree user
  nsext list --json | jq '.[] | select(.nprocs == 0).paths'
"""
_SHOW = """\
examples:
  nsext show 4711
  nsext show --json $$
"""
_HOLD = """\
examples:
  nsext hold blue --new net   also ip netns exec blue ...
  nsext hold box --new user,net,uts
  nsext enter box hostname

A net namespace is bound to /run/netns/NAME, others to /run/nsext/NAME/KIND.  A user namespace owns
the others.  Needs CAP_SYS_ADMIN.
"""
_DROP = """\
examples:
  nsext drop blue

The namespaces live on while a process or a descriptor holds them.
"""
_CHECK = """\
examples:
  nsext check
  nsext check user net && run-the-tests
  nsext check --json

exit status: 0 where all kinds that were asked for work, 1 where one does not.
"""


def say(error: BaseException) -> str:
    """An error in words."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        text = str(error) if hasattr(error, "stage") else f"{place}{error.strerror}"
        return text
    return str(error)


def failed(error: BaseException) -> int:
    """Say it; return the exit status."""
    complain(say(error))
    return 1
