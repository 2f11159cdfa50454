"""check(): what it finds under each thing that can stop a namespace, and that it has tried."""

import errno
import os
import pickle
import sys
import time
from pathlib import Path

import pytest
from support import KINDS, as_user, output, script

import nsext
from nsext import _causes, _probe
from nsext._causes import Cause

FEATURES = ["rootless", "proc", "id_ranges", "time_offsets", "clone3", "cgroup2", "seccomp"]
FEATURES += ["landlock"]


# ---- where all is well -----------------------------------------------------------------------


def test_as_root(root):
    report = nsext.check()
    assert list(report) == [*KINDS, *FEATURES]
    assert report and report.kinds == KINDS
    for kind in KINDS:
        finding = report[kind]
        assert finding and finding.ok and (finding.name, finding.new) == (kind, kind), finding
        assert finding.reason is finding.remedy is None
        nsext.run(["true"], new=finding.new, check=True)
    for name in ("rootless", "proc", "id_ranges", "time_offsets", "clone3", "seccomp"):
        assert report[name].ok, report[name]
    nsext.run(["true"], new=report["proc"].new, proc=True, check=True)


def test_as_an_ordinary_user():
    as_user("""
    report = nsext.check()
    assert report, report
    for kind in report.kinds:
        assert report[kind].new == ("user" if kind == "user" else f"user {kind}"), report[kind]
        nsext.run(["true"], new=report[kind].new, check=True)
    assert report["rootless"] and report["proc"].new == "user pid mnt"
    # And what only an administrator can give.
    finding = report["cgroup2"]
    assert not finding, finding
    if "version 2" not in finding.reason:
        assert "is not delegated to uid" in finding.reason and "Delegate" in finding.remedy, finding
    """)


def test_it_is_quick(root):
    def once():
        start = time.perf_counter()
        nsext.check()
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 0.2


def test_kinds():
    assert list(nsext.check("net user")) == ["user", "net", *FEATURES]
    assert nsext.check(()) and list(nsext.check(())) == FEATURES
    with pytest.raises(ValueError, match="unknown namespace kind"):
        nsext.check("nett")


# ---- limits: each of them shows that it was tried ---------------------------------------------


def test_each_limit_of_0_is_found(root):
    script(
        """
    kinds = ("mnt", "uts", "ipc", "user", "pid", "net", "cgroup", "time")
    also = {"user": {"rootless", "id_ranges"}, "uts": {"rootless"}, "mnt": {"proc"},
            "pid": {"proc"}, "time": {"time_offsets"}}
    for kind in kinds:
        place = Path(f"/proc/sys/user/max_{kind}_namespaces")
        before = place.read_text()
        place.write_text("0")
        report = nsext.check()
        missing = {name for name, finding in report.items() if not finding} - {"cgroup2"}
        assert missing == {kind} | also.get(kind, set()), (kind, report)
        assert not report and "not ok" in repr(report)
        finding = report[kind]
        assert finding.reason.startswith(("clone: No space", "unshare time: No space")), finding
        assert "the limit on such namespaces is 0" in finding.reason, finding
        assert finding.remedy == f"sysctl -w user.max_{kind}_namespaces=10000"
        # The same as a spawn says, which has it from the same place.
        error = failure(nsext.spawn, ["true"], new=kind)
        assert f"{error.step}: {error.strerror}: {error.hint.reason}" == finding.reason
        assert error.hint.remedy == finding.remedy and finding.remedy in str(error)
        assert finding.remedy in str(report)
        place.write_text(before)
    assert nsext.check()
    """,
        new="user",
    )


def test_a_limit_above(root):
    """Set in a user namespace above this one, where it is not to be seen."""
    script(
        """
    Path("/proc/sys/user/max_net_namespaces").write_text("0")
    code = '''
    import nsext
    assert open("/proc/sys/user/max_net_namespaces").read() != "0\\\\n"
    finding = nsext.check("net")["net"]
    assert not finding and "in a user namespace above" in finding.reason, finding
    '''
    nsext.run([sys.executable, "-P", "-c", code], new="user", check=True)
    """,
        new="user",
    )


