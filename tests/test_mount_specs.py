"""Mount specs as values: what each field takes and refuses, and that a spec is the same anywhere."""

import copy
import dataclasses
import os
import pickle
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import changes, needs_root, state

import nsext
from nsext import (
    Bind,
    Cgroup2,
    Dev,
    Dir,
    Fd,
    File,
    Mask,
    Mount,
    Mqueue,
    Overlay,
    Proc,
    ReadOnly,
    Remount,
    Sandbox,
    Symlink,
    Sysfs,
    Tmpfs,
    _hostlike,
    _mounts,
    _native,
)

NAMES = st.sampled_from(["a", "b c", "d,e=f", "ü", ".x", "...", "a:b", "'", '"', "\\", "\n", "\t"])
BELOW = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ABSOLUTE = st.one_of(
    BELOW.map("/{}".format), BELOW.map("//{}/".format), BELOW.map("/x/.././{}".format)
)
ANYWHERE = st.one_of(ABSOLUTE, BELOW)
PATHS = st.one_of(ABSOLUTE, ABSOLUTE.map(os.fsencode), ABSOLUTE.map(Path))


class Field(NamedTuple):
    """What a field takes, and some of what it does not."""

    good: st.SearchStrategy
    wrong_types: tuple = ()
    wrong_values: tuple = ()


class Odd:
    """Something that is nothing of use."""

    def __repr__(self):
        return "<odd>"


NO_PATHS = (5, True, 1.5, (), Odd())
FLAG = Field(st.booleans(), (None, 0, 1, "yes", 1.0, Odd()))
MAYBE = Field(st.sampled_from([True, False, None]), (0, 1, "yes", Odd()))
WRONG_PLACES = ("", "relative", b"relative", ".", "/a\0b", Path("relative"))
ROOTS = ("/", "//", "///", "/.", "/..", "/usr/..", b"/", Path("/"))
INSIDE = Field(PATHS, (None, *NO_PATHS), WRONG_PLACES)
PLACE = Field(PATHS, (None, *NO_PATHS), (*WRONG_PLACES, *ROOTS))
MAYBE_INSIDE = Field(st.none() | PATHS, NO_PATHS, WRONG_PLACES)
SOURCE = Field(
    st.one_of(PATHS, ANYWHERE, st.integers(0, 99)), (None, True, 1.5, (), Odd()), ("", "a\0b", -1)
)
MAYBE_SOURCE = Field(st.none() | SOURCE.good, (True, 1.5, (), Odd()), ("", "a\0b", -1))
SIZE = Field(
    st.one_of(st.none(), st.integers(1, 2**63), st.sampled_from(["64k", "1g", "unlimited", "max"])),
    (True, 1.5, (), b"64k", Odd()),
    (0, "0", "0k", -2, 2**64, "64x", "", "big"),
)
MODE = Field(st.integers(0, 0o7777), (None, True, "755", 1.5, Odd()), (-1, 0o10000))
RANGES = st.sampled_from([[(0, 1000, 10)], ((0, 0, 1), (1, 100, 5))])
WORD = Field(st.sampled_from(["ext4", "tmpfs", "x"]), (None, 5, True, b"x", Odd()), ("", "a\0b"))

