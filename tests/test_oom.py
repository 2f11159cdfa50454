"""Trap 37: the OOM killer takes all who share the memory of its victim, and never the caller.

A control group of v1 has a limit; in it are what a spawn has made, and a glutton, who has nothing
in his own memory and fills the group's.  What would be killed with the caller is a script.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helping import wait_for
from support import DEADLINE, dumpable, needs, python, running, script

import nsext

MEMORY = Path("/sys/fs/cgroup/memory")
LIMIT = 24 << 20


@contextmanager
def tiny_group(limit: int) -> Iterator[Path]:
    needs((MEMORY / "memory.limit_in_bytes").exists(), "needs the memory controller of cgroup v1")
    group = MEMORY / f"nsext-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        needs(False, f"no cgroup can be made: {error}")
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit))
        yield group
    finally:
        wait_for(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


EAT = "x = []\nwhile True: x.append(bytearray(b'x') * (1 << 20))"

# Not the fattest process of the group: a file in memory belongs to none.
GLUTTON = """
import os
fd = os.memfd_create("glutton")
while True:
    os.write(fd, bytes(1 << 20))
"""

# ---- whatever of ours is chosen ----------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "inline": {},
    "PID 1": {"new": "user pid"},
    "helper": {"kill_on_parent_exit": True},
    "paused": {"paused": True},
    "paused PID 1": {"paused": True, "new": "pid net"},
    "init": {"init": True, "new": "pid"},
    "subreaper": {"init": True},
    "paused init": {"paused": True, "init": True, "new": "pid"},
    "paused subreaper": {"paused": True, "init": True, "start_new_session": True},
    "joined": {"join": True, "init": True, "new": "uts"},
    "joined, paused": {"join": True, "paused": True},
    "root": {"root": "/", "new": "mnt pid"},
}
CHOSEN = """
import select
from pathlib import Path
group, glutton, which = sys.argv[1:4]
def chosen(**fields):
    "A process of a spawn is the OOM killer's choice, by its score; what comes of it."
    p = nsext.Popen(["sleep", "1000"], oom_score_adj=1000, **fields)
    assert p.program_pid != p.pid or which == "pid"
    if fields.get("paused"):
        p.namespaces.close()
    else:
        settle(p)
    hungry = subprocess.Popen([sys.executable, "-S", "-c", glutton], preexec_fn=lambda: (
        Path(group, "cgroup.procs").write_text("0")))
    Path(group, "cgroup.procs").write_text(str(getattr(p, which)))
    try:
        assert select.select([p.fileno()], [], [], DEADLINE)[0], "not chosen"
    finally:
        hungry.kill(); hungry.wait()
    if fields.get("paused"):
        return failure(p.resume)
    return p.wait(DEADLINE)
"""


def oom_kills(group: Path) -> int:
    """How many processes of a group the OOM killer has ended."""
    words = (group / "memory.oom_control").read_text().split()
    return int(words[words.index("oom_kill") + 1])


CASES = [(kind, "pid") for kind in KINDS]
CASES += [(kind, "program_pid") for kind in KINDS if "init" in KINDS[kind]]


@pytest.mark.parametrize("kind, which", CASES)
def test_the_caller_is_not_chosen(kind: str, which: str, root: None) -> None:
    fields = KINDS[kind]
    code = f"{CHOSEN}\nfields = {fields!r}\n"
    with tiny_group(LIMIT) as group, running(new="user pid mnt") as other:
        said = script(
            code
            + """
if "join" in fields:
    fields["join"] = int(sys.argv[4])
before = state()
told = chosen(**fields)
assert changes(before, state()) == {}
if fields.get("paused"):
    assert is_plain(told), repr(told)
    assert (told.errno, told.step) == (errno.ECHILD, "wait to be resumed"), told
    assert told.strerror == "the child was killed by SIGKILL"
else:
    assert told == -9, told
