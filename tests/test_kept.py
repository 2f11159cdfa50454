"""What is kept from one spawn to the next: the helper's image, plans, and whose they are."""

from __future__ import annotations

import fcntl
import os

import pytest
from helping import kept_fds, talking
from support import script

PROGRAM = """
import asyncio, gc
from helping import kept_fds
def plans():
    return {os.fstat(fd).st_ino for fd, what in kept_fds().items() if "plan" in what}
def helper():
    assert nsext.run(["true"], kill_on_parent_exit=True).returncode == 0
helper()
ours = plans()
assert len(ours) == 1
"""

# A process that has the same pid as its parent: PID 1, from PID 1.
FORKS = {
    "fork": ("", {}),
    "PID 1": ("nsext.unshare('pid')", {"new": "user pid mnt"}),
}


@pytest.mark.parametrize("how", FORKS)
def test_a_fork_has_plans_of_its_own(how: str) -> None:
    """Two processes in one plan would write over each other's."""
    before, keywords = FORKS[how]
    script(
        PROGRAM
        + f"""
{before}
pid = os.fork()
if pid == 0:
    assert {how != "PID 1"} or os.getpid() == 1
    helper()
    assert len(plans()) == 1 and not plans() & ours, (plans(), ours)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
{"" if before else "helper()"}
assert plans() == ours
""",
        **keywords,
    )


@pytest.mark.parametrize("how", FORKS)
def test_a_child_on_its_way_is_not_a_forks(how: str) -> None:
    """A fork that drops its copy leaves the child alone."""
    before, keywords = FORKS[how]
    script(
        PROGRAM
        + f"""
class Patient(nsext.Popen):
    _patience = 0
def start():
    return Patient(["cat"], stdin=nsext.PIPE, stdout=nsext.PIPE, paused=True)
while (process := start())._child_created:  # it was faster than we
    with process:
        pass
{before}
pid = os.fork()
if pid == 0:
    assert {how != "PID 1"} or os.getpid() == 1
    del process
    gc.collect()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
asyncio.run(process._finish(asyncio.sleep))
process.resume()
assert process.communicate(b"lives") == (b"lives", None) and process.returncode == 0
""",
        **keywords,
    )


def test_plans_keep_their_size() -> None:
    """Who gets at one could else take away pages that the parent reads: SIGBUS."""
    with talking(init=True):
        pass
    with talking(kill_on_parent_exit=True):
        plans = [fd for fd, what in kept_fds().items() if "plan" in what]
        assert plans
        for fd in plans:
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & 0x7 == 0x7  # SEAL, SHRINK, GROW
            size = os.fstat(fd).st_size
            for other in (0, size - 1, size + 1):
                with pytest.raises(PermissionError):
                    os.ftruncate(fd, other)


def test_a_file_of_the_same_inode_is_not_ours() -> None:
    """Its number was closed behind our back, and is that of a file of another file system."""
    script(
        PROGRAM
        + """
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b"tmpfs", b"/mnt", b"tmpfs", 0, None) == 0
def same_inode(wanted):
    for _ in range(1 << 22):  # they count up
        fd = os.open("/mnt", os.O_TMPFILE | os.O_RDWR)
        if os.fstat(fd).st_ino == wanted:
            return fd
        os.close(fd)
    raise AssertionError(wanted)
for fd, what in kept_fds().items():
    stranger = same_inode(os.fstat(fd).st_ino)
    os.write(stranger, b"stranger")
    os.dup2(stranger, fd)
    os.close(stranger)
    libc.umount2(b"/mnt", 2)  # anew: from 1
    assert libc.mount(b"tmpfs", b"/mnt", b"tmpfs", 0, None) == 0
    helper()
    assert os.pread(fd, 100, 0) == b"stranger", what  # neither used nor closed
""",
        new="user mnt",
        deadline=120,
    )
