"""kill_on_parent_exit: the program goes with the process that started it, whatever happens when.

The parents here are forks of this process, which adopts what they leave behind (a subreaper), and
answers for the system calls of their children (faults.py): so each is killed at a known call.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faults
import pytest
from helping import HELPER_TEXT, children_of, ended, gone, is_gone, state_of, wait_for
from support import running, script, stat_field, status

import nsext

DEADLINE = 10.0  # seconds after the parent's death; a tenth of one is usual
SLEEP = ["/bin/sleep", "1000"]


@pytest.fixture
def adopting() -> Iterator[None]:
    """What a dead child leaves behind becomes ours."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
    try:
        yield
    finally:
        libc.prctl(36, 0, 0, 0, 0)


class Parent:
    """A fork that runs *job* and says "done"; with *text*, under a listener that is ours."""

    def __init__(self, job: Callable[[], Any], text: tuple[int, int] | None = None) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                ours.close()
                if text:
                    listener = faults.install(text)
                    socket.send_fds(theirs, [b"filter"], [listener])
                    os.close(listener)
                kept = job()
                theirs.send(b"done")
                signal.pause()
                del kept
            except BaseException as error:
                theirs.send(repr(error).encode())
            finally:
                os._exit(1)
        theirs.close()
        self.socket = ours
        self.listener = -1
        self.said = b""
        if text:
            _, (self.listener,), _, _ = socket.recv_fds(ours, 16, 1)

    def calls(self) -> Iterator[faults.Call]:
        """Its children's calls, each unanswered; until it has said something."""
        while True:
            ready, _, _ = select.select([self.socket, self.listener], [], [], 20)
            assert ready, "hung"
            if self.listener in ready:
                call = faults.receive(self.listener)
                if call is not None:
                    yield call
            else:
                self.said = self.socket.recv(4096)
                return

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def close(self) -> None:
        self.socket.close()
        if self.listener >= 0:
            os.close(self.listener)


def _children() -> list[int]:
    pid = os.getpid()
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def left_over(
    parent: Parent, is_over: Callable[[list[int]], bool], known: Collection[int] = ()
) -> list[str]:
    """What should not be there any more at the deadline; its children's calls are answered meanwhile."""
    end = time.monotonic() + DEADLINE
    poll = select.poll()
    if parent.listener >= 0:
        poll.register(parent.listener, select.POLLIN)
    while True:
        _reap()
        left = [pid for pid in _children() if pid not in known]
        over = is_over(left)
        if over or time.monotonic() > end:
            break
        for _, event in poll.poll(1):
            if event & select.POLLIN:
                call = faults.receive(parent.listener)
                if call is not None:
                    faults.reply(parent.listener, call)
            else:
                poll.unregister(parent.listener)
    found = []
    for pid in left:
        below = [status(child).get("Name") for child in children_of(pid)]
        where = Path(f"/proc/{pid}/syscall").read_text().split()[0]
        if not over:
            found.append(f"{pid} {status(pid).get('Name')} {state_of(pid)} in {where}, {below}")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return found


def _is_sleep(pid: int) -> bool:
    """Is it the program, or the init that has it?"""
    return any(status(item).get("Name") == "sleep" for item in (pid, *children_of(pid)))


def _is_entry(pid: int) -> bool:
    """Does clone()'s entry run, which is pause(2)?"""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] == str(
        faults.call_numbers()["pause"]
    )


def sweep(
    job: Callable[[], Any],
    text: tuple[int, int],
    keep: Callable[[int], bool] | None = None,
    known: Collection[int] = (),
) -> int:
    """Kill the parent at each call of its children's; return how many calls there were.

    keep: says of a program that is not tied to its parent, and may go on, that it is that.
    known: children of this process that stay.
    """
    faults.need(faults.can_inject(), "no seccomp listener (CAP_SYS_ADMIN, Linux 5.5)")
    wrong = []

    def is_over(left: list[int]) -> bool:
        return not left or (keep is not None and all(keep(pid) for pid in left))

    for number in range(1000):
        parent = Parent(job, text)
        names = []
        for call in parent.calls():
            names.append(call.name)
            if len(names) == number + 1:
                parent.kill()
                faults.reply(parent.listener, call)
                break
            faults.reply(parent.listener, call)
        at_end = len(names) <= number
        if at_end:
            assert parent.said == b"done", parent.said
            parent.kill()
        found = left_over(parent, is_over, known)
        parent.close()
        wrong += [f"{number} {names[-1:]}: {text}" for text in found]
        if at_end:
            break
    assert wrong == []
    return number


