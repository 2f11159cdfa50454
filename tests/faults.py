"""Fault injection by seccomp's user notifications, and what has to hold after a fault.

A filter on the instruction pointer sends every system call made from a range of addresses to a
supervisor, which lets it pass, fails it, kills its process or leaves it hanging.  The ranges are
parameters: the child's section of the extension, the whole extension, or a helper program that is
linked at a fixed address.  Filters are per thread and inherited, so that one on a throw-away
thread sees the children of that thread and nobody else.

No no_new_privs (it would change what is tested), hence CAP_SYS_ADMIN.
See seccomp(2), seccomp_unotify(2).
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import fcntl
import functools
import os
import platform
import queue
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import bodies
import sanitized

from nsext import _native

bodies.install()

HERE = Path(__file__).resolve().parent
NICE = os.getpriority(os.PRIO_PROCESS, 0)  # a value that everybody may set
CHILD_TEXT: tuple[int, int] = _native.CHILD_TEXT

_libc = ctypes.CDLL(None, use_errno=True)
_SECCOMP_SET_MODE_FILTER = 1
_FLAG_NEW_LISTENER = 1 << 3
_NOTIF_SIZE, _RESP_SIZE = 80, 24  # struct seccomp_notif, seccomp_notif_resp
_NOTIF_RECV = 0xC0502100  # _IOWR('!', 0, struct seccomp_notif)
_NOTIF_SEND = 0xC0182101
_RESP_CONTINUE = 1
_WALL = 0x40000000

# The C library installs a handler of its own (signal 33) with a process's first thread: before
# anybody compares dispositions.
_first = threading.Thread(target=int)
_first.start()
while os.path.exists(f"/proc/self/task/{_first.native_id}"):
    os.sched_yield()


def must_work() -> bool:
    """Whether a skip counts as a failure."""
    return os.environ.get("NSEXT_MUST_WORK") == "1"


def need(condition: Any, reason: str) -> None:
    """Skip the test where the machine lacks something; with NSEXT_MUST_WORK=1, fail."""
    import pytest

    if not condition:
        (pytest.fail if must_work() else pytest.skip)(reason)


@functools.cache
def can_inject() -> bool:
    """Whether this process may install a listener."""
    need(shutil.which("cc"), "needs a C compiler, for the numbers of system calls")
    try:
        with Injector():
            return True
    except OSError:
        return False


@functools.cache
def call_numbers() -> dict[str, int]:
    """Names of the system calls here, from the kernel's header."""
    source = "#include <asm/unistd.h>\n"
    out = subprocess.run(
        ["cc", "-E", "-dM", "-"], input=source, capture_output=True, text=True, check=True
    ).stdout
    words = dict(re.findall(r"^#define (__NR\w+) (\w+)$", out, re.MULTILINE))
    numbers = {}
    for name, value in words.items():
        value = words.get(value, value)  # __NR_fcntl is __NR3264_fcntl on some
        if name.startswith("__NR_") and value.isdigit():
            numbers[name.removeprefix("__NR_")] = int(value)
    return numbers


@functools.cache
def call_names() -> dict[int, str]:
    return {number: name for name, number in call_numbers().items()}


def join(thread: threading.Thread) -> None:
    """Wait for a thread to end, and for the kernel to know it: Python's join() is earlier."""
    thread.join()
    while os.path.exists(f"/proc/self/task/{thread.native_id}"):
        os.sched_yield()


# ---- the filter ------------------------------------------------------------------------------


Range = tuple[int, int] | tuple[int, int, str]
"""First and last address, and perhaps the one call that counts."""


