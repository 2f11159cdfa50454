"""Cgroup, the description: values, their normal forms, and what the kernel is to read."""

import copy
import dataclasses
import pickle

import pytest

import nsext
from nsext import Cgroup, Sandbox

GIVEN = {
    "parent": "/sys/fs/cgroup/x",
    "name": "job",
    "memory_max": "64m",
    "memory_swap_max": 0,
    "memory_high": "1g",
    "pids_max": 5,
    "cpu_max": 0.5,
    "cpu_weight": 50,
    "io_max": {"8:0": {"wbps": "1m", "riops": 100}},
    "cpuset": [3, 1, 2, 5],
}


def test_files():
    assert dict(Cgroup(**GIVEN)._files) == {
        "memory.max": str(64 << 20),
        "memory.swap.max": "0",
        "memory.high": str(1 << 30),
        "pids.max": "5",
        "cpu.max": "50000 100000",
        "cpu.weight": "50",
        "cpuset.cpus": "1-3,5",
    }
    assert Cgroup()._files == ()


@pytest.mark.parametrize(
    ("field", "value", "file", "text"),
    [
        ("memory_max", "max", "memory.max", "max"),
        ("memory_max", 4096, "memory.max", "4096"),
        ("memory_swap_max", "unlimited", "memory.swap.max", "max"),
        ("pids_max", "max", "pids.max", "max"),
        ("pids_max", 0, "pids.max", "0"),
        ("cpu_max", 2, "cpu.max", "200000 100000"),
        ("cpu_max", (5000, 10000), "cpu.max", "5000 10000"),
        ("cpu_max", ["max", 10000], "cpu.max", "max 10000"),
        ("cpu_max", "max", "cpu.max", "max"),
        ("cpuset", "5, 0-2", "cpuset.cpus", "0-2,5"),
        ("cpuset", {7}, "cpuset.cpus", "7"),
        ("cpuset", range(4), "cpuset.cpus", "0-3"),
    ],
)
def test_a_file(field, value, file, text):
    assert Cgroup(**{field: value})._files == ((file, text),)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("memory_max", "lots", ValueError),
        ("memory_max", 1.5, TypeError),
        ("memory_high", -2, ValueError),
        ("pids_max", -1, ValueError),
        ("pids_max", True, TypeError),
        ("pids_max", "64k", TypeError),
        ("cpu_max", 0, ValueError),
        ("cpu_max", -1.0, ValueError),
        ("cpu_max", 0.001, ValueError),
        ("cpu_max", True, TypeError),
        ("cpu_max", "half", TypeError),
        ("cpu_max", (1, 2, 3), ValueError),
        ("cpu_max", (5000, 5), ValueError),
        ("cpu_max", (1.5, 10000), TypeError),
        ("cpu_weight", 0, ValueError),
        ("cpu_weight", 10001, ValueError),
        ("cpuset", "", ValueError),
        ("cpuset", "1-", ValueError),
        ("cpuset", "3-1", ValueError),
        ("cpuset", [], ValueError),
        ("cpuset", ["1"], TypeError),
        ("io_max", "8:0 rbps=5", TypeError),
        ("io_max", {"8:0": 5}, TypeError),
        ("io_max", {"8:0": {"rps": 5}}, ValueError),
        ("io_max", {"sda": {"rbps": 5}}, ValueError),
        ("io_max", {"8:0": {"rbps": "fast"}}, ValueError),
        ("name", "", ValueError),
        ("name", ".", ValueError),
        ("name", "..", ValueError),
        ("name", "a/b", ValueError),
        ("name", "../x", ValueError),
        ("name", "a\0b", ValueError),
        ("name", "a\nb", ValueError),
        ("name", "x" * 201, ValueError),
        ("name", b"x", TypeError),
        ("parent", "relative/path", ValueError),
        ("parent", "/a\0b", ValueError),
        ("parent", 5, TypeError),
        ("memory", "64m", TypeError),
    ],
)
def test_wrong(field, value, error):
    with pytest.raises(error):
        Cgroup(**{field: value})


def test_value():
    group = Cgroup(**GIVEN)
    assert group == Cgroup(**GIVEN) and hash(group) == hash(Cgroup(**GIVEN))
    assert group != Cgroup(**{**GIVEN, "pids_max": 6})
    assert Cgroup(memory_max="64m") == Cgroup(memory_max=64 << 20)
    assert eval(repr(group), vars(nsext)) == group
    assert pickle.loads(pickle.dumps(group)) == group == copy.copy(group)
    assert group.replace(pids_max=None) == Cgroup(**{**GIVEN, "pids_max": None})
    assert repr(Cgroup()) == "Cgroup()"
    with pytest.raises(dataclasses.FrozenInstanceError):
        group.pids_max = 7
    with pytest.raises(TypeError):
        Cgroup("/sys/fs/cgroup")


def test_in_a_sandbox():
    box = Sandbox(cgroup=Cgroup(**GIVEN))
    assert box == pickle.loads(pickle.dumps(box)) and hash(box) == hash(copy.copy(box))
    assert Sandbox(cgroup=GIVEN) == box
    assert "pids_max=5" in repr(box)


def test_as_text():
    box = Sandbox(cgroup=Cgroup(**GIVEN))
    plain = box.to_dict()
    assert plain["cgroup"]["memory_max"] == 64 << 20
    assert plain["cgroup"]["cpu_max"] == [50000, 100000]
    assert Sandbox.from_dict(plain) == box == Sandbox.from_toml(box.to_toml())
    assert Sandbox(cgroup="/sys/fs/cgroup/x").to_dict() == {"cgroup": "/sys/fs/cgroup/x"}
    with pytest.raises(ValueError, match="cgroup: 5 is open here"):
        Sandbox(cgroup=5).to_dict()


def test_stats_are_a_value():
    stats = nsext.CgroupStats(cpu_usage=1.5, oom_kills=0)
    assert stats == pickle.loads(pickle.dumps(stats))
    assert "cpu_usage=1.5" in repr(stats)
