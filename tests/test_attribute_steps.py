"""Steps on what the kernel keeps of a process: priorities, the OOM score, personality.

The meta-test is test_steps.test_every_step_has_both.
"""

import ctypes
import os
from pathlib import Path

import pytest
from support import as_user, dumpable, output, running
from test_steps import refused

import nsext

pytestmark = pytest.mark.usefixtures("root")

DONE, FAILED = {}, {}


def does(step):
    """Marks the test of a step's success."""
    return lambda test: DONE.setdefault(step, test)


def fails(step):
    """Marks the test of a step's failure."""
    return lambda test: FAILED.setdefault(step, test)


@does("ionice")
@pytest.mark.parametrize(
    "value, shown",
    [
        ("idle", "idle"),
        ("none", "none: prio 0"),
        ("best-effort", "best-effort: prio 4"),
        (("Best-Effort", 7), "best-effort: prio 7"),
        (["realtime", 0], "realtime: prio 0"),
    ],
)
def test_ionice(value, shown):
    before = output(["ionice"])
    assert output(["ionice"], ionice=value) == shown
    assert output(["ionice"], ionice=value, user=12345) == shown
    assert output(["ionice"]) == before


@fails("ionice")
def test_ionice_fails():
    as_user("""
    error = failure(nsext.run, ["true"], ionice="realtime")
    assert (error.errno, error.stage) == (errno.EPERM, "setup") and is_plain(error), error
    assert error.step == "set I/O priority to realtime 4" and "CAP_SYS_NICE" in error.hint
    assert output(["ionice"], ionice="idle") == "idle"
    """)


def scheduling(pid):
    """(policy, priority); musl has sched_getscheduler(2) in name only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[38]), int(fields[37])


@does("scheduler")
def test_scheduler():
    own = scheduling(os.getpid())
    wanted = {
        "other": (os.SCHED_OTHER, 0),
        "NORMAL": (os.SCHED_OTHER, 0),
        "batch": (os.SCHED_BATCH, 0),
        "idle": (os.SCHED_IDLE, 0),
        ("rr", 20): (os.SCHED_RR, 20),
        ("fifo", 1): (os.SCHED_FIFO, 1),
    }
    for value, (policy, priority) in wanted.items():
        with running(scheduler=value) as child:
            assert scheduling(child.pid) == (policy, priority)
    assert scheduling(os.getpid()) == own


@fails("scheduler")
def test_scheduler_fails():
    as_user("""
    error = failure(nsext.run, ["true"], scheduler=("fifo", 5))
    assert (error.errno, error.stage) == (errno.EPERM, "setup") and is_plain(error), error
    assert error.step == "set scheduling policy to fifo 5" and "RLIMIT_RTPRIO" in error.hint
    assert nsext.run(["true"], scheduler="batch").returncode == 0
    """)


@does("personality")
def test_personality():
    own = Path("/proc/self/personality").read_text()
    for value in (0, 0x0040000, 0x0020008):  # ADDR_NO_RANDOMIZE; UNAME26 with PER_LINUX32
        with running(personality=value) as child:
            assert int(Path(f"/proc/{child.pid}/personality").read_text(), 16) == value
    assert output(["uname", "-r"], personality=0x0020000).startswith("2.6.")
    assert Path("/proc/self/personality").read_text() == own


@fails("personality")
def test_personality_fails():
    refused("personality", 1, "setup", "set personality to 0x8", personality=8)


@does("timer_slack")
def test_timer_slack():
    own = Path("/proc/self/timerslack_ns").read_text()
    with running(timer_slack=7_000_001) as child:
        assert int(Path(f"/proc/{child.pid}/timerslack_ns").read_text()) == 7_000_001
    assert Path("/proc/self/timerslack_ns").read_text() == own


@fails("timer_slack")
def test_timer_slack_fails():
    refused("prctl", 1, "setup", "set timer slack to 5 ns", timer_slack=5)


@does("dumpable")
def test_dumpable():
    """prctl(2) as the entry of a copy, with PR_GET_DUMPABLE."""
    prctl = ctypes.CDLL(None).prctl
    for value in (True, False):
        assert nsext.clone(prctl, 3, dumpable=value).wait() == value
    assert nsext.clone(prctl, 3).wait() == dumpable() == 1


@fails("dumpable")
def test_dumpable_fails():
    from support import script

    script("""
    refuse(prctl=(1, 4))  # PR_SET_DUMPABLE
    error = failure(nsext.clone, ctypes.CDLL(None).abs, 1, dumpable=False)
    assert (error.errno, error.stage) == (1, "setup") and is_plain(error), error
    assert error.step == "set dumpable to 0"
    """)


@pytest.mark.parametrize("value", [True, False])
def test_a_program_cannot_be_told_to_be_dumpable(value):
    """exec sets it anew: a promise would be a lie."""
    for start in (nsext.run, nsext.spawn, nsext.Popen, nsext.Sandbox(dumpable=value).run):
        with pytest.raises(ValueError, match="exec"):
            start(["true"], dumpable=value)


@does("oom_score_adj")
def test_oom_score_adj():
    own = Path("/proc/self/oom_score_adj").read_text()
    for keywords in ({}, {"new": "user pid mnt"}, {"init": True}, {"user": 12345}):
        with running(oom_score_adj=999, **keywords) as child:
            assert child.body == "helper"
            for pid in {child.pid, child.program_pid}:
                assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "999\n"
        assert Path("/proc/self/oom_score_adj").read_text() == own


def test_oom_score_adj_in_a_joined_namespace():
    """Where /proc is somebody else's, and as an ordinary user."""
    as_user("""
    with running(new="user pid mnt") as other:
        with running(join=other, oom_score_adj=5) as child:
            assert Path(f"/proc/{child.pid}/oom_score_adj").read_text() == "5\\n"
    """)


