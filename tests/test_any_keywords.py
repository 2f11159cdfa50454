"""Any keywords at all: a clear refusal or a right spawn, and nothing left; never a crash or a hang.

A short run here; `make fuzz` sets NSEXT_FUZZ_SECONDS for a long one.
"""

import copy
import dataclasses
import os
import pickle
import signal
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import changes, state

import nsext
from nsext import Sandbox

SECONDS = float(os.environ.get("NSEXT_FUZZ_SECONDS", "0"))
KINDS = ["mnt", "uts", "ipc", "user", "pid", "net", "cgroup", "time"]
IDS = st.sampled_from([0, 1, 1000, 65534, 2**31, 2**32 - 2, 2**32 - 1, -1])
SIZES = st.sampled_from([0, 1, "64k", "1g", "unlimited", -1, "no size", 2**64, 1.5])
PATHS = st.sampled_from(["/", "/tmp", "/usr", "/nonexistent", "relative", "", "/a\0b", b"/tmp", 5])
NAMES = st.one_of(st.text(max_size=70), st.just("x" * 64), st.just("x" * 65))
RANGES = st.lists(st.tuples(IDS, IDS, st.sampled_from([1, 10, 0, 2**32])), max_size=3)
MAPS = st.one_of(st.sampled_from(["root", "self", "auto", "none"]), IDS, RANGES)
FLAG = st.sampled_from([True, False, None])
JUNK = st.one_of(
    st.none(), st.integers(), st.text(max_size=5), st.binary(max_size=5), st.booleans()
)


def spec(*made):
    """A mount spec that may not come into being."""
    cls, args, keywords = made
    try:
        return cls(*args, **keywords)
    except (TypeError, ValueError):
        return None


TARGETS = st.sampled_from(
    ["/mnt", "/tmp", "/mnt/a/b", "/proc", "/dev", "/etc/hostname", "rel", "/"]
)
SPECS = st.one_of(
    st.builds(
        lambda s, t, ro, rec, opt: spec(
            nsext.Bind, (s, t), {"readonly": ro, "recursive": rec, "optional": opt}
        ),
        st.sampled_from(["/usr", "/etc/passwd", "/proc", "/", "/nonexistent", 99, "rel"]),
        TARGETS,
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(lambda t, s: spec(nsext.Tmpfs, (t,), {"size": s}), TARGETS, SIZES),
    st.builds(lambda t: spec(nsext.Mask, (t,), {"optional": True}), TARGETS),
    st.builds(lambda t: spec(nsext.ReadOnly, (t,), {"optional": True}), TARGETS),
    st.builds(lambda t: spec(nsext.Overlay, (t,), {"lower": "/usr/lib"}), TARGETS),
    st.builds(lambda t, c: spec(nsext.File, (t, c), {}), TARGETS, st.binary(max_size=9)),
    st.builds(lambda t: spec(nsext.Dir, (t,), {}), TARGETS),
    st.builds(lambda t: spec(nsext.Symlink, ("to", t), {}), TARGETS),
    st.builds(lambda: nsext.Dev()),
    st.builds(lambda: nsext.Proc()),
)
VALUES = {
    "new": st.one_of(
        st.lists(st.sampled_from(KINDS), unique=True),
        st.sampled_from(["all", "pid,mnt", "", "nothing", True, 0x20000, 0x10000000, 1]),
    ),
    "join": st.sampled_from([None, os.getpid(), "/proc/self/ns/net", "word", -1, 2**40, {}]),
    "uid_map": MAPS,
    "gid_map": MAPS,
    "hostname": NAMES,
    "domainname": NAMES,
    "time_offsets": st.dictionaries(
        st.sampled_from(["boottime", "monotonic", "real"]),
        st.floats(allow_nan=True) | st.integers(-(2**40), 2**40),
    ),
    "loopback": FLAG,
    "propagation": st.sampled_from(["private", "slave", "shared", "unchanged", "up", None]),
    "proc": FLAG,
    "root": st.one_of(
        st.sampled_from([None, "/", "/usr", "/nonexistent", nsext.Tmpfs(), 5]),
        st.just(nsext.Overlay(lower="/usr")),
    ),
    "mounts": st.lists(SPECS, max_size=4),
    "cwd": PATHS,
    "env": st.one_of(
        st.none(), st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3)
    ),
    "user": st.one_of(IDS, st.sampled_from(["root", "nobody", "no such user"])),
    "group": st.one_of(IDS, st.sampled_from(["root", "no such group"])),
    "extra_groups": st.lists(IDS, max_size=3),
    "umask": st.sampled_from([0, 0o77, -1, 0o10000, 0.5]),
    "start_new_session": FLAG,
    "process_group": st.sampled_from([0, None, -1, 1, 2**40]),
    "rlimits": st.dictionaries(
        st.sampled_from(["nofile", "RLIMIT_CORE", "stack", "none", 7]),
        st.one_of(SIZES, st.tuples(SIZES, SIZES)),
        max_size=2,
    ),
    "affinity": st.lists(st.sampled_from([0, 1, 63, 4095, -1, 2**20]), max_size=3),
    "nice": st.sampled_from([0, 5, 19, -5, 20]),
    "ionice": st.sampled_from(["idle", ("best-effort", 4), ("realtime", 9), "fast", 5]),
    "scheduler": st.sampled_from(["batch", "idle", ("rr", 1), ("fifo", 200), 5]),
    "oom_score_adj": st.sampled_from([0, 500, 1000, -1000, 2000]),
    "personality": st.sampled_from([0, 0x0040000, 2**32]),
    "timer_slack": st.sampled_from([1, 50000, 0, 2**64]),
    "dumpable": st.just(None),
    "capabilities": st.sampled_from([(), "all", ["net_raw"], ["CAP_NO"], None]),
    "ambient": st.sampled_from([(), ["net_raw"], ["no"]]),
    "no_new_privs": FLAG,
    "keyring": st.sampled_from(["new", "inherit", None, "old"]),
    "disable_userns": FLAG,
    "exec_label": st.sampled_from(["u:r:t", "profile", "", "a\0b", None]),
    "init": FLAG,
    "kill_on_parent_exit": FLAG,
}
OTHERS = dict.fromkeys((field.name for field in dataclasses.fields(Sandbox) if field.init), JUNK)
FIELDS = {**OTHERS, **VALUES}


