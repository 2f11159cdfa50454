"""Limits of control groups, where the controllers are those of cgroup v2: in a virtual machine.

`make vmtest` runs them as root of a guest that is theirs alone; every other host may skip them.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from groups import below, group_of, home, made, members
from helping import error_of, gone, wait_for
from support import DEADLINE, children, needs, python, running, script

import nsext
from nsext import Cgroup

MIB = 1 << 20


@pytest.fixture(autouse=True)
def controllers():
    names = (home() / "cgroup.controllers").read_text().split()
    missing = {"memory", "pids", "cpu"} - set(names)
    needs(not missing and os.geteuid() == 0, f"needs controllers of cgroup v2: {missing}")
    needs(group_of() == "/", "needs a machine of its own")


def peak_is_told():
    """memory.peak is there since Linux 5.19."""
    with made() as path:
        return (path / "memory.peak").exists()


def files(process, *names):
    return [Path(process.cgroup.path, name).read_text().strip() for name in names]


# ---- limits are written, and kept


def test_limits_are_in_the_files():
    group = Cgroup(
        memory_max="64m",
        memory_high="32m",
        pids_max=7,
        cpu_max=0.5,
        cpu_weight=50,
        cpuset=[0],
    )
    with running(cgroup=group) as process:
        names = "memory.max", "memory.high", "pids.max", "cpu.max", "cpu.weight", "cpuset.cpus"
        values = files(process, *names)
        assert files(process, "memory.oom.group") == ["1"]
    assert values == [str(64 * MIB), str(32 * MIB), "7", "50000 100000", "50", "0"]


def test_controllers_are_enabled_for_the_parents_children():
    with made() as parent:
        before = (parent / "cgroup.subtree_control").read_text()
        assert before == ""
        nsext.run(["true"], cgroup=Cgroup(parent=parent, pids_max=5))
        assert (parent / "cgroup.subtree_control").read_text().split() == ["pids"]
        nsext.run(["true"], cgroup=Cgroup(parent=parent, memory_max="64m"))
        assert set((parent / "cgroup.subtree_control").read_text().split()) == {"pids", "memory"}


# ---- memory


EAT = "import sys; x = bytearray(b'x') * (int(sys.argv[1]) << 20)"


@pytest.mark.parametrize(
    "keywords", [{}, {"new": "user pid mnt cgroup"}, {"new": "pid", "init": True}], ids=str
)
def test_memory_max_ends_it_and_the_verdict_says_so(keywords):
    group = Cgroup(memory_max="48m", memory_swap_max=None)
    for limits in ({}, {"wall_time_limit": DEADLINE}):
        done = nsext.run(python(EAT, "200"), cgroup=group, timeout=DEADLINE, **keywords, **limits)
        assert (done.returncode, done.verdict) == (-signal.SIGKILL, "memory")
        if peak_is_told():
            assert 40 * MIB < done.usage.peak_memory <= 48 * MIB
    done = nsext.run(python(EAT, "20"), cgroup=group, timeout=DEADLINE, **keywords)
    assert (done.returncode, done.verdict) == (0, "ok")
    if peak_is_told():
        assert 20 * MIB < done.usage.peak_memory < 48 * MIB
    assert not [name for name in below(home()) if name.startswith("nsext-")]


def test_memory_of_a_child_of_the_program_counts():
    """The OOM killer takes the whole group, not only the one that eats."""
    code = f"import os, time\nif os.fork():\n    os.wait(); time.sleep(1000)\n{EAT}"
    done = nsext.run(python(code, "200"), cgroup=Cgroup(memory_max="48m"), timeout=DEADLINE)
    assert (done.returncode, done.verdict) == (-signal.SIGKILL, "memory")


def test_handle_tells_of_the_kill():
    process = nsext.Popen(python(EAT, "200"), cgroup=Cgroup(memory_max="48m"))
    process.wait(timeout=DEADLINE)
    assert process.cgroup.stats().oom_kills >= 1
    assert process.cgroup.stats().memory_current is not None


def test_a_tiny_limit_never_ends_the_caller():
    """Trap 37: whoever shares the memory of the OOM killer's victim goes with it.

    From a page up to what a program needs: at some of these exec itself is too much.
    """
    script(
        """
        import signal
        ballast = bytearray(b"x") * (64 << 20)
        seen = set()
        for kib in (4, 8, 16, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024, 2048):
            group = nsext.Cgroup(memory_max=kib << 10)
            for start in (nsext.Popen, nsext.spawn):
                try:
                    process = start(["true"], cgroup=group, spawn_timeout=20)
                except nsext.SpawnTimeout:
                    raise
                except nsext.SpawnError as error:
                    seen.add("error")
                    assert "memory limit of its cgroup" in (error.hint or "") or error.errno == 12, error
                else:
                    code = process.wait(20)
                    assert code in (0, -signal.SIGKILL), (kib, code)
                    seen.add(code)
        assert 0 in seen and seen & {"error", -signal.SIGKILL}, seen
        assert not children()
        """,
        deadline=280,
    )


def test_a_full_group_above_never_ends_the_caller():
    """The limit may be an ancestor's, where all below it are weighed by their size."""
    script(
        """
        import signal
        from pathlib import Path
        ballast = bytearray(b"x") * (200 << 20)
        parent = Path("/sys/fs/cgroup/full")
        parent.mkdir()
        (parent / "memory.max").write_text(str(40 << 20))
        (parent / "eater").mkdir()
        eat = "import time; x = bytearray(b'x') * (26 << 20); print(1, flush=True); time.sleep(1000)"
        eater = nsext.Popen(
            [sys.executable, "-I", "-S", "-c", eat],
            cgroup=parent / "eater",
            oom_score_adj=-1000,
            stdout=-1,
        )
        assert eater.stdout.read(2) == b"1\\n"
        ends = set()
        for number in range(6):
            hungry = ["dd", "if=/dev/zero", "of=/dev/null", "bs=20M", "count=1"]
            done = nsext.run(hungry, cgroup=nsext.Cgroup(parent=parent), stderr=-3)
            ends.add(done.returncode)
        assert -signal.SIGKILL in ends, ends
        eater.kill()
        eater.communicate()
        (parent / "eater").rmdir()
        parent.rmdir()
        """,
        deadline=240,
    )


