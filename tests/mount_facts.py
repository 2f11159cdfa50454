"""What the kernel says of each kind of mount.  The text of scripts of test_mount_kinds.py: run by
root, by an ordinary user, and by that user as the root of a user namespace of its own, where all
mounts are locked; with and without the newer system calls.
"""

import contextlib
import ctypes
import errno
import json
import os
import stat
import sys
import tempfile
import traceback
from pathlib import Path

import support
from support import (
    end_children,
    failure,
    is_plain,
    mount,
    own_mounts,
    python,
    refuse,
    release,
    settle,
    state,
)

import nsext
from nsext import (
    Bind,
    Cgroup2,
    Dev,
    Dir,
    File,
    Mask,
    Mount,
    Mqueue,
    Overlay,
    Proc,
    ReadOnly,
    Remount,
    Symlink,
    Sysfs,
    Tmpfs,
    hostlike,
)

LIBC = ctypes.CDLL(None, use_errno=True)
RDONLY, NOSUID, NODEV, NOEXEC, NOATIME, NOSYMFOLLOW = 1, 2, 4, 8, 1024, 8192  # ST_*

# For what takes an interpreter.
SEMAPHORE = """
import multiprocessing, os
lock = multiprocessing.Lock()
with lock:
    print(lock.acquire(block=False))
master, slave = os.openpty()
os.write(slave, b"x")
print(os.read(master, 1).decode(), os.ttyname(slave))
"""


class Who:
    """Who runs this, and which system calls are refused: set by main()."""

    new = ""
    probe = ""  # the program of probe.c
    root = False
    nested = False
    refused: dict = {}

    @classmethod
    def classic(cls):
        """Is the newer mount API not there as a whole?"""
        return bool({"open_tree", "move_mount", "fsopen", "mount_setattr"} & set(cls.refused))


def look(*asked, **fields):
    """What the probe answers in a sandbox."""
    fields.setdefault("new", Who.new)
    fields.setdefault("cwd", "/")
    command = [Who.probe, *(word for pair in asked for word in pair)]
    done = nsext.run(command, capture_output=True, text=True, timeout=60, **fields)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def places(*mounts, **fields):
    """{mount point: [(flags, type, options, root) ...]}, the lowest first, of a sandbox."""
    (text,) = look(("read", "/proc/self/mountinfo"), mounts=mounts, **fields)
    table = {}
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        words, more = head.split(), tail.split()
        row = set(words[5].split(",")), more[0], set(more[2].split(",")), words[3], set(words[6:])
        table.setdefault(words[4], []).append(row)
    assert len(table["/"]) == 1, table["/"]  # nothing that was needed for a moment is left
    return table


@contextlib.contextmanager
def directory():
    with tempfile.TemporaryDirectory(prefix="nsext-facts-") as name:
        os.chmod(name, 0o755)
        (Path(name) / "file").write_text("outside")
        yield Path(name)


@contextlib.contextmanager
def tree():
    """A directory with a tmpfs "sub" in it, in that a noexec one "deep"; for who may mount."""
    with directory() as place:
        for name, flags in (("", 0), ("sub", 0), ("sub/deep", 8 | 1024)):
            mount("tmpfs", place / name, "tmpfs", flags)
            (place / name / "sub").mkdir()
            (place / name / "deep").mkdir()
            (place / name / "file").write_text(name)
        try:
            yield place
        finally:
            for name in ("sub/deep", "sub", ""):
                assert LIBC.umount2(os.fsencode(place / name), 2) == 0


def fails(number, *mounts, stage="setup", **fields):
    """The error of a set-up, which must fail."""
    fields.setdefault("new", Who.new)
    error = failure(nsext.run, ["true"], mounts=mounts, **fields)
    assert (error.errno, error.stage) == (number, stage), error
    assert stage == "cwd" or is_plain(error), repr(error)
    return error


# ---- bind ----------------------------------------------------------------------------------------


def check_bind():
    with directory() as place:
        told = look(
            ("read", "/mnt/file"),
            ("write", "/mnt/file"),
            ("write", "/mnt/new"),
            ("flags", "/mnt"),
            mounts=[Bind(place, "/mnt")],
        )
        assert told[:3] == ["outside", "EROFS", "EROFS"], told
        assert told[3] & 15 == RDONLY | NOSUID | NODEV, told
        told = look(
            ("write", "/mnt/new"),
            ("flags", "/mnt"),
            mounts=[Bind(place, "/mnt", readonly=False, nosuid=False, nodev=False, noexec=True)],
        )
        assert told[0] == "ok" and told[1] & (RDONLY | NOEXEC) == NOEXEC, told
        assert (place / "new").read_text() == "written"
        row = places(Bind(place, "/mnt", noexec=True))["/mnt"]
        assert len(row) == 1 and row[0][0] >= {"ro", "nosuid", "nodev", "noexec"}, row


