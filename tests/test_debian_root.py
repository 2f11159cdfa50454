"""A real Debian as the root: apt, python3, ps and gcc in it, as root and rootless."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import debian
import pytest
from debian_inside import ENV, everything
from support import as_user, namespaces

import nsext

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = "hello"  # small, and it depends on the C library only
FIRST, COUNT = 200000, 65536  # ids of the host's for a user namespace
RANGES = {"new": "user pid uts ipc mnt", "uid_map": [(0, FIRST, COUNT)]}
RANGES |= {"gid_map": RANGES["uid_map"], "user": 0, "group": 0, "extra_groups": []}


@pytest.fixture(scope="module")
def archive():
    return debian.archive()


def _directory(owner):
    """In memory where there is room: to remove so many files takes a disk its time."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30
    place = Path(tempfile.mkdtemp(prefix="nsext-tests-", dir=memory if roomy else None))
    os.chmod(place, 0o755)
    os.chown(place, owner, owner)
    return place


@pytest.fixture(scope="module")
def tree(archive):
    """Its files, root's, that everybody may read."""
    place = _directory(0)
    try:
        debian.unpack(archive, place)
        yield place
    finally:
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def shifted(archive):
    """The same, made by root of a user namespace: its ids are not the host's."""
    place = _directory(FIRST)
    try:
        debian.unpack(archive, place, cwd="/", **{**RANGES, "new": "user"})
        yield place
    finally:
        shutil.rmtree(place)


def inside(args, **keywords):
    return nsext.check_output(args, text=True, env={**ENV, **debian.proxies()}, **keywords)


def found_in(box, command):
    return nsext.run(["sh", "-c", f"command -v {command}"], sandbox=box, env=ENV).returncode == 0


def install(box):
    """apt of the Debian itself, over the host's network."""
    quiet = ["apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0", "-o", "Acquire::Retries=3"]
    assert not found_in(box, PACKAGE)
    inside([*quiet, "update"], sandbox=box, stderr=nsext.STDOUT, timeout=debian.DEADLINE)
    said = inside(
        [*quiet, "install", "--no-install-recommends", PACKAGE],
        sandbox=box,
        stderr=nsext.STDOUT,
        timeout=debian.DEADLINE,
    )
    assert f"Setting up {PACKAGE}" in said
    assert "Hello" in inside([PACKAGE], sandbox=box)
    state = inside(["dpkg-query", "-W", "-f", "${db:Status-Status}", PACKAGE], sandbox=box)
    assert state == "installed"


def test_apt_as_root(tree, tmp_path):
    """In a layer on top: what is below stays as it was."""
    before = sorted(os.listdir(tree / "usr/bin"))
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir(mode=0o755)
    work.mkdir()
    box = nsext.Sandbox(
        new="pid uts ipc mnt",
        root=nsext.Overlay(lower=tree, upper=upper, work=work),
        mounts=[nsext.Dev(), nsext.Bind(os.path.realpath("/etc/resolv.conf"), "/etc/resolv.conf")],
    )
    install(box)
    assert (upper / "usr/bin" / PACKAGE).exists()
    assert sorted(os.listdir(tree / "usr/bin")) == before
    thrown_away = box.replace(root=nsext.Overlay(lower=tree))
    assert not found_in(thrown_away, PACKAGE)


def test_apt_with_ranges_of_ids(shifted):
    """In a user namespace, where apt becomes its user _apt, and files get owners."""
    box = nsext.Sandbox(
        **RANGES,
        root=nsext.Bind(shifted, readonly=False),
        mounts=[nsext.Dev(), nsext.Bind(os.path.realpath("/etc/resolv.conf"), "/etc/resolv.conf")],
    )
    install(box)
    owners = {path.lstat().st_uid for path in (shifted / "usr/bin").iterdir()}
    assert owners == {FIRST}
    assert (shifted / "var/lib/apt/lists/partial").stat().st_uid > FIRST  # _apt's


def check(told):
    squares = [n * n for n in range(50)]
    python = told["python"]
    assert python["pid"] == 1
    assert python["fork"] == python["spawn"] == squares
    assert python["fork queue"] == python["spawn queue"] == "sent"
    assert "home" in python["root"] and "lost+found" not in python["root"]
    assert told["ps"].split() == ["1", "ps"]
    assert told["shell"].split()[:2] == ["1", "sh"]
    assert "refused" in told["gcc"] and "without a plan: 125" in told["gcc"]
    assert told["namespaces"].strip() != namespaces()["mnt"]


def test_programs_as_root(tree):
    check(everything(tree, PROJECT, "pid uts ipc mnt net cgroup"))


def test_programs_of_an_ordinary_user(tree, public):
    """Rootless, and with sources that an ordinary user may read."""
    shutil.copytree(PROJECT / "csrc", public / "csrc")
    (public / "tests").mkdir()
    for name in ("plan_check.c", "debian_inside.py"):
        shutil.copy(PROJECT / "tests" / name, public / "tests")
    told = as_user(
        """
        tree, project = sys.argv[1:]
        sys.path.append(project + "/tests")
        from debian_inside import everything
        assert os.geteuid() != 0
        print(json.dumps(everything(tree, project, "user pid uts ipc mnt net cgroup")))
        """,
        str(tree),
        str(public),
        deadline=300,
    )
    check(json.loads(told))
