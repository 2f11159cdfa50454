"""list_namespaces(): all that the caller may see, as lsns(8) does."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, cast

from . import _native, _nsfs
from ._flags import BY_KIND, Kind, Kinds, kind_names, parse_kinds
from ._proc import read


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceInfo:
    """A namespace, as list_namespaces() has found it.

    kind: "net", "mnt" ..., as under /proc/PID/ns.
    id: its inode number, as readlink of /proc/PID/ns/KIND shows it.
    unique_id: the 64-bit id, which is never used twice; None before Linux 6.18 (mnt: 6.11), and
        where the namespace could not be opened.
    nprocs: how many processes are in it.  0: it is held by something else.
    pid, uid, command: of the lowest process in it; None, None, "" where there is none.
    parent: id of the parent of a user or pid namespace; None for other kinds, and where it is
        neither the caller's own nor below it.
    owner: id of the user namespace that owns it; a user namespace's is its parent.
    owner_uid: the uid that made that user namespace (or this one, where it is one), as seen from
        the caller's.
    paths: where it is bound, in the caller's mount namespace; where it is bound in others' only,
        below /proc/PID/root.
    fds: (pid, descriptor) of processes that hold it open.
    """

    kind: Kind
    id: int
    unique_id: int | None = None
    nprocs: int = 0
    pid: int | None = None
    uid: int | None = None
    command: str = ""
    parent: int | None = None
    owner: int | None = None
    owner_uid: int | None = None
    paths: tuple[str, ...] = ()
    fds: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class _Found:
    """What is known of a namespace so far."""

    kind: str
    id: int
    pids: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    fds: list[tuple[int, int]] = field(default_factory=list)
    unique_id: int | None = None
    parent: int | None = None
    owner: int | None = None
    owner_uid: int | None = None


_LINK = re.compile(r"(\w+):\[(\d+)\]")
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError, NotADirectoryError)


def pids() -> list[int]:
    """The processes in /proc, lowest first."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def ns_link(path: str) -> tuple[str, int] | None:
    """Kind and id of what a link in /proc leads to; None where it is no namespace, or is gone."""
    try:
        match = _LINK.fullmatch(os.readlink(path))
    except _GONE:
        return None
    return (match[1], int(match[2])) if match and match[1] in BY_KIND else None


def bound(mountinfo: str) -> Iterator[tuple[str, int, str]]:
    """(kind, id, path) of the namespaces bound in a mount namespace: proc_pid_mountinfo(5)."""
    for line in mountinfo.splitlines():
        if " - nsfs " not in line:
            continue
        words = line.split(" ")
        match = _LINK.fullmatch(words[3])
        if match and match[1] in BY_KIND:
            point = _ESCAPED.sub(lambda code: bytes([int(code[1], 8)]), words[4].encode("latin-1"))
            yield match[1], int(match[2]), os.fsdecode(point)


class _Lister:
    def __init__(self, kinds: int) -> None:
        self.kinds = kinds
        self.names = kind_names(kinds).split()
        self.found: dict[tuple[str, int], _Found] = {}

    def get(self, kind: str, id: int, path: str) -> _Found:
        """The namespace, which *path* leads to: looked into when it is new."""
        known = self.found.get((kind, id))
        if known is None:
            known = self.found[kind, id] = _Found(kind, id)
            fd = _nsfs.open_checked(path, id)
            if fd is not None:
                try:
                    self.look_into(fd, known)
                finally:
                    os.close(fd)
        return known

    def look_into(self, fd: int, found: _Found) -> None:
        """Ask the kernel; and go on with its parent and owner, which may have no process."""
        found.unique_id = _nsfs.unique_id(fd)
        if found.kind == "user":
            found.owner_uid = _nsfs.owner_uid(fd)
        elif found.kind == "pid":
            found.parent = self.relative(_nsfs.parent(fd), "pid", None)
        found.owner = self.relative(_nsfs.owner(fd), "user", found)
        if found.kind == "user":
            found.parent = found.owner

    def relative(self, fd: int | None, kind: str, of: _Found | None) -> int | None:
        if fd is None:
            return None
        try:
            id = os.fstat(fd).st_ino
            if of is not None and of.kind != "user":
                of.owner_uid = _nsfs.owner_uid(fd)
            if BY_KIND[kind] & self.kinds and (kind, id) not in self.found:
                known = self.found[kind, id] = _Found(kind, id)
                self.look_into(fd, known)
            return id
        finally:
            os.close(fd)

    def processes(self) -> None:
        """What processes are in, and what their next children will be in."""
        for pid in pids():
            for kind in self.names:
                path = f"/proc/{pid}/ns/{kind}"
                link = ns_link(path)
                if link is not None:
                    self.get(*link, path).pids.append(pid)
            # A pid namespace for children has no file before it has a process.
            path = f"/proc/{pid}/ns/time_for_children"
            if "time" in self.names and (link := ns_link(path)):
                self.get(*link, path)

    def descriptors(self) -> None:
        """What processes hold open."""
        for pid in pids():
            try:
                names = os.listdir(f"/proc/{pid}/fd")
            except _GONE:
                continue
            for name in names:
                path = f"/proc/{pid}/fd/{name}"
                link = ns_link(path)
                if link is not None and link[0] in self.names:
                    self.get(*link, path).fds.append((pid, int(name)))

    def mounts(self) -> None:
        """What is bound in the caller's mount namespace, and in those of other processes."""
        own = ns_link("/proc/thread-self/ns/mnt")
        self.mounted("/proc/thread-self/mountinfo", "")
        seen = {own}
        for pid in pids():
            link = ns_link(f"/proc/{pid}/ns/mnt")
            if link is not None and link not in seen:
                seen.add(link)
                self.mounted(f"/proc/{pid}/mountinfo", f"/proc/{pid}/root")

    def mounted(self, mountinfo: str, root: str) -> None:
        try:
            text = read(mountinfo)
        except (*_GONE, OSError):
            return
        for kind, id, point in bound(text):
            known = self.found.get((kind, id))
            if kind in self.names and not (root and known and known.paths):
                self.get(kind, id, root + point).paths.append(root + point)

    def kernel(self) -> None:
        """What the kernel itself lists, since Linux 6.19: what only a thread is in, or a socket
        of another process, or a descriptor on its way."""
        try:
            ids = _native.listns(self.kinds)
        except OSError:
            return
        known = {found.unique_id for found in self.found.values()}
        for unique_id in ids:
            if unique_id in known:
                continue
            try:
                fd = _native.open_ns(unique_id)
            except OSError:
                continue  # gone, or not ours
            try:
                kind, id = kind_names(_nsfs.nstype(fd) or 0), os.fstat(fd).st_ino
                if kind in self.names and (kind, id) not in self.found:
                    new = self.found[kind, id] = _Found(kind, id)
                    self.look_into(fd, new)
            finally:
                os.close(fd)


