"""cgroup=Cgroup(...): a group of its own for each spawn, made before it and removed after it."""

import asyncio
import errno
import gc
import os
import signal
import subprocess
import threading
import warnings
from pathlib import Path

import pytest
from groups import below, group_of, home, made, members
from helping import error_of, gone, wait_for
from support import DEADLINE, UID, as_user, children, is_plain, needs, ns_id, running, script

import nsext
from nsext import Cgroup, _cgroupfs

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture
def parent():
    with made() as path:
        yield path


# ---- it is there, and it is gone


@pytest.mark.parametrize("start", [nsext.Popen, nsext.spawn])
def test_a_leaf_for_each_spawn(parent, start):
    box = nsext.Sandbox(cgroup=Cgroup(parent=parent, name="job"))
    with running(start=start, sandbox=box) as one, running(start=start, sandbox=box) as other:
        assert one.cgroup.path != other.cgroup.path
        for process in (one, other):
            path = Path(process.cgroup.path)
            assert path.parent == parent and path.name.endswith("-job")
            assert members(path) == [process.pid]
        assert len(below(parent)) == 2
    assert not below(parent)
    assert "removed" in repr(one.cgroup)


def test_below_the_callers_own_group():
    before = below(home())
    with running(cgroup=Cgroup()) as process:
        assert Path(process.cgroup.path).parent == home()
        assert group_of(process.pid).startswith(group_of())
    assert below(home()) == before


@pytest.mark.parametrize(
    "keywords",
    [
        {"new": "all"},
        {"new": "user cgroup", "uid_map": "self"},
        {"new": "pid", "init": True},
        {"init": True},
        {"kill_on_parent_exit": True},
        {"user": 12345},
    ],
    ids=str,
)
def test_with_everything_else(parent, keywords):
    with running(cgroup=Cgroup(parent=parent), **keywords) as process:
        assert process.pid in members(process.cgroup.path)
        if keywords.get("new") == "all":
            assert ns_id("cgroup", process.pid) != ns_id("cgroup")
    assert not below(parent)


def test_with_join(parent):
    with (
        running(new="user pid") as target,
        running(join=target, cgroup=Cgroup(parent=parent)) as process,
    ):
        assert process.pid in members(process.cgroup.path)
    assert not below(parent)


def test_root_of_a_cgroup_namespace(parent):
    args = ["cat", "/proc/self/cgroup"]
    keywords = {"cgroup": Cgroup(parent=parent), "capture_output": True, "text": True}
    for new in ("cgroup", "user cgroup mnt pid"):
        done = nsext.run(args, new=new, **keywords)
        assert done.stdout.splitlines()[-1] == "0::/"
    assert not below(parent)


def test_under_asyncio(parent):
    async def main():
        process = await nsext.create_subprocess_exec("true", cgroup=Cgroup(parent=parent))
        await process.wait()
        return process.popen

    popen = asyncio.run(main())
    assert popen.usage.wall > 0
    assert not below(parent)


def test_a_c_function(parent):
    import ctypes

    process = nsext.clone(ctypes.CDLL(None).pause, cgroup=Cgroup(parent=parent))
    assert members(process.cgroup.path) == [process.pid]
    process.kill()
    process.wait(timeout=DEADLINE)
    assert not below(parent)
    with pytest.raises(FileNotFoundError, match="removed"):
        process.cgroup.kill()


def test_without_clone3(parent):
    script(
        """
        refuse(clone3=38)
        group = nsext.Cgroup(parent=sys.argv[1])
        for keywords in ({}, {"new": "all"}, {"new": "pid", "init": True}):
            with running(cgroup=group, **keywords) as process:
                with open(process.cgroup.path + "/cgroup.procs") as file:
                    assert str(process.pid) in file.read().split()
        assert not [name for name in os.listdir(sys.argv[1]) if name.startswith("nsext-")]
        """,
        str(parent),
    )


# ---- whatever happens


@pytest.mark.parametrize("start", [nsext.Popen, nsext.spawn, nsext.run])
def test_after_a_program_that_is_missing(parent, start):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            start(["/does/not/exist"], cgroup=Cgroup(parent=parent))
        assert not below(parent)
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # what the core keeps


def test_after_a_failed_step(parent):
    error = error_of(nsext.run, ["true"], cgroup=Cgroup(parent=parent), new="user", group=77)
    assert error.errno == errno.EINVAL and is_plain(error)
    assert not below(parent)


def test_after_a_paused_one_that_fails(parent):
    process = nsext.Popen(["/does/not/exist"], cgroup=Cgroup(parent=parent), paused=True)
    assert members(process.cgroup.path) == [process.pid]
    with pytest.raises(FileNotFoundError):
        process.resume()
    assert not below(parent)


