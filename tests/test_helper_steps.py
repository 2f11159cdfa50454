"""Every step that runs in the helper only: that it does what it says, and how its failure is told.

The meta-test is test_steps.test_every_step_has_both; each call of these steps fails and is killed
in test_helper_faults.py.
"""

import errno
import json
import os
import signal
from pathlib import Path

import faults
import pytest
from helping import HELPER_TEXT
from support import ask, id_map, is_plain, namespaces, ns_id, running, script, sh, status

import nsext
from nsext import _native

pytestmark = pytest.mark.usefixtures("root")

# Those of the file system are in test_mount_steps.py.
DONE, FAILED = {}, {}


def does(step):
    """Marks the test of a step's success."""
    return lambda test: DONE.setdefault(step, test)


def fails(step):
    """Marks the test of a step's failure."""
    return lambda test: FAILED.setdefault(step, test)


def refused(call, number, words, argument=None, **keywords):
    """The error of a child for which a seccomp filter refuses a system call, and what is left."""
    script(
        """
        call, number, argument, words, keywords = json.loads(sys.argv[1])
        target = nsext.Popen(["sleep", "1000"], new="user pid net")
        if "join" in keywords:
            keywords["join"] = target
        refuse(**{call: number if argument is None else (number, argument)})
        failure(nsext.run, ["true"], **keywords)  # what is kept from a first time on
        before = state()
        for start in (nsext.spawn, nsext.Popen):
            error = failure(start, ["true"], **keywords)
            assert is_plain(error), repr(error)
            assert (error.errno, error.stage) == (number, "setup"), error
            assert words in error.step, error.step
            assert not changes(before, state()), changes(before, state())
        target.kill()
        target.wait()
        """,
        json.dumps([call, number, argument, words, keywords]),
    )


@does("helper")
def test_helper():
    with nsext.Popen(["true"], paused=True) as child:
        assert child.body == "helper"
        link = os.readlink(f"/proc/{child.pid}/exe")
        assert link.startswith("/memfd:nsext-helper"), link
        assert status(child.pid)["Name"] == "nsext-helper"
        child.resume()
    assert child.returncode == 0


@fails("helper")
def test_helper_fails():
    refused("execveat", 1, "start the helper", extra_groups=[])


def test_helper_from_its_file_where_a_memfd_cannot_be_executed():
    """TOMOYO answers ENOENT, and a strict vm.memfd_noexec EACCES."""
    for number in (2, 13):
        script(
            """
            refuse(execveat=int(sys.argv[1]))
            with nsext.Popen(["true"], paused=True) as child:
                assert os.readlink(f"/proc/{child.pid}/exe").endswith("/nsext-helper")
                child.resume()
            assert child.returncode == 0
            """,
            str(number),
        )


@does("join")
def test_join():
    with running(new="uts net user") as target:
        for kinds in ("uts", "net", "user uts", "user net uts"):
            with running(join={kinds: target.pid}) as child:
                for kind in ("uts", "net", "user", "mnt"):
                    whose = target.pid if kind in kinds.split() else "self"
                    assert ns_id(kind, child.pid) == ns_id(kind, whose)


@fails("join")
def test_join_fails():
    refused("setns", 1, "join", join=True)


@does("join_as_root")
def test_join_as_root():
    """Whose own id is not mapped there is its root, as with nsenter."""
    ranges = [(0, 100000, 1000)]
    with running(new="user", uid_map=ranges, gid_map=ranges) as target:
        with running(join=target) as child:
            assert status(child.pid)["Uid"].split() == ["100000"] * 4
            assert status(child.pid)["Gid"].split() == ["100000"] * 4
            assert status(child.pid)["Groups"] == ""
    with running(new="user", uid_map="self", gid_map="self") as target:
        with running(join=target) as child:
            assert status(child.pid)["Uid"].split() == [str(os.getuid())] * 4


@fails("join_as_root")
def test_join_as_root_fails():
    script("""
    ranges = [(0, 100000, 1000)]
    target = nsext.Popen(["sleep", "1000"], new="user", uid_map=ranges, gid_map=ranges)
    refuse(setresuid=1)
    before = state()
    error = failure(nsext.run, ["true"], join=target)
    assert error.errno == 1 and "become root" in error.step and is_plain(error), error
    assert not changes(before, state())
    target.kill()
    target.wait()
    """)


@does("relay")
def test_relay():
    with running(new="pid") as target, running(join={"pid": target.pid}) as child:
        assert ns_id("pid", child.pid) == ns_id("pid", target.pid)
        assert int(status(child.pid)["PPid"]) == os.getpid()
        assert status(child.pid)["NSpid"].split() == [str(child.pid), str(child.inner_pid)]


@fails("relay")
def test_relay_fails():
    refused("clone", 11, "clone again", join=True)


RANGES = [(3, 100000, 1000)]
NO_USERNS = {"new": "user", "disable_userns": True}