def check_bind_noexec():
    with directory() as place:
        program = place / "program"
        program.write_text("#!/bin/sh\nexit 7\n")
        program.chmod(0o755)
        mounts = [Bind(place, "/mnt", noexec=True), Bind(place, "/srv")]
        assert look(("run", "/mnt/program"), ("run", "/srv/program"), mounts=mounts) == [13, 7]


def check_bind_of_a_file():
    with directory() as place:
        (place / "other").write_text("other")
        mounts = [Bind(place / "other", place / "file")]
        told = look(("read", place_of(place)), ("write", place_of(place)), mounts=mounts)
        assert told == ["other", "EROFS"], told
        mounts = [Bind(place / "other", place / "file", readonly=False)]
        assert look(("write", place_of(place)), mounts=mounts) == ["ok"]
        assert (place / "other").read_text() == "written"
        assert (place / "file").read_text() == "outside"


def place_of(place, name="file"):
    return str(place / name)


def check_bind_of_a_descriptor():
    with directory() as place:
        held = os.open(place, os.O_PATH)
        try:
            mounts = [Bind(held, "/mnt"), Bind(nsext.Fd(held), "/srv", readonly=False)]
            told = look(
                ("read", "/mnt/file"), ("write", "/mnt/new"), ("write", "/srv/new"), mounts=mounts
            )
            assert told == ["outside", "EROFS", "ok"], told
            os.rename(place / "file", place / "moved")
            file = os.open(place / "moved", os.O_PATH)
            os.unlink(place / "moved")
            error = fails(errno.ENOENT, Bind(file, "/mnt"))
            assert "no longer at its path" in error.hint, error.hint
            os.close(file)
        finally:
            os.close(held)


def check_bind_is_of_the_callers_view():
    """Whatever was mounted before it: hidden, or read-only by then."""
    with directory() as place:
        text = str(place)
        told = look(
            ("read", "/mnt/file"),
            ("write", "/mnt/new"),
            ("list", text),
            mounts=[Tmpfs(place), Bind(place, "/mnt", readonly=False)],
        )
        assert told == ["outside", "ok", []], told
        told = look(
            ("write", f"{text}/again"),
            ("write", f"{text}/file"),
            ("flags", text),
            ("flags", "/"),
            ("write", "/new"),
            mounts=[ReadOnly("/"), Bind(place, readonly=False)],
        )
        assert told[:2] == ["ok", "ok"] and told[4] == "EROFS", told
        assert not told[2] & RDONLY and told[3] & RDONLY, told


def check_bind_is_readonly_below():
    """Over what is mounted below, locked or not: /dev has at least a /dev/pts or a /dev/shm."""
    rows = places(Bind("/dev", "/mnt"))
    below = {place: row for place, row in rows.items() if place.startswith("/mnt")}
    assert len(below) > 1, rows
    assert all({"ro", "nosuid"} <= row[-1][0] for row in below.values()), below
    hidden = [row for stack in below.values() for row in stack[:-1]]
    assert Who.classic() or all("ro" in row[0] for row in hidden), hidden
    shm = os.path.ismount("/dev/shm")
    told = look(("write", "/mnt/shm/x"), ("write", "/mnt/null"), mounts=[Bind("/dev", "/mnt")])
    assert told[0] == "EROFS" or not shm, told


def check_bind_of_a_tree():
    if not (Who.root or Who.nested):
        return
    with tree() as place:
        told = look(
            ("read", "/mnt/sub/deep/file"),
            *[("write", f"/mnt/{name}/file") for name in ("", "sub", "sub/deep")],
            *[("flags", f"/mnt/{name}") for name in ("", "sub", "sub/deep")],
            mounts=[Bind(place, "/mnt")],
        )
        assert told[:4] == ["sub/deep", "EROFS", "EROFS", "EROFS"], told
        assert [flags & 15 for flags in told[4:]] == [7, 7, 15], told
        assert told[6] & NOATIME, "a flag of the mount is lost"
        told = look(
            *[("write", f"/mnt/{name}/file") for name in ("", "sub", "sub/deep")],
            ("flags", "/mnt/sub/deep"),
            mounts=[ReadOnly("/"), Bind(place, "/mnt", readonly=False)],
        )
        assert told[:3] == ["ok", "ok", "ok"] and told[3] & (NOEXEC | NOATIME) > NOEXEC, told


def check_bind_without_what_is_below():
    if not (Who.root or Who.nested):
        return
    with tree() as place:
        alone = Bind(place, "/mnt", recursive=False)
        if Who.root:
            told = look(("list", "/mnt/sub"), ("write", "/mnt/sub/x"), mounts=[alone])
            assert told == [[], "EROFS"], told
        else:
            error = fails(errno.EINVAL, alone)
            assert "recursive=True" in error.hint, error.hint