# ---- filters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("run", [script, as_user])
def test_clone3_is_refused(run, number, root):
    """clone(2) does as well: a feature, and no kind, is missing."""
    run(
        """
    refuse(clone3=int(sys.argv[1]))
    report = nsext.check()
    assert report, report
    finding = report["clone3"]
    assert not finding and "a seccomp filter refuses clone3(2)" == finding.reason, finding
    assert "--security-opt seccomp=" in finding.remedy
    """,
        str(number),
    )


NEW = 0x7E020000  # all CLONE_NEW* that clone(2) has


@pytest.mark.parametrize("run", [script, as_user])
def test_the_new_flags_of_clone_are_refused(run, root):
    """As container engines do it: clone3 is not there, so that clone's flags can be looked at."""
    run(
        f"""
    refuse(clone3=38, clone=(1, {NEW}, "any"), unshare=1)
    report = nsext.check()
    assert not report
    filtered = "a seccomp filter refuses clone(2) with CLONE_NEW"
    for kind in report.kinds:
        reason = report[kind].reason
        assert not report[kind] and "a seccomp filter refuses" in reason, report[kind]
        assert "seccomp=unconfined" in report[kind].remedy
        if kind != "time":
            assert filtered in reason, reason
    assert report["user"].reason.endswith("CLONE_NEWUSER")
    assert not report["rootless"] and "seccomp" in report["rootless"].reason
    error = failure(nsext.spawn, ["true"], new="user net")
    assert error.hint.reason == "a seccomp filter refuses clone(2) with CLONE_NEWUSER", error
    # One remedy for them all, said once.
    assert str(report).count(report["user"].remedy) == 1
    """
    )


def test_one_flag_is_refused(root):
    script("""
    refuse(clone3=38, clone=(1, 0x40000000, "any"))
    report = nsext.check()
    assert {kind for kind in report.kinds if not report[kind]} == {"net"}
    assert "with CLONE_NEWNET" in report["net"].reason
    """)


def test_mount_is_refused(root):
    script("""
    refuse(mount=1)
    report = nsext.check()
    assert {kind for kind in report.kinds if not report[kind]} == {"mnt"}
    for name in ("mnt", "proc"):
        assert "a seccomp filter refuses mount(2)" in report[name].reason, report[name]
    """)


def test_a_name_and_a_join_are_refused(root):
    """Calls that no kind needs: the hint of an error has the filter, as engines' profiles have it."""
    script("""
    with nsext.Popen(["cat"], new="user uts", stdin=nsext.PIPE) as process:
        refuse(sethostname=1, setdomainname=1, setns=1)
        for call, fields in [
            ("sethostname", {"new": "uts", "hostname": "x"}),
            ("setdomainname", {"new": "user uts", "domainname": "x"}),
            ("setns", {"join": process}),
        ]:
            error = failure(nsext.spawn, ["true"], **fields)
            assert error.hint.reason == f"a seccomp filter refuses {call}(2)", error
        process.communicate()
    assert nsext.check()
    """)


def test_mount_kills(root):
    """systemd's SystemCallFilter= without an errno: who calls it dies, and that is no caller."""
    script("""
    refuse(mount="kill", unshare="kill")
    report = nsext.check()
    assert {kind for kind in report.kinds if not report[kind]} == {"mnt", "time"}, report
    assert "SIGSYS" in report["mnt"].reason and "seccomp" in report["mnt"].reason, report["mnt"]
    assert report["time"].reason == "a seccomp filter refuses unshare(2) with CLONE_NEWTIME"
    assert not report["rootless"] and report["landlock"].ok == nsext.check()["landlock"].ok
    error = failure(nsext.spawn, ["true"], new="mnt")
    assert (error.errno, error.stage) == (errno.ECHILD, "setup")
    assert "SIGSYS" in str(error) and "seccomp" in error.hint
    """)


# ---- a chroot, a masked /proc, ids without a name ---------------------------------------------


