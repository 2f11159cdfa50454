"""cgroup=: a child is born in a given control group, whatever else it is."""

import asyncio
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from groups import below, group_of, home, made, members, mount_point
from helping import error_of, gone, wait_for
from support import (
    DEADLINE,
    children,
    compiled,
    is_plain,
    needs,
    ns_id,
    python,
    running,
    script,
    settle,
)

import nsext

pytestmark = pytest.mark.usefixtures("root")

DONE, FAILED = {}, {}


def does(step):
    """Marks the test of a step's success: see test_steps.test_every_step_has_both."""
    return lambda test: DONE.setdefault(step, test)


def fails(step):
    """Marks the test of a step's failure."""
    return lambda test: FAILED.setdefault(step, test)


@pytest.fixture
def group():
    with made() as path:
        yield path


def expected(path):
    """What /proc/PID/cgroup says of a group."""
    own = group_of()
    return f"{own.rstrip('/')}/{path.relative_to(home())}"


CAT = ["cat", "/proc/self/cgroup"]


def born_in(**keywords):
    """The group that a child sees itself in."""
    done = nsext.run(CAT, capture_output=True, text=True, timeout=DEADLINE, check=True, **keywords)
    return next(line[3:] for line in done.stdout.splitlines() if line.startswith("0::"))


# ---- what says which


def test_by_path(group):
    before = group_of()
    assert born_in(cgroup=str(group)) == expected(group)
    assert born_in(cgroup=group) == expected(group)
    assert born_in(sandbox=nsext.Sandbox(cgroup=group)) == expected(group)
    assert born_in(sandbox=nsext.Sandbox(cgroup=group), cgroup=None) == before
    assert group_of() == before
    assert group.is_dir() and not members(group)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_PATH])
def test_by_descriptor(group, flags):
    fd = os.open(group, flags)
    try:
        assert born_in(cgroup=fd) == expected(group)
        assert born_in(cgroup=nsext.Fd(fd)) == expected(group)
        with nsext.Popen(["true"], cgroup=fd) as process:
            process.wait(timeout=DEADLINE)
            assert process.cgroup.path == str(group)
            assert process.cgroup.fileno() != fd
        assert os.fstat(fd).st_ino == os.stat(group).st_ino, "it is borrowed"
    finally:
        os.close(fd)


def test_by_a_relative_path(group):
    script(
        """
        from pathlib import Path
        group = Path(sys.argv[1])
        os.chdir(group.parent)
        done = nsext.run(["cat", "/proc/self/cgroup"], cgroup=f"./{group.name}", stdout=-1)
        assert done.stdout.rstrip().endswith(f"/{group.name}".encode()), done
        """,
        str(group),
    )


def test_where_the_standard_streams_are_closed(group):
    """The directory's descriptor is none of 0, 1 and 2."""
    script(
        """
        for fd in range(3):
            os.close(fd)
        out, into = os.pipe()
        process = nsext.spawn(["cat", "/proc/self/cgroup"], stdout=into, cgroup=sys.argv[1])
        assert process.wait() == 0
        text = os.read(out, 1000)
        os.open("/dev/null", os.O_RDWR)
        assert text.rstrip().endswith(os.path.basename(sys.argv[1]).encode()), text
        """,
        str(group),
    )


# ---- together with everything else


def is_in(group, process):
    return process.pid in members(group)


@pytest.mark.parametrize("start", [nsext.Popen, nsext.spawn])
@pytest.mark.parametrize(
    "keywords",
    [
        {},
        {"new": "all", "hostname": "box"},
        {"new": "user", "uid_map": [(0, 0, 1), (5, 7, 1)], "gid_map": [(0, 0, 10)]},
        {"new": "pid", "init": True},
        {"init": True},
        {"kill_on_parent_exit": True},
        {"user": 12345, "group": 23456},
        {"start_new_session": True, "rlimits": {"nofile": 99}},
    ],
    ids=str,
)
def test_with(group, start, keywords):
    with running(start=start, cgroup=group, **keywords) as process:
        assert is_in(group, process)
        assert process.cgroup.path == str(group)
        if "init" in keywords:
            (program,) = (
                Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            )
            assert int(program) in members(group)
        if "new" in keywords:
            kinds = KINDS if keywords["new"] == "all" else keywords["new"].split()
            assert all(ns_id(kind, process.pid) != ns_id(kind) for kind in kinds)


KINDS = ("mnt", "uts", "ipc", "user", "pid", "net", "cgroup", "time")