RANGES = [(0, 0, 1000)]
TIED: dict[str, dict[str, Any]] = {
    "plain": {},
    "user": {"user": 12345, "group": 12345, "extra_groups": [1]},
    "pid": {"new": "pid mnt uts", "hostname": "x"},
    "init": {"new": "pid mnt", "init": True},
    "subreaper": {"init": True, "process_group": 0},
    "ranges": {"new": "user pid mnt", "uid_map": RANGES, "gid_map": RANGES, "user": 5},
    "ranges, init": {"new": "user pid mnt", "uid_map": RANGES, "gid_map": RANGES, "init": True},
    "time": {"new": "time", "time_offsets": {"boottime": 5}},
}
# The children's calls, inline and in the helper; and those of the parent itself.
TEXTS = {
    "inline": faults.CHILD_TEXT,
    "helper": HELPER_TEXT,
    "parent": faults.module_text(),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", TIED)
def test_killed_at_each_call(name: str, text: str, root: None, adopting: None) -> None:
    fields = TIED[name]
    calls = sweep(lambda: nsext.Popen(SLEEP, kill_on_parent_exit=True, **fields), TEXTS[text])
    assert calls >= (2 if text == "inline" else 8)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("fields", [{}, {"init": True}, {"new": "pid mnt", "init": True}])
def test_killed_while_one_is_paused(
    fields: dict[str, Any], text: str, root: None, adopting: None
) -> None:
    """Whether it is tied or not: nobody is left who could resume it."""
    sweep(lambda: nsext.Popen(SLEEP, paused=True, **fields), TEXTS[text])


IN_A_JOIN: dict[str, tuple[str, dict[str, Any]]] = {
    "tied": ("user pid mnt net", {}),
    "new user": ("net", {"new": "user"}),
    "new pid": ("net", {"new": "pid mnt"}),
    "init": ("user pid net", {"init": True}),
    "paused": ("user pid net", {"paused": True, "kill_on_parent_exit": False}),
    "free": ("pid net", {"new": "mnt", "kill_on_parent_exit": False}),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", IN_A_JOIN)
def test_killed_in_a_join(name: str, text: str, root: None, adopting: None) -> None:
    kinds, more = IN_A_JOIN[name]
    with running(new="user pid mnt net") as other:
        # Joined by descriptors of ours: this process is not to be this one's child.
        with nsext.namespaces(other, kinds) as targets:
            fields = {"join": targets, "kill_on_parent_exit": True, **more}
            keep = _is_sleep if name == "free" else None
            known = _children()
            calls = sweep(lambda: nsext.Popen(SLEEP, **fields), TEXTS[text], keep, known)
    assert calls >= (8 if text == "helper" else 2)


FREE: list[dict[str, Any]] = [
    {},
    {"extra_groups": [1]},
    {"new": "user", "uid_map": RANGES},
    {"new": "pid", "init": True},
    {"new": "net", "hold": "net"},
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("fields", FREE)
def test_a_program_that_is_not_tied_is_set_up_or_not_there(
    fields: dict[str, Any], text: str, root: None, adopting: None
) -> None:
    """As with subprocess it goes on; but no part of a set-up does."""
    sweep(lambda: nsext.Popen(SLEEP, **fields), TEXTS[text], _is_sleep)


@pytest.mark.parametrize("ranges", [RANGES, None])
def test_an_entry_is_called_or_not_there(ranges: Any, root: None, adopting: None) -> None:
    fields = {"new": "user uts", "uid_map": ranges, "gid_map": ranges, "hostname": "x"}
    pause = ctypes.CDLL(None).pause
    calls = sweep(lambda: nsext.clone(pause, **fields), faults.CHILD_TEXT, _is_entry)
    assert calls >= 3


# ---- after the start -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["killed", "exits", "finalizes"])
@pytest.mark.parametrize("name", TIED)
def test_the_program_goes_with_its_parent(name: str, how: str, root: None, adopting: None) -> None:
    fields = TIED[name]
    end = {"killed": "os.kill(os.getpid(), 9)", "exits": "os._exit(0)", "finalizes": "sys.exit()"}
    code = f"""
    import subprocess
    pid = os.fork()
    if not pid:
        p = nsext.Popen({SLEEP!r}, kill_on_parent_exit=True, **{fields!r})
        print(p.pid, p.program_pid, flush=True)
        p.returncode = 0 if {how!r} == "finalizes" else None  # no warning at exit
        {end[how]}
    os.waitpid(pid, 0)
    """
    pids = [int(word) for word in script(code).split()]
    for pid in pids:
        gone(pid, DEADLINE)
    _reap()


@pytest.mark.parametrize("fields", ["", "init=True", "new='user pid mnt'", "user=12345"])
def test_the_thread_may_end(fields: str, root: None) -> None:
    """It is the process that counts: PR_SET_PDEATHSIG by itself goes by the thread."""
    code = f"""
    def start():
        made.append(nsext.Popen({SLEEP!r}, kill_on_parent_exit=True, {fields}))
    made = []
    for _ in range(3):
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        while os.path.exists(f"/proc/self/task/{{thread.native_id}}"):
            os.sched_yield()
    for p in made:
        # A signal to it would have been sent by now: at the thread's exit, before it was gone.
        while status(p.program_pid)["State"][0] not in "SZ":
            os.sched_yield()
        assert p.poll() is None and status(p.program_pid)["State"][0] == "S"
        print(p.pid, p.program_pid)
    sys.stdout.flush()
    os.kill(os.getpid(), 9) if not os.fork() else os.wait()
    assert all(p.poll() is None for p in made)  # a fork's death is nobody's
    os._exit(0)
    """
    for word in script(code).split():
        gone(int(word), DEADLINE)


def test_asyncio_to_thread(root: None) -> None:
    code = f"""
    import asyncio
    async def main():
        p = await asyncio.to_thread(nsext.Popen, {SLEEP!r}, kill_on_parent_exit=True)
        loop = asyncio.get_running_loop()
        await loop.shutdown_default_executor()
        assert len(os.listdir("/proc/self/task")) == 1
        while status(p.program_pid)["State"][0] not in "SZ":
            os.sched_yield()
        assert p.poll() is None and status(p.program_pid)["State"][0] == "S"
        print(p.program_pid)
        p.kill(); p.wait()
    asyncio.run(main())
    """
    gone(int(script(code)))


@pytest.mark.parametrize("kind", ["uts", "net", "ipc"])
def test_the_threads_own_namespaces_and_mask(kind: str, root: None) -> None:
    """The program is where the thread is that started it, first and later, whoever was before."""
    script(f"""
    found = []
    def start(apart):
        if apart:
            nsext.unshare({kind!r})
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        with nsext.Popen(["cat"], stdin=nsext.PIPE, kill_on_parent_exit=True) as p:
            own = os.readlink("/proc/thread-self/ns/" + {kind!r})
            masked = int(status(p.program_pid)["SigBlk"], 16) == (1 << 9 if apart else 0)
            found.append(ns_id({kind!r}, p.program_pid) == own and masked)
    for apart in (True, False, True, False):
        thread = threading.Thread(target=start, args=(apart,))
        thread.start()
        thread.join()
    assert found == [True] * 4, found
    """)


def test_one_thread_does_not_wait_for_another() -> None:
    """A set-up that takes long holds up nobody else's."""
    script("""
    import faults
    from helping import HELPER_TEXT
    hung = threading.Event()
    pids, done = [], []
    def slow():
        try:
            nsext.Popen(["true"], kill_on_parent_exit=True)
        except nsext.SpawnError as error:
            return error.errno
    def answer(call):
        pids.append(call.pid)
        hung.set()
        return faults.HANG
    def quick():
        done.append(nsext.run(["true"], kill_on_parent_exit=True).returncode)
    with faults.Injector(HELPER_TEXT) as injector:
        supervisor = threading.Thread(target=injector.run, args=(slow, answer))
        supervisor.start()
        assert hung.wait(10)
        others = [threading.Thread(target=quick) for _ in range(3)]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join(10)
        os.kill(pids[0], signal.SIGKILL)
        supervisor.join(10)
    assert done == [0, 0, 0], done
    """)


def test_a_stopped_program_goes_too(adopting: None) -> None:
    parent = Parent(lambda: _stopped())
    assert parent.socket.recv(100) == b"done"
    parent.kill()
    assert left_over(parent, lambda left: not left) == []
    parent.close()


def _stopped() -> Any:
    process = nsext.Popen(SLEEP, kill_on_parent_exit=True)
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: state_of(process.pid) == "T")
    return process


@contextmanager
def _watched(pid: int) -> Iterator[int]:
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def test_without_it_the_program_goes_on(adopting: None) -> None:
    """As with subprocess."""
    reader, writer = os.pipe()
    parent = Parent(lambda: os.write(writer, str(nsext.Popen(SLEEP).pid).encode()))
    pid = int(os.read(reader, 20))
    with _watched(pid) as fd:
        parent.kill()
        assert not ended(fd, 0) and not is_gone(pid)
        assert int(stat_field(4, pid)) == os.getpid()
        os.kill(pid, signal.SIGKILL)
        assert ended(fd)
    os.waitpid(pid, 0)
    parent.close()
    os.close(reader)
    os.close(writer)
