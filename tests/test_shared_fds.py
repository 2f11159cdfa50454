"""The parent's table of descriptors, which an inline child may use until its step fds.

It must have left the table before it touches a descriptor, and whatever comes of it the parent's
own descriptors stay as they are.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import platform
import threading
from typing import Any

import faults
import pytest
from sweep import ODD, Sweep, differences

import nsext

pytestmark = pytest.mark.inline("a child in the helper body has a table of its own at once")

LIBC = ctypes.CDLL(None, use_errno=True)
KCMP = {"x86_64": 312, "aarch64": 272}.get(platform.machine(), -1)
KCMP_FILES = 2
# Every step that may precede fds and touches no descriptor.
BOX = nsext.Sandbox(new="pid uts ipc mnt", hostname="shared", domainname="too")
TOUCHING = ("openat", "open", "close", "dup3", "fcntl", "socket", "setns")


def shares(pid: int) -> bool:
    """Has a process our table?  See kcmp(2)."""
    answer = LIBC.syscall(KCMP, os.getpid(), pid, KCMP_FILES, 0, 0)
    assert answer >= 0, os.strerror(ctypes.get_errno())
    return bool(answer == 0)


def watch(start: Any, answer: Any = None) -> tuple[Any, list[tuple[str, bool]]]:
    """Its outcome, and at each call of the child: is our table the child's?"""
    seen: list[tuple[str, bool]] = []

    def look(call: faults.Call) -> Any:
        seen.append((call.name, shares(call.pid)))
        return answer(call) if answer else None

    with Sweep(start) as sweep:
        sweep.cases = 1
        value, wrong = sweep.run(look)
        assert wrong == []
    return value, seen


@pytest.fixture(autouse=True)
def can_look() -> None:
    faults.need(faults.can_inject(), "no seccomp listener (CAP_SYS_ADMIN, Linux 5.5)")
    faults.need(LIBC.syscall(KCMP, os.getpid(), os.getpid(), KCMP_FILES, 0, 0) == 0, "no kcmp(2)")


def test_shared_until_the_step_and_not_after() -> None:
    value, seen = watch(lambda: BOX.spawn([faults.noop()]).wait())
    assert value == 0
    names = [name for name, _ in seen]
    at = names.index("close_range")
    assert all(shared for _, shared in seen[: at + 1])  # looked at before the call is made
    assert not any(shared for _, shared in seen[at + 1 :]) and seen[at + 1 :]
    assert not set(names[:at]) & set(TOUCHING)


async def _asyncio() -> int:
    process = await BOX.create_subprocess_exec(faults.noop())
    return await process.wait()


TIME: dict[str, Any] = {"new": "time", "time_offsets": {"boottime": 1}}
ELSEWHERE: dict[str, Any] = {
    "passed": lambda: BOX.spawn([faults.noop()], pass_fds=[2]).wait(),
    "streams": lambda: BOX.spawn([faults.noop()], stdin=nsext.DEVNULL).wait(),
    "kept": lambda: BOX.spawn([faults.noop()], close_fds=False).wait(),
    "maps": lambda: nsext.spawn([faults.noop()], new="user").wait(),
    "loopback": lambda: nsext.spawn([faults.noop()], new="net").wait(),
    "offsets": lambda: nsext.spawn([faults.noop()], **TIME).wait(),
    "joined": lambda: nsext.spawn([faults.noop()], join="/proc/self/ns/uts").wait(),
    "copy": lambda: nsext.clone(LIBC.abs, 0).wait(),
    "asyncio": lambda: asyncio.run(_asyncio()),  # goes on, and may close, while the child is busy
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_not_shared_where_a_descriptor_is_touched(name: str) -> None:
    value, seen = watch(ELSEWHERE[name])
    assert value == 0 and seen
    assert not any(shared for _, shared in seen)


def without_close_range(then: Any = None) -> Any:
    """close_range(2) is ENOSYS, and *then* the answer to unshare(2)."""

    def answer(call: faults.Call) -> Any:
        return {"close_range": errno.ENOSYS, "unshare": then}.get(call.name)

    return answer


def test_without_close_range() -> None:
    value, seen = watch(lambda: BOX.spawn([faults.noop()]).wait(), without_close_range())
    assert value == 0
    names = [name for name, _ in seen]
    at = names.index("unshare")
    assert names[at - 1] == "close_range" and "openat" in names[at:] and "close" in names[at:]
    assert all(shared for _, shared in seen[: at + 1])
    assert not any(shared for _, shared in seen[at + 1 :])


@pytest.mark.parametrize("what", [ODD, faults.KILL])
@pytest.mark.parametrize("call", ["close_range", "unshare"])
def test_failing_to_leave(call: str, what: Any) -> None:
    number = errno.ECHILD if what is faults.KILL else what
    answer = {"close_range": lambda at: what if at.name == "close_range" else None}
    answer["unshare"] = without_close_range(what)
    error, seen = watch(lambda: BOX.spawn([faults.noop()]).wait(), answer[call])
    killed = what is faults.KILL
    step = "pass file descriptors" if killed else "close file descriptors"
    assert differences(error, errno=number, stage="setup", step=step) == []
    assert seen[-1][0] == call


def test_other_threads_keep_their_descriptors() -> None:
    """Opening and closing meanwhile, as any program does; each number stays its owner's."""
    done = threading.Event()
    wrong: list[str] = []

    def juggle() -> None:
        while not done.is_set():
            reader, writer = os.pipe()
            os.write(writer, b"x")
            if os.read(reader, 1) != b"x":
                wrong.append("another pipe's byte")
            try:
                os.close(reader)
                os.close(writer)
            except OSError as error:
                wrong.append(str(error))

    threads = [threading.Thread(target=juggle) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            assert BOX.spawn([faults.noop()]).wait() == 0
            with pytest.raises(FileNotFoundError):
                BOX.spawn(["/nonexistent"])
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
