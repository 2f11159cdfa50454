"""user=, group=, extra_groups=: who the program is, and that the caller stays who it was."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import subprocess
from typing import Any

import pytest
from helping import error_of, talking
from support import as_user, dumpable, id_map, output, running, script, status

import nsext
from nsext._errors import SpawnError

MAX_ID = 2**32 - 2
DAEMON = pwd.getpwnam("daemon") if os.geteuid() == 0 else None


def ids(pid: int) -> tuple[list[int], list[int], list[int]]:
    """Real, effective, saved and file-system uid; the same of gid; groups."""
    found = status(pid)
    uid, gid, groups = (list(map(int, found[name].split())) for name in ("Uid", "Gid", "Groups"))
    return uid, gid, groups


def identity(**keywords: Any) -> tuple[int, int, list[int]]:
    """(uid, gid, groups) of a program, all four of each being the same."""
    with talking(**keywords) as process:
        uid, gid, groups = ids(process.program_pid)
    assert len(set(uid)) == len(set(gid)) == 1
    return uid[0], gid[0], groups


# ---- traps 2 and 41: ids ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 65534, MAX_ID])
def test_each_id_is_set_four_times(number: int, root: None) -> None:
    assert identity(user=number, group=number) == (number, number, [])


@pytest.mark.parametrize("field", ["user", "group"])
def test_one_of_them(field: str, root: None) -> None:
    wanted = {"user": os.getuid(), "group": os.getgid(), field: 4711}
    uid, gid, groups = identity(**{field: 4711})
    assert (uid, gid, groups) == (wanted["user"], wanted["group"], [])


@pytest.mark.parametrize("field", ["user", "group"])
@pytest.mark.parametrize("number", [-1, -2, 2**32 - 1, 2**32, 2**64])
def test_no_ids(field: str, number: int) -> None:
    """-1 would be "unchanged" to setresuid(2), 2**32 root."""
    with pytest.raises((ValueError, OverflowError)):
        nsext.Popen(["true"], **{field: number})
    with pytest.raises(ValueError):
        nsext.Popen(["true"], extra_groups=[0, number])


@pytest.mark.parametrize("field", ["user", "group"])
@pytest.mark.parametrize("value", [True, 1.0, b"root", object(), [0]])
def test_no_ids_by_type(field: str, value: Any) -> None:
    with pytest.raises(TypeError):
        nsext.Popen(["true"], **{field: value})


@pytest.mark.parametrize("how", [{}, {"init": True}, {"kill_on_parent_exit": True}])
def test_the_callers_memory_stays_dumpable(how: dict[str, Any], root: None) -> None:
    """A change of kernel uid in the caller's memory would make it non-dumpable for good."""
    for fields in (
        {"user": 1000},
        {"group": 1000},
        {"extra_groups": [5]},
        {"new": "user", "uid_map": [(0, 100000, 10)], "gid_map": [(0, 100000, 10)], "user": 0},
    ):
        before = dumpable(), os.stat("/proc/self").st_uid
        with talking(**fields, **how) as process:
            assert process.body == "helper"
            assert (dumpable(), os.stat("/proc/self").st_uid) == before == (1, os.geteuid())
        assert (dumpable(), os.stat("/proc/self").st_uid) == before


def test_an_unprivileged_map_is_still_written_after_a_spawn_with_user(root: None) -> None:
    """What a non-dumpable caller could not: its own uid_map would be root's."""
    script("""
    nsext.run(["true"], user=12345, check=True)
    os.setresgid(12345, 12345, 12345); os.setgroups([]); os.setresuid(12345, 12345, 12345)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    for _ in range(2):
        nsext.run(["true"], user=12345, group=12345, check=True)
        nsext.run(["true"], new="user", check=True)
    for wrong in ({"user": 1}, {"group": 1}, {"user": 12345, "extra_groups": []}):
        try:
            nsext.run(["true"], **wrong)
        except nsext.SpawnError as error:
            assert error.errno == 1 and "groups" in error.step, error
        else:
            raise AssertionError(wrong)
    """)


def test_the_program_is_as_dumpable_as_any(root: None) -> None:
    """exec makes the new memory its owner's again."""
    with talking(user=1000, group=1000) as process:
        assert os.stat(f"/proc/{process.pid}").st_uid == 1000


# ---- trap 40: supplementary groups -----------------------------------------------------------

GROUPS = """
os.setgroups([4242, 7])
def identity(**keywords):
    with nsext.Popen(["cat"], stdin=nsext.PIPE, stdout=nsext.PIPE, bufsize=0, **keywords) as p:
        p.stdin.write(b"x"); p.stdout.read(1)
        found = status(p.program_pid)
        p.kill()
    return [found["Uid"].split()[0], found["Gid"].split()[0], found["Groups"]]
"""


