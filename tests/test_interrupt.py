"""Ctrl-C, deadlines and the death of the parent, while a child hangs in its set-up or in exec."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import pytest

import nsext

DEADLINE = 2.0
RANGES = [(0, 0, 1000)]
RANGED = nsext.Sandbox(new="user uts", uid_map=RANGES, gid_map=RANGES)
BOX = nsext.Sandbox(
    new="user pid uts mnt net",
    hostname="hang",
    rlimits={"core": 0},
    cwd="/",
    nice=faults.NICE,
)


# ---- a child that hangs in a system call -----------------------------------------------------


class Supervisor:
    """Leaves the calls of one name unanswered; on_hang() runs when the first is there.

    The main thread gets the KeyboardInterrupt, so it is the main thread that the filter is on,
    for good: only in a subprocess.
    """

    def __init__(
        self, name: str, on_hang: Callable[[faults.Call], Any], *ranges: faults.Range
    ) -> None:
        self._name, self._on_hang = name, on_hang
        self.hang = True
        self._listener = faults.install(*ranges)
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while True:
            poll.poll()
            call = faults.receive(self._listener)
            if call and self.hang and call.name == self._name:
                self._on_hang(call)
            elif call:
                faults.reply(self._listener, call)


def interrupt(thread: int | None = None) -> float:
    """Send SIGINT, to the process or to one thread; return when."""
    now = time.monotonic()
    if thread is None:
        os.kill(os.getpid(), signal.SIGINT)
    else:
        signal.pthread_kill(thread, signal.SIGINT)
    return now


def _expect_interrupt(job: Callable[[], Any], sent: list[float]) -> float:
    """Seconds from the signal to the KeyboardInterrupt that job() must raise."""
    try:
        job()
    except KeyboardInterrupt:
        return time.monotonic() - sent[-1]
    raise AssertionError("no KeyboardInterrupt")


def inner_interrupt_set_up(name: str, elsewhere: bool) -> None:
    """elsewhere: the signal is another thread's, so that it wakes nobody who waits."""
    sent: list[float] = []
    box = RANGED if name == "rt_sigaction" else BOX

    def on_hang(call: faults.Call) -> None:
        sent.append(interrupt(threading.get_ident() if elsewhere else None))

    supervisor = Supervisor(name, on_hang, *faults.child_text())
    program = faults.noop()
    with faults.unchanged():
        for _ in range(3):
            print(_expect_interrupt(lambda: box.spawn([program]), sent))
            print(_expect_interrupt(lambda: box.run([program], capture_output=True), sent))
    supervisor.hang = False
    assert box.run([program]).returncode == 0


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(
    "name", ["openat", "mount", "prlimit64", "chdir", "execve", "rt_sigaction"]
)
def test_interrupted_set_up(name: str, elsewhere: bool, record_property: Any) -> None:
    faults.need(faults.can_inject(), "no seccomp listener")
    text = faults.in_subprocess(inner_interrupt_set_up, name, elsewhere, timeout=20)
    delays = [float(word) for word in text.split()]
    record_property("delays", delays)
    assert len(delays) == 6
    assert max(delays) < 1 and sorted(delays)[3] < 0.1, delays


HANGS = [
    ("openat", "idmap"),
    ("sethostname", "setup"),
    ("ioctl", "setup"),
    ("mount", "setup"),
    ("close_range", "setup"),
    ("setpriority", "setup"),
    ("chdir", "cwd"),
    ("execve", "exec"),
]


@pytest.mark.parametrize("name, stage", HANGS)
def test_spawn_timeout_tells_the_stage(name: str, stage: str) -> None:
    faults.need(faults.can_inject(), "no seccomp listener")
    limit = 0.06
    argv = [faults.noop(), "argument"]

    def answer(call: faults.Call) -> Any:
        return faults.HANG if call.name == name else None

    with faults.Injector() as injector:
        before = injector.run(faults.state).value
        outcome = injector.run(lambda: BOX.spawn(argv, spawn_timeout=limit), answer)
        assert faults.changes(before, injector.run(faults.state).value) == []
    error = outcome.error
    assert isinstance(error, nsext.SpawnTimeout)
    assert isinstance(error, nsext.SpawnError) and isinstance(error, TimeoutError)
    assert isinstance(error, subprocess.TimeoutExpired)
    assert (error.stage, error.errno, error.timeout) == (stage, errno.ETIMEDOUT, limit)
    assert error.cmd == argv
    assert limit <= outcome.seconds < 1


def test_timeout_names_the_step() -> None:
    """A step that hangs has no failed part: its words are those of the whole."""
    faults.need(faults.can_inject(), "no seccomp listener")
    with faults.Injector() as injector:
        outcome = injector.run(
            lambda: nsext.spawn([faults.noop()], spawn_timeout=0.03),
            lambda call: faults.HANG if call.name == "close_range" else None,
        )
    assert isinstance(outcome.error, nsext.SpawnTimeout)
    assert outcome.error.step == "pass file descriptors"


