"""Ranges of ids for ordinary users, and who maps them: subuid(5), newuidmap(1)."""

from __future__ import annotations

import errno
import os
from itertools import pairwise

from ._causes import Cause
from ._errors import SpawnError
from ._proc import field, read
from ._values import MAX_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    Which: TypeAlias = Literal["uid", "gid"]

Range: TypeAlias = "tuple[int, int]"
"""The first id, and how many."""

_USUAL = 65536  # ids in a range, as useradd(8) gives them


def file_of(which: Which) -> str:
    """Where ranges are listed."""
    return f"/etc/sub{which}"


def refuse(which: Which, number: int, cause: Cause, path: str | None = None) -> SpawnError:
    """The error of a map that cannot be made, before there is a child."""
    step = f"map {which}s by new{which}map"
    return SpawnError(number, os.strerror(number), stage="idmap", step=step, path=path, hint=cause)


# ---- who has which ----------------------------------------------------------------------------


def _user() -> str | None:
    """The caller's name."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None


def _lines(which: Which) -> list[tuple[str, int, int]]:
    """(owner, first, count) of each line that says so."""
    try:
        text = read(file_of(which))
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        owner, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if first.isdigit() and count.isdigit() and 0 < int(count) <= MAX_ID - int(first) + 1:
            lines.append((owner, int(first), int(count)))
    return lines


def ranges(which: Which) -> list[Range]:
    """The caller's, in the order of the file; he stands there by name or by number."""
    owners = (_user(), str(os.getuid()))
    found: list[Range] = []
    for owner, first, count in _lines(which):
        if owner in owners and (first, count) not in found:
            found.append((first, count))
    return found


def _elsewhere() -> str | None:
    """What nsswitch.conf(5) names for subid, where that is not the file."""
    try:
        said = field("/etc/nsswitch.conf", "subid")
    except OSError:
        return None
    return None if said is None or said.split("#")[0].split() == ["files"] else said


def _add(which: Which) -> str:
    """How an administrator gives the caller a range that nobody has; both where he has none."""
    user = _user() or str(os.getuid())
    options, lines = [], []
    both: tuple[Which, ...] = ("uid", "gid")
    for lacking in both:
        if lacking == which or not ranges(lacking):
            first = max([100000, *(start + count for _, start, count in _lines(lacking))])
            options.append(f"--add-sub{lacking}s {first}-{first + _USUAL - 1}")
            lines.append(f"the line {user}:{first}:{_USUAL} in {file_of(lacking)}")
    return f"usermod {' '.join(options)} {user}, or {' and '.join(lines)}"


def all_of(which: Which, own: int) -> list[tuple[int, int, int]]:
    """The map of the own id as 0, and of all ranges from 1 on.  Raises SpawnError."""
    found = ranges(which)
    path = file_of(which)
    if not found:
        user = _user() or f"uid {os.getuid()}"
        if (said := _elsewhere()) is not None:
            cause = Cause(
                f"/etc/nsswitch.conf has subid: {said}, and {path} no range for {user}",
                f"say the ranges: {which}_map=[(0, {own}, 1), (1, FIRST, COUNT)]",
            )
        else:
            cause = Cause(f"{user} has no range in {path}", _add(which))
        raise refuse(which, errno.EPERM, cause, path)
    spans = sorted([(own, 1), *found])
    for (first, count), (following, more) in pairwise(spans):
        if first + count > following:
            here = f"{following}:{more}" if (following, more) != (own, 1) else f"{first}:{count}"
            clash = "the own id" if (own, 1) in ((first, count), (following, more)) else "another"
            cause = Cause(f"the range {here} overlaps with {clash}", f"correct {path}")
            raise refuse(which, errno.EINVAL, cause, path)
    lines = [(0, own, 1)]
    inside = 1
    for first, count in found:
        count = min(count, MAX_ID - inside + 1)
        if count > 0:
            lines.append((inside, first, count))
        inside += count
    return lines


def check_range(which: Which, own: int, lines: tuple[tuple[int, int, int], ...]) -> None:
    """Raise SpawnError where these lines have what is not the caller's to map."""
    if _elsewhere() is not None:
        return  # newuidmap(1) knows
    found = ranges(which)
    for _, outside, count in lines:
        start, end = outside, outside + count
        while start < end:
            ends = [first + many for first, many in found if first <= start < first + many]
            if not ends:
                break
            start = max(ends)
        if start < end and (outside, count) != (own, 1):
            user = _user() or f"uid {os.getuid()}"
            cause = Cause(
                f"{outside} to {end - 1} are not all in a range of {user} in {file_of(which)}",
                _add(which),
            )
            raise refuse(which, errno.EPERM, cause, file_of(which))


# ---- who maps them ----------------------------------------------------------------------------


def _find(name: str) -> str | None:
    for place in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(place or os.curdir, name)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def _has_privileges(path: str) -> bool:
    """Does a program run as root, or with capabilities of its file?"""
    status = os.stat(path)
    if status.st_mode & 0o4000 and status.st_uid == 0:  # S_ISUID
        return True
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def tool(which: Which) -> str:
    """The path of newuidmap(1) or newgidmap(1).  Raises SpawnError where it could not do it."""
    name = f"new{which}map"
    found = _find(name)
    if found is None:
        package = "Debian: apt install uidmap; Fedora: shadow-utils"
        raise refuse(which, errno.ENOENT, Cause(f"{name} is not installed", package))
    if not _has_privileges(found):
        cause = Cause(f"{found} is neither setuid root nor has capabilities", f"chmod u+s {found}")
    elif os.statvfs(found).f_flag & os.ST_NOSUID:
        cause = Cause(f"{found} gets no privileges: its file system is mounted nosuid")
    elif field("/proc/thread-self/status", "NoNewPrivs") == "1":
        cause = Cause("no_new_privs is set, and newuidmap gets no privileges", "start without it")
    elif _user() is None:
        uid = os.getuid()
        cause = Cause(
            f"uid {uid} has no name in /etc/passwd, and {name} wants one",
            f"useradd --uid {uid} NAME",
        )
    else:
        return found
    raise refuse(which, errno.EPERM, cause, found)