@does("outer_userns")
def test_outer_userns():
    """With a join it is made after that, and the gate comes after it."""
    maps = {"uid_map": RANGES, "gid_map": RANGES}
    with running(new="uts") as target:
        with running(**NO_USERNS, **maps, join={"uts": target}) as child:
            assert ns_id("uts", child.pid) == ns_id("uts", target.pid)
            assert id_map("uid_map", child.pid) == RANGES


@fails("outer_userns")
def test_outer_userns_fails():
    inside = """
    target = nsext.Popen(["sleep", "1000"], new="uts")
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    before = state()
    keywords = {"new": "user", "disable_userns": True, "join": {"uts": target}}
    error = failure(nsext.run, ["true"], **keywords)
    assert is_plain(error) and (error.errno, error.stage) == (errno.ENOSPC, "setup"), error
    assert error.step == "unshare user" and "limit on such namespaces is 0" in error.hint, error
    assert not changes(before, state())
    target.kill()
    target.wait()
    """
    script(inside, new="user pid mnt")


@does("mapped_id")
def test_mapped_id():
    """Whose own ids the maps lack is the first of them."""
    with running(**NO_USERNS, uid_map=RANGES, gid_map=RANGES) as child:
        assert status(child.pid)["Uid"].split() == ["100000"] * 4
        assert status(child.pid)["Gid"].split() == ["100000"] * 4
    with running(**NO_USERNS, uid_map=[(0, 0, 5)], gid_map=RANGES) as child:
        assert status(child.pid)["Uid"].split() == ["0"] * 4
        assert status(child.pid)["Gid"].split() == ["100000"] * 4


@fails("mapped_id")
def test_mapped_id_fails():
    refused("setresuid", 11, "that the maps have", **NO_USERNS, uid_map=RANGES, gid_map=RANGES)


@does("limit_userns")
def test_limit_userns():
    """It is that of the outer user namespace; the inner one has its own, which does not count."""
    path = "/proc/sys/user/max_user_namespaces"
    here = Path(path).read_text()
    outer = f"""
    fd = os.open("/proc/{{}}/ns/user", os.O_RDONLY)
    parent = ctypes.CDLL(None).ioctl(fd, 0xB702)  # NS_GET_PARENT
    nsext.setns(parent, "user")
    print(Path("{path}").read_text())
    """
    with running(**NO_USERNS) as child:
        assert script(outer.format(child.pid)) == "1"
        assert int(sh(f"cat {path}", join=child)) > 1
    assert Path(path).read_text() == here


@fails("limit_userns")
def test_limit_userns_fails():
    script("""
    own_mounts()
    mount("/proc/sys", "/proc/sys", None, 0x1000)
    mount("none", "/proc/sys", None, 0x1021)  # MS_REMOUNT | MS_BIND | MS_RDONLY
    before = state()
    error = failure(nsext.run, ["true"], new="user", disable_userns=True)
    assert is_plain(error) and (error.errno, error.stage) == (errno.EROFS, "setup"), repr(error)
    assert error.step == "open /proc/sys/user/max_user_namespaces", error.step
    assert error.path == "/proc/sys/user/max_user_namespaces" and "read-only" in error.hint
    assert not changes(before, state())
    """)


@does("no_userns")
def test_no_userns():
    code = """
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    print(json.dumps([libc.unshare(0x10000000), ctypes.get_errno(), os.getuid()]))
    """
    assert ask(code, **NO_USERNS) == [-1, errno.ENOSPC, 0]


@fails("no_userns")
def test_no_userns_fails():
    """Whatever else the kernel says is no answer, and least of all a success."""
    script("""
    own_mounts()
    mount("tmpfs", "/proc/sys/user", "tmpfs")
    Path("/proc/sys/user/max_user_namespaces").touch()
    before = state()
    error = failure(nsext.run, ["true"], new="user", disable_userns=True)
    assert is_plain(error) and (error.errno, error.stage) == (errno.EOPNOTSUPP, "setup"), error
    assert error.step == "verify that no user namespace can be made", error.step
    assert "room for one more" in error.hint
    assert not changes(before, state())
    """)
    script("""
    refuse(unshare=1)
    before = state()
    error = failure(nsext.run, ["true"], new="user", disable_userns=True)
    assert error.errno == 1 and "no user namespace" in error.step, error
    assert not changes(before, state())
    """)


@does("init")
def test_init():
    with nsext.Popen(["sleep", "1000"], new="pid", init=True) as init:
        program = init.program_pid
        assert int(status(program)["PPid"]) == init.pid != program
        assert status(init.pid)["NSpid"].split()[-1] == "1"
        assert init.inner_pid == 2
        assert status(init.pid)["Name"] == "nsext-init"
        os.kill(program, signal.SIGTERM)
    assert init.returncode == -signal.SIGTERM


@fails("init")
def test_init_fails():
    refused("clone", 11, "from its init", init=True)
    refused("prctl", 1, "from its init", argument=36, init=True)  # PR_SET_CHILD_SUBREAPER