def test_run_bounds_the_set_up() -> None:
    faults.need(faults.can_inject(), "no seccomp listener")
    with faults.Injector() as injector:
        outcome = injector.run(
            lambda: nsext.run([faults.noop()], timeout=0.05, capture_output=True),
            lambda call: faults.HANG if call.name == "execve" else None,
        )
    assert isinstance(outcome.error, nsext.TimeoutExpired)
    assert outcome.seconds < 1


def inner_other_threads() -> None:
    seen = []

    def count() -> int:
        number, end = 0, time.monotonic() + 0.1
        while time.monotonic() < end:
            number += 1
        return number

    def answer(call: faults.Call) -> Any:
        if call.name == "execve":  # this thread counts while the child of the other hangs
            seen.append(count())
        return None

    with faults.Injector() as injector:
        outcome = injector.run(lambda: nsext.spawn([faults.noop()]).wait(), answer)
    assert (outcome.value, outcome.error) == (0, None)
    assert seen[0] > count() / 10


def test_other_threads_run_meanwhile() -> None:
    faults.need(faults.can_inject(), "no seccomp listener")
    faults.in_subprocess(inner_other_threads, timeout=20)


# ---- a child that hangs in exec: FUSE --------------------------------------------------------


class Fuse:
    """A mount that answers FUSE_INIT and nothing else."""

    def __init__(self, take: bool, on_request: Callable[[], None]) -> None:
        """take: read the first request, without an answer; else leave it in the queue."""
        self._take, self._on_request = take, on_request
        libc = ctypes.CDLL(None, use_errno=True)
        nsext.unshare("mnt")
        self._mount(libc, b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE
        self._mount(libc, b"none", b"/mnt", b"tmpfs", 0, None)
        os.mkdir("/mnt/fuse")
        self.fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0".encode()
        self._mount(libc, b"fuse", b"/mnt/fuse", b"fuse", 0, options)
        self._answer_init()

    @staticmethod
    def _mount(libc: Any, source: bytes, target: bytes, kind: Any, flags: int, data: Any) -> None:
        if libc.mount(source, target, kind, ctypes.c_ulong(flags), data) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fsdecode(target))

    def _answer_init(self) -> None:
        request = os.read(self.fd, 1 << 17)
        _, opcode, unique = struct.unpack_from("@IIQ", request)
        assert opcode == 26  # FUSE_INIT
        # struct fuse_init_out: major, minor, max_readahead, flags, background, max_write, ...
        out = struct.pack("@IIIIHHI", 7, 31, 0, 0, 1, 1, 4096) + bytes(40)
        os.write(self.fd, struct.pack("@IiQ", 16 + len(out), 0, unique) + out)

    def serve_one(self) -> None:
        """In a thread: wait for the first request."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        poll.poll()
        if self._take:
            os.read(self.fd, 1 << 17)
        self._on_request()

    def abort(self) -> None:
        os.close(self.fd)


def _limbo() -> list[int]:
    """Children that are there and not to be waited for: stuck."""
    return faults.children() or []


def inner_fuse(take: bool, how: str) -> None:
    sent: list[float] = []
    program = faults.noop()
    before = faults.state()
    fuse = Fuse(take, lambda: sent.append(interrupt() if how == "signal" else time.monotonic()))
    before["fds"] = faults.open_fds()
    before["mounts"] = faults.state()["mounts"]
    before["namespaces"] = faults.state()["namespaces"]
    server = threading.Thread(target=fuse.serve_one)
    server.start()
    argv = ["/mnt/fuse/program"]
    if how == "signal":
        print(_expect_interrupt(lambda: nsext.spawn(argv, new="uts"), sent))
    else:
        begin = time.monotonic()
        try:
            nsext.spawn(argv, new="uts", spawn_timeout=0.1)
            raise AssertionError("no timeout")
        except nsext.SpawnTimeout as error:
            assert (error.stage, error.step) == ("exec", "exec")
        print(time.monotonic() - begin - 0.1)
    faults.join(server)
    if not take:  # SIGKILL takes the request out of the queue
        assert faults.changes(before, faults.state()) == []
        return
    # D state: the child, its pidfd and its memory stay, and nothing else.
    (stuck,) = _limbo()
    state = Path(f"/proc/{stuck}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "D", state
    changed = faults.changes(before, faults.state())
    assert [text.partition(":")[0] for text in changed] == ["fds", "children"], changed
    new = faults.open_fds().items() - before["fds"].items()
    assert [target for _, target in new] == ["anon_inode:[pidfd]"], new
    for _ in range(20):  # it disturbs no other
        assert nsext.spawn([program], new="uts").wait() == 0
    assert _limbo() == [stuck]
    pidfd = os.pidfd_open(stuck)
    fuse.abort()
    assert faults.readable(pidfd, 5), "still there after the connection was aborted"
    os.close(pidfd)
    assert nsext.spawn([program], new="uts").wait() == 0  # which sweeps
    del before["fds"][fuse.fd]
    assert faults.changes(before, faults.state()) == []


def _fuse_works() -> bool:
    return os.geteuid() == 0 and os.path.exists("/dev/fuse")


@pytest.mark.parametrize("how", ["signal", "timeout"])
@pytest.mark.parametrize("take", [False, True], ids=["queued", "taken"])
def test_exec_from_a_dead_file_system(take: bool, how: str, record_property: Any) -> None:
    """A killed child is waited for for a second; then it goes to limbo."""
    faults.need(_fuse_works(), "no /dev/fuse")
    delay = float(faults.in_subprocess(inner_fuse, take, how, timeout=30))
    record_property("delay", delay)
    assert delay < (2 if take else 1)
    if not take:
        assert delay < 0.5


# ---- 600 Ctrl-C at random --------------------------------------------------------------------


def inner_random_interrupts(count: int, seed: int) -> None:
    main = threading.get_ident()
    program = faults.noop()
    boxes = [nsext.Sandbox(), nsext.Sandbox(new="pid uts mnt"), RANGED]
    dice = random.Random(seed)
    ready, go = os.pipe()
    outcomes = {"interrupted": 0, "after": 0}

    def kicker() -> None:
        """For each byte: one SIGINT, some time within the spawn."""
        while os.read(ready, 1):
            end = time.perf_counter() + dice.random() * 0.0012
            while time.perf_counter() < end:
                pass
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=kicker, daemon=True)
    thread.start()
    for box in boxes:
        assert box.spawn([program]).wait() == 0
    before = faults.open_fds()
    tasks = sorted(os.listdir("/proc/self/task"))
    for index in range(count):
        process = None
        try:
            os.write(go, b"x")
            process = boxes[index % 3].spawn([program])
            process.wait()
            time.sleep(1)  # until it comes, if it has not
            raise AssertionError("no signal")
        except KeyboardInterrupt:
            # One signal for each round: from here on none is under way.
            outcomes["after" if process else "interrupted"] += 1
            if process:
                assert process.wait() == 0
    process = None
    os.close(go)
    faults.join(thread)
    os.close(ready)
    # A Process that was made and dropped by the interrupt is kept for the next spawn to reap;
    # that is the caller's child.  What spawn() itself interrupted is nobody's and has to be gone.
    deadline = time.monotonic() + 5
    while faults.children() is not None:
        assert time.monotonic() < deadline, f"left: {_limbo()} {outcomes}"
        assert nsext.spawn([program]).wait() == 0
    after = faults.open_fds()
    after |= {fd: before[fd] for fd in (ready, go)}
    assert after == before, f"{after.items() ^ before.items()} {outcomes}"
    assert len(os.listdir("/proc/self/task")) == len(tasks) - 1
    assert outcomes["interrupted"] > count / 20, outcomes
    print(outcomes)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_random_interrupts(seed: int) -> None:
    count = int(os.environ.get("NSEXT_INTERRUPTS", "300"))
    faults.in_subprocess(inner_random_interrupts, count, seed, timeout=50)


# ---- the parent dies -------------------------------------------------------------------------


def inner_hang_at_maps() -> None:
    """Hold this process before it writes its child's map; tell the child's pid."""

    def on_hang(call: faults.Call) -> None:
        path = ctypes.string_at(call.args[1]).decode()
        print(path.split("/")[2], flush=True)

    Supervisor("openat", on_hang, (*faults.module_text(), "openat"))
    RANGED.spawn([faults.noop()])


@pytest.mark.parametrize("stopped", [False, True])
def test_parent_killed_while_its_child_is_gated(stopped: bool) -> None:
    faults.need(faults.can_inject(), "no seccomp listener")
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import test_interrupt; test_interrupt.inner_hang_at_maps()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        assert faults.readable(parent.stdout.fileno(), 20)
        child = int(parent.stdout.readline())
        pidfd = os.pidfd_open(child)
        try:
            assert not faults.readable(pidfd, 0.12)  # two slices of the gate: it goes on waiting
            if stopped:
                parent.send_signal(signal.SIGSTOP)
            parent.kill()
            begin = time.monotonic()
            assert faults.readable(pidfd, 1), "the child outlives its parent"
            assert time.monotonic() - begin < 1
        finally:
            os.close(pidfd)