def check_bind_keeps_flags():
    """readonly=False: those of the source's mount, which may be locked."""
    if not (Who.root or Who.nested):
        return
    with directory() as place:
        bits = RDONLY | NOSUID | NODEV | NOEXEC | NOATIME
        mount("tmpfs", place, "tmpfs", NOSUID | NODEV | NOEXEC | NOATIME)
        mount("tmpfs", place, None, 32 | 4096 | bits)  # MS_REMOUNT | MS_BIND: this mount alone
        told = look(
            ("write", "/mnt/x"),
            ("flags", "/mnt"),
            mounts=[Bind(place, "/mnt", readonly=False, nosuid=False, nodev=False)],
        )
        assert told[0] == "EROFS" and told[1] & bits == bits, told
        assert LIBC.umount2(os.fsencode(place), 2) == 0


def check_bind_keeps_nosymfollow():
    if not (Who.root or Who.nested) or release() < (5, 10):
        return
    with directory() as place:
        mount("tmpfs", place, "tmpfs", 256)  # MS_NOSYMFOLLOW
        told = look(("flags", "/mnt"), mounts=[Bind(place, "/mnt")])
        assert told[0] & NOSYMFOLLOW and told[0] & RDONLY, told
        told = look(("flags", str(place)), mounts=[ReadOnly(place)])
        assert told[0] & NOSYMFOLLOW and told[0] & RDONLY, told
        assert LIBC.umount2(os.fsencode(place), 2) == 0


def check_bind_optional():
    told = look(
        ("list", "/mnt"),
        mounts=[Tmpfs("/mnt"), Bind("/nonexistent/x", "/mnt/x", optional=True)],
    )
    assert told == [[]], told
    fails(errno.ENOENT, Bind("/nonexistent/x", "/mnt"))


def check_bind_of_a_magic_link():
    """Through /proc/PID/fd, cwd or root: refused, whoever resolves it."""
    with directory() as place:
        held = os.open(place, os.O_PATH)
        before = os.getcwd()
        os.set_inheritable(held, True)
        os.chdir(place)
        try:
            for path in (f"/proc/self/fd/{held}", "/proc/self/cwd", "/proc/self/root/etc"):
                error = fails(errno.ELOOP, Bind(path, "/mnt"))
                assert "descriptor" in error.hint, error.hint
                fails(errno.ELOOP, Bind(path, "/mnt", optional=True))
                fails(errno.ELOOP, root=path)
            told = look(("read", "/mnt"), mounts=[Bind("/proc/self/status", "/mnt/s")][:0])
            assert told == ["EISDIR"], told
        finally:
            os.chdir(before)
            os.close(held)


def check_bind_of_a_relative_source():
    with directory() as place:
        (place / "below").mkdir()
        (place / "link").symlink_to("below/../file")
        before = os.getcwd()
        os.chdir(place / "below")
        try:
            target = [Tmpfs("/mnt"), Bind("../link", "/mnt/file")]
            assert look(("read", "/mnt/file"), mounts=target) == ["outside"]
        finally:
            os.chdir(before)


# ---- new file systems ----------------------------------------------------------------------------


def check_tmpfs():
    told = look(
        ("flags", "/mnt"),
        ("kind", "/mnt"),
        ("fill", "/mnt/big"),
        ("write", "/mnt/small"),
        mounts=[Tmpfs("/mnt", size="64k", mode=0o750)],
    )
    assert told[0] & 15 == NOSUID | NODEV and told[1] == [stat.S_IFDIR, 0o750], told
    assert told[2] == 1 << 16 or told[2] == "ENOSPC", told
    assert told[3] == "ENOSPC", told
    row = places(Tmpfs("/mnt", nr_inodes=3, size=4096, noexec=True))["/mnt"][-1]
    assert row[0] >= {"noexec", "nosuid", "nodev", "rw"} and row[1] == "tmpfs", row
    assert row[2] >= {"nr_inodes=3", "size=4k"}, row
    told = look(
        *[("write", f"/mnt/{number}") for number in range(3)], mounts=[Tmpfs("/mnt", nr_inodes=3)]
    )
    assert told == ["ok", "ok", "ENOSPC"], told
    told = look(("kind", "/mnt"), mounts=[Tmpfs("/mnt", mode=0o1777)], umask=0o77)
    assert told == [[stat.S_IFDIR, 0o1777]], told


def check_proc():
    told = look(("list", "/proc"), ("flags", "/proc"), mounts=[Proc(subset_pid=True)])
    names = set(told[0])
    assert "1" in names and "sys" not in names and "kcore" not in names, names
    assert told[1] & 15 == NOSUID | NODEV | NOEXEC, told
    row = places(Proc(hide_pid=2))["/proc"][-1]
    assert row[1] == "proc" and {"hidepid=2", "hidepid=invisible"} & row[2], row
    pids = [name for name in look(("list", "/mnt"), mounts=[Proc("/mnt")])[0] if name.isdigit()]
    assert pids == ["1"], pids


def check_sysfs():
    new = Who.new + " net"
    told = look(("flags", "/sys"), ("list", "/sys/class/net"), mounts=[Sysfs()], new=new)
    assert told[0] & 15 == 15 and "lo" in told[1] and "eth0" not in told[1], told
    row = places(Sysfs(readonly=False), new=new)["/sys"][-1]
    assert row[1] == "sysfs" and "rw" in row[0], row


