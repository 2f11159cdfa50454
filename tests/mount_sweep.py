"""The sweep over the steps of the file system: their sandboxes, and which part each call is of."""

from __future__ import annotations

import errno
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import faults
import record
from support import mount
from sweep import differences

import nsext
from nsext import (
    Bind,
    Cgroup2,
    Dev,
    Dir,
    Fd,
    File,
    Mask,
    Mount,
    Mqueue,
    Overlay,
    ReadOnly,
    Remount,
    Symlink,
    Sysfs,
    Tmpfs,
    _native,
)
from nsext._compile import body_of, compile
from nsext._describe import describe, describe_failure, step_path

Check = Callable[[Any], list[str]]

NEWER = {"open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "mount_setattr"}
# What is refused throughout: the newer mount API, and the lookup that came with it.
WAYS: dict[str, set[str]] = {"new": set(), "classic": NEWER, "no openat2": {"openat2"}}


class Places(NamedTuple):
    """Directories of the host's, and a descriptor of one."""

    tree: Path  # a tmpfs, with another below, "sub"
    lower: Path  # what a root is made of
    upper: Path
    work: Path
    held: int


@contextmanager
def places(where: Path) -> Iterator[Places]:
    for name in ("tree", "lower", "upper", "work"):
        (where / name).mkdir()
    lower = where / "lower"
    shutil.copy(faults.noop(), lower / "noop")
    for name in ("proc", "tmp", "etc"):
        (lower / name).mkdir()
    (lower / "etc/file").write_text("lower")
    tree = where / "tree"
    for name in ("", "sub"):
        mount("tmpfs", tree / name, "tmpfs", 8)  # MS_NOEXEC
        (tree / name / "file").write_text("outside")
        (tree / name / "sub").mkdir()
        (tree / name / "link").symlink_to("file")
    held = os.open(tree / "sub", os.O_PATH | os.O_CLOEXEC)
    try:
        yield Places(tree, lower, where / "upper", where / "work", held)
    finally:
        os.close(held)
        for name in ("sub", ""):
            faults._libc.umount2(os.fsencode(tree / name), 2)


RANGES = [(0, 200000, 1000)]


def cases(at: Places) -> dict[str, dict[str, Any]]:
    """Sandboxes that together have every step, in most of its ways."""
    program = Bind(faults.noop(), "/noop")
    return {
        "from nothing": {
            "new": "pid mnt net ipc cgroup",
            "root": Tmpfs(size="4m"),
            "mounts": [
                program,
                Dev(),
                Sysfs(),
                Mqueue(),
                Cgroup2(),
                Tmpfs("/tmp", size="1m", nr_inodes=50, mode=0o1777),
                Mount("ramfs", "none", "/ram", flags=["nosuid"], data="mode=700"),
                Bind(at.tree, "/tree"),
                Bind(Fd(at.held), "/held", readonly=False, noexec=True),
                Dir("/var/tmp", mode=0o2755),
                File("/etc/conf", "content"),
                File("/tree/file", "covered"),
                Symlink("tmp", "/t"),
                Symlink("tmp", "/t"),
                Bind("/nonexistent", "/missing", optional=True),
                Mask("/tree/sub"),
                Mask("/held/file"),
                Mask("/missing", optional=True),
                ReadOnly("/etc"),
                ReadOnly("/held"),
                Remount("/tmp", noexec=True),
            ],
        },
        "overlays": {
            "new": "pid mnt",
            "root": Overlay(lower=at.lower),
            "mounts": [
                Tmpfs("/made/here"),
                Overlay("/made/tree", lower=at.tree, recursive=True),
                Overlay("/made/two", lower=[at.lower, at.tree / "sub"]),
                Overlay("/kept", lower=at.lower, upper=at.upper, work=at.work),
                File("/etc/file", "changed"),
                File("/made/tree/sub/file", "covered"),
                Dir("/etc/dir"),
            ],
        },
        "over the caller's": {
            "new": "mnt",
            "propagation": "shared",
            "mounts": [
                Bind(at.tree, at.lower, propagation="slave", readonly=False),
                Bind(at.tree, at.upper, propagation="shared"),
                Bind(at.tree / "link", at.tree / "sub/file"),
                ReadOnly(at.tree),
                ReadOnly(at.tree / "nothing/here", optional=True),
                Remount(at.work, nosuid=True, recursive=True),
            ],
        },
        "ranges": {
            "new": "user pid mnt",
            "uid_map": RANGES,
            "gid_map": RANGES,
            "user": 0,
            "group": 0,
            "root": Tmpfs(),
            "mounts": [program, Bind(at.tree, "/tree"), Dir("/dir"), Symlink("dir", "/link")],
        },
        "a directory": {
            "new": "user pid mnt",
            "root": Bind(at.lower, readonly=False),
            "mounts": [Tmpfs("/tmp"), Overlay("/etc", lower=at.lower / "etc"), Tmpfs("/tmp/x")],
        },
        "mapped ids": {
            "new": "mnt",
            "propagation": "slave",
            "mounts": [Bind(at.tree, at.work, idmap=[(0, 5000, 100)])],
        },
    }


# ---- what a call belongs to


def step_of(pid: int) -> int:
    """The step that a helper is at, as its record says; -1: it has none, yet or any more."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
        found = re.search(r"^(\w+)-\w+ .*memfd:nsext-plan", maps, re.MULTILINE)
        if not found:
            return -1
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(int(found[1], 16) + record.offset("step"))
            word = memory.read(4)
    except (FileNotFoundError, ProcessLookupError):  # it has been killed
        return -1
    return int(struct.unpack("=I", word)[0]) if len(word) == 4 else -1


class Site(NamedTuple):
    """A call of a run: its step, and how often that step has made such a call before."""

    step: int
    call: str
    nth: int
    before: tuple[str, ...]  # the step's calls up to here


class Answers:
    """Refuses what its way refuses; the process of the sandbox is the last that comes.

    Successive reads are one call: how many a mount table takes depends on the ids of the mounts,
    which are longer or shorter from run to run.
    """

    def __init__(self, way: str, process: int) -> None:
        self.refused, self.process = WAYS[way], process
        self.pids: list[int] = []
        self.last = ""

    def __call__(self, call: faults.Call) -> Any:
        if call.pid not in self.pids:
            self.pids.append(call.pid)
        if self.pids.index(call.pid) != self.process:
            return None
        before, self.last = self.last, call.name
        if before == call.name == "read":
            return None
        return self.answer(call, errno.ENOSYS if call.name in self.refused else None)

    def answer(self, call: faults.Call, usual: Any) -> Any:
        return usual


class Recorder(Answers):
    """All calls of a run, each with the step that makes it."""

    def __init__(self, way: str, process: int) -> None:
        super().__init__(way, process)
        self.sites: list[Site] = []

    def answer(self, call: faults.Call, usual: Any) -> Any:
        step = step_of(call.pid)
        names = tuple(site.call for site in self.sites if site.step == step)
        self.sites.append(Site(step, call.name, names.count(call.name), names))
        return usual


class At(Answers):
    """*what* for one call of the run."""

    def __init__(self, way: str, process: int, sites: list[Site], index: int, what: Any) -> None:
        super().__init__(way, process)
        self.sites, self.index, self.what = sites, index, what
        self.count = 0
        self.done = False
        self.strange = ""

    def answer(self, call: faults.Call, usual: Any) -> Any:
        at, self.count = self.count, self.count + 1
        if self.done or self.strange:
            return usual
        if call.name != self.sites[at].call:
            self.strange = f"{call.name}, not {self.sites[at].call}, at {at}"
            return usual
        if at != self.index:
            return usual
        self.done = True
        return self.what


# ---- what has to come of it

# Failures that do not fail the spawn: (step or "*", call).
REASONS = {
    ("*", "close"): "what is close-on-exec, or goes with the process",
    ("fs_begin", "umask"): "umask(2) cannot fail",
    ("fs_end", "umask"): "likewise",
    **{
        ("fs_begin", call): "is the call there at all?  Any error but ENOSYS says so"
        for call in sorted(NEWER)
    },
}

# What is told instead of the call's own errno: it has none, and is looked at by a second call.
OTHER_ERRNO = {("fs_ids", "setfsuid"): errno.EPERM, ("fs_ids", "setfsgid"): errno.EPERM}

# The parts of a step (csrc/helper/fs.h) that each call may be of; 0: the step as a whole.
TARGET, _, MAKE, FLAGS, ATTACH, CLONE, OPTION, CREATE, WRITE, SCRATCH, _, PROC, ENTER, DETACH = (
    range(1, 15)
)
REACH, LIMIT, BELOW = 15, 18, 19
PARTS: dict[str, tuple[int, ...]] = {
    "chdir": (0, ENTER),
    "chroot": (0,),
    "fchdir": (0, FLAGS, ATTACH, CLONE, CREATE, SCRATCH, PROC, ENTER),
    "fchmod": (MAKE, WRITE),
    "fcntl": (0,),
    "fsconfig": (OPTION, CREATE),
    "fsmount": (CREATE,),
    "fsopen": (CREATE,),
    "fstatfs": (TARGET, FLAGS, CREATE, PROC),
    "getcwd": (REACH,),
    "getegid": (0,),
    "geteuid": (0,),
    "mkdirat": (MAKE, SCRATCH),
    "mount": (0, FLAGS, ATTACH, CLONE, CREATE, SCRATCH),
    "mount_setattr": (0, FLAGS),
    "move_mount": (ATTACH,),
    "open_tree": (CLONE,),
    "openat": (0, TARGET, MAKE, CLONE, CREATE, WRITE, SCRATCH, PROC, DETACH, BELOW),
    "openat2": (TARGET, BELOW),
    "pivot_root": (0,),
    "prlimit64": (0, LIMIT),
    "read": (PROC,),
    "readlinkat": (TARGET, MAKE, PROC),
    "setfsgid": (0,),
    "setfsuid": (0,),
    "statx": (0, TARGET, FLAGS, CLONE, CREATE, SCRATCH, DETACH, BELOW),
    "symlinkat": (MAKE,),
    "umount2": (SCRATCH, DETACH),
    "write": (WRITE,),
}


def is_tolerated(op: str, call: str) -> bool:
    return ("*", call) in REASONS or (op, call) in REASONS


def facts(pid: int) -> dict[str, Any]:
    """What a program at its checkpoint sees, without the numbers that differ each time."""
    mounts = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        words = head.split()
        peers = sorted(word.partition(":")[0] for word in words[6:])
        # An overlay's layers, and what it has found out with the first use of an upper one.
        tail = re.sub(r"self/fd/\d+", "self/fd/N", tail).replace(",uuid=on", "")
        mounts.append((words[4], words[3], words[5], *peers, tail))
    status = Path(f"/proc/{pid}/status").read_text()
    return {
        "mounts": mounts,
        "umask": re.findall(r"^Umask:\s*(\w+)", status, re.MULTILINE),
        "cwd": os.readlink(f"/proc/{pid}/cwd"),
        "root": sorted(os.listdir(f"/proc/{pid}/root")),
    }


class Job:
    """A sandbox whose program is looked at before it starts, and then ends."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.sandbox = nsext.Sandbox(**fields)
        self.program = "/noop" if "root" in fields else faults.noop()
        body = body_of(self.sandbox, True, 0)
        self.steps = compile(self.sandbox, True, body, True, 0).steps
        # Another process makes a user namespace for mapped ids before.
        self.process = int(any(step[0] == "idmap" for step in self.steps))

    def __call__(self) -> dict[str, Any]:
        process = nsext.Popen([self.program], sandbox=self.sandbox, paused=True)
        try:
            return facts(process.pid)
        finally:
            process.kill()
            process.wait()
            if process.root:
                process.root.close()


def check_failed(job: Job, site: Site, number: int) -> Check:
    step = job.steps[site.step]
    words = {describe_failure(step, part, job.steps) for part in PARTS[site.call]}
    number = OTHER_ERRNO.get((step[0], site.call), number)
    stage = _native.STEPS[step[0]][0]
    path = os.getcwd() if step[0] == "reenter" else step_path(step)

    def check(value: Any) -> list[str]:
        text = os.strerror(number)
        wrong = differences(value, stage=stage, errno=number, strerror=text, path=path)
        if not wrong and value.step not in words:
            wrong.append(f"step {value.step!r} is none of {words}")
        if not wrong and stage == "setup" and type(value) is not nsext.SpawnError:
            wrong.append(f"{type(value)} for a set-up")
        return wrong

    return check


def check_killed(job: Job, site: Site) -> Check:
    step = job.steps[site.step]
    wanted = {"stage": _native.STEPS[step[0]][0], "step": describe(step, job.steps)}
    text = "the child was killed by SIGKILL"
    return lambda value: differences(value, errno=errno.ECHILD, strerror=text, **wanted)


def check_tolerated(site: Site, wanted: dict[str, Any]) -> Check:
    """As without it; but that umask(2), which cannot fail, would have told the caller's."""

    def check(value: Any) -> list[str]:
        if not isinstance(value, dict):
            return [f"not run: {value!r}"]
        names = wanted.keys() - ({"umask"} if site.call == "umask" else set())
        return [f"{n}: {value[n]!r}, not {wanted[n]!r}" for n in names if value[n] != wanted[n]]

    return check