@pytest.mark.parametrize(
    "keywords, wanted",
    [
        ("", ["0", "0", "7 4242"]),
        ("extra_groups=None", ["0", "0", "7 4242"]),
        ("extra_groups=[]", ["0", "0", ""]),
        ("extra_groups=()", ["0", "0", ""]),
        ("extra_groups=[1, 2]", ["0", "0", "1 2"]),
        ("extra_groups=[2**32 - 2, 0]", ["0", "0", "0 4294967294"]),
        ("extra_groups=['daemon', 2]", ["0", "0", "1 2"]),
        ("user=5", ["5", "0", ""]),
        ("group=5", ["0", "5", ""]),
        ("user=5, extra_groups=[1, 2]", ["5", "0", "1 2"]),
        ("user=5, group=6, extra_groups=[]", ["5", "6", ""]),
        ("user=5, group=6, extra_groups=None", ["5", "6", ""]),
        ("user=0", ["0", "0", ""]),
        ("group=0", ["0", "0", ""]),
        ("user=0, extra_groups=[7]", ["0", "0", "7"]),
        ("user=5, group=6, init=True", ["5", "6", ""]),
        ("extra_groups=[3], new='pid mnt', init=True", ["0", "0", "3"]),
        ("extra_groups=range(1, 65537)", ["0", "0", " ".join(map(str, range(1, 65537)))]),
    ],
)
def test_groups_of_a_parent_in_4242(keywords: str, wanted: list[str], root: None) -> None:
    import json

    assert json.loads(script(GROUPS + f"print(json.dumps(identity({keywords})))")) == wanted


def test_too_many_groups() -> None:
    with pytest.raises(ValueError, match="65536"):
        nsext.Popen(["true"], extra_groups=range(65537))


@pytest.mark.parametrize("value", ["daemon", b"x", 5, [True], [1.0], [b"x"], [None]])
def test_no_groups(value: Any) -> None:
    with pytest.raises(TypeError):
        nsext.Popen(["true"], extra_groups=value)


# ---- names -----------------------------------------------------------------------------------


def test_names(root: None) -> None:
    assert DAEMON is not None
    wanted = DAEMON.pw_uid, grp.getgrnam("daemon").gr_gid, [grp.getgrnam("daemon").gr_gid]
    assert identity(user="daemon", group="daemon", extra_groups=["daemon"]) == wanted


@pytest.mark.parametrize(
    "fields", [{"user": "no-such-user"}, {"group": "no-such"}, {"extra_groups": ["no-such"]}]
)
def test_unknown_names_are_key_errors(fields: dict[str, Any]) -> None:
    """As with subprocess."""
    with pytest.raises(KeyError):
        subprocess.Popen(["true"], **fields)
    with pytest.raises(KeyError):
        nsext.Popen(["true"], **fields)


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_no_names(name: str) -> None:
    with pytest.raises(ValueError):
        nsext.Popen(["true"], user=name)


def test_names_are_looked_up_each_time(root: None) -> None:
    """A description is not tied to the passwd of its first use."""
    box = nsext.Sandbox(user="daemon")
    original = pwd.getpwnam
    try:
        assert DAEMON is not None
        assert output(["id", "-u"], sandbox=box) == str(DAEMON.pw_uid)
        pwd.getpwnam = lambda name: type("Entry", (), {"pw_uid": 4321})()  # type: ignore[assignment]
        assert output(["id", "-u"], sandbox=box) == "4321"
    finally:
        pwd.getpwnam = original


@pytest.mark.parametrize(
    "fields", [{"user": "root"}, {"group": "root"}, {"extra_groups": [0, "root"]}]
)
def test_whose_passwd_would_it_be(fields: dict[str, Any], root: None) -> None:
    """Names are the caller's: in another user namespace, new or joined by whatever, refused."""
    with pytest.raises(ValueError, match="numbers"):
        nsext.Popen(["true"], new="user", **fields)
    with running(new="user mnt") as other:
        with nsext.Namespace.of(other.pid, "user") as namespace:
            joins: list[Any] = [other.pid, other, namespace, f"/proc/{other.pid}/ns/user"]
            for target in [*joins, {"user": other.pid}, nsext.Fd(namespace.fileno())]:
                with pytest.raises(ValueError, match="numbers"):
                    nsext.Popen(["true"], join=target, **fields)


# ---- numeric ids in a new user namespace -----------------------------------------------------

RANGE = [(0, 100000, 1000)]


@pytest.mark.parametrize("inside", [0, 1, 999])
def test_ids_of_the_new_namespace(inside: int, root: None) -> None:
    fields: dict[str, Any] = {"new": "user", "uid_map": RANGE, "gid_map": RANGE}
    found = identity(**fields, user=inside, group=inside, extra_groups=[3, 4])
    assert found == (100000 + inside, 100000 + inside, [100003, 100004])
    command = ["sh", "-c", "id -u; id -g; id -G"]
    told = output(command, **fields, user=inside, group=inside, extra_groups=[3, 4]).split()
    assert told[:2] == [str(inside)] * 2 and {"3", "4"} <= set(told[2:])