def _program(ranges: Sequence[Range]) -> bytes:
    """BPF: notify if start <= instruction pointer <= end for a range (and the call is its).

    seccomp reports the address after the instruction, which may be the end itself.
    """
    ld, jeq, jgt, jge, ret = 0x20, 0x15, 0x25, 0x35, 0x06
    number, low, high = 0, 8, 12  # offsets in struct seccomp_data, little-endian
    lines: list[tuple[int, int, Any, Any]] = []  # (code, k, label if true, label if false)
    labels: dict[Any, int] = {}
    for at, (start, end, *only) in enumerate(ranges):
        upper, other = f"upper {at}", f"other {at}"
        for name in only:
            lines += [(ld, number, None, None), (jeq, call_numbers()[name], None, other)]
        lines += [
            (ld, high, None, None),
            (jgt, start >> 32, upper, None),
            (jeq, start >> 32, None, other),
            (ld, low, None, None),
            (jge, start & 0xFFFFFFFF, None, other),
        ]
        labels[upper] = len(lines)
        lines += [
            (ld, high, None, None),
            (jgt, end >> 32, other, None),
            (jeq, end >> 32, None, "notify"),
            (ld, low, None, None),
            (jgt, end & 0xFFFFFFFF, other, "notify"),
        ]
        labels[other] = len(lines)
    lines += [
        (ret, 0x7FFF0000, None, None),  # SECCOMP_RET_ALLOW
        (ret, 0x7FC00000, None, None),  # SECCOMP_RET_USER_NOTIF
    ]
    labels["notify"] = len(lines) - 1
    code = b""
    for at, (op, k, true, false) in enumerate(lines):
        jumps = [labels[label] - at - 1 if label else 0 for label in (true, false)]
        code += struct.pack("@HBBI", op, *jumps, k)
    return code


def install(*ranges: Range) -> int:
    """Put the filter on the calling thread, for good; return the listener."""
    code = _program(ranges)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    fd = _libc.syscall(
        ctypes.c_long(call_numbers()["seccomp"]),
        ctypes.c_ulong(_SECCOMP_SET_MODE_FILTER),
        ctypes.c_ulong(_FLAG_NEW_LISTENER),
        ctypes.c_char_p(program),
    )
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(fd)


def child_text() -> tuple[Range, ...]:
    """The code that runs a child's steps."""
    return (CHILD_TEXT, bodies.HELPER_TEXT) if bodies.forced() else (CHILD_TEXT,)