def test_body_is_the_helper(group):
    """A child in our memory would take us along when the OOM killer comes for it."""
    with nsext.Popen(["true"], cgroup=group) as process:
        assert process.body == "helper"


def test_root_of_a_cgroup_namespace(group):
    assert born_in(cgroup=group, new="cgroup") == "/"
    assert born_in(cgroup=group, new="user cgroup pid") == "/"
    with running(new="uts") as target:
        assert born_in(cgroup=group, new="cgroup", join={"uts": target}) == "/"


@does("cgroup")
@pytest.mark.parametrize("join", ["uts", "pid", "user", "user pid uts", "cgroup", "mnt"])
def test_with_join(group, join):
    with running(new=join) as target, running(cgroup=group, join={join: target}) as process:
        assert is_in(group, process)
        assert all(ns_id(kind, process.pid) == ns_id(kind, target.pid) for kind in join.split())


def test_with_join_and_new(group):
    with (
        running(new="user pid") as target,
        running(cgroup=group, join=target, new="uts cgroup", init=True) as process,
    ):
        assert is_in(group, process)
        assert ns_id("uts", process.pid) != ns_id("uts")


def test_while_paused(group):
    with nsext.Popen(CAT, cgroup=group, new="pid", paused=True, stdout=subprocess.PIPE) as process:
        assert members(group) == [process.pid]
        process.resume()
        assert expected(group).encode() in process.stdout.read()


def test_under_asyncio(group):
    async def main():
        async with await nsext.create_subprocess_exec(
            *CAT, stdout=subprocess.PIPE, cgroup=group
        ) as process:
            out, _ = await process.communicate()
        return out, process.popen.cgroup.path

    out, path = asyncio.run(main())
    assert expected(group).encode() in out
    assert path == str(group)


@pytest.mark.parametrize("new", ["", "user cgroup", "pid"])
def test_a_c_function(group, tmp_path, new):
    source = """
    #include <unistd.h>
    static int stay(void *arg)
    {
        (void)arg;
        pause();
        return 0;
    }
    """
    ffi, lib = compiled(tmp_path, "stayer", "int stay(void *);", source)
    process = nsext.clone(ffi.addressof(lib, "stay"), new=new, cgroup=group)
    try:
        assert is_in(group, process)
        if "cgroup" in new:
            wait_for(lambda: ns_id("cgroup", process.pid) != ns_id("cgroup"))
            done = ["cat", "/proc/self/cgroup"]
            out = nsext.check_output(
                done, join={"cgroup user": process.pid}, cgroup=group, text=True
            )
            assert out.splitlines()[-1] == "0::/"
    finally:
        process.kill()
        process.wait(timeout=DEADLINE)


def test_descriptor_is_not_left_to_the_program(group):
    code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"
    for close_fds in (True, False):
        done = nsext.run(
            python(code),
            cgroup=group,
            close_fds=close_fds,
            capture_output=True,
            text=True,
        )
        other = nsext.run(
            python(code),
            user=0,
            close_fds=close_fds,
            capture_output=True,
            text=True,
        )
        assert done.stdout == other.stdout, close_fds


# ---- where clone3 is refused


@pytest.mark.parametrize("number", [38, 1], ids=["ENOSYS", "EPERM"])
def test_without_clone3(group, number):
    script(
        f"""
        refuse(clone3={number})
        path = sys.argv[1]
        """
        """
        import ctypes
        from pathlib import Path
        def members():
            return Path(path, "cgroup.procs").read_text().split()
        for keywords in ({}, {"new": "all"}, {"new": "pid", "init": True}):
            with running(cgroup=path, **keywords) as process:
                assert str(process.pid) in members(), keywords
                if "all" in keywords.values():
                    text = Path(f"/proc/{process.pid}/cgroup").read_text()
                    assert text.endswith(path.rpartition("/")[2] + "\\n"), text
        with running(new="user pid") as target, running(join=target, cgroup=path) as process:
            assert str(process.pid) in members()
        out = nsext.check_output(["cat", "/proc/self/cgroup"], new="cgroup", cgroup=path, text=True)
        assert out.splitlines()[-1] == "0::/", out
        del process
        before = state()
        process = nsext.clone(ctypes.CDLL(None).pause, cgroup=path)
        wait = lambda: str(process.pid) in members()
        while not wait():
            os.sched_yield()
        process.kill()
        process.wait()
        del process
        assert not changes(before, state()), changes(before, state())
        """,
        str(group),
    )