TABLE = {
    Bind: {
        "source": SOURCE,
        "target": MAYBE_INSIDE,
        "readonly": FLAG,
        "recursive": FLAG,
        "nosuid": FLAG,
        "nodev": FLAG,
        "noexec": FLAG,
        "propagation": Field(
            st.sampled_from([None, "private", "slave", "shared"]),
            (True, 5, (), Odd()),
            ("", "unchanged", "Private"),
        ),
        "idmap": Field(
            st.none() | RANGES,
            (True, 5, 1.5, "root", Odd(), [("a", 1, 1)], [(0, 1.5, 1)]),
            (
                [],
                [(0, 1)],
                [(0, 0, 0)],
                [(-1, 0, 1)],
                [(0, 0, 2**32)],
                [(0, 0, 2), (1, 5, 2)],
                "no",
            ),
        ),
        "optional": FLAG,
    },
    Tmpfs: {
        "target": MAYBE_INSIDE,
        "size": SIZE,
        "mode": MODE,
        "nr_inodes": Field(st.none() | st.integers(1, 2**31), (True, "5", 1.5, Odd()), (0, -1)),
        "noexec": FLAG,
    },
    Dev: {"target": PLACE, "size": SIZE},
    Proc: {
        "target": PLACE,
        "subset_pid": FLAG,
        "hide_pid": Field(
            st.sampled_from([None, 0, 1, 2, 4]), (True, False, "2", 1.0, Odd()), (3, -1, 5)
        ),
    },
    Sysfs: {"target": PLACE, "readonly": FLAG},
    Mqueue: {"target": PLACE},
    Cgroup2: {"target": PLACE, "readonly": FLAG},
    Overlay: {
        "target": MAYBE_INSIDE,
        "lower": Field(
            st.one_of(SOURCE.good, st.lists(SOURCE.good, min_size=1, max_size=3)),
            (None, True, 1.5, Odd(), ["/a", None], ["/a", True]),
            ([], "", -1, ["/a", ""], ["/a"] * 121),
        ),
        "upper": MAYBE_SOURCE,
        "work": MAYBE_SOURCE,
        "recursive": FLAG,
    },
    Mount: {
        "fstype": WORD,
        "source": Field(st.one_of(PATHS, ANYWHERE), (None, *NO_PATHS), ("", "a\0b")),
        "target": INSIDE,
        "flags": Field(
            st.sampled_from([(), "ro", ["nosuid", "ro"], ("nodev", "noexec")]),
            (None, True, 5, Odd(), [5], ["ro", None]),
            ("rw", ["ro", "sync"], "", "ro,nosuid"),
        ),
        "data": Field(st.sampled_from(["", "a=1,b"]), (None, 5, True, b"a", Odd()), ("a\0b",)),
    },
    ReadOnly: {"target": INSIDE, "recursive": FLAG, "optional": FLAG},
    Mask: {"target": PLACE, "optional": FLAG},
    Remount: {
        "target": INSIDE,
        "readonly": MAYBE,
        "nosuid": MAYBE,
        "nodev": MAYBE,
        "noexec": MAYBE,
        "recursive": FLAG,
    },
    Dir: {"path": INSIDE, "mode": MODE},
    File: {
        "path": PLACE,
        "content": Field(
            st.one_of(
                st.binary(max_size=64), st.text(max_size=16), st.binary(max_size=9).map(bytearray)
            ),
            (None, 5, True, (), Odd()),
            ("\udcff",),
        ),
        "mode": MODE,
    },
    Symlink: {
        "to": Field(st.one_of(PATHS, ANYWHERE), (None, *NO_PATHS), ("", "a\0b")),
        "path": PLACE,
    },
}
NEEDED = {
    Bind: {"source": "/usr", "target": "/mnt"},
    Overlay: {"lower": "/usr", "upper": "/u", "work": "/w"},
    Mount: {"fstype": "tmpfs", "source": "none", "target": "/mnt"},
    ReadOnly: {"target": "/mnt"},
    Mask: {"target": "/mnt"},
    Remount: {"target": "/mnt", "nodev": True},
    Dir: {"path": "/mnt/dir"},
    File: {"path": "/mnt/file", "content": b"x"},
    Symlink: {"to": "file", "path": "/mnt/link"},
}
CASES = [(cls, name) for cls, table in TABLE.items() for name in table]


def names(cases):
    return [f"{cls.__name__}.{name}" for cls, name in cases]


def test_the_table_has_every_field_of_every_spec():
    found = {value for value in vars(nsext).values() if isinstance(value, type)}
    specs = {cls for cls in found if issubclass(cls, _mounts.MountSpec)} - {_mounts.MountSpec}
    assert TABLE.keys() == specs
    for cls, table in TABLE.items():
        assert table.keys() == {field.name for field in dataclasses.fields(cls)}


@pytest.fixture
def no_clone(monkeypatch):
    """Nothing is to be started."""

    def refuse(*args):
        raise AssertionError("cloned")

    monkeypatch.setattr(_native, "spawn", refuse)
    with pytest.raises(AssertionError, match="cloned"):
        nsext.run(["true"])


def refusals(cls, name, values, error):
    for value in values:
        fields = NEEDED.get(cls, {}) | {name: value}
        with pytest.raises(error, match=rf"\b{name}\b") as caught:
            nsext.run(["true"], new="mnt", mounts=[cls(**fields)])
        assert caught.type in (error, UnicodeEncodeError), (fields, caught.value)
        assert cls.__name__ in str(caught.value), (fields, caught.value)


@pytest.mark.parametrize("cls, name", CASES, ids=names(CASES))
def test_wrong_types(cls, name, no_clone):
    refusals(cls, name, TABLE[cls][name].wrong_types, TypeError)