def module_text() -> tuple[int, int]:
    """All code of the extension, the parent's included."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, mode = line.split()[:2]
        start, end = (int(number, 16) for number in span.split("-"))
        if "x" in mode and start <= CHILD_TEXT[0] < end:
            return start, end
    raise AssertionError("the extension is not mapped")


class Call(NamedTuple):
    """A system call that waits for an answer."""

    id: int
    pid: int  # of the thread that made it
    name: str
    args: tuple[int, ...]
    in_child: bool


def receive(listener: int) -> Call | None:
    """The next call; None: its process has died meanwhile."""
    data = bytearray(_NOTIF_SIZE)
    try:
        fcntl.ioctl(listener, _NOTIF_RECV, data)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return None
    notice, pid, _, number, _, pointer, *args = struct.unpack("@QIIiIQ6Q", data)
    inside = any(start <= pointer <= end for start, end in (CHILD_TEXT, bodies.HELPER_TEXT))
    return Call(notice, pid, call_names().get(number, str(number)), tuple(args), inside)


def reply(listener: int, call: Call, error: int = 0) -> None:
    """Let the call pass, or fail it with *error*."""
    flags = 0 if error else _RESP_CONTINUE
    try:
        fcntl.ioctl(listener, _NOTIF_SEND, struct.pack("@QqiI", call.id, 0, -error, flags))
    except OSError as gone:
        if gone.errno != errno.ENOENT:
            raise


# Answers, beside None (pass) and an errno.
KILL, HANG = "kill", "hang"
Answer = Callable[[Call], Any]


def pass_all(call: Call) -> Any:
    return None


class Outcome(NamedTuple):
    """What came of a job under supervision."""

    value: Any
    error: BaseException | None
    calls: list[Call]
    seconds: float


class Injector:
    """A throw-away thread under the filter, and its supervisor.

    run(job, answer) calls job() there, and answer(call) here for each call from *ranges* (the
    child's section, if there are none).  A call that is made with the GIL held hangs: nobody is
    there to answer.
    """

    def __init__(self, *ranges: Range) -> None:
        self._ranges = ranges or child_text()
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Injector:
        call_numbers()  # cc runs before the filter is on
        self._done = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread.start()
        self.listener = self._results.get()
        self.thread_id = self._thread.native_id or 0
        if isinstance(self.listener, OSError):
            join(self._thread)
            os.close(self._done)
            raise self.listener
        return self

    def __exit__(self, *unused: object) -> None:
        self._jobs.put(None)
        # The collector may let a child go there, which is a call of the extension's.
        assert self.drain(lambda: not self._thread.is_alive(), 10)
        join(self._thread)
        os.close(self.listener)
        os.close(self._done)

    def _work(self) -> None:
        try:
            self._results.put(install(*self._ranges))
        except OSError as error:
            self._results.put(error)
            return
        while (job := self._jobs.get()) is not None:
            begin = time.perf_counter()
            value, failure = None, None
            try:
                value = job()
            except BaseException as error:  # handed to the caller of run()
                failure = error.with_traceback(None)
            self._results.put((value, failure, time.perf_counter() - begin))
            del job, value, failure
            os.eventfd_write(self._done, 1)

    def drain(self, is_over: Callable[[], Any], seconds: float) -> bool:
        """Let calls pass until is_over(); False where it is not in time."""
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        end = time.monotonic() + seconds
        while not is_over():
            if time.monotonic() > end:
                return False
            if poll.poll(1) and (call := receive(self.listener)):
                reply(self.listener, call)
        return True

    def run(self, job: Callable[[], Any], answer: Answer = pass_all) -> Outcome:
        calls: list[Call] = []
        held: list[Call] = []
        wrong: Exception | None = None
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        poll.register(self._done, select.POLLIN)
        self._jobs.put(job)
        while True:
            ready = dict(poll.poll(30_000))
            assert ready, f"hung; the calls so far: {[call.name for call in calls]}"
            if self.listener in ready:
                call = receive(self.listener)
                if call is None:
                    continue
                calls.append(call)
                try:
                    what = answer(call)
                except Exception as error:  # the job has to end all the same
                    wrong, what, answer = error, None, pass_all
                    for other in held:
                        reply(self.listener, other)
                if what == KILL:
                    # It waits for an answer and is not reaped: the pid is still its own.
                    os.kill(call.pid, signal.SIGKILL)
                elif what == HANG:
                    held.append(call)
                else:
                    reply(self.listener, call, what or 0)
            else:
                os.eventfd_read(self._done)
                value, failure, seconds = self._results.get()
                if wrong:
                    raise wrong
                return Outcome(value, failure, calls, seconds)


# ---- what has to hold ------------------------------------------------------------------------

_VOLATILE = re.compile(
    rb"^(Vm\w+|Rss\w+|Hugetlb\w+|\w*ctxt_switches|State|SigQ|Shd?Pnd|SigPnd|Mems_allowed\w*|Threads"
    rb"|Seccomp\w*|Pid|Speculation\w*|x86\w*|HugetlbPages):.*\n",
    re.MULTILINE,
)


def open_fds() -> dict[int, str]:
    fds = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            fds[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # the listing's own
    # What the core keeps: the helper's image, and the memfds of a few plans.
    kept = [fd for fd, name in fds.items() if name.startswith("/memfd:nsext-")]
    assert len(kept) <= 9, fds
    return {fd: name for fd, name in fds.items() if fd not in kept}


def children() -> list[int] | None:
    """None: ECHILD, as it has to be."""
    try:  # looks, and takes nobody's status
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
    except ChildProcessError:
        return None
    found = []
    for task in os.listdir("/proc/self/task"):
        found += Path(f"/proc/self/task/{task}/children").read_text().split()
    return [int(pid) for pid in found]


def state() -> dict[str, Any]:
    """What a spawn must not change in the process and in the calling thread."""
    proc = Path("/proc/thread-self")
    return {
        "fds": open_fds(),
        "children": children(),
        "threads": sorted(os.listdir("/proc/self/task")),
        "mounts": (proc / "mountinfo").read_bytes(),
        "dumpable": _libc.prctl(3, 0, 0, 0, 0),  # PR_GET_DUMPABLE
        "oom_score_adj": Path("/proc/self/oom_score_adj").read_bytes(),
        # Signal mask and dispositions, umask, capabilities, ids, affinity.
        "status": _VOLATILE.sub(b"", (proc / "status").read_bytes()),
        "namespaces": {name: os.readlink(proc / "ns" / name) for name in os.listdir(proc / "ns")},
        "limits": (proc / "limits").read_bytes(),
        "cgroup": (proc / "cgroup").read_bytes(),
        "cwd": os.getcwd(),
        "root": os.readlink("/proc/self/root"),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "session": (os.getsid(0), os.getpgid(0)),
        "names": os.uname(),
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs, in words; empty where nothing does."""
    return [
        f"{name}: {before[name]!r} -> {after[name]!r}"
        for name in before
        if before[name] != after[name]
    ]


@contextmanager
def unchanged() -> Iterator[None]:
    """Assert that the block leaves the process as it was."""
    before = state()
    assert before["children"] is None
    yield
    wrong = changes(before, state())
    assert not wrong, "\n".join(wrong)


# ---- helpers ---------------------------------------------------------------------------------


@functools.cache
def _scratch() -> Path:
    path = tempfile.mkdtemp(prefix="nsext-test-")
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(path, ignore_errors=True))
    os.chmod(path, 0o755)
    return Path(path)


