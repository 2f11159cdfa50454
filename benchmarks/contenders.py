"""The contenders: ways to start one program in new namespaces and to wait for its end.

Each is written as its users write it, and each starts the same program, noop.c.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nsext

HERE = Path(__file__).resolve().parent
LIBC = ctypes.CDLL(None, use_errno=True)
clock = time.perf_counter_ns

Call = Callable[[], int]
"""Spawn and wait: 0, or what went wrong."""

# What unshare(1) and bwrap(1) call the kinds; bwrap makes a mount namespace always.
KINDS = ("mnt", "uts", "ipc", "user", "pid", "net", "cgroup", "time")
FOUR = "pid uts ipc mnt"
ALL = " ".join(KINDS)
UNSHARE_WORDS = {"mnt": "--mount --propagation unchanged", "pid": "--pid --fork"}
BWRAP_WORDS = {"mnt": "", "cgroup": "--unshare-cgroup", "user": "--unshare-user"}


def flags_of(kinds: str) -> int:
    """CLONE_NEW* flags of "pid mnt"."""
    names = {"mnt": "NEWNS"}
    flags = 0
    for kind in kinds.split():
        flags |= nsext.CloneFlags[names.get(kind, f"NEW{kind.upper()}")]
    return int(flags)


@dataclass(frozen=True)
class Tools:
    """What is compiled for the run."""

    program: str
    library: ctypes.CDLL

    def reference(self, flags: int, twice: bool = False) -> int:
        """Run the C reference: the nanoseconds of a spawn.  *twice*: with one exec more."""
        taken = ctypes.c_int64()
        path = self.program.encode()
        error = self.library.reference_run(path, flags, twice, ctypes.byref(taken))
        if error < 0:
            raise OSError(-error, os.strerror(-error))
        check(error)
        return taken.value


@contextmanager
def build() -> Iterator[Tools]:
    """Compile noop.c and reference.c into a temporary directory."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    noop = "-Os -ffreestanding -nostdlib -static -no-pie -fno-stack-protector -s".split()
    with tempfile.TemporaryDirectory(prefix="nsext-bench-") as directory:
        os.chmod(directory, 0o755)
        program, library = f"{directory}/noop", f"{directory}/reference.so"
        for target, source, options in (
            (program, "noop.c", noop),
            (library, "reference.c", ["-O2", "-shared", "-fPIC"]),
        ):
            subprocess.run([*compiler, *options, "-o", target, HERE / source], check=True)
        yield Tools(program, ctypes.CDLL(library))


def check(status: int) -> None:
    if status:
        raise RuntimeError(f"the program ended with {status}")


def _unshare(flags: int) -> None:
    """os.unshare, for Python 3.11."""
    if LIBC.unshare(flags) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


unshare: Callable[[int], None] = getattr(os, "unshare", _unshare)


def fields_of(kinds: str) -> dict[str, Any]:
    """nsext's keywords for the kernel work of the other contenders: namespaces and no more."""
    words = kinds.split()
    fields: dict[str, object] = {"new": kinds} if words else {}
    if "mnt" in words:
        fields |= {"proc": False, "propagation": "unchanged"}
    if "net" in words:
        fields["loopback"] = False
    return fields


def _spawn(tools: Tools, kinds: str) -> Call:
    args, spawn, box = [tools.program], nsext.spawn, nsext.Sandbox(**fields_of(kinds))
    return lambda: spawn(args, sandbox=box).wait()


def _popen(tools: Tools, kinds: str) -> Call:
    args, fields, popen = [tools.program], fields_of(kinds), nsext.Popen
    return lambda: popen(args, **fields).wait()


def _subprocess(tools: Tools, kinds: str) -> Call:
    args, popen = [tools.program], subprocess.Popen
    return lambda: popen(args).wait()


def run_and_wait(argv: list[str]) -> Call:
    environ = dict(os.environ)

    def call() -> int:
        pid = os.posix_spawn(argv[0], argv, environ)
        return os.waitpid(pid, 0)[1]

    return call


def _posix_spawn(tools: Tools, kinds: str) -> Call:
    return run_and_wait([tools.program])