@st.composite
def keywords(draw):
    """Some fields: mostly of values that mean something, now and then of anything."""
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), unique=True, max_size=7))
    return {
        name: draw(JUNK) if draw(st.integers(0, 19)) == 0 else draw(FIELDS[name]) for name in names
    }


def rounds(number):
    """Examples: that many here; in `make fuzz` about as many as the seconds are enough for."""
    return settings(
        max_examples=number if not SECONDS else max(number, int(SECONDS * 150)),
        deadline=None,
        database=None,
        derandomize=not SECONDS,  # else the suite would fail now and then, for what is long there
        suppress_health_check=list(HealthCheck),
    )


@rounds(150)
@given(fields=keywords(), how=st.sampled_from(["run", "spawn", "Popen", "paused"]))
def test_a_refusal_or_a_right_spawn(fields, how):
    before = state()
    args = ["/bin/true"]
    try:
        if how == "run":
            done = nsext.run(args, timeout=20, **fields)
            # 127: no descriptor for its libraries; SIGSEGV: no stack for itself.
            no_stack = -signal.SIGSEGV if "stack" in (fields.get("rlimits") or ()) else 0
            assert done.returncode in (0, 127, no_stack), done
        elif how == "spawn":
            nsext.spawn(args, spawn_timeout=20, **fields).wait(timeout=20)
        else:
            with nsext.Popen(args, spawn_timeout=20, paused=how == "paused", **fields) as process:
                held = process._namespaces, process.root
                try:
                    if how == "paused":
                        process.resume()
                    process.wait(timeout=20)
                finally:
                    for kept in filter(None, held):
                        kept.close()
    except (nsext.SpawnTimeout, subprocess.TimeoutExpired) as error:
        raise AssertionError(f"a hang: {fields}") from error
    except (TypeError, ValueError, KeyError, OverflowError, nsext.SpawnError):
        pass
    after = state()
    assert not changes(before, after), (fields, changes(before, after))


@rounds(150)
@given(fields=keywords())
def test_a_description_is_a_value(fields):
    try:
        box = Sandbox(**fields)
        hash(box)
    except (TypeError, ValueError, OverflowError):
        return
    assert pickle.loads(pickle.dumps(box)) == box
    assert copy.deepcopy(box) == box == box.replace()
    assert hash(copy.copy(box)) == hash(box)
    assert repr(box).startswith("Sandbox(")
    if box.dumpable is None:
        box.explain()
    else:
        with pytest.raises(ValueError, match="dumpable= is for clone"):
            box.explain()
    try:
        text = box.to_toml()
    except ValueError:
        return  # what is open here, and no text
    again = Sandbox.from_toml(text or "\n")  # in which bytes have become text
    assert again.to_toml() == text and Sandbox.from_toml(again.to_toml() or "\n") == again


def test_every_field_is_drawn():
    assert FIELDS.keys() == {field.name for field in dataclasses.fields(Sandbox) if field.init}
    with pytest.raises(ValueError):
        Sandbox(hostname="x")
