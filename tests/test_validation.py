"""Wrong values: TypeError or ValueError, of the same kind from every door, before any clone."""

import os

import pytest

import nsext
from nsext import Sandbox

DOORS = {
    "Sandbox": lambda **fields: Sandbox(**fields),
    "replace": lambda **fields: Sandbox().replace(**fields),
    "run": lambda **fields: nsext.run(["true"], **fields),
    "spawn": lambda **fields: nsext.spawn(["true"], **fields),
    "clone": lambda **fields: nsext.clone(1 << 12, **fields),
}


@pytest.fixture(params=DOORS)
def door(request):
    return DOORS[request.param]


# ---- an option without its namespace


@pytest.mark.parametrize(
    "kind, fields",
    [
        ("uts", {"hostname": "x"}),
        ("uts", {"hostname": ""}),
        ("uts", {"domainname": "x"}),
        ("time", {"time_offsets": {"boottime": 0}}),
        ("net", {"loopback": True}),
        ("user", {"uid_map": "root"}),
        ("user", {"uid_map": 0}),
        ("user", {"gid_map": [(0, 0, 1)]}),
        ("mnt", {"propagation": "private"}),
        ("mnt", {"propagation": "shared"}),
        ("mnt", {"proc": True}),
    ],
    ids=str,
)
def test_without_its_namespace(door, kind, fields):
    others = [other for other in nsext._flags.BY_KIND if other != kind]
    for new in ("", others):
        with pytest.raises(ValueError, match=f"add '{kind}' to new=") as caught:
            door(new=new, **fields)
        assert str(caught.value).startswith(next(iter(fields)))


@pytest.mark.parametrize(
    "fields",
    [
        {"hostname": None, "domainname": None, "uid_map": None, "gid_map": None},
        {"time_offsets": {}},
        {"loopback": False},
        {"loopback": None},
        {"propagation": "unchanged"},
        {"propagation": None},
        {"proc": False},
        {"proc": None},
    ],
    ids=str,
)
def test_defaults_and_off_never_raise(fields):
    assert Sandbox(**fields).new == 0
    assert nsext.run(["true"], **fields).returncode == 0


# ---- values

WRONG_VALUES = [
    ({"new": "pid foo"}, "foo"),
    ({"new": "PID"}, "PID"),
    ({"new": ["pid", "foo"]}, "foo"),
    ({"new": ["pid mnt"]}, "pid mnt"),
    ({"new": "all pid"}, "all"),
    ({"new": 1}, "CLONE_NEW"),
    ({"new": -1}, "CLONE_NEW"),
    ({"new": 0x20000000 | 0x100}, "CLONE_NEW"),  # CLONE_VM is no namespace
    ({"new": 1 << 40}, "CLONE_NEW"),
    ({"new": "uts", "hostname": "a" * 65}, "64"),
    ({"new": "uts", "hostname": "é" * 33}, "66 bytes"),
    ({"new": "uts", "domainname": "a" * 65}, "64"),
    ({"new": "uts", "hostname": "a\0b"}, "null"),
    ({"new": "time", "time_offsets": {"realtime": 1}}, "realtime"),
    ({"new": "time", "time_offsets": {"boottime": float("nan")}}, "boottime"),
    ({"new": "time", "time_offsets": {"boottime": float("inf")}}, "boottime"),
    ({"new": "time", "time_offsets": {"monotonic": 1e30}}, "monotonic"),
    ({"new": "mnt", "propagation": "rshared"}, "rshared"),
    ({"cwd": "a\0b"}, "null"),
    ({"cwd": b"a\0b"}, "null"),
    ({"umask": -2}, "umask"),
    ({"umask": 0o10000}, "umask"),
    ({"process_group": -2}, "process_group"),
    ({"process_group": 2**31}, "process_group"),
    ({"nice": 20}, "nice"),
    ({"nice": -21}, "nice"),
    ({"ionice": "low"}, "low"),
    ({"ionice": ("idle", 1)}, "idle"),
    ({"ionice": ("best-effort", 8)}, "0 to 7"),
    ({"ionice": ("realtime", 1, 2)}, "ionice"),
    ({"scheduler": "deadline"}, "deadline"),
    ({"scheduler": "rr"}, "priority"),
    ({"scheduler": ("fifo", 0)}, "1 to 99"),
    ({"scheduler": ("batch", 1)}, "batch"),
    ({"oom_score_adj": 1001}, "oom_score_adj"),
    ({"oom_score_adj": -1001}, "oom_score_adj"),
    ({"personality": -1}, "personality"),
    ({"personality": 2**32 - 1}, "personality"),
    ({"timer_slack": 0}, "timer_slack"),
    ({"keyring": "old"}, "keyring"),
    ({"affinity": []}, "affinity"),
    ({"affinity": [-1]}, "affinity"),
    ({"affinity": [1 << 40]}, "affinity"),
    ({"rlimits": {"nofiles": 1}}, "nofiles"),
    ({"rlimits": {999: 1}}, "999"),
    ({"rlimits": {"nofile": -2}}, "nofile"),
    ({"rlimits": {"nofile": 1 << 64}}, "nofile"),
    ({"rlimits": {"nofile": (2, 1)}}, "soft"),
    ({"rlimits": {"nofile": ("max", 1)}}, "soft"),
    ({"rlimits": {"nofile": (1, 2, 3)}}, "nofile"),
    ({"rlimits": {"nofile": "1q"}}, "1q"),
    ({"rlimits": {"nofile": ""}}, "nofile"),
    ({"rlimits": {"nofile": 1, "RLIMIT_NOFILE": 1}}, "twice"),
]


