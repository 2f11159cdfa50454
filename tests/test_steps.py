"""Every step: that it does what it says, and that its failure is told exactly.

A step without a test of each kind fails test_every_step_has_both (see CONTRIBUTING.md).
"""

import errno
import json
import os
import resource
import signal

import pytest
from support import (
    TOMOYO,
    as_user,
    ask,
    id_map,
    is_plain,
    needs,
    ns_id,
    running,
    script,
    sh,
    stat_field,
    status,
)

import nsext
from nsext import _native

pytestmark = pytest.mark.usefixtures("root")

DONE, FAILED = {}, {}


def does(step):
    """Marks the test of a step's success."""
    return lambda test: DONE.setdefault(step, test)


def fails(step):
    """Marks the test of a step's failure."""
    return lambda test: FAILED.setdefault(step, test)


def test_every_step_has_both():
    import test_attribute_steps
    import test_cgroup
    import test_helper_steps
    import test_mount_steps  # noqa: F401, which adds to those of test_helper_steps
    import test_privilege_steps
    import test_pty

    for kind in ("DONE", "FAILED"):
        marked = [*globals()[kind]]
        modules = (test_attribute_steps, test_cgroup, test_helper_steps, test_privilege_steps)
        for module in (*modules, test_pty):
            marked += getattr(module, kind)
        assert sorted(marked) == sorted(_native.STEPS), "steps without a test, or with two"


def test_every_step_has_words():
    from nsext._describe import describe

    arguments = {"i": 0, "s": b"text", "b": b"12345678"}
    special = {"propagation": 1 << 18, "unshare": 0x80}
    for name, (stage, signature) in _native.STEPS.items():
        args = [special.get(name, arguments[kind]) for kind in signature]
        assert describe((name, *args))
        assert stage in ("idmap", "setup", "cwd", "exec")


def error_of(number, stage, *, plain=True, **keywords):
    """The error of a child that fails in its set-up, checked."""
    with pytest.raises(nsext.SpawnError) as caught:
        nsext.run(["true"], **keywords)
    error = caught.value
    assert (error.errno, error.stage) == (number, stage), error
    assert is_plain(error) == plain
    assert errno.errorcode[number] and os.strerror(number) in str(error)
    return error


def refused(call, number, stage, words, argument=None, **keywords):
    """The same in a script in which a seccomp filter refuses the system call.

    argument: only where that is the first one.
    """
    script(
        """
        call, number, stage, words, argument, keywords = json.loads(sys.argv[1])
        refuse(**{call: number if argument is None else (number, argument)})
        before = state()
        for start in (nsext.spawn, nsext.Popen):
            error = failure(start, ["true"], **keywords)
            assert is_plain(error), repr(error)
            assert (error.errno, error.stage) == (number, stage), error
            assert words in error.step, error.step
            assert not changes(before, state()), changes(before, state())
        """,
        json.dumps([call, number, stage, words, argument, keywords]),
    )


# ---- id maps


@does("gate")
def test_gate():
    with running(new="user", uid_map=[(0, 0, 5)]) as child:
        assert id_map("uid_map", child.pid) == [(0, 0, 5)]


@fails("gate")
def test_gate_fails():
    inside = """
    error = failure(nsext.run, ["true"], new="user", uid_map=[(0, 0, 5)])
    assert (error.errno, error.stage) == (errno.EPERM, "idmap") and is_plain(error)
    assert error.step == "write /proc/PID/uid_map" and "caller's own user namespace" in error.hint
    """
    script(inside, new="user pid mnt")


def test_gate_where_proc_is_another_pid_namespaces():
    """/proc/PID would be a stranger there."""
    script(
        """
        error = failure(nsext.run, ["true"], new="user", uid_map=[(0, 0, 5)])
        assert (error.errno, error.stage) == (errno.ESRCH, "idmap") and is_plain(error)
        assert "another pid namespace" in error.step
        assert sh("id -u", new="user") == "0"  # what the child maps itself works
        """,
        new="pid",
    )