# ---- the handle


def test_stats_of_a_given_group(group):
    with running(cgroup=group) as process:
        assert process.cgroup.stats().populated
    assert not process.cgroup.stats().populated
    stats = process.cgroup.stats()
    assert 0 < stats.cpu_user + stats.cpu_system <= stats.cpu_usage + 1e-5
    assert stats.memory_peak is None or stats.memory_peak > 0
    for kinds in stats.pressure.values():
        assert set(kinds["some"]) == {"avg10", "avg60", "avg300", "total"}


def test_freeze_and_thaw(group):
    loop = ["sh", "-c", "while :; do :; done"]
    with nsext.Popen(loop, cgroup=group) as process:
        process.cgroup.freeze()
        assert process.cgroup.stats().frozen
        used = process.cgroup.stats().cpu_usage
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            os.sched_yield()
        assert process.cgroup.stats().cpu_usage - used < 0.01
        process.cgroup.thaw()
        wait_for(lambda: not process.cgroup.stats().frozen)
        wait_for(lambda: process.cgroup.stats().cpu_usage > used + 0.02)
        process.kill()


@pytest.mark.parametrize("frozen", [False, True])
def test_kill_takes_all(group, frozen):
    with nsext.Popen(["sh", "-c", "sleep 1000 & sleep 1000"], cgroup=group) as process:
        wait_for(lambda: len(members(group)) == 3)
        if frozen:
            process.cgroup.freeze()
        process.cgroup.kill()
        assert process.wait(timeout=DEADLINE) == -signal.SIGKILL
        wait_for(lambda: not members(group))
        process.cgroup.thaw()


def test_kill_before_there_was_cgroup_kill(group, monkeypatch):
    from nsext import _cgroup_handle as handles

    (group / "inner").mkdir()
    write = handles.write

    def old(directory, name, text):
        if name == "cgroup.kill":
            raise FileNotFoundError
        write(directory, name, text)

    monkeypatch.setattr(handles, "write", old)
    with (
        nsext.Popen(["sh", "-c", "sleep 1000 & sleep 1000"], cgroup=group) as process,
        running(cgroup=group / "inner") as inner,
    ):
        wait_for(lambda: len(members(group)) == 3)
        process.cgroup.kill()
        assert process.wait(timeout=DEADLINE) == inner.wait(timeout=DEADLINE) == -signal.SIGKILL
        wait_for(lambda: not members(group))
    # What is wanted: "frozen" of cgroup.events may stay where those who were are gone.
    assert (group / "cgroup.freeze").read_text() == "0\n"
    assert nsext.run(["true"], cgroup=group, timeout=DEADLINE).returncode == 0


# ---- a frozen group holds its newborn


@pytest.fixture
def frozen(group):
    (group / "cgroup.freeze").write_text("1")
    return group


def test_a_frozen_group_and_a_deadline(frozen):
    begun = time.monotonic()
    with pytest.raises(nsext.SpawnTimeout) as caught:
        nsext.Popen(["true"], cgroup=frozen, spawn_timeout=0.3)
    assert 0.3 <= time.monotonic() - begun < 5
    assert "into the control group" in caught.value.step
    assert not members(frozen) and not children()


def test_a_frozen_group_and_ctrl_c(frozen):
    def interrupt():
        wait_for(lambda: members(frozen))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            nsext.run(["true"], cgroup=frozen)
    finally:
        thread.join()
    assert not members(frozen) and not children()


def test_a_frozen_group_that_thaws(frozen):
    def thaw():
        wait_for(lambda: members(frozen))
        (frozen / "cgroup.freeze").write_text("0")

    thread = threading.Thread(target=thaw)
    thread.start()
    try:
        assert nsext.run(["true"], cgroup=frozen, timeout=DEADLINE).returncode == 0
    finally:
        thread.join()


def test_a_frozen_group_and_join(frozen):
    """Who moves himself into it is stopped on the way."""
    with running(new="uts") as target:
        with pytest.raises(nsext.SpawnTimeout) as caught:
            nsext.run(["true"], cgroup=frozen, join={"uts": target}, spawn_timeout=0.3)
        assert caught.value.stage == "setup"
    assert not members(frozen)


# ---- errors


