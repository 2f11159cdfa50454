"""check(): what works here, tried out, and what stops the rest."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import Any

from . import _causes, _probe
from ._causes import CAP_SYS_ADMIN, Cause
from ._cgroup import Cgroup
from ._cgroupfs import own_group
from ._clone import clone
from ._errors import SpawnError
from ._flags import BY_KIND, NEWUSER, NEWUTS, Kinds, parse_kinds
from ._launch import _kernel as kernel
from ._probe import Call
from ._proc import read
from ._report import Finding, Report
from ._spawn import spawn

_NOBODY = 65534
_PATIENCE = 5.0

_Try = tuple[str, "Cause | None"]


def _cause_of(error: SpawnError) -> Cause:
    if isinstance(error.hint, Cause):
        return Cause(f"{error.step}: {error.strerror}: {error.hint.reason}", error.hint.remedy)
    return Cause(f"{error.step}: {error.strerror}" + (f": {error.hint}" if error.hint else ""))


def attempt(new: str, **fields: Any) -> Cause | None:
    """Make a child that has this set-up behind it; None where that works.

    The program that it then cannot start is a directory.
    """
    try:
        with spawn(["/"], new=new, spawn_timeout=_PATIENCE, **fields):
            pass
    except SpawnError as error:
        return None if error.stage == "exec" else _cause_of(error)
    raise AssertionError("a directory was executed")


class _Checker:
    def __init__(self, kinds: int) -> None:
        self.admin = _causes.may(CAP_SYS_ADMIN)
        self.kinds = [kind for kind, flag in BY_KIND.items() if flag & kinds]
        self.results: dict[str, int | None] = {}
        self.killed: list[str] = []
        self.tried: dict[str, Cause | None] = {}

    def probe(self) -> None:
        """Ask the seccomp filters, and become an ordinary user, all in one child."""
        calls = {"clone3": _probe.CLONE3, "mount": _probe.MOUNT}
        calls |= {f"new {kind}": _probe.attempt(kind) for kind in BY_KIND}
        calls["landlock"] = Call("landlock_create_ruleset", (0, 0, 1))
        calls["seccomp"] = Call("seccomp", (1, 0, 0))  # SECCOMP_SET_MODE_FILTER: EFAULT
        if os.geteuid() == 0:
            calls["groups"] = Call("setgroups", (0, 0))
            calls["gid"] = Call("setresgid", (_NOBODY,) * 3)
            calls["uid"] = Call("setresuid", (_NOBODY,) * 3)
            calls["rootless"] = Call("unshare", (NEWUSER,))
            calls["rootless uts"] = Call("unshare", (NEWUTS,))
        while True:
            names = [name for name in calls if name not in self.killed]
            row = _probe.InChild([calls[name] for name in names])
            with clone(row.entry, row.argument) as process:
                code = process.wait()
            results = row.results()
            self.results = dict(zip(names, results))
            if code != -signal.SIGSYS:
                break
            # Once more, without the one that it died of.
            self.killed.append(names[results.index(None)])

    def result(self, name: str) -> int:
        """What a call has returned, or -errno; where a filter kills for it, as if it refused."""
        return self.results.get(name) or 0 if name not in self.killed else -errno.EPERM

    def try_new(self, words: str, **fields: Any) -> Cause | None:
        """As attempt(), once; and not where a filter would kill the caller."""
        for kind in words.split():
            if f"new {kind}" in self.killed:
                return _causes.filtered(_probe.attempt(kind).name, BY_KIND[kind])
        key = f"{words} {fields}"
        if key not in self.tried:
            self.tried[key] = attempt(words, **fields)
        return self.tried[key]

    def words(self, kinds: str) -> str:
        """What a caller like this one says in new=."""
        return kinds if self.admin or "user" in kinds.split() else f"user {kinds}"

    def with_user(self, kinds: str, **fields: Any) -> _Try:
        """Try kinds, by way of a user namespace where the caller needs one."""
        words = self.words(kinds)
        if words != kinds and (cause := self.try_new("user")):
            return words, Cause(
                f"it needs CAP_SYS_ADMIN or a user namespace, and there: {cause.reason}",
                cause.remedy,
            )
        return words, self.try_new(words, **fields)

    def kind(self, kind: str) -> Finding:
        words, cause = self.with_user(kind)
        return _finding(kind, cause, words)

    # ---- features

    def proc(self) -> Finding:
        """A fresh /proc, as new pid and mount namespaces have it by default."""
        words, cause = self.with_user("pid mnt")
        return _finding("proc", cause, words)

    def time_offsets(self) -> Finding:
        words, cause = self.with_user("time", time_offsets={"boottime": 1})
        return _finding("time_offsets", cause, words)

    def id_ranges(self) -> Finding:
        cause = self.try_new("user") or self.try_new("user", uid_map="auto", gid_map="auto")
        return _finding("id_ranges", cause, "user")

    def rootless(self) -> Finding:
        """User namespaces of ordinary users, with what they are for."""
        # Where nobody else is mapped, this one is as ordinary as can be.
        if os.geteuid() != 0 or self.result("uid") < 0:
            return _finding("rootless", self.try_new("user uts"), "user uts")
        return _finding("rootless", self._as_nobody(), "user")

    def _as_nobody(self) -> Cause | None:
        result = self.result("rootless")
        if -result in (errno.EPERM, errno.EACCES):
            return _causes.of_user_namespace(ordinary=True)
        if result < 0:
            return _causes.of_clone(-result, NEWUSER) or Cause(_said(result))
        result = self.result("rootless uts")
        if result < 0:
            return _causes.by_sysctl(True) or Cause(
                f"in his user namespace an ordinary user has no capabilities: {_said(result)}"
            )
        return None

    def clone3(self) -> Finding:
        refused = self.result("clone3") != -errno.EINVAL
        return _finding("clone3", _causes.filtered("clone3") if refused else None)

    def seccomp(self) -> Finding:
        if self.result("seccomp") == -errno.EFAULT:
            return _finding("seccomp", None)
        cause = _causes.filtered("seccomp") if _causes.is_filtered() else None
        return _finding("seccomp", cause or _too_old("seccomp filters", "SECCOMP_FILTER"))

    def landlock(self) -> Finding:
        abi = self.result("landlock")
        if abi > 0:
            return _finding("landlock", None, note=f"ABI {abi}")
        if abi == -errno.EOPNOTSUPP:
            cause = Cause(
                "Landlock was not enabled at boot", "boot with lsm=landlock,... on the command line"
            )
        elif kernel() >= (5, 13) and _causes.is_filtered():
            cause = _causes.filtered("landlock_create_ruleset")
        else:
            cause = _too_old("Landlock", "SECURITY_LANDLOCK", (5, 13))
        return _finding("landlock", cause)

    def cgroup2(self) -> Finding:
        cause = self.try_new("", cgroup=Cgroup())
        if cause is not None:
            return _finding("cgroup2", cause)
        listed = read(os.path.join(own_group(), "cgroup.controllers")).strip()
        return _finding("cgroup2", None, note=f"controllers: {listed or 'none'}")


_FEATURES: tuple[Callable[[_Checker], Finding], ...] = (
    _Checker.rootless,
    _Checker.proc,
    _Checker.id_ranges,
    _Checker.time_offsets,
    _Checker.clone3,
    _Checker.cgroup2,
    _Checker.seccomp,
    _Checker.landlock,
)


def _finding(name: str, cause: Cause | None, new: str = "", note: str = "") -> Finding:
    if cause is None:
        return Finding(name=name, ok=True, new=new, note=note)
    return Finding(name=name, ok=False, new=new, reason=cause.reason, remedy=cause.remedy)


def _said(result: int) -> str:
    return os.strerror(-result)


def _too_old(what: str, option: str, since: tuple[int, int] = (0, 0)) -> Cause:
    if kernel() < since:
        return Cause(
            f"{what} needs Linux {since[0]}.{since[1]}, and this is {os.uname().release}",
            "a newer kernel",
        )
    return Cause(f"this kernel was built without {what}", f"one with CONFIG_{option}")


def check(kinds: Kinds = "all") -> Report:
    """Try which kinds of namespaces work here, and say what stops the others.

    kinds: which have to work, as in ``new=``; they decide whether the report is true.
    Each is tried in a child, as new= would make it; for a caller without CAP_SYS_ADMIN inside a
    new user namespace.  So are the features: "rootless": user namespaces of ordinary users, for
    root tried as one; "proc": a fresh /proc in new pid and mount namespaces; "id_ranges": maps of
    more than the own id; "time_offsets"; "clone3": the system call, without which clone(2) does;
    "cgroup2": a cgroup below the own one; "seccomp" and "landlock".

    It takes some milliseconds, and as long as a fork of this process.  Nothing stays behind.
    """
    checker = _Checker(int(parse_kinds(kinds)))
    checker.probe()
    findings = [checker.kind(kind) for kind in checker.kinds]
    findings += [feature(checker) for feature in _FEATURES]
    return Report(findings, checker.kinds)