# ---- processes


def test_pids_max_of_one_is_enough_to_start():
    done = nsext.run(["true"], cgroup=Cgroup(pids_max=1), timeout=DEADLINE)
    assert done.verdict == "ok"
    with running(cgroup=Cgroup(pids_max=1), new="all") as process:
        assert files(process, "pids.current") == ["1"]


def test_pids_max_holds():
    code = """
import os
try:
    os.fork()
except BlockingIOError:
    print("EAGAIN")
"""
    done = nsext.run(python(code), cgroup=Cgroup(pids_max=1), stdout=-1, timeout=DEADLINE)
    assert done.stdout == b"EAGAIN\n"


def test_pids_max_that_leaves_no_room():
    error = error_of(nsext.run, ["true"], cgroup=Cgroup(pids_max=0))
    assert (error.errno, error.stage) == (11, "setup")
    assert "into the control group" in error.step and "pids.max" in error.hint
    error = error_of(nsext.run, ["true"], cgroup=Cgroup(pids_max=1), init=True)
    assert error.errno == 11 and "from its init" in error.step
    assert not children()


def test_a_fork_bomb_is_ended():
    bomb = "b() { b | b & }; b; sleep 1000"
    done = nsext.run(
        ["sh", "-c", bomb],
        cgroup=Cgroup(pids_max=30),
        wall_time_limit=3,
        timeout=DEADLINE,
        stderr=-3,
    )
    assert done.verdict in ("timeout", "nonzero", "ok")
    assert not [name for name in below(home()) if name.startswith("nsext-")]


# ---- CPU


def test_cpu_max_slows_it_down():
    loop = python("import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass")
    process = nsext.Popen(loop, cgroup=Cgroup(cpu_max=0.2))
    process.wait(timeout=DEADLINE)
    usage, stats = process.usage, process.cgroup.stats()
    assert usage.user + usage.system < 0.4 * usage.wall
    assert stats.cpu_throttled > 0


