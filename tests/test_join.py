"""join=: what may be joined, how it is said, and where the program then is."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import support
from helping import ended, error_of, prepared, talking
from support import (
    INLINE,
    KINDS,
    id_map,
    namespaces,
    ns_id,
    output,
    running,
    status,
)

import nsext


def where(process: Any) -> dict[str, str]:
    return namespaces(process.pid)


def shared(process: Any, other: Any) -> set[str]:
    """The kinds of namespace that two processes have in common, and that are not ours."""
    one, two, own = namespaces(process.pid), namespaces(other.pid), namespaces()
    return {kind for kind in KINDS if one[kind] == two[kind] != own[kind]}


# ---- what a target is ------------------------------------------------------------------------


def _targets(other: Any, place: Path) -> dict[str, Any]:
    """Ways to name the uts namespace, or all namespaces, of a process; and what to close."""
    bound = place / "bound"
    bound.touch()
    subprocess.run(["mount", "--bind", f"/proc/{other.pid}/ns/uts", str(bound)], check=True)
    pidfd = os.pidfd_open(other.pid)
    file = open(f"/proc/{other.pid}/ns/uts")
    namespace = nsext.Namespace.of(other, "uts")
    return {
        "pid": other.pid,
        "Popen": other,
        "pidfd": nsext.Fd(pidfd),
        "Namespace": namespace,
        "file": file,
        "Fd": nsext.Fd(file.fileno()),
        "path": str(bound),
        "Path": bound,
        "bytes": os.fsencode(bound),
        "/proc": f"/proc/{other.pid}/ns/uts",
        "namespaces": {"uts": namespace},
        "Namespaces": other.namespaces,
        "mapping": {"uts": other.pid},
        "flags": {nsext.CloneFlags.NEWUTS: nsext.Fd(pidfd)},
        "both": {"uts": file, "net": pidfd_object(pidfd)},
    }


def pidfd_object(fd: int) -> Any:
    """Anything with a fileno() will do."""
    return type("Pidfd", (), {"fileno": lambda self: fd})()


def test_targets(root: None, tmp_path: Path) -> None:
    with running(new="uts net", hostname="target") as other:
        targets = _targets(other, tmp_path)
        try:
            for name, target in targets.items():
                with talking(join=target) as process:
                    all_of_it = name in ("pid", "Popen", "pidfd", "both", "Namespaces")
                    wanted = {"uts", "net"} if all_of_it else {"uts"}
                    assert shared(process, other) == wanted, name
                assert output(["hostname"], join=target) == "target", name
        finally:
            subprocess.run(["umount", str(tmp_path / "bound")], check=True)
            targets["file"].close()
            targets["Namespace"].close()
            targets["Namespaces"].close()
            os.close(targets["pidfd"].fileno())


def test_a_process_of_spawn_is_a_target(root: None) -> None:
    with nsext.spawn(["sleep", "1000"], new="uts", hostname="spawned") as other:
        assert output(["hostname"], join=other) == "spawned"
        other.kill()


@pytest.mark.parametrize("name", ["blue", "1234", "..", "net"])
def test_a_word_is_no_path(name: str) -> None:
    """As ip-netns(8) has names, and files have; the error says how to mean either."""
    with pytest.raises(ValueError, match=f"/run/netns/{name}.*'./{name}'"):
        nsext.Popen(["true"], join=name)


@pytest.mark.parametrize("value", [True, False, {"net": True}, 1.5, {"net": 1.5}, object(), [1]])
def test_what_is_no_target(value: Any) -> None:
    with pytest.raises(TypeError):
        nsext.Popen(["true"], join=value)


@pytest.mark.parametrize(
    "value",
    [0, -1, {"net": -5}, {}, {"nonsense": 1}, {"": 1}, {"net": 1, "net uts": 1}, "/a\0b"],
)
def test_what_cannot_be(value: Any) -> None:
    with pytest.raises(ValueError):
        nsext.Popen(["true"], join=value)


def test_kinds_twice(root: None) -> None:
    """In join= and in new=, or twice in join=; whatever the target turns out to be."""
    with running(new="uts net") as other:
        with nsext.Namespace.of(other, "net") as net, nsext.Namespace.of(other, "uts") as uts:
            for fields in (
                {"join": {"net": other.pid}, "new": "net"},
                {"join": net, "new": "net"},
                {"join": other.pid, "new": "uts"},
                {"join": {"net": uts}},
                {"join": {"net uts": net}},
                {"join": {"uts": f"/proc/{other.pid}/ns/net"}},
            ):
                with pytest.raises(ValueError):
                    nsext.Popen(["true"], **fields)


def test_a_user_namespace_new_and_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of both it should be nobody knows: said before anything is cloned, in every form."""

    def cloned(*args: Any) -> None:
        raise AssertionError("came to the clone")

    with running(new="user uts") as other:
        fds = nsext.Namespace.of(other, "user"), nsext.pidfd_open(other.pid)
        joins: list[Any] = [other, other.pid, nsext.Fd(fds[1]), fds[0], nsext.Fd(fds[0].fileno())]
        joins += [f"/proc/{other.pid}/ns/user", {"user": fds[0]}, {"user": other}]
        joins += [{"user uts": other.pid}, {"uts": other, "user": nsext.Fd(fds[1])}]
        before = support.open_fds()
        with monkeypatch.context() as patch:
            for name in ("spawn", "clone"):
                patch.setattr(f"nsext._native.{name}", cloned)
            patch.setattr("nsext._spawn.native_spawn", cloned)
            for join in joins:
                for new in ("user", "user uts", "all"):
                    for start in (nsext.Popen, nsext.spawn):
                        with pytest.raises(ValueError, match=r"user.* stands in new= and "):
                            start(["true"], join=join, new=new)
                with pytest.raises(AssertionError, match="came to the clone"):
                    nsext.spawn(["true"], join=join, new="net")
        assert support.open_fds() == before
        fds[0].close()
        os.close(fds[1])