def test_root_there_has_capabilities_and_others_none(root: None) -> None:
    for user, capable in ((0, True), (7, False)):
        with talking(new="user", uid_map=RANGE, gid_map=RANGE, user=user, group=0) as process:
            assert id_map("uid_map", process.pid) == RANGE
            assert bool(int(status(process.pid)["CapEff"], 16)) is capable


@pytest.mark.parametrize(
    "fields, step",
    [
        ({"user": 1000}, "setresuid 1000"),
        ({"group": 1000}, "setresgid 1000"),
        ({"extra_groups": [1000]}, "set supplementary groups to 1000"),
    ],
)
def test_an_id_that_is_not_mapped(fields: dict[str, Any], step: str, root: None) -> None:
    error = error_of(nsext.Popen, ["true"], new="user", uid_map=RANGE, gid_map=RANGE, **fields)
    assert (error.errno, error.stage, error.step) == (errno.EINVAL, "setup", step)
    assert "not mapped" in (error.hint or "")


@pytest.mark.parametrize("uid_map", ["root", "self", 5])
def test_an_ordinary_user_in_its_own_namespace(uid_map: Any) -> None:
    """One id is mapped; to become that is no change, any other is none's."""
    inside = {"root": 0, "self": 12345}.get(uid_map, uid_map)
    as_user(f"""
    keywords = dict(new="user", uid_map={uid_map!r}, gid_map={uid_map!r})
    own = dict(user={inside}, group={inside} if {uid_map!r} != "self" else 23456)
    done = nsext.run(["id", "-u"], capture_output=True, text=True, **keywords, **own)
    assert done.stdout == "{inside}\\n", done
    for wrong in (dict(user=999), dict(group=999)):
        error = failure(nsext.run, ["true"], **keywords, **wrong)
        assert (error.errno, error.stage) == (errno.EINVAL, "setup"), error
    error = failure(nsext.run, ["true"], **keywords, extra_groups=[])
    assert (error.errno, error.step) == (errno.EPERM, "set supplementary groups to none"), error
    assert "gid_map" in error.hint
    """)


def test_an_ordinary_user_may_not(root: None) -> None:
    as_user("""
    for keywords, step in (
        (dict(user=0), "set supplementary groups to none"),
        (dict(group=0), "set supplementary groups to none"),
        (dict(extra_groups=[]), "set supplementary groups to none"),
        (dict(extra_groups=[1]), "set supplementary groups to 1"),
    ):
        error = failure(nsext.Popen, ["true"], **keywords)
        assert (error.errno, error.stage, error.step) == (errno.EPERM, "setup", step), error
        assert is_plain(error) and "CAP_SETGID" in error.hint
    # To be who one is needs no privilege.
    print(nsext.run(["id", "-u"], user=os.getuid(), group=os.getgid()).returncode)
    """)


# ---- order -----------------------------------------------------------------------------------


def test_the_setup_has_its_capabilities_until_the_ids_change(root: None) -> None:
    """Names, mounts and a better nice need root; the program is nobody."""
    fields: dict[str, Any] = {"new": "pid mnt uts net", "hostname": "x", "nice": -5}
    with talking(user=65534, group=65534, **fields) as process:
        assert ids(process.pid)[0] == [65534] * 4
        found = status(process.pid)
        assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 0
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == -5


def test_cwd_is_entered_before_and_exec_is_after(root: None, tmp_path: Any) -> None:
    """As subprocess: a directory of root's only may be the cwd, a program of root's may not."""
    private = tmp_path / "private"
    private.mkdir(0o700)
    program = private / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with talking(user=65534, cwd=private) as process:
        assert os.readlink(f"/proc/{process.pid}/cwd") == str(private)
    try:
        nsext.Popen([str(program)], user=65534)
    except PermissionError as error:
        assert isinstance(error, SpawnError) and error.stage == "exec"
        assert error.filename == str(program)
    else:
        raise AssertionError("started")


@pytest.mark.parametrize("fields", [{"user": 1}, {"group": 1}, {"extra_groups": [1]}])
def test_subprocess_agrees(fields: dict[str, Any], root: None) -> None:
    """But for the groups of user= and group= alone, which subprocess keeps."""
    command = ["sh", "-c", "id -u; id -g; id -G"]
    theirs = subprocess.check_output(
        command,
        text=True,
        extra_groups=fields.get("extra_groups", []),
        user=fields.get("user"),
        group=fields.get("group"),
    )
    assert nsext.check_output(command, text=True, **fields) == theirs