def test_after_a_deadline(parent):
    with pytest.raises(subprocess.TimeoutExpired):
        nsext.run(["sleep", "1000"], cgroup=Cgroup(parent=parent), timeout=0.1)
    assert not below(parent) and not children()


def test_after_ctrl_c(parent):
    def interrupt():
        wait_for(lambda: [name for name in below(parent) if members(parent / name)])
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            nsext.run(["sleep", "1000"], cgroup=Cgroup(parent=parent))
    finally:
        thread.join()
    assert not below(parent) and not children()


def test_ctrl_c_at_any_moment(parent):
    """Wherever it lands: no group is left, and no child."""
    script(
        """
        import signal
        group = nsext.Cgroup(parent=sys.argv[1])
        nsext.run(["true"], cgroup=group)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        interrupted = 0
        for number in range(150):
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-4 + number % 50 * 1e-4)
                    nsext.run(["true"], cgroup=group)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
        nsext.run(["true"], cgroup=group)
        left = [name for name in os.listdir(sys.argv[1]) if name.startswith("nsext-")]
        assert not left, left
        assert not children()
        assert interrupted > 5, interrupted
        """,
        str(parent),
    )


def test_ctrl_c_while_it_is_removed(parent, monkeypatch):
    """It is left then, and the next spawn removes it."""

    def interrupted(*args):
        raise KeyboardInterrupt

    group = Cgroup(parent=parent)
    with monkeypatch.context() as patch:
        patch.setattr(_cgroupfs.Group, "_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            nsext.run(["true"], cgroup=group)
    gc.collect()
    assert len(below(parent)) == 1
    nsext.run(["true"], cgroup=group)
    assert not below(parent)


def test_who_stays_behind_is_ended(parent):
    script_text = "setsid sleep 1000 & echo $!"
    done = nsext.run(
        ["sh", "-c", script_text], cgroup=Cgroup(parent=parent), stdout=-1, timeout=DEADLINE
    )
    gone(int(done.stdout))
    assert not below(parent)


def test_groups_that_the_program_has_made(parent):
    command = 'mkdir -p "$0/a/b" && echo 0 >"$0/a/b/cgroup.procs" && sleep 1000'
    with nsext.Popen(
        ["sh", "-c", "read group; " + command.replace("$0", "$group")],
        stdin=-1,
        cgroup=Cgroup(parent=parent),
    ) as process:
        path = process.cgroup.path
        process.stdin.write(path.encode() + b"\n")
        process.stdin.flush()
        wait_for(lambda: os.path.isdir(f"{path}/a/b") and members(f"{path}/a/b"))
        process.kill()
    assert not below(parent)


def test_with_a_terminal(parent):
    done = nsext.run(["tty"], cgroup=Cgroup(parent=parent), pty=True, text=True, timeout=DEADLINE)
    assert done.stdout.startswith("/dev/pts/"), done
    assert not below(parent)


def test_a_frozen_one(parent):
    with nsext.Popen(
        ["sh", "-c", "sleep 1000 & sleep 1000"], cgroup=Cgroup(parent=parent)
    ) as process:
        wait_for(lambda: len(members(process.cgroup.path)) == 3)
        process.cgroup.freeze()
        process.kill()
        assert process.wait(timeout=DEADLINE) == -signal.SIGKILL
    assert not below(parent)


def test_a_dropped_popen(parent):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        process = nsext.Popen(["sleep", "1000"], cgroup=Cgroup(parent=parent))
        pid = process.pid
        del process
        gc.collect()
    (name,) = below(parent)
    assert members(parent / name) == [pid], "it runs on, as with subprocess"
    os.kill(pid, signal.SIGKILL)
    gone(pid)
    nsext.Popen(["true"]).wait()  # subprocess looks for its dropped ones
    assert not below(parent)


def test_a_dropped_process(parent):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        process = nsext.spawn(["sleep", "1000"], cgroup=Cgroup(parent=parent))
        pid = process.pid
        del process
        gc.collect()
    (name,) = below(parent)
    assert members(parent / name) == [pid]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not members(parent / name))
    nsext.run(["true"], cgroup=Cgroup(parent=parent))
    assert not below(parent)


def test_a_fork_of_the_caller_leaves_it_alone(parent):
    script(
        """
        process = nsext.Popen(["sleep", "1000"], cgroup=nsext.Cgroup(parent=sys.argv[1]))
        pid = os.fork()
        if pid == 0:
            process._group.end()
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.path.isdir(process.cgroup.path)
        process.kill()
        process.wait()
        """,
        str(parent),
    )


# ---- what a killed caller has left

LEAVE = """
import os, sys, nsext
process = nsext.Popen(["sleep", "1000"], cgroup=nsext.Cgroup(parent=sys.argv[1]), **eval(sys.argv[2]))
print(process.pid, flush=True)
sys.stdin.read()
"""