@does("init_death")
def test_init_death():
    """A subreaper that is killed takes its program along."""
    with nsext.Popen(["sleep", "1000"], init=True) as init:
        pidfd = nsext.pidfd_open(init.program_pid)
        try:
            init.kill()
            init.wait()
            assert _native.wait(pidfd, 5, init) is not None  # readable: it has ended
        finally:
            os.close(pidfd)


@fails("init_death")
def test_init_death_fails():
    asked = []

    def answer(call):  # PR_SET_PDEATHSIG: the first one is step init's
        if call.name == "prctl" and call.args[0] == 1:
            asked.append(call)
        return errno.EPERM if call in asked[1:] else None

    faults.need(faults.can_inject(), "no seccomp listener (CAP_SYS_ADMIN, Linux 5.5)")
    with faults.Injector(HELPER_TEXT) as injector:
        error = injector.run(lambda: nsext.spawn(["true"], init=True), answer).error
    assert is_plain(error) and (error.errno, error.stage) == (errno.EPERM, "setup"), error
    assert error.step == "ask for SIGKILL at the init's death"


ORPHAN = (
    "import nsext, os; child = nsext.Popen(['sleep', '1000'], **{}); print(child.pid, flush=True); "
    "os.kill(os.getpid(), 9)"
)


def end_of_orphan(keywords):
    """The return code of a child whose parent was killed."""
    return int(
        script(
            """
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # a subreaper sees what becomes of it
            done = subprocess.run([sys.executable, "-c", sys.argv[1]], stdout=-1, text=True)
            assert done.returncode == -9
            pid, wait_status = os.waitpid(int(done.stdout), 0)
            print(os.waitstatus_to_exitcode(wait_status))
            """,
            ORPHAN.format(keywords),
        )
    )


@does("parent_death")
def test_parent_death():
    assert end_of_orphan({"kill_on_parent_exit": True}) == -9


@fails("parent_death")
def test_parent_death_fails():
    refused("prctl", 1, "parent's death", argument=1, kill_on_parent_exit=True)


@does("show")
def test_show():
    """The caller has its namespaces and its root from the child itself."""
    with running(new="user pid mnt net") as other:
        tree = {"root": nsext.Tmpfs(), "mounts": [*nsext.hostlike(), nsext.File("/x", b"inside")]}
        joins = {"user pid net": other}
        with nsext.Popen(["true"], join=joins, new="uts mnt", paused=True, **tree) as child:
            assert list(child.namespaces) == list(namespaces())
            for kind, held in child.namespaces.items():
                assert ns_id(kind, child.pid) == f"{kind}:[{held.id}]"
            with child.root as kept, nsext.open_in(kept, "/x") as file:
                assert file.read() == b"inside"
            child.resume()


@fails("show")
def test_show_fails():
    faults.need(faults.can_inject(), "no seccomp listener (CAP_SYS_ADMIN, Linux 5.5)")
    with running(new="user net") as other, faults.Injector(HELPER_TEXT) as injector:
        error = injector.run(
            lambda: nsext.Popen(["true"], join=other, hold="net"),
            lambda call: errno.EPERM if call.name == "sendmsg" else None,
        ).error
    assert is_plain(error) and (error.errno, error.stage) == (errno.EPERM, "setup"), error
    assert error.step == "show the namespaces to the parent"


@does("checkpoint")
def test_checkpoint():
    with nsext.Popen(["true"], paused=True, new="uts", hostname="held") as child:
        assert ns_id("uts", child.pid) == f"uts:[{child.namespaces['uts'].id}]" != ns_id("uts")
        with pytest.raises(RuntimeError, match="resume"):
            child.wait()
        with pytest.raises(RuntimeError, match="resume"):
            child.communicate()
        assert sh("hostname", join={"uts": child.pid}) == "held"
        child.resume()
        assert child.wait() == 0
        child.namespaces.close()


@fails("checkpoint")
def test_checkpoint_fails():
    """What the checkpoint itself can fail by is the parent's death: the child goes with it."""
    assert end_of_orphan({"paused": True}) == 127


@does("setgroups")
def test_setgroups():
    for groups in ([], [1], [1, 4242]):
        with running(extra_groups=groups) as child:
            assert status(child.pid)["Groups"].split() == [str(group) for group in groups]


@fails("setgroups")
def test_setgroups_fails():
    refused("setgroups", 1, "set supplementary groups to 7", extra_groups=[7])


@does("setgid")
def test_setgid():
    with running(group=77) as child:
        assert status(child.pid)["Gid"].split() == ["77"] * 4


@fails("setgid")
def test_setgid_fails():
    refused("setresgid", 1, "setresgid 77", group=77)


@does("setuid")
def test_setuid():
    with running(user=77) as child:
        assert status(child.pid)["Uid"].split() == ["77"] * 4
        assert int(status(child.pid)["CapEff"], 16) == 0


@fails("setuid")
def test_setuid_fails():
    refused("setresuid", 1, "setresuid 77", user=77)