def test_cpu_time_limit_in_a_group():
    done = nsext.run(
        ["sh", "-c", "(setsid sh -c 'while :; do :; done' &); sleep 1000"],
        cgroup=Cgroup(memory_max="64m"),
        cpu_time_limit=1,
        timeout=DEADLINE,
    )
    assert done.verdict == "cpu"
    assert 1 <= done.usage.user + done.usage.system < 3


# ---- nested, frozen, and left behind


def test_a_group_in_a_group():
    """What runs in one of our groups makes groups below another that is delegated to it."""
    with made() as parent:
        (parent / "main").mkdir()
        code = """
import nsext, sys
done = nsext.run(["true"], cgroup=nsext.Cgroup(parent=sys.argv[1], pids_max=3, memory_max="32m"))
print(done.verdict)
"""
        args = [sys.executable, "-c", code, str(parent)]
        done = nsext.run(args, cgroup=parent / "main", stdout=-1, stderr=-1, timeout=DEADLINE)
        assert done.stdout == b"ok\n", done
        assert below(parent) == ["main"]


def test_the_callers_own_group_has_processes():
    """The rule of no internal processes: what to do is in the error."""
    with made() as parent:
        code = """
import nsext, sys
try:
    nsext.run(["true"], cgroup=nsext.Cgroup(pids_max=3))
except nsext.SpawnError as error:
    print(error.errno, error)
"""
        done = nsext.run([sys.executable, "-c", code], cgroup=parent, stdout=-1, timeout=DEADLINE)
        text = done.stdout.decode()
        assert text.startswith("16 ") and "enable the pids controller" in text, text
        assert f"{parent} has processes in it" in text and "DelegateSubgroup" in text, text


def test_a_controller_that_is_not_delegated():
    with made() as parent:
        (parent / "inner").mkdir()
        error = error_of(nsext.run, ["true"], cgroup=Cgroup(parent=parent / "inner", cpu_max=1))
        assert isinstance(error, nsext.UnsupportedError)
        assert f"whoever manages {parent} has to delegate it: echo +cpu >" in error.hint


def test_frozen_with_limits():
    with nsext.Popen(["sh", "-c", "sleep 1000 & sleep 1000"], cgroup=Cgroup(pids_max=9)) as process:
        wait_for(lambda: len(members(process.cgroup.path)) == 3)
        process.cgroup.freeze()
        assert process.cgroup.stats().frozen and process.cgroup.stats().pids_current == 3
        process.cgroup.kill()
        assert process.wait(timeout=DEADLINE) == -signal.SIGKILL
    assert not [name for name in below(home()) if name.startswith("nsext-")]


def test_what_a_killed_caller_has_left():
    code = """
import nsext, sys
group = nsext.Cgroup(memory_max="64m", name="left")
process = nsext.Popen(["sleep", "1000"], cgroup=group, kill_on_parent_exit=True)
print(process.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as caller:
        pid = int(caller.stdout.readline())
        caller.kill()
    gone(pid)
    (name,) = [name for name in below(home()) if name.endswith("-left")]
    wait_for(lambda: not members(home() / name))
    nsext.run(["true"], cgroup=Cgroup())
    assert not [name for name in below(home()) if name.startswith("nsext-")]


def test_many_at_once():
    """Groups do not get into each other's way, nor into the sweep's."""
    group = Cgroup(memory_max="64m", pids_max=5)
    begun = time.monotonic()
    for _ in range(5):
        processes = [nsext.Popen(["true"], cgroup=group) for _ in range(8)]
        assert len({process.cgroup.path for process in processes}) == 8
        for process in processes:
            assert process.wait(timeout=DEADLINE) == 0
    assert not [name for name in below(home()) if name.startswith("nsext-")]
    assert time.monotonic() - begun < 60


def test_io_max():
    names = (home() / "cgroup.controllers").read_text().split()
    needs("io" in names, "needs the io controller")
    error = error_of(nsext.run, ["true"], cgroup=Cgroup(io_max={"/dev/null": {"rbps": "1m"}}))
    assert "find the device" in error.step or "io.max" in error.step, error
    error = error_of(nsext.run, ["true"], cgroup=Cgroup(io_max={"250:250": {"rbps": "1m"}}))
    assert error.errno == 19 and "io.max" in error.step, error