def check_mqueue():
    new = Who.new + " ipc"
    told = look(
        ("write", "/mnt/queue"),
        ("list", "/mnt"),
        ("flags", "/mnt"),
        mounts=[Mqueue("/mnt")],
        new=new,
    )
    assert told[1] in ([], ["queue"]) and told[2] & 15 == NOSUID | NODEV | NOEXEC, told
    assert places(Dev(), Mqueue(), new=new)["/dev/mqueue"][-1][1] == "mqueue"


def check_cgroup2():
    new = Who.new + " cgroup"
    told = look(("flags", "/mnt"), ("mkdir", "/mnt/nsext-facts"), mounts=[Cgroup2("/mnt")], new=new)
    assert told[0] & 15 == 15 and told[1] == "EROFS", told
    row = places(Cgroup2("/mnt", readonly=False), new=new)["/mnt"][-1]
    assert row[1] == "cgroup2" and "rw" in row[0] and row[3] == "/", row


def check_dev():
    names = ["null", "zero", "full", "random", "urandom", "tty"]
    links = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1"}
    links |= {"stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}
    told = look(
        ("list", "/dev"),
        ("write", "/dev/null"),
        ("write", "/dev/full"),
        ("write", "/dev/shm/x"),
        ("kind", "/dev/shm"),
        ("flags", "/dev"),
        *[("kind", f"/dev/{name}") for name in names],
        *[("link", f"/dev/{name}") for name in links],
        mounts=[Dev()],
    )
    there = [name for name in names if os.path.exists(f"/dev/{name}")]
    assert told[0] == sorted([*there, *links, "pts", "shm"]), told
    assert told[1:4] == ["ok", "ENOSPC", "ok"], told
    assert told[4] == [stat.S_IFDIR, 0o1777], told
    assert told[5] & (NOSUID | NODEV) == NOSUID | NODEV, told
    assert [row[0] for row in told[6:12]] == [stat.S_IFCHR] * 6, told
    assert told[12:] == list(links.values()), told
    command = [sys.executable, "-I", "-c", SEMAPHORE]
    words = nsext.check_output(command, new=Who.new, mounts=[Dev()], text=True).split()
    assert words[:2] == ["False", "x"] and words[2].startswith("/dev/pts/"), words
    elsewhere = places(Tmpfs("/mnt"), Dev("/mnt/dev"))
    assert elsewhere["/mnt/dev/pts"][-1][1] == "devpts", elsewhere
    for name in there:
        assert elsewhere[f"/mnt/dev/{name}"][-1][0] >= {"nosuid", "noexec"}


def check_mount():
    row = places(Mount("tmpfs", "named", "/mnt", flags=["ro", "noexec"], data="size=4k,mode=700"))
    flags, fstype, options, *_ = row["/mnt"][-1]
    assert flags >= {"ro", "noexec"} and fstype == "tmpfs", row["/mnt"]
    assert options >= {"size=4k", "mode=700"}, options
    error = fails(errno.EINVAL, Mount("tmpfs", "x", "/mnt", data="nonsense=1"))
    assert error.path == "/mnt" and "mount tmpfs on /mnt" in error.step, error
    fails(errno.ENODEV, Mount("nofs", "x", "/mnt"))


# ---- overlay -------------------------------------------------------------------------------------


def check_overlay():
    with directory() as place:
        for name in ("a", "b", "up", "work"):
            (place / name).mkdir()
        (place / "a" / "one").write_text("a")
        (place / "b" / "one").write_text("b")
        (place / "b" / "two,:\\").write_text("b")
        layers = [place / "a", place / "b"]
        asked = [
            ("read", "/mnt/one"),
            ("read", "/mnt/two,:\\"),
            ("write", "/mnt/one"),
            ("list", "/mnt"),
        ]
        told = look(*asked, mounts=[Overlay("/mnt", lower=layers)])
        assert told == ["a", "b", "ok", ["one", "two,:\\"]], told
        assert (place / "a" / "one").read_text() == "a", "a lower directory was written"
        kept = Overlay("/mnt", lower=layers, upper=place / "up", work=place / "work")
        told = look(*asked, ("write", "/mnt/new"), mounts=[kept])
        assert told[2:] == ["ok", ["one", "two,:\\"], "ok"], told
        assert sorted(os.listdir(place / "up")) == ["new", "one"]
        assert (place / "up" / "one").read_text() == "written"
        row = places(Overlay("/mnt", lower=layers))["/mnt"][-1]
        assert row[1] == "overlay" and row[0] >= {"nosuid", "nodev", "rw"}, row


def check_overlay_over_mounts():
    if not (Who.root or Who.nested):
        return
    with tree() as place:
        (place / "file").write_text("lower")
        error = fails(errno.EBUSY, Overlay("/mnt", lower=place))
        wanted = "none of it" if Who.nested else "recursive=True"
        assert wanted in error.hint, error.hint
        if Who.nested:  # the mounts below are locked
            error = fails(errno.EINVAL, Overlay("/mnt", lower=place, recursive=True))
            assert "may not look under" in error.hint, error.hint
            return
        told = look(
            ("read", "/mnt/sub/deep/file"),
            *[("write", f"/mnt/{name}/file") for name in ("", "sub", "sub/deep")],
            mounts=[Overlay("/mnt", lower=place, recursive=True)],
        )
        assert told == ["sub/deep", "ok", "EROFS", "EROFS"], told
        assert (place / "file").read_text() == "lower"


def check_overlay_makes_mount_points():
    with directory() as place:
        mounts = [
            Overlay("/mnt", lower=place),
            Tmpfs("/mnt/a/b/c"),
            Bind("/etc/passwd", "/mnt/passwd"),
            File("/mnt/file", "covered?"),
            Dir("/mnt/d"),
            Symlink("file", "/mnt/link"),
        ]
        told = look(("list", "/mnt"), ("read", "/mnt/link"), ("flags", "/mnt/a/b/c"), mounts=mounts)
        assert told[0] == ["a", "d", "file", "link", "passwd"], told
        assert told[1] == "covered?", told
        assert os.listdir(place) == ["file"] and (place / "file").read_text() == "outside"


# ---- what is there changes -----------------------------------------------------------------------


def check_readonly():
    with directory() as place:
        told = look(
            ("write", place_of(place)),
            ("flags", str(place)),
            ("write", str(place.parent / "nsext-facts-x")),
            mounts=[ReadOnly(place)],
        )
        assert told[0] == "EROFS" and told[1] & RDONLY and told[2] == "ok", told
        os.unlink(place.parent / "nsext-facts-x")
        told = look(
            ("write", place_of(place)),
            ("write", place_of(place, "new")),
            mounts=[ReadOnly(place / "file")],
        )
        assert told == ["EROFS", "ok"], told
        rows = places(ReadOnly("/"))
        loose = [name for name, stack in rows.items() if "ro" not in stack[-1][0]]
        assert set(loose) <= {"/proc"}, loose
        told = look(("write", "/dev/shm/x"), ("write", "/tmp/x"), mounts=[ReadOnly("/")])
        assert told[1] == "EROFS" and told[0] in ("EROFS", "ENOENT"), told
        assert "/nowhere" not in places(ReadOnly("/nowhere", optional=True))
        error = fails(errno.ENOENT, ReadOnly("/nowhere"))
        assert error.path == "/nowhere"


def check_readonly_of_a_tree():
    if not (Who.root or Who.nested):
        return
    with tree() as place:
        text = str(place)
        asked = [("write", f"{text}/{name}/file") for name in ("", "sub", "sub/deep")]
        told = look(*asked, ("flags", f"{text}/sub/deep"), mounts=[ReadOnly(place)])
        assert told[:3] == ["EROFS"] * 3 and told[3] & (NOEXEC | NOATIME) > NOEXEC, told
        told = look(*asked, mounts=[ReadOnly(place, recursive=False)])
        assert told == ["EROFS", "ok", "ok"], told
        # A directory that is no mount, with mounts below it.
        told = look(*asked, mounts=[ReadOnly(place.parent)])
        assert told == ["EROFS"] * 3, told
        told = look(*asked, mounts=[ReadOnly(place.parent, recursive=False)])
        assert told == ["ok"] * 3, told


def check_remount():
    told = look(
        ("flags", "/mnt"),
        ("write", "/mnt/x"),
        mounts=[Tmpfs("/mnt"), Remount("/mnt", readonly=True, noexec=True)],
    )
    assert told[0] & 15 == 15 and told[1] == "EROFS", told
    told = look(
        ("flags", "/mnt"),
        ("write", "/mnt/x"),
        mounts=[
            Tmpfs("/mnt", noexec=True),
            Remount("/mnt", readonly=True),
            Remount("/mnt", readonly=False, noexec=False),
        ],
    )
    assert told[0] & 15 == NOSUID | NODEV and told[1] == "ok", told


def check_remount_of_what_is_locked():
    if not Who.nested:
        return
    with directory() as place:
        mount("tmpfs", place, "tmpfs", NOSUID | NODEV | NOEXEC)
        mount("tmpfs", place, None, 32 | 4096 | 15)
        for flag in ("readonly", "nosuid", "nodev", "noexec"):
            error = fails(errno.EPERM, Remount(place, **{flag: False}))
            assert "take back" in error.hint, error.hint
        assert LIBC.umount2(os.fsencode(place), 2) == 0


def check_mask():
    with directory() as place:
        (place / "dir").mkdir()
        (place / "dir" / "secret").write_text("x")
        text = str(place)
        told = look(
            ("read", f"{text}/file"),
            ("write", f"{text}/file"),
            ("list", f"{text}/dir"),
            ("write", f"{text}/dir/x"),
            ("flags", f"{text}/dir"),
            ("flags", f"{text}/file"),
            ("write", f"{text}/new"),
            mounts=[Mask(place / "file"), Mask(place / "dir"), Mask("/nowhere", optional=True)],
        )
        assert told[0] == "" and told[3] == "EROFS" and told[6] == "ok", told
        assert told[2] in ([], "EACCES") and told[4] & 15 == 15, told
        assert told[5] & (RDONLY | NOSUID | NOEXEC) == RDONLY | NOSUID | NOEXEC, told
        assert (place / "file").read_text() == "outside"
        fails(errno.ENOENT, Mask("/nowhere"))


# ---- what is made --------------------------------------------------------------------------------


def check_made():
    with directory() as place:
        mounts = [
            Tmpfs("/mnt"),
            Dir("/mnt/a/b", mode=0o1770),
            File("/mnt/c/d", "text", mode=0o640),
            File("/mnt/c/d", b"again", mode=0o4755),
            Symlink("/mnt/c/d", "/mnt/e/link"),
            File(place / "file", b"covered"),
        ]
        told = look(
            ("kind", "/mnt/a"),
            ("kind", "/mnt/a/b"),
            ("kind", "/mnt/c/d"),
            ("read", "/mnt/e/link"),
            ("link", "/mnt/e/link"),
            ("read", place_of(place)),
            ("write", place_of(place)),
            ("write", place_of(place, "new")),
            mounts=mounts,
            umask=0o77,
        )
        assert told[0] == [stat.S_IFDIR, 0o755] and told[1] == [stat.S_IFDIR, 0o1770], told
        assert told[2] == [stat.S_IFREG, 0o4755], told
        assert told[3:6] == ["again", "/mnt/c/d", "covered"], told
        assert told[6:] == ["EROFS", "ok"], told
        assert (place / "file").read_text() == "outside"
        for spec in (Dir(place / "x"), Symlink("x", place / "x"), File(place / "x", "")):
            error = fails(errno.ENOENT, spec)
            assert "never written" in error.hint and error.path == place_of(place, "x"), error
        for spec in (
            Tmpfs(place / "x"),
            Bind("/etc", place / "x"),
            Bind("/etc/passwd", place / "x"),
        ):
            error = fails(errno.ENOENT, spec)
            assert "never written" in error.hint, error.hint
        assert sorted(os.listdir(place)) == ["file", "new"]


# ---- roots ---------------------------------------------------------------------------------------


def small_root(place):
    """A root directory in which the host's /usr is to be bound."""
    for name in ("proc", "usr", "dev", "tmp"):
        (place / name).mkdir()
    for name in ("bin", "lib", "lib64"):
        (place / name).symlink_to(f"usr/{name}")
    (place / "etc").mkdir()
    (place / "etc" / "mark").write_text("inside")


def in_root(command, root, *mounts, **fields):
    fields.setdefault("new", Who.new)
    done = nsext.run(
        ["/bin/sh", "-c", command],
        root=root,
        mounts=[Bind("/usr"), *mounts],
        capture_output=True,
        text=True,
        timeout=60,
        **fields,
    )
    return done.stdout + done.stderr


def check_root_is_a_directory():
    with directory() as place:
        small_root(place)
        for root in (place, str(place), Bind(place)):
            told = in_root("cat /etc/mark; pwd; echo >/etc/x; echo >/tmp/x; ls /..", root)
            assert told.startswith("inside/\n") and told.count("Read-only file system") == 2, told
            assert "usr" in told.split() and "sbin" not in told.split(), told
        told = in_root("echo >/tmp/x && cat /etc/mark", Bind(place, readonly=False))
        assert told == "inside" and (place / "tmp" / "x").exists(), told
        row = in_root("cat /proc/self/mountinfo", place)
        assert len(row.splitlines()) == 3, row  # the root, /usr, /proc
        assert " / / ro" in row or f" {place} / ro" in row or " / ro," in row, row


def check_root_is_an_overlay():
    with directory() as place:
        small_root(place)
        command = "echo new >/etc/mark; mkdir /made; cat /etc/mark; ls -d /made /extra/deep; ls /.."
        told = in_root(command, Overlay(lower=place), Tmpfs("/extra/deep"))
        assert told.split()[:3] == ["new", "/extra/deep", "/made"], told
        assert "sbin" not in told.split(), told
        assert (place / "etc" / "mark").read_text() == "inside"
        assert not (place / "made").exists() and not (place / "extra").exists()
    with directory() as place, directory() as other:
        small_root(place)
        for name in ("up", "work"):
            (other / name).mkdir()
        root = Overlay(lower=[place], upper=other / "up", work=other / "work")
        told = in_root("echo new >/etc/mark; cat /etc/mark", root)
        assert told == "new\n" and (other / "up" / "etc" / "mark").read_text() == "new\n", told
        assert (place / "etc" / "mark").read_text() == "inside"


def check_root_is_made_of_nothing():
    new = Who.new
    links = [Symlink(f"usr/{name}", f"/{name}") for name in ("bin", "lib", "lib64")]
    told = in_root(
        "ls -a /; pwd; cat /proc/self/mountinfo | wc -l", Tmpfs(size="1m"), *links, new=new
    )
    assert told.split() == [".", "..", "bin", "lib", "lib64", "proc", "usr", "/", "3"], told
    done = nsext.run(
        ["sh", "-c", "id -u; ls /; touch /tmp/x && touch /usr/x; getent passwd root; echo $$"],
        root=Tmpfs(),
        mounts=hostlike(),
        new=new,
        capture_output=True,
        text=True,
    )
    assert "Read-only file system" in done.stderr and done.stdout.splitlines()[-1] == "1", done
    assert {"bin", "dev", "etc", "proc", "tmp", "usr"} <= set(done.stdout.split()), done


def check_root_with_a_mount():
    root = Mount("tmpfs", "named", "/", data="size=1m")
    links = [Symlink(f"usr/{name}", f"/{name}") for name in ("bin", "lib", "lib64")]
    told = in_root("cat /proc/self/mountinfo", root, *links)
    assert "- tmpfs named" in told and "size=1024k" in told, told


def check_root_cannot_be_left():
    """One ".." too many, a chroot in it, and its old descriptors lead nowhere."""
    code = r"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
os.mkdir("/tmp/cage")
fd = os.open("/", os.O_RDONLY)
os.chroot("/tmp/cage")
os.fchdir(fd)
for _ in range(200):
    os.chdir("..")
os.chroot(".")
print(sorted(os.listdir("/")), os.path.exists("/nsext-mark"))
print(libc.umount2(b"/", 2), sorted(os.listdir("/..")))
"""
    binary = os.path.realpath(sys.executable)
    prefix = sys.base_prefix
    done = nsext.run(
        [binary, "-I", "-c", code],
        root=Tmpfs(),
        mounts=[*hostlike(), *([] if prefix == "/usr" else [Bind(prefix)])],
        new=Who.new,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done
    first, second = done.stdout.splitlines()
    assert "usr" in first and "boot" not in first and "sbin_" not in first, first
    assert "root" in os.listdir("/") and "media" not in second, second


# ---- the caller's own matters --------------------------------------------------------------------


def check_propagation():
    for given in (None, "private", "slave", "shared"):
        rows = places(Tmpfs("/mnt"), propagation=given)
        shared = {word.partition(":")[0] for word in rows["/mnt"][-1][4]} - {"-"}
        assert shared == ({"shared"} if given == "shared" else set()), (given, rows["/mnt"])
    with directory() as place:
        rows = places(Bind(place, "/mnt", propagation="shared"))
        assert {word.partition(":")[0] for word in rows["/mnt"][-1][4]} == {"shared"}, rows["/mnt"]
        assert not rows["/"][-1][4], rows["/"]
        rows = places(Bind(place, "/mnt", propagation="private"), propagation="shared")
        assert rows["/"][-1][4], rows["/"]


def check_propagation_from_outside():
    """A mount that the host makes later comes in as a slave's, and not otherwise."""
    if not Who.root:
        return
    with directory() as place, directory() as other:
        mount("tmpfs", place, "tmpfs")
        mount("none", place, None, 1 << 20)  # MS_SHARED
        (place / "later").mkdir()
        (place / "unrelated").mkdir()
        cases = [
            ({"propagation": "slave", "mounts": [Tmpfs("/mnt")]}, place, True),
            ({"propagation": "private", "mounts": [Tmpfs("/mnt")]}, place, False),
            ({"mounts": [Bind(place, other, propagation="slave")]}, other, True),
            ({"mounts": [Bind(place, other, propagation="private")]}, other, False),
            ({"mounts": [Bind(place, other)]}, other, False),
            ({"mounts": [Bind(place, other)], "propagation": "slave"}, other, True),
            (
                {"mounts": [Bind(place, other, propagation="private")], "propagation": "slave"},
                other,
                False,
            ),
        ]
        for fields, seen, comes in cases:
            with nsext.Popen(["cat"], stdin=-1, new=Who.new, **fields) as process:
                settle(process)
                mount("tmpfs", place / "later", "tmpfs")
                text = Path(f"/proc/{process.pid}/mountinfo").read_text()
                found = f" {seen}/later " in text
                assert LIBC.umount2(os.fsencode(place / "later"), 2) == 0
                process.communicate()
            assert found == comes, (fields, text)
        # And nothing goes out: what is mounted in there is not seen here.
        for given in ("private", "slave", "shared"):
            before = Path("/proc/self/mountinfo").read_text()
            shared = Bind(place, other, readonly=False, propagation=given)
            # Not by mount(8), of which a newer one cannot do without some of the calls refused here.
            code = f"""
            import ctypes, sys
            assert ctypes.CDLL(None).mount(b"x", b"{other}/unrelated", b"tmpfs", 0, None) == 0
            print("ok", flush=True)
            sys.stdin.read()
            """
            with nsext.Popen(
                python(code),
                stdin=-1,
                stdout=-1,
                text=True,
                new=Who.new,
                mounts=[shared, Tmpfs(place / "later")],
                propagation=given,
            ) as process:
                assert process.stdout.readline() == "ok\n"
                assert Path("/proc/self/mountinfo").read_text() == before, given
                process.communicate()
        assert LIBC.umount2(os.fsencode(place), 2) == 0


def check_idmap():
    with directory() as place:
        mapped = Bind(place, "/mnt", idmap=[(0, 5000, 100)], readonly=False)
        if not Who.root:
            try:
                nsext.run(["true"], new=Who.new, mounts=[mapped])
            except ValueError as error:
                assert "idmap needs CAP_SYS_ADMIN" in str(error), error
            else:
                raise AssertionError("an idmapped mount in a new user namespace")
        elif Who.classic() or release() < (5, 12):
            error = fails(errno.ENOSYS, mapped)
            assert "5.12" in error.hint, error.hint
        else:
            done = nsext.check_output(
                ["stat", "-c", "%u:%g", "/mnt/file"], new=Who.new, mounts=[mapped], text=True
            )
            assert done == "5000:5000\n" and (place / "file").stat().st_uid == 0


def check_ids_of_what_is_made():
    """Ranges without the caller's own id: bind, files, an overlay."""
    if not Who.root:
        return
    ranges = [(0, 200000, 1000)]
    with directory() as place:
        mounts = [
            Tmpfs("/mnt"),
            Bind(place, "/mnt/bound"),
            Bind(place / "file", "/mnt/file", readonly=False),
            File("/mnt/made", "x"),
            Overlay("/srv", lower=place),
            File("/srv/made", "x"),
        ]
        told = nsext.check_output(
            ["stat", "-c", "%u", "/mnt/bound/file", "/mnt/file", "/mnt/made", "/srv/made"],
            new="user pid mnt",
            uid_map=ranges,
            gid_map=ranges,
            user=0,
            group=0,
            mounts=mounts,
            text=True,
        )
        assert told.split() == ["65534", "65534", "0", "0"], told


def check_working_directory():
    with directory() as place:
        (place / "below").mkdir()
        before = os.getcwd()
        os.chdir(place / "below")
        try:
            for mounts in ([Tmpfs("/mnt")], [Overlay("/mnt", lower=place)], [Bind(place)]):
                told = nsext.check_output(["pwd"], new=Who.new, mounts=mounts, text=True)
                assert told == f"{place}/below\n", told
            told = nsext.check_output(
                ["/bin/sh", "-c", "pwd; ls"],
                new=Who.new,
                mounts=[Tmpfs(place / "below")],
                text=True,
            )
            assert told == f"{place}/below\n", told
            error = failure(nsext.run, ["true"], new=Who.new, mounts=[Tmpfs(place)])
            assert isinstance(error, FileNotFoundError) and error.stage == "cwd", repr(error)
            os.rmdir(place / "below")
            error = failure(nsext.run, ["true"], new=Who.new, mounts=[Tmpfs("/mnt")])
            assert isinstance(error, FileNotFoundError) and error.stage == "cwd", repr(error)
            assert "removed" in error.hint, error.hint
            told = nsext.check_output(
                ["pwd"], new=Who.new, mounts=[Tmpfs("/mnt")], cwd="/", text=True
            )
            assert told == "/\n"
        finally:
            os.chdir(before)


CHECKS = {
    name.removeprefix("check_"): call
    for name, call in globals().items()
    if name.startswith("check_")
}


def _answers(refused):
    """Those of the system calls that are there all the same."""
    numbers = {
        name: support._NUMBERS[name][support._MACHINES[os.uname().machine]] for name in refused
    }
    found = []
    for name, number in numbers.items():
        if LIBC.syscall(number, -1, -1, -1, -1, -1, -1) != -1 or ctypes.get_errno() != errno.ENOSYS:
            found.append(name)
    return found


def main(who, refused, probe):
    """Run every check; print {check: what went wrong, or None}."""
    Who.probe = probe
    Who.root, Who.nested = who == "root", who == "nested"
    Who.new = "pid mnt" if Who.root else "user pid mnt"
    Who.refused = refused
    if who != "user":
        own_mounts()
    refuse(**refused)
    assert not (refused and _answers(refused)), "the filter does not hold"
    report = {}
    nsext.run(["true"], new=Who.new, mounts=[Tmpfs("/mnt")])  # what is kept from a first time on
    for name, check in CHECKS.items():
        before = state()
        report[name] = None
        try:
            check()
            after = state()
            changed = {key: after[key] for key in before if before[key] != after[key]}
            assert not changed, f"left: {changed}"
        except BaseException:
            report[name] = traceback.format_exc()
        end_children()
    print("\n" + json.dumps(report))
