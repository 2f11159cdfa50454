"""Sandboxes as dicts, JSON and TOML, and back."""

import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sandbox import FULL

import nsext
from nsext import Fd, Sandbox, _toml

TEXT = {**FULL, "seccomp": "default", "env": {"A": "1", "with space": 'a "b" \\ \n\t\x7f ü'}}
BOX = Sandbox(**TEXT)
ALONE = [Sandbox(**{name: value, "new": "all"}) for name, value in TEXT.items() if name != "join"]
OTHERS = [
    Sandbox(),
    Sandbox(new="pid mnt", proc=False),
    Sandbox(join={"net mnt": 12, "uts": "/run/uts"}, user="nobody", extra_groups=()),
    Sandbox(join="/run/netns/blue", rlimits={"nofile": 5, "as": (2**63, 2**64 - 2)}),
    Sandbox(new="user", uid_map=7, gid_map=[(0, 100000, 65536), (65536, 5, 1)], env={}),
    Sandbox(new="user", uid_map="auto", gid_map="auto", disable_userns=True),
    Sandbox(new="time", time_offsets={"boottime": 86400}, umask=0),
    Sandbox(new="mnt", root="/srv", mounts=[nsext.File("/a", b"\xff"), nsext.Mask("/b")]),
    Sandbox(new="mnt", mounts=[nsext.Bind("/a", "/b", idmap=[(0, 1, 2)]), nsext.Dir("/d")]),
]


@pytest.mark.parametrize("box", [BOX, *ALONE, *OTHERS], ids=repr)
def test_round_trips(box):
    plain = box.to_dict()
    assert Sandbox.from_dict(plain) == box
    assert json.loads(json.dumps(plain)) == plain
    assert Sandbox.from_dict(json.loads(json.dumps(plain))) == box
    text = box.to_toml()
    assert Sandbox.from_toml(text) == box
    for document in (plain, tomllib.loads(text)):
        assert document.keys() == box._given().keys()


def test_toml_is_as_a_person_would_write_it():
    box = Sandbox(new="pid mnt", nice=5, rlimits={"core": 0, "nofile": (64, "unlimited")})
    assert box.to_toml() == (
        'new = "mnt pid"\nnice = 5\n\n[rlimits]\ncore = 0\nnofile = [64, "unlimited"]\n'
    )


def test_a_file(tmp_path):
    path = tmp_path / "a=b.toml"
    path.write_text('new = "uts"\nhostname = "filed"\n')
    assert Sandbox.from_toml(path).hostname == "filed"
    plain = tmp_path / "box.toml"
    path.rename(plain)
    box = Sandbox.from_toml(str(plain))
    assert type(box) is Sandbox
    assert box.check_output(["uname", "-n"]) == b"filed\n"
    with pytest.raises(FileNotFoundError):
        Sandbox.from_toml("nothing.toml")


def test_bytes_and_paths_become_text(tmp_path):
    assert Sandbox(cwd=tmp_path, env={b"A": b"\xff"}).to_dict() == {
        "cwd": str(tmp_path),
        "env": {"A": "\udcff"},
    }


def test_what_has_no_text_form():
    with nsext.Popen(["true"]) as process, nsext.Namespace.of("self", "net") as net:
        for live in (process, net, Fd(0), {"uts": net}):
            with pytest.raises(ValueError, match=r"^join: .* has no text form"):
                Sandbox(join=live).to_dict()
    with pytest.raises(ValueError, match="UTF-8"):
        Sandbox(env={b"A": b"\xff"}).to_toml()


def test_what_is_wrong_is_refused():
    with pytest.raises(ValueError, match="no such field: hostnam, nw"):
        Sandbox.from_dict({"nw": "pid", "hostnam": "x"})
    with pytest.raises(ValueError, match="no such field"):
        Sandbox.from_toml('_plans = 1\nnew = ""\n')
    with pytest.raises(TypeError):
        Sandbox.from_dict(["new"])
    with pytest.raises(TypeError, match="hostname"):
        Sandbox.from_toml('new = "uts"\nhostname = 5\n')
    with pytest.raises(ValueError, match="uts"):
        Sandbox.from_toml('hostname = "x"\n')
    with pytest.raises(tomllib.TOMLDecodeError):
        Sandbox.from_toml("new = \n")


KEYS = st.text(st.characters(codec="utf-8"), max_size=8)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8")),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_the_writer_is_read_back(document):
    assert tomllib.loads(_toml.dumps(document)) == document