@pytest.mark.parametrize("cls, name", CASES, ids=names(CASES))
def test_wrong_values(cls, name, no_clone):
    refusals(cls, name, TABLE[cls][name].wrong_values, ValueError)


@pytest.mark.parametrize("cls", [Bind, Tmpfs, Overlay, Mount])
@pytest.mark.parametrize("target", ROOTS)
def test_a_root_is_no_mount(cls, target, no_clone):
    spec = cls(**NEEDED.get(cls, {}) | {"target": target})
    with pytest.raises(ValueError, match="is a root: say root="):
        nsext.run(["true"], new="mnt", mounts=[spec])
    if spec.target == "/":
        Sandbox(new="mnt", root=spec)


def test_what_belongs_together():
    for alone in ({"upper": "/u"}, {"work": "/w"}):
        with pytest.raises(ValueError, match="upper and work"):
            Overlay(lower="/l", **alone)
    with pytest.raises(ValueError, match="readonly, nosuid, nodev, noexec"):
        Remount("/mnt")
    for spec in (Bind(3), Bind("relative"), Tmpfs(), Overlay(lower="/usr")):
        with pytest.raises(ValueError, match="target"):
            Sandbox(new="mnt", mounts=[spec])
    for value in (Tmpfs("/mnt"), "/mnt", 5, [5], ["/mnt"], [None]):
        with pytest.raises(TypeError, match="mounts"):
            Sandbox(new="mnt", mounts=value)
    with pytest.raises(ValueError, match="root"):
        Sandbox(new="mnt", root=Tmpfs("/mnt"))
    with pytest.raises(ValueError, match="optional"):
        Sandbox(new="mnt", root=Bind("/usr", optional=True))
    for value in (Dev(), Mask("/mnt"), 5, b"", ["/"], True):
        with pytest.raises((TypeError, ValueError), match="root"):
            Sandbox(new="mnt", root=value)


def test_unlimited_is_what_the_kernel_calls_0():
    told = nsext.check_output(
        ["cat", "/proc/self/mountinfo"],
        new="user pid mnt",
        mounts=[Tmpfs("/mnt", size="unlimited"), Dev(size="max")],
        text=True,
    )
    sizes = [line for line in told.splitlines() if line.split()[4] in ("/mnt", "/dev")]
    assert len(sizes) >= 2 and all("size=0k" in line for line in sizes[-2:]), told


# ---- values


def specs_of(cls, **replaced):
    """Any spec of this class."""
    fields = {name: field.good for name, field in TABLE[cls].items()} | replaced

    def make(values):
        if cls is Overlay and None in (values["upper"], values["work"]):
            values |= {"upper": None, "work": None}
        if cls is Remount and all(
            values[n] is None for n in ("readonly", "nosuid", "nodev", "noexec")
        ):
            values["noexec"] = True
        return cls(**values)

    return st.fixed_dictionaries(fields).map(make)


ANY = st.one_of(*(specs_of(cls) for cls in TABLE))


@settings(deadline=None, max_examples=300)
@given(ANY)
def test_a_spec_is_a_value(spec):
    assert eval(repr(spec), vars(nsext)) == spec
    assert "\n" not in repr(spec)
    for same in (
        copy.copy(spec),
        copy.deepcopy(spec),
        dataclasses.replace(spec),
        *(pickle.loads(pickle.dumps(spec, protocol)) for protocol in range(2, 6)),
    ):
        assert type(same) is type(spec) and same == spec and hash(same) == hash(spec)
        assert repr(same) == repr(spec)
    assert not hasattr(spec, "__dict__")
    for field in dataclasses.fields(spec):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(spec, field.name, None)
    with pytest.raises((AttributeError, TypeError)):
        spec.other = 1


@settings(deadline=None, max_examples=200)
@given(ANY, ANY)
def test_different_specs_are_different(one, other):
    same = type(one) is type(other) and repr(one) == repr(other)
    assert (one == other) == same


def test_long_contents_are_not_shown():
    assert repr(File("/a", b"x" * 65)) == "File('/a', <65 bytes>)"
    assert repr(File("/a", b"x" * 64)) == f"File('/a', {b'x' * 64!r})"


# ---- descriptions