@pytest.mark.parametrize("uid", [0, 12345])
@pytest.mark.parametrize("is_mount", [False, True])
def test_in_a_chroot(is_mount, uid, root, tmp_path):
    """Also where its root is the root of a mount, as of a bind mount and of an image."""
    tmp_path.chmod(0o755)
    script(
        """
    place, uid, is_mount = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    own_mounts()
    if is_mount:
        mount("tmpfs", place, "tmpfs")
    os.mkdir(place + "/proc")
    mount("proc", place + "/proc", "proc")
    nsext.check  # imported by now
    os.chroot(place)
    os.chdir("/")
    os.setresuid(uid, uid, uid)
    report = nsext.check()
    assert not report["user"], report
    causes = nsext._causes
    chroot, remedy = causes.CHROOT.reason, causes.CHROOT.remedy
    assert chroot == "a process in a chroot may not make a user namespace"
    if uid and is_mount and (causes.is_filtered() or causes._has_security_module()):
        chroot, remedy = "filter, or a chroot", None  # it may have been one of these
    assert chroot in report["user"].reason, report["user"]
    assert report["user"].remedy == remedy
    assert chroot in report["rootless"].reason
    others = [report[kind] for kind in report.kinds if kind != "user"]
    if uid:
        assert not any(others) and all(chroot in finding.reason for finding in others), report
    elif is_mount:
        assert all(others), report
    else:
        assert {finding.name for finding in others if not finding} == {"mnt"}, report
        assert "no mount point, as in a chroot" in report["mnt"].reason, report["mnt"]
    """,
        str(tmp_path),
        str(uid),
        str(int(is_mount)),
    )


def test_proc_is_masked(root):
    """In a user namespace the kernel gives no fresh /proc where parts of the old are hidden."""
    script("""
    own_mounts()
    mount("/dev/null", "/proc/version", None, 0x1000)
    mount("tmpfs", "/proc/fs", "tmpfs")
    report = nsext.check()
    assert report["proc"].ok  # these mounts are root's own here
    code = '''
    import nsext
    report = nsext.check()
    assert report, report
    finding = report["proc"]
    assert not finding and "/proc/fs, /proc/version" in finding.reason, finding
    assert "is masked" in finding.reason and "unmask=ALL" in finding.remedy
    '''
    run = [sys.executable, "-P", "-c", code]
    nsext.run(run, new="user mnt", proc=False, check=True)
    """)


def test_an_id_that_is_not_mapped(root):
    script(
        """
    report = nsext.check()
    assert not report["user"] and "has no id in his own user namespace" in report["user"].reason
    """,
        new="user",
        uid_map=[(5, 5, 1)],
        gid_map=[(0, 0, 1)],
    )


# ---- settings of distributions ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("apparmor_restrict_unprivileged_userns", "1", "sysctl -w kernel.apparmor_restrict"),
    ],
)
def test_settings_against_ordinary_users(name, value, remedy, root):
    """This kernel may have neither: so a file in its place, and the diagnosis alone."""
    found = script(
        """
    from nsext import _causes
    own_mounts()
    mount("tmpfs", "/proc/sys/kernel", "tmpfs")
    Path("/proc/sys/kernel", sys.argv[1]).write_text(sys.argv[2] + "\\n")
    assert _causes.by_sysctl() is None  # not against the host's root
    print(_causes.of_user_namespace(ordinary=True).remedy)
    print(_causes.of_user_namespace().remedy)
    os.setresuid(12345, 12345, 12345)
    print(_causes.of_clone(errno.EPERM, nsext.CloneFlags.NEWUSER).remedy)
    """,
        name,
        value,
    )
    for_users, for_root, by_user = found.split("\n")
    assert for_users.startswith(remedy) and by_user.startswith(remedy) and for_root == "None"