print("alive")
""",
            str(group),
            GLUTTON,
            which,
            str(other.pid),
        )
        assert said == "alive"
        # A paused program has its init's memory: it is counted in that one's group.
        assert oom_kills(group) > 0 or ("paused" in fields and which == "program_pid")


SHARED = """
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static char stack[65536];
static int wait_for_ever(void *unused) { (void)unused; for (;;) pause(); }
int main(void)
{
    printf("%d\\n", clone(wait_for_ever, stack + sizeof stack, CLONE_VM | SIGCHLD, 0));
    fflush(stdout);
    for (;;) pause();
}
"""


def test_who_shares_it_is_taken(root: None, tmp_path: Path) -> None:
    """The control: a child with CLONE_VM in the group, its parent outside, and both are gone."""
    needs(shutil.which("cc"), "needs a C compiler")
    source, program = tmp_path / "shared.c", tmp_path / "shared"
    source.write_text(SHARED)
    subprocess.run(["cc", "-o", program, source], check=True)
    with tiny_group(LIMIT) as group:
        process = nsext.Popen([str(program)], stdout=nsext.PIPE, oom_score_adj=1000)
        with process:
            (group / "cgroup.procs").write_text(process.stdout.readline().decode())
            hungry = subprocess.Popen(
                python(GLUTTON), preexec_fn=lambda: (group / "cgroup.procs").write_text("0")
            )
            try:
                assert process.wait(DEADLINE) == -signal.SIGKILL
            finally:
                hungry.kill()
                hungry.wait()
                process.kill()


# ---- the score ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_there_before_the_program(kind: str, root: None) -> None:
    """Of the helper, of an init and of the program, from its first instruction; not the caller's."""
    fields, own = dict(KINDS[kind]), Path("/proc/self/oom_score_adj").read_text()
    assert own != "765\n"
    with running(new="user pid mnt") as other:
        if "join" in fields:
            fields["join"] = other.pid
        told = {"stdout": nsext.PIPE, "text": True, "oom_score_adj": 765}
        with nsext.Popen(["cat", "/proc/self/oom_score_adj"], **told, **fields) as process:
            if "paused" in fields:
                process.namespaces.close()
                for pid in {process.pid, process.program_pid}:
                    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "765\n"
                process.resume()
            assert process.communicate(timeout=DEADLINE)[0] == "765\n"
        assert Path("/proc/self/oom_score_adj").read_text() == own
    for task in os.listdir("/proc/self/task"):
        assert Path(f"/proc/self/task/{task}/oom_score_adj").read_text() == own


def test_a_score_is_inherited_where_none_is_given(root: None) -> None:
    """The caller's own, in both bodies, however it came by it."""
    script("""
    from pathlib import Path
    Path("/proc/self/oom_score_adj").write_text("321")
    for fields in ({}, {"init": True}, {"new": "pid", "kill_on_parent_exit": True}):
        assert nsext.check_output(["cat", "/proc/self/oom_score_adj"], **fields) == b"321\\n"
    nsext.run(["true"], oom_score_adj=654)
    assert Path("/proc/self/oom_score_adj").read_text() == "321\\n"
    """)


# ---- a group that is too small -----------------------------------------------------------------


@pytest.mark.parametrize("init", [False, True])
def test_a_tiny_memory_cgroup_kills_the_child(init: bool, root: None) -> None:
    with tiny_group(16 << 20) as group:
        with nsext.Popen(python(EAT), paused=True, init=init) as process:
            process.namespaces.close()
            for pid in {process.pid, process.program_pid}:
                (group / "cgroup.procs").write_text(str(pid))
            process.resume()
            assert process.wait(DEADLINE) == -signal.SIGKILL
        assert oom_kills(group) > 0
    assert dumpable() == 1


def test_a_cgroup_too_small_for_exec(root: None) -> None:
    """Killed on the way: an error that says so, or a program that was killed at its start."""
    with tiny_group(1 << 12) as group:
        with nsext.Popen(python(EAT), paused=True) as process:
            process.namespaces.close()
            (group / "cgroup.procs").write_text(str(process.pid))
            try:
                process.resume()
                assert process.wait(DEADLINE) in (-signal.SIGKILL, -signal.SIGSEGV)
            except nsext.SpawnError as error:
                assert error.errno in (errno.ECHILD, errno.ENOMEM), error
