"""The same sandbox, as each tool says it: a new root with /usr read-only and what leads to it, a
/proc, a /dev and a /tmp of its own, the program, and as many more read-only binds as are wanted.

All but time namespaces are new, a user namespace where there is no root.  Each tool is prepared
before: a Sandbox, an argv, a bundle.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from contenders import Call, Contender, run_and_wait

import nsext

NEW = "user pid net ipc uts cgroup mnt"
TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
PROGRAM = "/noop"  # inside
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

NSEXT = "nsext.spawn"
NSEXT_INIT = "nsext.spawn, init=True"
BWRAP = "bwrap"
BWRAP_PID1 = "bwrap --as-pid-1"
UNSHARE = "unshare(1), mount, pivot_root"
CRUN = "crun"
RUNC = "runc"


@dataclass(frozen=True)
class Box:
    """What every tool is to make: in a directory of its own, for its notes."""

    program: str
    place: Path
    user: bool
    mounts: int = 0  # more of them
    links: dict[str, str] = field(default_factory=dict)
    tops: tuple[str, ...] = ()

    @classmethod
    def of(cls, program: str, place: Path, mounts: int = 0) -> Box:
        """One for the running system, which may or may not be merged into /usr."""
        tops = [name for name in TOP if Path(f"/{name}").is_dir()]
        links = {name: os.readlink(f"/{name}") for name in tops if Path(f"/{name}").is_symlink()}
        for number in range(mounts):
            (place / f"more/{number}").mkdir(parents=True, exist_ok=True)
        (place / "rootfs").mkdir(exist_ok=True)
        real = tuple(name for name in tops if name not in links)
        return cls(program, place, os.geteuid() != 0, mounts, links, real)

    def binds(self) -> list[tuple[str, str]]:
        """(source, target) of all that is bound."""
        found = [("/usr", "/usr"), *((f"/{name}", f"/{name}") for name in self.tops)]
        more = [(f"{self.place}/more/{i}", f"/more/{i}") for i in range(self.mounts)]
        return [*found, (self.program, PROGRAM), *more]

    def kinds(self) -> list[str]:
        """Those that are new."""
        return [kind for kind in NEW.split() if kind != "user" or self.user]


def _nsext(box: Box, init: bool) -> Call:
    sandbox = nsext.Sandbox(
        new=box.kinds(),
        root=nsext.Tmpfs(),
        mounts=[
            *(nsext.Symlink(to, f"/{name}") for name, to in box.links.items()),
            *(nsext.Bind(source, target) for source, target in box.binds()),
            nsext.Dev(),
            nsext.Tmpfs("/tmp", mode=0o1777),
        ],
        init=init,
    )
    args, spawn = [PROGRAM], nsext.spawn
    return lambda: spawn(args, sandbox=sandbox).wait()


def _bwrap(box: Box, *words: str) -> Call | None:
    tool = shutil.which("bwrap")
    if tool is None:
        return None
    argv = [tool, *words]
    argv += [f"--unshare-{kind}" for kind in box.kinds() if kind != "mnt"]
    for name, to in box.links.items():
        argv += ["--symlink", to, f"/{name}"]
    for source, target in box.binds():
        argv += ["--ro-bind", source, target]
    return run_and_wait([*argv, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", PROGRAM])


def _unshare(box: Box) -> Call | None:
    tool, root = shutil.which("unshare"), shlex.quote(f"{box.place}/rootfs")
    if tool is None:
        return None
    lines = ["set -e", f"mount -t tmpfs root {root}", f"cd {root}"]
    made = ["proc", "tmp", "dev", "old"]
    made += [target[1:] for _, target in box.binds() if target != PROGRAM]
    lines += [f"mkdir -p {' '.join(made)}", f"touch .{PROGRAM}"]
    lines += [f"ln -s {to} {name}" for name, to in box.links.items()]
    for source, target in box.binds():
        lines += [f"mount --rbind {shlex.quote(source)} .{target}"]
        lines += [f"mount -o remount,bind,ro,nosuid,nodev .{target}"]
    lines += ["mount -t proc proc proc", "mount -t tmpfs tmp tmp", "mount -t tmpfs dev dev"]
    for name in DEVICES:
        lines += [f"touch dev/{name}", f"mount --bind /dev/{name} dev/{name}"]
    lines += ["mkdir dev/pts dev/shm", "mount -t devpts -o newinstance,ptmxmode=666 pts dev/pts"]
    lines += ["ln -s pts/ptmx dev/ptmx", "ln -s /proc/self/fd dev/fd"]
    lines += [
        f"ln -s /proc/self/fd/{n} dev/std{name}" for n, name in enumerate(("in", "out", "err"))
    ]
    lines += ["pivot_root . old", "umount -l /old", "cd /", f"exec {PROGRAM}"]
    words = {"mnt": "--mount", "pid": "--pid --fork", "user": "--user --map-root-user"}
    options = " ".join(words.get(kind, f"--{kind}") for kind in box.kinds())
    return run_and_wait([tool, *options.split(), "/bin/sh", "-c", "\n".join(lines)])


def _mount(kind: str, source: str, target: str, *options: str) -> dict[str, object]:
    return {"type": kind, "source": source, "destination": target, "options": list(options)}


def _bundle(box: Box) -> Path:
    """An OCI bundle, whose root directory has what the mounts need."""
    bundle = box.place
    root = bundle / "rootfs"
    for name in ("proc", "dev", "tmp"):
        (root / name).mkdir(exist_ok=True)
    for name, to in box.links.items():
        if not (root / name).is_symlink():
            (root / name).symlink_to(to)
    for source, target in box.binds():
        place = root / target[1:]
        if Path(source).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.touch()
    names = {"mnt": "mount", "net": "network"}
    linux: dict[str, object] = {
        "namespaces": [{"type": names.get(kind, kind)} for kind in box.kinds()]
    }
    if box.user:
        for key, own in (("uidMappings", os.geteuid()), ("gidMappings", os.getegid())):
            linux[key] = [{"containerID": 0, "hostID": own, "size": 1}]
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": [PROGRAM],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [
            _mount("proc", "proc", "/proc"),
            _mount("tmpfs", "tmpfs", "/dev", "nosuid", "mode=755"),
            _mount(
                "devpts", "devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666"
            ),
            _mount("tmpfs", "shm", "/dev/shm", "nosuid", "nodev", "mode=1777"),
            _mount("tmpfs", "tmp", "/tmp", "nosuid", "nodev", "mode=1777"),
            *(_mount("bind", *bind, "rbind", "ro", "nosuid", "nodev") for bind in box.binds()),
        ],
        "linux": linux,
    }
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def _oci(name: str, box: Box, *words: str) -> Call | None:
    tool = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if tool is None:
        return None
    bundle, numbers = str(_bundle(box)), count()
    argv = [tool, *words, "--root", f"{box.place}/{name}", "run", "--bundle", bundle]

    def call() -> None:
        run_and_wait([*argv, f"nsext-bench-{os.getpid()}-{next(numbers)}"])()

    return call


_MAKERS: dict[str, Callable[[Box], Call | None]] = {
    NSEXT: lambda box: _nsext(box, init=False),
    NSEXT_INIT: lambda box: _nsext(box, init=True),
    BWRAP: _bwrap,
    BWRAP_PID1: lambda box: _bwrap(box, "--as-pid-1"),
    UNSHARE: _unshare,
    CRUN: lambda box: _oci("crun", box, "--cgroup-manager=disabled"),
    RUNC: lambda box: _oci("runc", box),
}
NAMES = tuple(_MAKERS)


def boxes(box: Box, names: tuple[str, ...] = NAMES) -> list[Contender]:
    """A contender for each of *names* that exists here."""
    found = ((name, _MAKERS[name](box)) for name in names)
    return [Contender(name, call) for name, call in found if call is not None]