NEW = "pid mnt net ipc cgroup"
TEXTS = st.one_of(BELOW.map("/{}".format), BELOW.map("/{}/y".format))
LISTED = st.one_of(
    specs_of(Bind, target=TEXTS, source=ANYWHERE),
    specs_of(Tmpfs, target=TEXTS),
    specs_of(
        Overlay,
        target=TEXTS,
        lower=st.lists(ANYWHERE, min_size=1, max_size=3),
        upper=st.none() | ANYWHERE,
        work=ANYWHERE,
    ),
    *(specs_of(cls) for cls in TABLE if cls not in (Bind, Tmpfs, Overlay)),
)


def entries(spec):
    """How the line of each of its steps begins, in their order, after the sources."""
    target = getattr(spec, "target", None)
    kind = type(spec).__name__.lower()
    match spec:
        case Bind():
            words = [f"bind {spec.source} on {target}"]
            return ([f"map the ids of {spec.source}"] if spec.idmap else []) + words
        case Dev():
            links = ["fd", "stdin", "stdout", "stderr", "ptmx"]
            devices = ["null", "zero", "full", "random", "urandom", "tty"]
            return [
                f"mount tmpfs on {target}",
                *(f"bind /dev/{name} on {target}/{name}" for name in devices),
                *(f"make link {target}/{name}" for name in links),
                f"make directory {target}/shm",
                f"mount devpts on {target}/pts",
            ]
        case Mount():
            return [f"mount {spec.fstype} on {target}"]
        case Overlay():
            return [f"overlay {':'.join(spec.lower)} on {target}"]
        case ReadOnly() | Remount():
            return [f"make {target}"]
        case Mask():
            return [f"mask {target}"]
        case Dir():
            return [f"make directory {spec.path}, mode {spec.mode:03o}"]
        case File():
            return [f"make file {spec.path} of {len(spec.content)} bytes, mode {spec.mode:03o}"]
        case Symlink():
            return [f"make link {spec.path} to {spec.to}"]
    return [f"mount {kind} on {target}"]


def sources(spec):
    match spec:
        case Bind():
            return [spec.source]
        case Dev():
            return [f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")]
        case Overlay():
            return [*spec.lower, *([spec.upper, spec.work] if spec.upper is not None else [])]
    return []


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(LISTED, max_size=6), st.booleans())
def test_explain_and_text(mounts, rooted):
    fields = {"root": Tmpfs(size="1m")} if rooted else {}
    box = Sandbox(new=NEW, mounts=mounts, proc=False, cwd="/", **fields)
    assert Sandbox.from_dict(box.to_dict()) == box
    assert Sandbox.from_toml(box.to_toml()) == box
    assert eval(repr(box), vars(nsext)) == box
    # Names have ends of lines in them: no line is one step.
    text = box.explain()
    at = text.index("open the root directory") if mounts or rooted else 0
    for source in [source for spec in mounts for source in sources(spec)]:
        found = text.index(f"open {source}", at)
        at = found + len(f"open {source}")
    for entry in [entry for spec in mounts for entry in entries(spec)]:
        found = text.index(entry, at)
        at = found + len(entry)
    if mounts or rooted:
        assert "restore what the mounts needed" in text[at:]


# ---- and what the kernel says of them


class Plan(NamedTuple):
    """Specs, and what is to be there: {mount point: (flags, type)} and {path: (mode, size)}."""

    specs: tuple
    mounted: dict
    made: dict


FLAGS = ("ro", "nosuid", "nodev", "noexec")


