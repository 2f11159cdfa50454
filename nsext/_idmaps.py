"""Id maps that others write for a child that waits at its gate: newuidmap(1), newgidmap(1).

C writes the lines of a description itself.  Here is what it does not: "auto", whose lines depend on
the caller and the system, and lines that an ordinary user has a range for in subuid(5).
"""

from __future__ import annotations

import errno
import os

from . import _native, _subids
from ._compile import is_parents
from ._describe import describe_failure
from ._errors import SpawnError
from ._fds import DEVNULL
from ._hints import step_hint
from ._pids import is_dying
from ._proc import read
from ._values import MAX_ID, MAX_MAP_LINES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from ._process import Process
    from ._spec import Spec
    from ._subids import Which

Lines: TypeAlias = "tuple[tuple[int, int, int], ...]"
"""(inside, outside, count), as in uid_map(5)."""

_CAPABILITY = {"gid": 6, "uid": 7}  # CAP_SETGID, CAP_SETUID
_PART = {"gid": 3, "uid": 4}  # enum nsx_idmap_part


def _text(lines: Lines) -> bytes:
    return b"".join(b"%d %d %d\n" % line for line in lines)


def _fitting(lines: list[tuple[int, int, int]]) -> Lines:
    """As many as the kernel takes: user_namespaces(7)."""
    while len(lines) > MAX_MAP_LINES or len(_text(tuple(lines))) >= os.sysconf("SC_PAGESIZE"):
        lines = lines[:-1]
    return tuple(lines)


def _own(which: Which) -> int:
    return os.geteuid() if which == "uid" else os.getegid()


def _everything(which: Which) -> list[tuple[int, int, int]]:
    """All ids of the caller's user namespace as they are; but he is 0."""
    own = _own(which)
    lines = [] if own == 0 else [(0, own, 1)]
    for line in read(f"/proc/thread-self/{which}_map").splitlines():
        low, _, count = map(int, line.split())
        high = min(low + count - 1, MAX_ID)
        parts = (
            [(low, high)] if own == 0 else [(low, min(high, own - 1)), (max(low, own + 1), high)]
        )
        for first, last in parts:
            first = max(first, 1) if own else first
            if first <= last:
                lines.append((first, first, last - first + 1))
    return lines


class _Job:
    """One map, and who writes it."""

    __slots__ = ("lines", "path", "which")

    def __init__(self, which: Which, lines: Lines, path: str | None) -> None:
        self.which = which
        self.lines = lines
        self.path = path  # of newuidmap(1); None: we do

    def error(self, number: int, text: str = "", hint: str | None = None) -> SpawnError:
        words = describe_failure(("gate",), _PART[self.which])
        if self.path is None:
            hint = step_hint("gate", number, 0)
        else:
            words += f" by {self.path}"
        text = text or os.strerror(number)
        return SpawnError(number, text, stage="idmap", step=words, path=self.path, hint=hint)


def id_maps(spec: Spec) -> IdMaps | None:
    """Who writes the maps of *spec*'s child; None: C does.

    Raises SpawnError for what is known to fail: a missing range, a missing program.
    """
    jobs = []
    ours = False
    pairs: tuple[tuple[Which, Any], ...] = (("gid", spec.gid_map), ("uid", spec.uid_map))
    for which, value in pairs:  # setgroups=deny comes before gid_map, and that is the order in C
        if not is_parents(value):
            continue
        may = bool(_native.capabilities() >> _CAPABILITY[which] & 1)
        own = _own(which)
        lines: Lines = value
        if value == "auto":
            ours = True
            lines = _fitting(_everything(which) if may else _subids.all_of(which, own))
        path = None
        if not may and not (len(lines) == 1 and lines[0][1:] == (own, 1)):
            ours = True
            _subids.check_range(which, own, lines)
            path = _subids.tool(which)
        jobs.append(_Job(which, lines, path))
    return IdMaps(jobs) if ours else None


class IdMaps:
    """Writes the maps of one child: C calls it until it says that they are there."""

    __slots__ = ("_begun", "_jobs", "_running")

    def __init__(self, jobs: list[_Job]) -> None:
        self._jobs = jobs
        self._begun = False
        self._running: list[tuple[_Job, Process, int]] = []

    def __call__(self, pid: int, pidfd: int, seconds: float) -> bool:
        """Are they written, within *seconds*?  Raises SpawnError."""
        from time import monotonic

        end = monotonic() + seconds
        try:
            if not self._begun:
                self._begun = True
                self._begin(pid)
            while self._running:
                job, process, said = self._running[0]
                code = _native.child_wait(process._child, max(0.0, end - monotonic()))
                if code is None:
                    return False
                self._finish(job, pid, code, said)
                del self._running[0]
                os.close(said)
        except SpawnError:
            if is_dying(pid, pidfd):
                return True  # that is what there is to say
            raise
        return True

    def _begin(self, pid: int) -> None:
        if os.readlink("/proc/self") != str(os.getpid()):
            words = describe_failure(("gate",), 1)
            raise SpawnError(errno.ESRCH, os.strerror(errno.ESRCH), stage="idmap", step=words)
        for job in self._jobs:
            if job.path is None:
                _write(job, pid)
            else:
                self._start(job, pid, job.path)

    def _start(self, job: _Job, pid: int, path: str) -> None:
        """The programs for uids and for gids run side by side."""
        from ._spawn import spawn

        args = [path, str(pid), *(str(number) for line in job.lines for number in line)]
        said = os.memfd_create(f"new{job.which}map")
        try:
            env = {"LC_ALL": "C", "PATH": os.defpath}
            process = spawn(args, stdin=DEVNULL, stdout=said, stderr=said, env=env)
        except BaseException as error:
            os.close(said)
            if isinstance(error, SpawnError):  # it was there a moment ago
                raise job.error(error.errno or 0, hint=error.hint) from None
            raise
        self._running.append((job, process, said))

    def _finish(self, job: _Job, pid: int, code: int, said: int) -> None:
        """What has a program done?"""
        if code == 0:
            try:
                if read(f"/proc/{pid}/{job.which}_map"):
                    return
            except OSError:
                pass  # the child is gone
        text = os.pread(said, 1000, 0).decode(errors="replace").strip()
        raise job.error(errno.EPERM, text or f"it ended with {code}")

    def close(self) -> None:
        """End what still runs."""
        running, self._running = self._running, []
        for _, process, said in running:
            process._discard()
            os.close(said)

    __del__ = close


def _write(job: _Job, pid: int) -> None:
    try:
        if job.which == "gid" and not _native.capabilities() >> _CAPABILITY["gid"] & 1:
            _put(pid, "setgroups", b"deny")
        _put(pid, f"{job.which}_map", _text(job.lines))
    except OSError as error:
        raise job.error(error.errno or 0) from None


def _put(pid: int, name: str, text: bytes) -> None:
    fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)