def left_by_a_killed_caller(parent, **keywords):
    """The pid of the program, and the name of its group."""
    caller = subprocess.Popen(
        [os.sys.executable, "-c", LEAVE, str(parent), repr(keywords)], stdin=-1, stdout=-1
    )
    with caller:
        pid = int(caller.stdout.readline())
        (name,) = below(parent)
        nsext.run(["true"], cgroup=Cgroup(parent=parent))
        assert below(parent) == [name], "its owner lives"
        caller.kill()
    return pid, name


def test_the_next_call_removes_it(parent):
    pid, name = left_by_a_killed_caller(parent, kill_on_parent_exit=True)
    gone(pid)
    wait_for(lambda: not members(parent / name))
    assert below(parent) == [name]
    nsext.run(["true"], cgroup=Cgroup(parent=parent))
    assert not below(parent)


def test_a_program_that_lives_is_left_alone(parent):
    pid, name = left_by_a_killed_caller(parent)
    try:
        nsext.run(["true"], cgroup=Cgroup(parent=parent))
        assert members(parent / name) == [pid]
    finally:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not members(parent / name))
    nsext.run(["true"], cgroup=Cgroup(parent=parent))
    assert not below(parent)


def test_what_is_not_ours_stays(parent):
    others = [
        "other",
        "nsext-",
        "nsext-x-1-1",
        "nsext-1-x-1",
        f"nsext-{os.getppid()}-{_cgroupfs._start_time(os.getppid())}-1",
    ]
    for name in others:
        (parent / name).mkdir()
    nsext.run(["true"], cgroup=Cgroup(parent=parent))
    assert below(parent) == sorted(others)
    (parent / "nsext-4194305-1-1").mkdir()  # a pid that there is never
    nsext.run(["true"], cgroup=Cgroup(parent=parent))
    assert below(parent) == sorted(others)


def test_an_owner_in_another_pid_namespace_is_seen(parent):
    """Its pid says nothing here: its lock does."""
    code = LEAVE.replace("print(process.pid", "print(os.getpid()")
    caller = nsext.Popen(
        [os.sys.executable, "-c", code, str(parent), "{}"], new="pid mnt", stdin=-1, stdout=-1
    )
    with caller:
        assert int(caller.stdout.readline()) == 1
        (name,) = below(parent)
        assert name.startswith("nsext-1-")
        fd = os.open(parent, os.O_RDONLY)
        try:
            assert not _cgroupfs._is_left(fd, name)
            caller.kill()
            caller.wait(timeout=DEADLINE)
            assert _cgroupfs._is_left(fd, name)
        finally:
            os.close(fd)
    nsext.run(["true"], cgroup=Cgroup(parent=parent))
    assert not below(parent)


# ---- what it counts


def test_stats_after_the_end(parent):
    code = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done"
    process = nsext.Popen(["sh", "-c", code], cgroup=Cgroup(parent=parent))
    process.wait(timeout=DEADLINE)
    stats = process.cgroup.stats()
    assert not stats.populated
    assert (process.usage.user, process.usage.system) == (stats.cpu_user, stats.cpu_system)
    rusage = process.usage.rusage
    assert stats.cpu_usage == pytest.approx(rusage.ru_utime + rusage.ru_stime, abs=0.05)


def test_usage_is_of_all_in_it(parent):
    """Also of who is left behind, which no wait4(2) tells of."""
    code = """
import os, time
if os.fork() == 0:
    while time.process_time() < 0.2:
        pass
    os.write(1, b"x")
    time.sleep(1000)
os.read(0, 1)
"""
    out, into = os.pipe()
    try:
        process = nsext.Popen(
            [os.sys.executable, "-c", code], stdin=out, stdout=into, cgroup=Cgroup(parent=parent)
        )
        process.wait(timeout=DEADLINE)
    finally:
        os.close(out)
        os.close(into)
    assert process.usage.user + process.usage.system >= 0.2
    rusage = process.usage.rusage
    assert rusage.ru_utime + rusage.ru_stime < process.usage.user + process.usage.system - 0.1


def test_cpu_time_limit_is_the_groups(parent):
    """Double forks leave the tree, and not the group."""
    code = "setsid sh -c 'while :; do :; done' & sleep 1000"
    done = nsext.run(
        ["sh", "-c", f"({code})"],
        cgroup=Cgroup(parent=parent),
        cpu_time_limit=0.3,
        timeout=DEADLINE,
    )
    assert done.verdict == "cpu"
    assert 0.3 <= done.usage.user + done.usage.system < 1
    assert not below(parent)


def test_peak_is_the_programs_own():
    ballast = bytearray(b"x") * (64 << 20)
    done = nsext.run(["true"], cgroup=Cgroup())
    assert done.usage.peak_memory < 16 << 20
    del ballast


# ---- errors