@st.composite
def plans(draw, directory):
    """Each at a place of its own, which may lie below a tmpfs before it."""
    specs, mounted, made = [], {}, {}
    homes = [""]
    for number in range(draw(st.integers(0, 8))):
        kinds = [Tmpfs, Bind, Overlay, Dir, File, Symlink]
        kinds += [ReadOnly, Remount, Mask] if mounted else []
        kind = draw(st.sampled_from(kinds))
        place = f"{draw(st.sampled_from(homes))}/p{number}"
        spec = None
        if kind is Tmpfs:
            spec = Tmpfs(place, noexec=draw(st.booleans()), mode=draw(MODE.good) & 0o1777 | 0o700)
            mounted[place] = ({"nosuid", "nodev"} | ({"noexec"} if spec.noexec else set()), "tmpfs")
            homes.append(place)
        elif kind is Bind:
            given = {
                name: draw(st.booleans()) for name in ("readonly", "nosuid", "nodev", "noexec")
            }
            source = draw(st.sampled_from([f"{directory}/sub", f"{directory}/file"]))
            spec = Bind(source, place, **given)
            flags = {{"readonly": "ro"}.get(name, name) for name, on in given.items() if on}
            mounted[place] = (flags, None)
        elif kind is Overlay:
            spec = Overlay(place, lower=directory)
            mounted[place] = ({"nosuid", "nodev"}, "overlay")
            homes.append(place)
        elif kind is Dir:
            spec = Dir(place, mode=draw(MODE.good) & 0o3777)
            made[place] = (0o40000 | spec.mode, None)
        elif kind is File:
            spec = File(place, draw(st.binary(max_size=5000)), mode=draw(MODE.good) & 0o777)
            made[place] = (0o100000 | spec.mode, len(spec.content))
        elif kind is Symlink:
            spec = Symlink(draw(BELOW), place)
            made[place] = (0o120777, len(os.fsencode(spec.to)))
        else:
            place = draw(st.sampled_from(sorted(mounted)))
            below = [other for other in mounted if other.startswith(place + "/")]
            flags, _ = mounted[place]
            if kind is ReadOnly:
                spec = ReadOnly(place)
                for other in [place, *below]:
                    mounted[other][0].add("ro")
                homes = [home for home in homes if not f"{home}/".startswith(place + "/")]
            elif kind is Remount:
                given = {name: draw(st.sampled_from([True, False, None])) for name in FLAGS[1:]}
                if all(value is None for value in given.values()):
                    continue
                spec = Remount(place, **given)
                flags |= {name for name, on in given.items() if on}
                flags -= {name for name, on in given.items() if on is False}
            else:
                if below:
                    continue
                spec = Mask(place)
                homes = [home for home in homes if home != place]
                mounted[place] = ({"ro", "nosuid", "noexec"}, "masked")
                for path in [path for path in made if path.startswith(place + "/")]:
                    del made[path]
        specs.append(spec)
    return Plan(tuple(specs), mounted, made)


@pytest.fixture(scope="module")
def directory():
    with tempfile.TemporaryDirectory(prefix="nsext-tests-") as name:
        Path(name).chmod(0o755)
        Path(name, "sub").mkdir()
        Path(name, "file").write_text("outside")
        yield name


def told_of(plan):
    """({mount point: (flags, type)}, {path: (mode, size)}) of a program."""
    names = " ".join(plan.made)
    look = f"stat -c '%n %f %s' {names}" if names else ":"
    text = nsext.check_output(
        ["/bin/sh", "-c", f"cat /proc/self/mountinfo; echo; {look}"],
        new="pid mnt",
        root=Tmpfs(),
        mounts=[*_hostlike._top(), *plan.specs],
        text=True,
    )
    mounts, _, files = text.partition("\n\n")
    mounted = {}
    for line in mounts.splitlines():
        head, _, tail = line.partition(" - ")
        words = head.split()
        mounted[words[4]] = (set(words[5].split(",")) & set(FLAGS), tail.split()[0])
    made = {}
    for line in files.splitlines():
        path, mode, size = line.split()
        made[path] = (int(mode, 16), int(size))
    return mounted, made


def test_random_lists_are_what_the_kernel_has_mounted(directory):
    needs_root()
    counted = {}

    @settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
    @given(plans(directory))
    def check(plan):
        before = state()
        mounted, made = told_of(plan)
        for path, (flags, fstype) in plan.mounted.items():
            assert path in mounted, (path, plan.specs)
            found, found_type = mounted[path]
            if fstype == "masked":
                assert found >= flags, (path, found, plan.specs)
            else:
                assert found == flags, (path, found, plan.specs)
                assert fstype in (None, found_type), (path, found_type, plan.specs)
        own = {path for path in mounted if path.startswith("/p") and path[2:3].isdigit()}
        assert own == set(plan.mounted), plan.specs
        for path, (mode, size) in plan.made.items():
            assert made[path][0] == mode, (path, oct(made[path][0]), plan.specs)
            assert size in (None, made[path][1]), (path, made[path], plan.specs)
        assert not changes(before, state())
        assert os.listdir(directory + "/sub") == []
        for spec in plan.specs:
            counted[type(spec)] = counted.get(type(spec), 0) + 1

    check()
    assert len(counted) == 9, counted


def test_descriptors_are_values_too():
    held = Fd(0)
    assert Bind(held, "/mnt") == Bind(held, "/mnt") != Bind(Fd(1), "/mnt")
    assert Bind(0, "/mnt") == Bind(0, "/mnt") != Bind(1, "/mnt")
    with pytest.raises(ValueError, match="no text form"):
        Sandbox(new="mnt", mounts=[Bind(0, "/mnt")]).to_toml()