@fails("cgroup")
def test_a_group_that_gives_controllers_to_others(group):
    """The rule of no internal processes."""
    (group / "inner").mkdir()
    names = (group / "cgroup.controllers").read_text().split()
    names += (home() / "cgroup.controllers").read_text().split()
    if not (group / "cgroup.controllers").read_text().split():
        needs(names, "needs any controller of version 2")
        before = (home() / "cgroup.subtree_control").read_text()
        if names[0] not in before.split():
            needs(group_of() == "/", "needs to enable a controller")
            (home() / "cgroup.subtree_control").write_text(f"+{names[0]}")
    (group / "cgroup.subtree_control").write_text(f"+{names[0]}")
    error = error_of(nsext.run, ["true"], cgroup=group)
    assert (error.errno, error.stage, error.path) == (16, "setup", str(group)), error
    assert "has no processes itself" in error.hint
    assert "into the control group" in error.step and is_plain(error)
    with running(new="uts") as target:
        error = error_of(nsext.run, ["true"], cgroup=group, join={"uts": target})
    assert (error.errno, error.stage, error.path) == (16, "setup", str(group)), error
    assert "by cgroup.procs" in error.step and is_plain(error)


def test_a_group_that_is_gone(group):
    (group / "gone").mkdir()
    fd = os.open(group / "gone", os.O_RDONLY)
    try:
        os.rmdir(group / "gone")
        error = error_of(nsext.run, ["true"], cgroup=fd)
        assert error.errno == 2 and "removed" in error.hint, error
        assert is_plain(error)
    finally:
        os.close(fd)
    error = error_of(nsext.run, ["true"], cgroup=group / "gone")
    assert (error.errno, error.stage, error.path) == (2, "plan", str(group / "gone"))
    assert not isinstance(error, FileNotFoundError), "it is not the program that is missing"


def test_what_is_no_group(tmp_path):
    error = error_of(nsext.run, ["true"], cgroup=tmp_path)
    assert isinstance(error, nsext.UnsupportedError) and "no control group" in str(error)
    plain = tmp_path / "file"
    plain.touch()
    for target in (plain, os.fspath(plain)):
        assert error_of(nsext.run, ["true"], cgroup=target).errno == 20
    with plain.open() as file:
        assert error_of(nsext.run, ["true"], cgroup=file).errno == 20
    assert error_of(nsext.run, ["true"], cgroup=4000).errno == 9


def test_a_group_of_version_1():
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    v1 = [fields[1] for fields in mounts if fields[2] == "cgroup"]
    needs(v1, "needs cgroup v1")
    error = error_of(nsext.run, ["true"], cgroup=v1[0])
    assert isinstance(error, nsext.UnsupportedError) and "version 1" in str(error)


def test_an_invalid_group(group):
    for name in ("inner", "other"):
        (group / name).mkdir()
    (group / "inner" / "cgroup.type").write_text("threaded")
    assert (group / "other" / "cgroup.type").read_text() == "domain invalid\n"
    error = error_of(nsext.run, ["true"], cgroup=group / "other")
    assert error.errno == 95 and "cgroup.type" in error.hint, error


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (True, TypeError),
        (-1, ValueError),
        ("name", ValueError),
        ("/a\0b", ValueError),
        (1.5, TypeError),
        ({"memory": 1}, TypeError),
        ({"memory_max": "many"}, ValueError),
    ],
)
def test_wrong_values(value, error):
    with pytest.raises(error):
        nsext.Sandbox(cgroup=value)
    with pytest.raises(error):
        nsext.run(["true"], cgroup=value)


def test_an_error_of_the_program_leaves_nothing(group):
    fds = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            nsext.Popen(["/does/not/exist"], cgroup=group)
        with pytest.raises(FileNotFoundError):
            nsext.spawn(["/does/not/exist"], cgroup=group)
    assert len(os.listdir("/proc/self/fd")) <= fds + 2  # what the core keeps
    assert not members(group) and not below(group)


def test_explain():
    text = nsext.Sandbox(cgroup="/sys/fs/cgroup/x", new="uts cgroup").explain()
    assert "clone again with new uts into the control group\nunshare cgroup\n" in text
    text = nsext.Sandbox(cgroup="/x", join={"net": "/run/netns/a"}).explain()
    assert "enter the control group\njoin namespaces" in text


def test_mount_point_is_found():
    assert str(home()).startswith(str(mount_point()))


def test_the_helper_is_not_in_the_group_any_more(group):
    """The first clone stays in the caller's group, and ends: only the second is in the group."""
    with running(cgroup=group) as process:
        settle(process)
        assert members(group) == [process.pid]
        gone_pid = process.pid
    gone(gone_pid)