@does("setgroups_deny")
def test_setgroups_deny():
    with running(new="user") as child:
        assert open(f"/proc/{child.pid}/setgroups").read() == "deny\n"


def fake_proc(present, step):
    """A failure where this file of /proc/self is missing, though these are there."""
    script(
        """
        present, step = json.loads(sys.argv[1])
        fake_proc("self/x", *present)
        for start in (nsext.spawn, nsext.Popen):
            error = failure(start, ["true"], new="user time", time_offsets={"boottime": 1})
            assert is_plain(error), repr(error)
            assert error.errno == errno.ENOENT, error
            assert error.step == f"open /proc/self/{step}", error.step
            assert error.path == f"/proc/self/{step}"
            assert "/proc is not mounted" in error.hint
            assert not children()
        """,
        json.dumps([present, step]),
    )


@fails("setgroups_deny")
def test_setgroups_deny_fails():
    fake_proc([], "setgroups")


@does("gid_map")
def test_gid_map():
    with running(new="user", gid_map=7) as child:
        assert id_map("gid_map", child.pid) == [(7, os.getegid(), 1)]


@fails("gid_map")
def test_gid_map_fails():
    fake_proc(["setgroups"], "gid_map")


@does("uid_map")
def test_uid_map():
    with running(new="user", uid_map=7) as child:
        assert id_map("uid_map", child.pid) == [(7, os.geteuid(), 1)]


@fails("uid_map")
def test_uid_map_fails():
    fake_proc(["setgroups", "gid_map"], "uid_map")


# ---- time


@does("unshare")
def test_unshare():
    with running(new="time") as child:
        assert ns_id("time", child.pid) != ns_id("time")


@fails("unshare")
def test_unshare_fails():
    """A limit of the user namespace that the caller is in."""
    script(
        """
        Path("/proc/sys/user/max_time_namespaces").write_text("0")
        for start in (nsext.spawn, nsext.Popen):
            error = failure(start, ["true"], new="time")
            assert (error.errno, error.stage) == (errno.ENOSPC, "setup") and is_plain(error)
            assert error.step == "unshare time"
            assert "user.max_time_namespaces" in error.hint
        """,
        new="user pid mnt",
    )


@does("time_offsets")
def test_time_offsets():
    command = "cat /proc/self/timens_offsets"
    shown = sh(command, new="time", time_offsets={"monotonic": 5, "boottime": -0.25}).split()
    assert shown == ["monotonic", "5", "0", "boottime", "-1", "750000000"]


@fails("time_offsets")
def test_time_offsets_fail():
    error = error_of(errno.ERANGE, "setup", new="time", time_offsets={"boottime": -(10**9)})
    assert "-1000000000" in error.step and "negative" in error.hint
    assert error.path == "/proc/self/timens_offsets"


def entry():
    """abs() is a C function that gives back its argument: an entry that needs no compiler."""
    import ctypes

    return ctypes.CDLL(None).abs


@does("enter_time")
def test_enter_time():
    """The copy's offsets are in force before the entry; what it sees, test_clone.py asks it."""
    assert nsext.clone(entry(), 42, new="time", time_offsets={"boottime": 9}).wait() == 42


@fails("enter_time")
def test_enter_time_fails():
    script("""
    fake_proc("self/timens_offsets")
    error = failure(nsext.clone, ctypes.CDLL(None).abs, 42, new="time")
    assert (error.errno, error.stage) == (errno.ENOENT, "setup") and is_plain(error), error
    assert error.step == "open /proc/self/ns/time_for_children"
    """)
    refused_clone = """
    refuse(setns=1)
    error = failure(nsext.clone, ctypes.CDLL(None).abs, 42, new="time")
    assert (error.errno, error.stage) == (errno.EPERM, "setup") and is_plain(error), error
    assert error.step == "enter the new time namespace"
    """
    script(refused_clone)


# ---- uts, net, mnt


@does("hostname")
def test_hostname():
    assert sh("uname -n", new="uts", hostname="one") == "one"


