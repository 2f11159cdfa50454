"""Sandbox: a value.  Frozen, equal, hashable, picklable, checked when it is made."""

import copy
import dataclasses
import os
import pickle
import resource

import pytest
from support import id_map, ns_id, running, sh

import nsext
from nsext import CloneFlags, Sandbox

FULL = {
    "new": "all",
    "uid_map": [(0, 1000, 1)],
    "gid_map": "self",
    "hostname": "box",
    "domainname": "example.org",
    "time_offsets": {"boottime": 1.5, "monotonic": -2},
    "loopback": False,
    "propagation": "slave",
    "proc": False,
    "root": nsext.Overlay(lower="/srv"),
    "mounts": [nsext.Bind("/usr", noexec=True), nsext.Tmpfs("/tmp", size="1m")],
    "cwd": "/tmp",
    "env": {"A": "1", b"B": b"2"},
    "umask": 0o22,
    "start_new_session": True,
    "process_group": 0,
    "rlimits": {"nofile": (10, 20), "core": "unlimited"},
    "affinity": [3, 1],
    "nice": 5,
    "ionice": ("best-effort", 7),
    "scheduler": "batch",
    "oom_score_adj": 100,
    "personality": 0x40000,
    "timer_slack": 1000,
    "dumpable": True,
    "capabilities": ["net_raw", "KILL"],
    "ambient": ["CAP_KILL"],
    "securebits": 1,
    "no_new_privs": False,
    "keyring": "inherit",
    "exec_label": "system_u:system_r:container_t:s0:c1,c2",
    "landlock": nsext.Landlock(read=["/usr"], tcp_bind=()),
    "landlock_strict": False,
    "disable_userns": True,
    "seccomp": ["default", bytes(8)],
    "cgroup": nsext.Cgroup(pids_max=5, name="full"),
    "join": 1,
    "user": 12,
    "group": 13,
    "extra_groups": [14, 15],
    "init": True,
    "kill_on_parent_exit": True,
}
NAMES = {field.name for field in dataclasses.fields(Sandbox) if field.init}


def test_full_covers_every_field():
    assert NAMES == FULL.keys()


# ---- a value


@pytest.mark.parametrize("name", sorted(NAMES))
def test_frozen(name):
    box = Sandbox()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(box, name, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(box, name)


def test_slots():
    assert not hasattr(Sandbox(), "__dict__")
    with pytest.raises((AttributeError, TypeError)):
        object.__setattr__(Sandbox(), "other", 1)


def test_keyword_only():
    with pytest.raises(TypeError):
        Sandbox("pid")


def test_mappings_inside_are_frozen():
    limits = {"nofile": 10}
    box = Sandbox(rlimits=limits, env={"A": "1"})
    limits["nofile"] = 20
    assert box.rlimits["nofile"] == (10, 10)
    for mapping in (box.rlimits, box.env):
        with pytest.raises(TypeError):
            mapping["x"] = 1


def test_equal_and_hash_by_value():
    one, other = Sandbox(**FULL), Sandbox(**FULL)
    assert one == other and hash(one) == hash(other) and one is not other
    assert {one: 1}[other] == 1
    assert Sandbox(new="pid mnt") == Sandbox(new=["mnt", "pid"]) != Sandbox(new="pid")
    assert Sandbox(rlimits={"NOFILE": "1k"}) == Sandbox(rlimits={resource.RLIMIT_NOFILE: 1024})
    assert Sandbox(affinity=[1, 0, 1]) == Sandbox(affinity={0, 1})
    assert Sandbox() != "Sandbox()" and Sandbox() != nsext._spec.Spec()
    for name in FULL.keys() - {"new"}:
        partial = {key: value for key, value in FULL.items() if key != name}
        assert Sandbox(**partial) != one, name


def test_equal_after_use():
    """What a spawn keeps with a description is no part of its value."""
    one, other = Sandbox(new="uts"), Sandbox(new="uts")
    one.run(["true"], check=True)
    assert one == other and hash(one) == hash(other) and repr(one) == repr(other)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("fields", [{}, FULL], ids=["empty", "full"])
def test_pickle(fields, protocol):
    box = Sandbox(**fields)
    box.replace()
    again = pickle.loads(pickle.dumps(box, protocol))
    assert again == box and hash(again) == hash(box) and type(again) is Sandbox


def test_pickle_after_use():
    box = Sandbox(new="uts", hostname="x")
    box.run(["true"], check=True)
    again = pickle.loads(pickle.dumps(box))
    assert again == box and again.check_output(["uname", "-n"]) == b"x\n"


def test_copy():
    box = Sandbox(**FULL)
    assert copy.copy(box) == box and copy.deepcopy(box) == box
    assert copy.deepcopy([box, box])[0] == box


def test_replace():
    box = Sandbox(**FULL)
    assert box.replace() == box
    other = box.replace(hostname=None, nice=7)
    assert (other.hostname, other.nice) == (None, 7)
    assert other.replace(hostname="box", nice=5) == box
    assert dataclasses.replace(box, nice=5).nice == 5
    if hasattr(copy, "replace"):
        assert copy.replace(box, nice=7, hostname=None) == other
    with pytest.raises(TypeError, match="hostnam"):
        box.replace(hostnam="x")
    with pytest.raises(ValueError, match="uts"):
        box.replace(new="pid")


def test_dataclasses_replace_keeps_the_offsets():
    """They are seconds for who gives them, and stay the same time however one copies."""
    box = Sandbox(new="time", time_offsets={"boottime": 100})
    assert dataclasses.replace(box) == box
    assert dataclasses.replace(box, nice=1).replace(nice=None) == box


def test_repr_shows_what_is_given_and_hides_the_environment():
    text = repr(Sandbox(new="pid uts", hostname="box", env={"SECRET": "hunter2", "B": "swordfish"}))
    assert "hunter2" not in text and "swordfish" not in text and "SECRET" in text
    assert "'uts pid'" in text or "'pid uts'" in text
    assert "hostname='box'" in text and "nice" not in text
    assert repr(Sandbox()) == "Sandbox()"


def test_repr_can_be_evaluated():
    fields = {name: value for name, value in FULL.items() if name not in ("env", "seccomp")}
    box = Sandbox(**fields)
    assert eval(repr(box), vars(nsext)) == box


def test_environment_is_a_snapshot():
    env = {"A": "1"}
    box = Sandbox(env=env)
    env["A"] = "2"
    assert box.check_output(["sh", "-c", "echo $A"]) == b"1\n"


# ---- spawning with one

BOX = Sandbox(new="uts", hostname="inside", umask=0o27, env={"A": "1"}, cwd="/", nice=3)
SHOW = "uname -n; umask; echo $A; pwd; nice"


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("way", ["run", "call", "check_call", "check_output", "popen", "spawn"])
def test_methods_spawn(way):
    reader, writer = os.pipe()
    with open(reader) as file:
        keywords = {} if way == "check_output" else {"stdout": writer}
        result = getattr(BOX, way)(["/bin/sh", "-c", SHOW], **keywords)
        os.close(writer)
        shown = result.decode() if way == "check_output" else file.read()
        if way in ("popen", "spawn"):
            assert result.wait() == 0
    assert shown.split() == ["inside", "0027", "1", "/", "3"]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, ["inside", "0027", "1", "/", "3"]),
        ({"hostname": "other"}, ["other", "0027", "1", "/", "3"]),
        ({"hostname": None}, [os.uname().nodename, "0027", "1", "/", "3"]),
        ({"umask": 0o77, "nice": None}, ["inside", "0077", "1", "/", str(os.nice(0))]),
        ({"env": {"B": "2"}}, ["inside", "0027", "/", "3"]),
        ({"cwd": "/tmp"}, ["inside", "0027", "1", "/tmp", "3"]),
        ({"cwd": None}, ["inside", "0027", "1", os.getcwd(), "3"]),
        ({"new": "", "hostname": None}, [os.uname().nodename, "0027", "1", "/", "3"]),
    ],
    ids=str,
)
def test_a_keyword_replaces_the_field(given, expected):
    for start in (nsext.Popen, nsext.spawn):
        reader, writer = os.pipe()
        with open(reader) as file:
            start(["/bin/sh", "-c", SHOW], sandbox=BOX, stdout=writer, **given).wait()
            os.close(writer)
            assert file.read().split() == expected