def test_files_that_are_neither(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.touch()
    error = error_of(nsext.Popen, ["true"], join=str(place))
    assert (error.errno, error.stage) == (errno.EINVAL, "setup") and str(place) in error.step
    with open(place) as file:
        assert error_of(nsext.Popen, ["true"], join=file).errno == errno.EINVAL
    missing = error_of(nsext.Popen, ["true"], join=str(tmp_path / "missing"))
    assert missing.errno == errno.ENOENT and not isinstance(missing, FileNotFoundError)


def test_an_option_needs_a_new_namespace_not_a_joined_one(root: None) -> None:
    with running(new="uts net") as other:
        for fields in ({"hostname": "x"}, {"loopback": True}):
            with pytest.raises(ValueError):
                nsext.Popen(["true"], join=other.pid, **fields)


# ---- a target that ends ----------------------------------------------------------------------


def test_an_ended_target() -> None:
    process = nsext.Popen(["true"])
    ended(process.fileno())
    targets: list[Any] = [process.pid, process, {"net": process.pid}]
    for target in targets:
        error = error_of(nsext.Popen, ["true"], join=target)
        assert error.errno == errno.ESRCH and "ended" in (error.hint or ""), error
    pidfd = nsext.Fd(os.dup(process.fileno()))
    process.wait()
    for target in [process.pid, process, pidfd]:
        error = error_of(nsext.Popen, ["true"], join=target)
        assert error.errno == errno.ESRCH, error
    os.close(pidfd.fileno())


def test_a_joined_pid_namespace_has_lost_its_init(root: None) -> None:
    """Held, but nobody can be born there any more: ENOMEM, and never a process outside."""
    with running(new="pid") as other:
        held = other.namespaces
    with held:
        error = error_of(nsext.Popen, ["true"], join=held["pid"])
        assert (error.errno, error.stage) == (errno.ENOMEM, "setup")
        assert error.step.startswith("clone again") and error.hint


# ---- where the program is --------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind(kind: str, root: None) -> None:
    with running(new=kind) as other, talking(join={kind: other.pid}) as process:
        assert shared(process, other) == {kind}
        body = INLINE if kind in ("uts", "ipc", "net", "cgroup") else "helper"
        assert process.body == body


def test_a_process_is_all_kinds_that_differ(root: None) -> None:
    with running(new="all") as other, talking(join=other) as process:
        assert shared(process, other) == set(KINDS)
        assert where(process) == where(other)
    with running(new="ipc uts") as other, talking(join=other) as process:
        assert where(process) == where(other) and process.body == INLINE
    with running() as other, talking(join=other) as process:
        assert where(process) == where(other) == namespaces()


def test_nsenter_agrees(root: None) -> None:
    listing = ["sh", "-c", "for k in mnt uts ipc user pid net; do readlink /proc/self/ns/$k; done"]
    with running(new="user pid mnt uts net ipc") as other:
        theirs = subprocess.check_output(
            ["nsenter", "-t", str(other.pid), "-a", *listing], text=True
        )
        assert output(listing, join=other) == theirs.strip()


@pytest.mark.parametrize("new", ["pid mnt", "user pid mnt", "pid"])
def test_pids_of_a_joined_pid_namespace(new: str, root: None) -> None:
    """Born there; the caller's own child; reaped by the caller, with its outer pid."""
    with running(new=new) as other, talking(join=other) as process:
        inner = status(process.pid)["NSpid"].split()
        assert inner[0] == str(process.pid) and int(inner[-1]) == process.inner_pid > 1
        assert int(status(process.pid)["PPid"]) == os.getpid()
        assert process.program_pid == process.pid
    assert process.returncode == -signal.SIGKILL
    with running(new=new) as other:
        with nsext.Popen(["sh", "-c", "exit 42"], join=other) as process:
            pass
        assert process.returncode == 42
        with nsext.Popen(["sh", "-c", "kill -SEGV $$"], join=other) as process:
            pass
        assert process.returncode == -signal.SIGSEGV


MIXES: list[tuple[str, str, str]] = [  # the target's namespaces; joined; new
    ("net", "net", "mnt pid"),
    ("net", "net", "user mnt"),
    ("net", "net", "time"),
    ("pid mnt", "pid", "uts net mnt"),
    ("pid mnt", "mnt", "pid"),
    ("user mnt net", "user", "pid mnt"),
    ("user mnt net", "user net", "uts mnt time"),
    ("user pid mnt net", "user pid", "net uts mnt"),
    ("user pid mnt net", "mnt net", "pid uts"),
    ("time", "time", "mnt uts"),
    ("all", "user pid time", "mnt uts ipc net cgroup"),
    ("all", "user mnt uts ipc net cgroup time", "pid"),
    ("all", "uts", "all-but-uts"),
]


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize("of, joined, new", MIXES)
def test_mixed_with_new(of: str, joined: str, new: str, init: bool, root: None) -> None:
    """Each joined kind is the target's, each new one nobody's yet, the rest the caller's."""
    if new == "all-but-uts":
        new = "mnt ipc user pid net cgroup time"
    with running(new=of) as other:
        with talking(join={joined: other.pid}, new=new, init=init) as process:
            found, own, theirs = namespaces(process.program_pid), namespaces(), where(other)
            for kind in KINDS:
                if kind in joined.split():
                    assert found[kind] == theirs[kind], kind
                elif kind in new.split():
                    assert found[kind] not in (theirs[kind], own[kind]), kind
                else:
                    assert found[kind] == own[kind], kind
            if "pid" in new.split():
                assert process.inner_pid == (2 if init else 1)
            assert int(status(process.pid)["PPid"]) == os.getpid()


def test_new_namespaces_belong_inside_the_joined_ones(root: None) -> None:
    """Their owner is the joined user namespace, their parent the joined pid namespace."""
    with running(new="user pid mnt") as other:
        fields: dict[str, Any] = {"join": {"user pid": other.pid}, "new": "net uts mnt"}
        with talking(**fields, hostname="inside") as process:
            with process.namespaces as held, nsext.Namespace.of(other, "user") as user:
                import fcntl

                owner = fcntl.ioctl(held["net"].fileno(), 0xB701)  # NS_GET_USERNS
                assert os.fstat(owner).st_ino == user.id
                os.close(owner)
                assert output(["hostname"], join={"user uts": process}) == "inside"


def test_ranged_maps_below_a_join(root: None) -> None:
    """A new user namespace in a joined net namespace, with maps that the caller writes."""
    ranges = [(0, 0, 1), (1, 70000, 10)]
    with running(new="net") as other:
        fields: dict[str, Any] = {"uid_map": ranges, "gid_map": ranges, "user": 3, "group": 4}
        with talking(join={"net": other.pid}, new="user uts", **fields) as process:
            assert id_map("uid_map", process.pid) == ranges
            assert status(process.pid)["Uid"].split() == ["70002"] * 4
            assert ns_id("net", process.pid) == ns_id("net", other.pid)


# ---- trap 20: the mount namespace ------------------------------------------------------------


def test_the_root_of_a_joined_mount_namespace_stays(root: None) -> None:
    """pivot_root there would move everybody's; new mounts go into a new namespace only."""
    with running(new="user pid mnt") as other:
        before = Path(f"/proc/{other.pid}/mountinfo").read_text()
        own = Path("/proc/self/mountinfo").read_text()
        for fields in ({}, {"new": "uts"}, {"init": True}, {"new": "net"}):
            nsext.run(["true"], join=other, check=True, **fields)
            nsext.run(["true"], join={"mnt user": other.pid}, new="pid", check=True)
            assert Path(f"/proc/{other.pid}/mountinfo").read_text() == before
            assert os.readlink(f"/proc/{other.pid}/root") == "/"
        assert Path("/proc/self/mountinfo").read_text() == own


def test_cwd_and_the_program_are_those_of_the_target(root: None, tmp_path: Path) -> None:
    """The joined mount namespace is where paths mean something."""
    (tmp_path / "program").write_text("#!/bin/sh\npwd; echo of the caller\n")
    (tmp_path / "program").chmod(0o755)
    hide = f"mount -t tmpfs none {tmp_path}; mkdir {tmp_path}/in"
    with prepared(hide, new="mnt") as other:
        assert output(["pwd"], join=other, cwd=tmp_path / "in") == str(tmp_path / "in")
        try:
            nsext.Popen([str(tmp_path / "program")], join=other)
        except FileNotFoundError as error:
            assert error.filename == str(tmp_path / "program")
        else:
            raise AssertionError("the caller's program has run")


# ---- trap 38 ---------------------------------------------------------------------------------


def test_a_fake_proc_in_the_target(root: None) -> None:
    """Writes to /proc of new id maps and offsets go to the real one, and not into the fake."""
    make = "mount -t tmpfs none /proc; mkdir -p /proc/self/ns; cd /proc/self;"
    make += "touch uid_map gid_map setgroups timens_offsets ns/time_for_children"
    with prepared(make, new="mnt net") as other:
        fields: dict[str, Any] = {"new": "user time", "time_offsets": {"boottime": 5}}
        with talking(join={"mnt net": other.pid}, **fields) as process:
            assert id_map("uid_map", process.pid) == [(0, 0, 1)]
            offsets = Path(f"/proc/{process.pid}/timens_offsets").read_text().split()
            assert offsets == ["monotonic", "0", "0", "boottime", "5", "0"]
        fakes = [f"/proc/{other.pid}/root/proc/self/{name}" for name in ("uid_map", "setgroups")]
        assert [Path(fake).read_text() for fake in fakes] == ["", ""]


def test_anothers_process_is_explained(root: None) -> None:
    with support.running(new="uts") as process:
        support.as_user(
            """
        error = failure(nsext.spawn, ["true"], join=int(sys.argv[1]))
        assert (error.errno, error.stage) == (errno.EACCES, "setup"), error
        assert "CAP_SYS_PTRACE" in error.hint, error.hint
        """,
            str(process.pid),
        )