@fails("hostname")
def test_hostname_fails():
    refused("sethostname", errno.EPERM, "setup", "sethostname x", new="uts", hostname="x")


@does("domainname")
def test_domainname():
    assert sh("cat /proc/sys/kernel/domainname", new="uts", domainname="one") == "one"


@fails("domainname")
def test_domainname_fails():
    refused("setdomainname", errno.EPERM, "setup", "setdomainname x", new="uts", domainname="x")


UP = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    flags = fcntl.ioctl(sock, 0x8913, struct.pack("16sh14x", b"lo", 0))
print(struct.unpack_from("16sh", flags)[1] & 1)
"""


@does("loopback")
def test_loopback():
    assert ask(UP, new="net") == 1
    assert ask(UP, new="net", loopback=False) == 0


@fails("loopback")
def test_loopback_fails():
    refused("socket", errno.EAFNOSUPPORT, "setup", "loopback", new="net")
    refused("ioctl", errno.EPERM, "setup", "loopback", new="net")


@does("propagation")
def test_propagation():
    with running(new="mnt", propagation="shared") as child:
        assert " shared:" in open(f"/proc/{child.pid}/mountinfo").read()


@fails("propagation")
def test_propagation_fails(tmp_path):
    """In a chroot "/" need not be a mount."""
    told = script(
        """
        os.chroot(sys.argv[1])
        for start in (nsext.spawn, nsext.Popen):
            error = failure(start, ["true"], new="mnt")
            if error.step == "start the helper":  # Linux before 5.16 has to have it
                assert "TOMOYO" in error.hint and error.errno == errno.ENOENT and is_plain(error)
                print("TOMOYO")
                sys.exit()
            assert (error.errno, error.stage) == (errno.EINVAL, "setup") and is_plain(error)
            assert error.step == "make all mounts private"
        """,
        str(tmp_path),
    )
    needs(told != "TOMOYO", TOMOYO)


@does("mount_proc")
def test_mount_proc():
    assert sh("echo /proc/[0-9]*", new="pid mnt") == "/proc/1"


@fails("mount_proc")
def test_mount_proc_fails():
    error = error_of(errno.EPERM, "setup", new="user mnt", proc=True)
    assert error.step == "mount proc on /proc" and error.path == "/proc"
    assert "pid namespace" in error.hint


# ---- descriptors, the process itself


@does("fds")
def test_fds():
    reader, writer = os.pipe()
    with open(reader) as file:
        nsext.spawn(["sh", "-c", "echo here >&9"], fd_map={9: writer}).wait()
        os.close(writer)
        assert file.read() == "here\n"


@fails("fds")
def test_fds_fail():
    error = error_of(errno.EBADF, "setup", fd_map={9: 4000})
    assert error.step == "pass file descriptor 9"


@does("setsid")
def test_setsid():
    with running(start_new_session=True) as child:
        assert os.getsid(child.pid) == child.pid
    with running() as child:
        assert os.getsid(child.pid) == os.getsid(0)


@fails("setsid")
def test_setsid_fails():
    refused("setsid", errno.EPERM, "setup", "setsid", start_new_session=True)


@does("setpgid")
def test_setpgid():
    with running(process_group=0) as leader:
        assert os.getpgid(leader.pid) == leader.pid
        with running(process_group=leader.pid) as member:
            assert os.getpgid(member.pid) == leader.pid


@fails("setpgid")
def test_setpgid_fails():
    error = error_of(errno.EPERM, "setup", process_group=0, start_new_session=True)
    assert error.step == "setpgid 0" and "session" in error.hint


@does("rlimit")
def test_rlimit():
    limits = {"nofile": (64, 128), "RLIMIT_CORE": 0, resource.RLIMIT_FSIZE: "1m"}
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running(rlimits=limits) as child:
        assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == (64, 128)
        assert resource.prlimit(child.pid, resource.RLIMIT_CORE) == (0, 0)
        assert resource.prlimit(child.pid, resource.RLIMIT_FSIZE) == (1 << 20, 1 << 20)
    assert before == resource.getrlimit(resource.RLIMIT_NOFILE)


@fails("rlimit")
def test_rlimit_fails():
    as_user("""
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    error = failure(nsext.run, ["true"], rlimits={"nofile": 101})
    assert (error.errno, error.stage) == (errno.EPERM, "setup") and is_plain(error), error
    assert error.step == "set rlimit nofile to 101:101"
    assert "CAP_SYS_RESOURCE" in error.hint
    """)


@does("affinity")
def test_affinity():
    for cpu in os.sched_getaffinity(0):
        with running(affinity=[cpu]) as child:
            assert os.sched_getaffinity(child.pid) == {cpu}
    with running(affinity=os.sched_getaffinity(0)) as child:
        assert os.sched_getaffinity(child.pid) == os.sched_getaffinity(0)


@fails("affinity")
def test_affinity_fails():
    error = error_of(errno.EINVAL, "setup", affinity=[65535])
    assert "affinity" in error.step


@does("nice")
def test_nice():
    for value in (0, 5, 19, -20):
        with running(nice=value) as child:
            assert int(stat_field(19, child.pid)) == value


@fails("nice")
def test_nice_fails():
    as_user("""
    own = os.nice(5)
    error = failure(nsext.run, ["true"], nice=own - 4)
    assert error.errno in (errno.EACCES, errno.EPERM) and error.stage == "setup"
    assert is_plain(error) and error.step == f"set nice {own - 4}" and "CAP_SYS_NICE" in error.hint
    assert sh("nice", nice=own + 2) == f"{own + 2}"
    """)


@does("chdir")
def test_chdir(tmp_path):
    with running(cwd=tmp_path) as child:
        assert os.readlink(f"/proc/{child.pid}/cwd") == str(tmp_path)


@fails("chdir")
def test_chdir_fails(tmp_path):
    missing = tmp_path / "missing"
    error = error_of(errno.ENOENT, "cwd", plain=False, cwd=missing)
    assert isinstance(error, FileNotFoundError) and os.fspath(error.filename) == str(missing)
    assert error.path == str(missing)


@does("umask")
def test_umask():
    for mask in (0, 0o22, 0o777):
        with running(umask=mask) as child:
            assert int(status(child.pid)["Umask"], 8) == mask


@fails("umask")
def test_umask_fails():
    """umask(2) always succeeds; so a refusal of it is not worth an error."""
    script("""
    refuse(umask=1)
    assert nsext.run(["true"], umask=0o22).returncode == 0
    """)


# ---- signals, exec, call


@does("default_signals")
def test_default_signals():
    """Trap 8: what Python ignores is not ignored in the program."""
    ignored = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert int(status()["SigIgn"], 16) & ignored == ignored
    with running() as child:
        facts = status(child.pid)
        assert int(facts["SigIgn"], 16) & ignored == 0
        assert facts["SigBlk"] == status()["SigBlk"]
        assert int(facts["SigCgt"], 16) == 0
    with running(restore_signals=False) as child:
        assert int(status(child.pid)["SigIgn"], 16) & ignored == ignored


@fails("default_signals")
def test_default_signals_fail():
    refused("rt_sigaction", errno.EPERM, "setup", "signals")


@does("exec")
def test_exec():
    with running() as child:
        assert open(f"/proc/{child.pid}/comm").read() == "sleep\n"


@fails("exec")
def test_exec_fails():
    error = error_of(errno.ENOENT, "exec", plain=False, executable="/nonexistent")
    assert isinstance(error, FileNotFoundError) and error.filename == "/nonexistent"
    assert error.path == "/nonexistent"


@does("call")
def test_call():
    for value in (0, 1, 42, 255):
        assert nsext.clone(entry(), value).wait() == value


@fails("call")
def test_call_fails():
    """A call cannot fail: what goes wrong in the entry is the child's end, as of a program."""
    assert nsext.clone(1 << 12).wait() == -signal.SIGSEGV  # an address that is not mapped