def test_apparmor_takes_the_capabilities(root):
    """It lets the namespace be made; a step after that is refused, and the hint says by whom."""
    script("""
    own_mounts()
    mount("tmpfs", "/proc/sys/kernel", "tmpfs")
    Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").write_text("1")
    os.setresuid(12345, 12345, 12345)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, which that has cleared
    refuse(sethostname=1)
    error = failure(nsext.spawn, ["true"], new="user uts", hostname="x")
    assert error.step == "sethostname x" and "AppArmor" in error.hint, error
    assert "apparmor_restrict_unprivileged_userns=0" in error.hint.remedy
    """)


def test_the_own_cgroup(root):
    """A child is born in one below it."""
    finding = nsext.check(())["cgroup2"]
    try:
        with nsext.Popen(["true"], cgroup=nsext.Cgroup()) as process:
            place = Path(process.cgroup.path).parent
    except nsext.SpawnError as error:
        assert not finding and str(error.hint) in finding.reason, finding
        return
    assert str(os.getpid()) in (place / "cgroup.procs").read_text().split()
    assert finding and not list(place.glob("nsext-*"))
    listed = (place / "cgroup.controllers").read_text().split()
    assert finding.note == f"controllers: {' '.join(listed) or 'none'}"


# ---- the parts --------------------------------------------------------------------------------


def test_calls_in_a_child(root):
    """They are made one after another, in a child, and the caller stays what he is."""
    Call = _probe.Call
    calls = [Call("setresuid", (12345,) * 3), Call("setresuid", (0,) * 3), Call("setns", (-1, 0))]
    row = _probe.InChild(calls)
    with nsext.clone(row.entry, row.argument) as process:
        assert process.wait() == 0
    assert row.results() == [0, -errno.EPERM, -errno.EBADF]
    assert os.getuid() == 0
    assert _probe.here([Call("setns", (-1, 0))]) == [-errno.EBADF]
    assert _probe.filtered_kinds(int(nsext.CloneFlags.NEWUSER)) == ("", 0)
    assert not _probe.mount_is_filtered()


def test_a_row_has_to_end():
    for wrong in (bytearray(0), bytearray(56), bytearray(b"\xff" * 55)):
        with pytest.raises(ValueError, match="ends with a negative number"):
            nsext._native.probe(wrong)
    with pytest.raises((TypeError, BufferError)):
        nsext._native.probe(bytes(56))


def test_a_cause_is_a_hint():
    cause = Cause("why", "what to do")
    assert cause == "why: what to do" and (cause.reason, cause.remedy) == ("why", "what to do")
    assert Cause("why") == "why" and Cause("why").remedy is None
    copy = pickle.loads(pickle.dumps(cause))
    assert (copy, copy.reason, copy.remedy) == (cause, "why", "what to do")
    error = nsext.SpawnError(1, "no", step="clone", hint=cause)
    assert pickle.loads(pickle.dumps(error)).hint.remedy == "what to do"
    assert str(error) == "[Errno 1] clone: no (why: what to do)"


def test_report():
    findings = [
        nsext.Finding(name="user", ok=True, new="user"),
        nsext.Finding(name="net", ok=False, new="user net", reason="no", remedy="do"),
        nsext.Finding(name="landlock", ok=True, note="ABI 7"),
        nsext.Finding(name="proc", ok=False, reason="no", remedy="do"),
    ]
    report = nsext.Report(findings, ["user"])
    assert report and len(report) == 4 and report["net"].remedy == "do"
    assert not nsext.Report(findings, ["user", "net"])
    assert str(report).splitlines() == [
        "user          yes",
        "net           no    no",
        "                   do",
        "landlock      yes   ABI 7",
        "proc          no    no",
    ]
    assert repr(report) == "<Report ok: not net proc>"
    with pytest.raises(KeyError):
        report["nett"]
    with pytest.raises(AttributeError):
        findings[0].ok = False


def test_is_it_the_hosts_root(root):
    assert not _causes._is_ordinary()
    code = "from nsext import _causes; print(_causes._is_ordinary())"
    env = {**os.environ, "PYTHONPATH": str(Path(nsext.__file__).parent.parent)}
    assert output([sys.executable, "-c", code], env=env, new="user") == "True"