def test_env_none_inherits(monkeypatch):
    monkeypatch.setenv("A", "ours")
    for start in (nsext.run, BOX.run):
        done = start(["/bin/sh", "-c", "echo $A"], env=None, stdout=-1)
        assert done.stdout == b"ours\n"


def test_nothing_is_merged():
    box = Sandbox(rlimits={"nofile": 50, "core": 0})
    with running(sandbox=box, rlimits={"core": 1}) as child:
        ours = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == ours
        assert resource.prlimit(child.pid, resource.RLIMIT_CORE) == (1, 1)


@pytest.mark.usefixtures("root")
def test_used_many_times():
    box = Sandbox(new="user uts", hostname="x", uid_map=5)
    ids = set()
    for _ in range(20):
        with running(sandbox=box) as child:
            ids.add(ns_id("uts", child.pid))
            assert id_map("uid_map", child.pid) == [(5, os.getuid(), 1)]
    assert len(ids) >= 1 and ns_id("uts") not in ids
    assert sh("uname -n", sandbox=box) == "x"


@pytest.mark.parametrize("call", [nsext.run, nsext.Popen, nsext.spawn, nsext.call, nsext.clone])
def test_unknown_keywords(call):
    for keywords in ({"hostnam": "x"}, {"sandbox": Sandbox(), "nwe": "pid"}):
        (name,) = keywords.keys() - {"sandbox"}
        with pytest.raises(TypeError, match=name):
            call(1 if call is nsext.clone else ["true"], **keywords)


@pytest.mark.parametrize("call", [nsext.run, nsext.Popen, nsext.spawn])
@pytest.mark.parametrize("value", ["pid", {"new": "pid"}, 5, True, Sandbox])
def test_sandbox_must_be_one(call, value):
    with pytest.raises(TypeError, match="Sandbox"):
        call(["true"], sandbox=value)


def test_unknown_field():
    with pytest.raises(TypeError, match="hostnam"):
        Sandbox(hostnam="x")


def test_flags_of_new():
    assert Sandbox(new="pid mnt").new == CloneFlags.NEWPID | CloneFlags.NEWNS
    assert isinstance(Sandbox().new, CloneFlags)