def test_a_controller_that_is_not_there(parent):
    names = (home() / "cgroup.controllers").read_text().split()
    needs("memory" not in names, "needs a host whose memory controller is elsewhere")
    error = error_of(nsext.run, ["true"], cgroup=Cgroup(parent=parent, memory_max="64m"))
    assert isinstance(error, nsext.UnsupportedError)
    assert error.stage == "plan" and error.path == str(parent)
    assert f"enable the memory controller below {parent}" in str(error)
    assert "memory is a controller of cgroup v1" in error.hint
    assert not below(parent)


def test_who_has_to_delegate(parent):
    """A controller that a group above has, and does not give."""
    names = (home() / "cgroup.controllers").read_text().split()
    needs(names and group_of() == "/", "needs a controller of version 2, at the root")
    name = names[0]
    subtree = home() / "cgroup.subtree_control"
    before = name in subtree.read_text().split()
    subtree.write_text(f"+{name}")
    try:
        (parent / "inner").mkdir()
        fd = os.open(parent / "inner", os.O_RDONLY)
        try:
            error = error_of(_cgroupfs._enable, fd, str(parent / "inner"), {name})
            assert f"whoever manages {parent} has to delegate it: echo +{name} >" in error.hint
        finally:
            os.close(fd)
        with running(cgroup=parent):
            fd = os.open(parent, os.O_RDONLY)
            try:
                error = error_of(_cgroupfs._enable, fd, str(parent), {name})
            finally:
                os.close(fd)
            assert error.errno == errno.EBUSY and "has processes in it" in error.hint, error
        fd = os.open(parent, os.O_RDONLY)
        try:
            _cgroupfs._enable(fd, str(parent), {name})
        finally:
            os.close(fd)
        assert name in (parent / "cgroup.subtree_control").read_text().split()
        os.rmdir(parent / "inner")
        (parent / "cgroup.subtree_control").write_text(f"-{name}")
    finally:
        if not before:
            subtree.write_text(f"-{name}")


def test_a_parent_that_is_none(tmp_path):
    error = error_of(nsext.run, ["true"], cgroup=Cgroup(parent=tmp_path))
    assert isinstance(error, nsext.UnsupportedError) and "no control group" in str(error)
    error = error_of(nsext.run, ["true"], cgroup=Cgroup(parent="/does/not/exist"))
    assert (error.errno, error.stage) == (errno.ENOENT, "plan")


def test_too_many_groups(parent):
    (parent / "cgroup.max.descendants").write_text("0")
    error = error_of(nsext.run, ["true"], cgroup=Cgroup(parent=parent))
    assert error.errno == errno.EAGAIN and "cgroup.max.descendants" in error.hint


def test_a_limit_that_the_kernel_has_not(parent, monkeypatch):
    monkeypatch.setattr(_cgroupfs, "_enable", lambda *unused: None)
    error = error_of(nsext.run, ["true"], cgroup=Cgroup(parent=parent, memory_max="64m"))
    assert error.errno in (errno.ENOENT, errno.EACCES) and "memory.max" in error.step
    assert not below(parent)


def test_a_host_without_version_2():
    script("""
        own_mounts()
        for line in open("/proc/self/mounts").read().splitlines():
            if line.split()[2] == "cgroup2":
                assert ctypes.CDLL(None).umount2(line.split()[1].encode(), 2) == 0
        error = failure(nsext.run, ["true"], cgroup=nsext.Cgroup())
        assert isinstance(error, nsext.UnsupportedError), error
        assert "limits need version 2" in error.hint, error
        """)


def test_an_ordinary_user(parent):
    """Without delegation: who would have to give it.  With it: all works."""
    as_user("""
        error = failure(nsext.run, ["true"], cgroup=nsext.Cgroup())
        assert is_plain(error) and "is not delegated to uid" in error.hint, error
        """)
    main = parent / "main"
    main.mkdir()
    for path in (
        parent,
        parent / "cgroup.procs",
        parent / "cgroup.subtree_control",
        main,
        main / "cgroup.procs",
    ):
        os.chown(path, UID, UID)
    own = group_of()
    (main / "cgroup.procs").write_text("0")
    try:
        as_user(
            """
            from pathlib import Path
            parent = sys.argv[1]
            for keywords in ({}, {"new": "user pid cgroup"}, {"new": "user", "init": True}):
                process = nsext.Popen(["sleep", "1000"], cgroup=nsext.Cgroup(parent=parent), **keywords)
                path = Path(process.cgroup.path)
                assert str(process.pid) in (path / "cgroup.procs").read_text().split()
                process.kill()
                process.wait()
                assert not path.exists()
            """,
            str(parent),
        )
    finally:
        (home_of(own) / "cgroup.procs").write_text("0")
    assert below(parent) == ["main"]


def home_of(group):
    from groups import mount_point

    return mount_point() / group.lstrip("/")