@fails("oom_score_adj")
def test_oom_score_adj_fails():
    as_user("""
    error = failure(nsext.run, ["true"], oom_score_adj=-1000)
    assert (error.errno, error.stage) == (errno.EACCES, "setup") and is_plain(error), error
    assert error.step == "set oom_score_adj to -1000" and "CAP_SYS_RESOURCE" in error.hint
    assert error.path == "/proc/self/oom_score_adj"
    """)


def test_a_clone_refuses_a_score():
    with pytest.raises(ValueError, match="oom_score_adj"):
        nsext.clone(ctypes.CDLL(None).abs, 1, oom_score_adj=0)
    with pytest.raises(ValueError, match="user"):
        nsext.clone(ctypes.CDLL(None).abs, 1, user=0)


LIMITS = {  # getrlimit(2): name, and what /proc/PID/limits calls it
    "cpu": "cpu time",
    "fsize": "file size",
    "data": "data size",
    "stack": "stack size",
    "core": "core file size",
    "rss": "resident set",
    "nproc": "processes",
    "nofile": "open files",
    "memlock": "locked memory",
    "as": "address space",
    "locks": "file locks",
    "sigpending": "pending signals",
    "msgqueue": "msgqueue size",
    "nice": "nice priority",
    "rtprio": "realtime priority",
    "rttime": "realtime timeout",
}


def limit_of(pid, words):
    """(soft, hard) of a line of /proc/PID/limits."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"Max {words}"))
    return tuple(line[26:].split()[:2])


@pytest.mark.parametrize("name", LIMITS)
def test_every_rlimit_by_name(name):
    words = LIMITS[name]
    _, hard = limit_of("self", words)
    soft = 1 << 33 if name in ("as", "data", "stack") else 700 + list(LIMITS).index(name)
    if hard != "unlimited":
        soft = min(soft, int(hard))
    for given in (name, f"RLIMIT_{name.upper()}"):
        with running(rlimits={given: (soft, hard)}) as child:
            assert limit_of(child.pid, words) == (str(soft), hard)
    assert len(Path("/proc/self/limits").read_text().splitlines()) == len(LIMITS) + 1