_EXIT_0 = {
    "x86_64": "mov $231, %eax; xor %edi, %edi; syscall",
    "aarch64": "mov x8, #94; mov x0, #0; svc #0",
}


@functools.cache
def noop() -> str:
    """A program that does nothing, and starts fast.

    One for all that this process starts: those that are killed could not remove theirs.
    """
    known = os.environ.get("NSEXT_TEST_NOOP", "")
    if os.access(known, os.X_OK):
        return known
    code = _EXIT_0.get(platform.machine())
    if code is None or shutil.which("cc") is None:
        return "/bin/true"
    path = _scratch() / "noop"
    subprocess.run(
        ["cc", "-static", "-nostdlib", "-x", "assembler", "-", "-o", path],
        input=f".globl _start\n_start: {code}\n",
        text=True,
        check=True,
    )
    os.environ["NSEXT_TEST_NOOP"] = str(path)
    return str(path)


def compile_library(source: str) -> ctypes.CDLL:
    """A shared library from C."""
    path = _scratch() / f"lib{abs(hash(source))}.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-pthread", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True)
    return ctypes.CDLL(str(path))


def in_subprocess(function: Callable[..., Any], *args: Any, timeout: float = 60) -> str:
    """Run a module-level function in a fresh interpreter, with a deadline; return what it prints.

    Past the deadline all its threads' stacks are in the failure's text.
    """
    code = (
        f"import faulthandler, sys; faulthandler.dump_traceback_later({timeout - 1}, exit=True)\n"
        f"sys.path[:0] = {[str(HERE), str(HERE.parent)]!r}\n"
        f"import {function.__module__} as module\n"
        f"module.{function.__name__}(*{args!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **sanitized.RUNTIME},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=timeout + 5,
        start_new_session=True,
    )
    assert done.returncode == 0, f"{function.__name__}: {done.returncode}\n{done.stderr}"
    return done.stdout


def readable(fd: int, seconds: float) -> bool:
    """Whether fd becomes readable in time: a pidfd, when its process has ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