def _fork(tools: Tools, kinds: str) -> Call:
    """os.fork + os.unshare + exec; a pid namespace is that of the next fork's child."""
    program, argv, flags = tools.program, [tools.program], flags_of(kinds)
    twice = flags & nsext.CloneFlags.NEWPID

    def call() -> int:
        pid = os.fork()
        if pid == 0:
            try:
                if flags:
                    unshare(flags)
                inner = os.fork() if twice else 0
                if inner:
                    os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))
                os.execv(program, argv)
            finally:
                os._exit(127)
        return os.waitpid(pid, 0)[1]

    return call


def _preexec(tools: Tools, kinds: str) -> Call:
    args, popen, flags = [tools.program], subprocess.Popen, flags_of(kinds)
    return lambda: popen(args, preexec_fn=lambda: unshare(flags)).wait()


def _unshare_tool(tools: Tools, kinds: str) -> Call | None:
    tool = shutil.which("unshare")
    if tool is None:
        return None
    words = " ".join(UNSHARE_WORDS.get(kind, f"--{kind}") for kind in kinds.split())
    return run_and_wait([tool, *words.split(), tools.program])


def _bwrap(tools: Tools, kinds: str) -> Call | None:
    tool = shutil.which("bwrap")
    if tool is None:
        return None
    words = " ".join(
        BWRAP_WORDS.get(kind, f"--unshare-{kind}") for kind in kinds.split() if kind != "time"
    )
    return run_and_wait([tool, "--bind", "/", "/", *words.split(), tools.program])


class Contender:
    """A way to spawn, ready for certain namespaces."""

    def __init__(self, name: str, call: Call) -> None:
        self.name = name
        self.call = call

    def sample(self, count: int) -> list[int]:
        """Spawn and wait *count* times: the nanoseconds of each."""
        call, samples = self.call, []
        for _ in range(count):
            start = clock()
            status = call()
            samples.append(clock() - start)
            check(status)
        return samples

    def spawn_until(self, start: threading.Barrier, seconds: float) -> int:
        """Spawn and wait for so long: how many were done."""
        start.wait()
        end, count = clock() + int(seconds * 1e9), 0
        while clock() < end:
            self.sample(5)
            count += 5
        return count


class Reference(Contender):
    """clone(VM | VFORK) + exec + waitid, all in C."""

    def __init__(self, tools: Tools, kinds: str, twice: bool = False) -> None:
        self.measure = partial(tools.reference, flags_of(kinds), twice)
        super().__init__(TWICE if twice else REFERENCE, self._once)

    def _once(self) -> int:
        self.measure()
        return 0

    def sample(self, count: int) -> list[int]:
        measure = self.measure
        return [measure() for _ in range(count)]


REFERENCE = "C reference"
TWICE = "C reference, one exec more"
SPAWN = "nsext.spawn"
POPEN = "nsext.Popen"
SUBPROCESS = "subprocess.Popen"
POSIX_SPAWN = "os.posix_spawn"
FORK = "os.fork + unshare"
PREEXEC = "preexec_fn=unshare"
UNSHARE_TOOL = "unshare(1)"
BWRAP = "bwrap"

_MAKERS: dict[str, Callable[[Tools, str], Call | None]] = {
    SPAWN: _spawn,
    POPEN: _popen,
    SUBPROCESS: _subprocess,
    POSIX_SPAWN: _posix_spawn,
    FORK: _fork,
    PREEXEC: _preexec,
    UNSHARE_TOOL: _unshare_tool,
    BWRAP: _bwrap,
}
NAMES = (REFERENCE, *_MAKERS)

# They make no namespaces: the yardstick of a row, not its contenders.
PLAIN = frozenset({SUBPROCESS, POSIX_SPAWN})
# They make namespaces only.
NAMESPACES_ONLY = frozenset({PREEXEC, UNSHARE_TOOL, BWRAP})


def contenders(tools: Tools, kinds: str, names: tuple[str, ...] = NAMES) -> list[Contender]:
    """Those of *names* that exist here and can do *kinds*, the reference first."""
    result: list[Contender] = [Reference(tools, kinds)]
    for name in names:
        if name == REFERENCE or (name in NAMESPACES_ONLY and not kinds):
            continue
        if name == BWRAP and kinds == "time":  # bwrap has no word for it
            continue
        call = _MAKERS[name](tools, kinds)
        if call is not None:
            result.append(Contender(name, call))
    return result