def _command(pid: int) -> str:
    """As ps(1) has it: the command line, or the name where there is none."""
    try:
        line = read(f"/proc/{pid}/cmdline").rstrip("\0").replace("\0", " ").strip()
        text = line or read(f"/proc/{pid}/comm").rstrip("\n")
    except OSError:
        return ""
    return os.fsdecode(text.encode("latin-1"))


def _info(found: _Found) -> NamespaceInfo:
    pid = uid = None
    command = ""
    if found.pids:
        pid = found.pids[0]
        command = _command(pid)
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
        except OSError:
            pass
    return NamespaceInfo(
        kind=cast(Kind, found.kind),
        id=found.id,
        unique_id=found.unique_id,
        nprocs=len(found.pids),
        pid=pid,
        uid=uid,
        command=command,
        parent=found.parent,
        owner=found.owner,
        owner_uid=found.owner_uid,
        paths=tuple(found.paths),
        fds=tuple(found.fds),
    )


def list_namespaces(kinds: Kinds = "all") -> list[NamespaceInfo]:
    """List the namespaces that the caller may see, by id: lsns(8).

    kinds: which, as in ``new=``.
    An ordinary user sees those of his own processes.  Those without a process are listed, too:
    bound to a path, held by a descriptor, the parent or owner of another one; since Linux 6.19
    whatever keeps them.

    Raises FileNotFoundError where /proc is not mounted.
    """
    lister = _Lister(int(parse_kinds(kinds)))
    if not os.path.exists("/proc/self/ns"):
        raise FileNotFoundError(errno.ENOENT, "proc is not mounted", "/proc")
    lister.processes()
    lister.descriptors()
    lister.mounts()
    lister.kernel()
    return sorted(map(_info, lister.found.values()), key=lambda info: (info.id, info.kind))


By = Literal["owner", "parent"]


def namespace_tree(
    infos: Iterable[NamespaceInfo] | None = None, by: By = "owner"
) -> list[tuple[int, NamespaceInfo]]:
    """Order namespaces as a tree; return (depth, namespace) from top to bottom.

    infos: None: those of list_namespaces().
    by: "owner": below the user namespace that owns it, a user namespace below its parent.
        "parent": user and pid namespaces below their parents, others at the top.

    Raises ValueError for another *by*.
    """
    if by not in ("owner", "parent"):
        raise ValueError(f"by: {by!r} is neither 'owner' nor 'parent'")
    all_of_them = list_namespaces() if infos is None else list(infos)
    known = {(info.kind, info.id) for info in all_of_them}
    below: dict[tuple[str, int] | None, list[NamespaceInfo]] = {}
    for info in all_of_them:
        above = (info.kind, info.parent) if by == "parent" else ("user", info.owner)
        key = cast("tuple[str, int]", above) if above in known else None
        below.setdefault(key, []).append(info)
    order: list[tuple[int, NamespaceInfo]] = []
    waiting = [(0, info) for info in reversed(below.get(None, []))]
    while waiting:
        depth, info = waiting.pop()
        order.append((depth, info))
        children = below.get((info.kind, info.id), [])
        waiting += [(depth + 1, child) for child in reversed(children)]
    return order