@pytest.mark.parametrize("fields, words", WRONG_VALUES, ids=lambda value: str(value)[:40])
def test_wrong_values(door, fields, words):
    with pytest.raises(ValueError, match=words) as caught:
        door(**fields)
    assert not isinstance(caught.value, nsext.SpawnError)


WRONG_TYPES = [
    {"new": True},
    {"new": False},
    {"new": b"pid"},
    {"new": 1.0},
    {"new": [1]},
    {"new": [None]},
    {"new": "uts", "hostname": b"x"},
    {"new": "uts", "hostname": 5},
    {"new": "time", "time_offsets": 5},
    {"new": "time", "time_offsets": [("boottime", 1)]},
    {"new": "time", "time_offsets": {"boottime": "1"}},
    {"new": "time", "time_offsets": {"boottime": True}},
    {"new": "user", "uid_map": 1.5},
    {"new": "user", "uid_map": True},
    {"cwd": 5},
    {"cwd": 5.0},
    {"env": 5},
    {"env": [("A", "1")]},
    {"umask": "022"},
    {"umask": True},
    {"process_group": "0"},
    {"process_group": True},
    {"nice": "5"},
    {"nice": 1.0},
    {"nice": True},
    {"ionice": 3},
    {"ionice": ("realtime", "1")},
    {"scheduler": b"rr"},
    {"scheduler": ("rr", 1.0)},
    {"oom_score_adj": True},
    {"personality": "linux32"},
    {"timer_slack": 1e9},
    {"affinity": 0},
    {"affinity": "0"},
    {"affinity": [0.0]},
    {"affinity": [True]},
    {"rlimits": [("nofile", 1)]},
    {"rlimits": 5},
    {"rlimits": {"nofile": 1.5}},
    {"rlimits": {"nofile": True}},
    {"rlimits": {True: 1}},
    {"rlimits": {1.0: 1}},
    {"rlimits": {"nofile": None}},
]


@pytest.mark.parametrize("fields", WRONG_TYPES, ids=lambda value: str(value)[:40])
def test_wrong_types(door, fields):
    if "env" in fields and door is DOORS["clone"]:
        pytest.skip("clone() takes no environment")
    with pytest.raises(TypeError) as caught:
        door(**fields)
    assert not isinstance(caught.value, OSError)


def test_a_bool_is_not_taken_for_its_int_from_the_memo():
    """True == 1 == 1.0, and equal keys find each other."""
    nsext.run(["true"], nice=1)
    for value in (True, 1.0):
        with pytest.raises(TypeError):
            nsext.run(["true"], nice=value)
    assert nsext.run(["true"], umask=0).returncode == 0
    with pytest.raises(TypeError):
        nsext.run(["true"], umask=False)


# ---- sizes and names


@pytest.mark.parametrize(
    "given, limit",
    [
        (4096, 4096),
        ("4096", 4096),
        ("64k", 64 << 10),
        ("64K", 64 << 10),
        ("64m", 64 << 20),
        ("1g", 1 << 30),
        ("1G", 1 << 30),
        ("unlimited", 2**64 - 1),
        ("max", 2**64 - 1),
        (-1, 2**64 - 1),
    ],
)
def test_sizes(given, limit):
    assert Sandbox(rlimits={"as": given}).rlimits["as"] == (limit, limit)
    assert Sandbox(rlimits={"AS": (0, given)}).rlimits["as"] == (0, limit)
    assert Sandbox(rlimits={"Rlimit_As": [0, given]}).rlimits["as"] == (0, limit)


def test_umask_and_group_neutral_values():
    """subprocess's -1 means: leave it."""
    assert Sandbox(umask=-1) == Sandbox() == Sandbox(process_group=-1)
    assert nsext.run(["true"], umask=-1, process_group=-1).returncode == 0


@pytest.mark.parametrize("form", [str, os.fsencode, os.PathLike])
def test_cwd_in_each_form(form, tmp_path):
    value = tmp_path if form is os.PathLike else form(str(tmp_path))
    assert nsext.check_output(["pwd"], cwd=value).decode().strip() == str(tmp_path)
