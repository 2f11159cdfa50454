"""Every step of the file system: that it does what it says, and how its failure is told.

The meta-test is test_steps.test_every_step_has_both.
"""

import ctypes
import os
import shutil
import struct
import sys
import textwrap
from pathlib import Path

import pytest
from support import failure, has_call, is_plain, needs, running, script, sh
from test_helper_steps import does, fails

import nsext
from nsext import (
    Bind,
    Dir,
    File,
    Mask,
    Mount,
    Overlay,
    Proc,
    ReadOnly,
    Remount,
    Symlink,
    Tmpfs,
)

pytestmark = pytest.mark.usefixtures("root")


def mounted(text):
    """{mount point: (flags, fstype, options, root)} of the lines of a mountinfo."""
    table = {}
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        words, more = head.split(), tail.split()
        table[words[4]] = (set(words[5].split(",")), more[0], set(more[2].split(",")), words[3])
    return table


def inside(*mounts, **fields):
    """What a program finds mounted."""
    fields.setdefault("new", "pid mnt")
    return mounted(sh("cat /proc/self/mountinfo", mounts=mounts, **fields))


def refused(number, step, *mounts, **fields):
    """The error of a description, which says that much; and nothing is left here."""
    before = Path("/proc/self/mountinfo").read_text()
    fields.setdefault("new", "pid mnt")
    error = failure(nsext.run, ["true"], mounts=mounts, **fields)
    assert is_plain(error), repr(error)
    assert (error.errno, error.stage) == (number, "setup"), error
    assert step in error.step, error
    assert Path("/proc/self/mountinfo").read_text() == before
    return error


@does("bind")
def test_bind(tmp_path):
    (tmp_path / "file").write_text("outside")
    places = inside(Bind(tmp_path, "/mnt"), Bind(tmp_path, "/srv", readonly=False, noexec=True))
    assert places["/mnt"][0] >= {"ro", "nosuid", "nodev"} and "noexec" not in places["/mnt"][0]
    assert places["/srv"][0] >= {"rw", "nosuid", "nodev", "noexec"}
    told = sh("cat /mnt/file; touch /mnt/x 2>&1 || :", mounts=[Bind(tmp_path, "/mnt")], new="mnt")
    assert told.startswith("outside") and "Read-only file system" in told
    sh("echo inside >/srv/file", mounts=[Bind(tmp_path, "/srv", readonly=False)], new="mnt")
    assert (tmp_path / "file").read_text() == "inside\n"


@fails("bind")
def test_bind_where_the_host_has_no_mount_point(tmp_path):
    error = refused(2, "on /nowhere/below: the mount point", Bind(tmp_path, "/nowhere/below"))
    assert error.path == "/nowhere/below" and "never written" in error.hint
    assert not os.path.exists("/nowhere")


@does("source")
def test_sources_are_those_from_before_the_first_mount(tmp_path):
    (tmp_path / "file").write_text("x")
    # Were it opened when it is bound, it would be read-only, and then hidden.
    first = inside(ReadOnly("/"), Bind(tmp_path, readonly=False), cwd="/")
    assert "rw" in first[str(tmp_path)][0] and "ro" in first["/"][0]
    hidden = [Tmpfs("/mnt"), Tmpfs(tmp_path), Bind(tmp_path / "file", "/mnt/file")]
    assert sh("cat /mnt/file", mounts=hidden, new="mnt", cwd="/") == "x"
    optional = [Tmpfs("/mnt"), Bind("/nonexistent", "/mnt", optional=True), Bind("/etc", "/srv")]
    assert sh("ls /mnt | wc -l; test -e /srv/passwd", mounts=optional, new="mnt") == "0"
    held = nsext.Fd(os.open(tmp_path, os.O_PATH))
    try:
        by_descriptor = [Bind(held.fileno(), "/mnt"), Bind(held, "/srv")]
        assert sh("cat /mnt/file /srv/file", mounts=by_descriptor, new="mnt") == "xx"
    finally:
        os.close(held.fileno())


@fails("source")
def test_source_is_missing_or_magic(tmp_path):
    error = refused(2, "open /nonexistent/source", Bind("/nonexistent/source", "/mnt"))
    assert error.path == "/nonexistent/source" and "caller's tree" in error.hint
    with open("/etc/passwd") as leaked:
        os.set_inheritable(leaked.fileno(), True)
        magic = f"/proc/self/fd/{leaked.fileno()}"
        error = refused(40, f"open {magic}", Bind(magic, "/mnt"))
    assert "descriptor" in error.hint


# Of the host's ids none is root's, whose the caller's are.
ELSEWHERE = [(0, 200000, 1000)]
RANGES = {"new": "user pid mnt", "uid_map": ELSEWHERE, "gid_map": ELSEWHERE}


@does("fs_ids")
def test_files_belong_to_somebody_where_the_own_id_is_not_mapped():
    mounts = [Tmpfs("/mnt"), Dir("/mnt/a"), File("/mnt/file", "x"), Symlink("x", "/mnt/link")]
    told = sh("stat -c %u:%g /mnt /mnt/*", mounts=mounts, user=0, group=0, **RANGES)
    assert told.split() == ["0:0"] * 4
    high = {"uid_map": [(5, 200000, 9), (1, 300000, 4)], "gid_map": [(7, 200000, 9)]}
    told = sh("stat -c %u:%g /mnt/*; id -u", mounts=mounts, **{**RANGES, **high})
    assert told.split() == ["1:7"] * 3 + ["65534"]
    # Who is mapped stays who he is.
    own = [(0, 200000, 9), (9, os.getuid(), 1)], [(0, 200000, 9), (9, os.getgid(), 1)]
    fields = {**RANGES, "uid_map": own[0], "gid_map": own[1]}
    assert sh("stat -c %u:%g /mnt/*", mounts=mounts, **fields).split() == ["9:9"] * 3


@fails("fs_ids")
def test_the_ids_of_files_cannot_be_changed():
    for call in ("setfsuid", "setfsgid"):
        script(
            """
            refuse(**{sys.argv[1]: 1})
            ids = [(0, 200000, 1000)]
            error = failure(
                nsext.run, ["true"], new="user mnt", mounts=[nsext.Tmpfs("/mnt")],
                uid_map=ids, gid_map=ids, user=0, group=0,
            )
            assert (error.errno, error.stage) == (1, "setup"), error
            assert "make files as 0:0" in error.step and is_plain(error), error
            """,
            call,
        )


@does("fs_begin")
@does("fs_end")
def test_what_the_mounts_needed_goes_back(tmp_path):
    # More sources than the soft limit has descriptors for.
    for number in range(40):
        (tmp_path / str(number)).touch()
    told = script(
        """
        import resource
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (30, hard))
        os.umask(0o27)
        mounts = [nsext.Bind(f"{sys.argv[1]}/{number}") for number in range(40)]
        command = "umask; ulimit -Sn; ulimit -Hn; ls /proc/self/fd | wc -l; grep -c %s /proc/self/mountinfo"
        with nsext.Popen(["sh", "-c", command % sys.argv[1]], new="mnt", mounts=mounts, stdout=-1) as p:
            print(p.stdout.read().decode())
        print(hard)
        """,
        str(tmp_path),
    ).split()
    assert told[:2] == ["0027", "30"] and told[2] == told[5]
    assert told[3:5] == ["4", "40"]  # 0, 1, 2 and the directory that ls reads


@fails("fs_begin")
def test_the_limit_on_descriptors_cannot_be_raised():
    script(
        """
        refuse(prlimit64=1)
        error = failure(nsext.run, ["true"], new="mnt", mounts=[nsext.Tmpfs("/mnt")])
        assert (error.errno, error.stage) == (1, "setup") and error.step == "raise RLIMIT_NOFILE", error
        """
    )


@fails("fs_end")
def test_limits_cannot_be_put_back(tmp_path):
    """Looked at, raised, put back: the third call of the child fails."""
    needs(shutil.which("strace"), "needs strace")
    code = """
        import nsext, sys
        try:
            nsext.run(["true"], new="mnt", mounts=[nsext.Tmpfs("/mnt")])
        except nsext.SpawnError as error:
            print(error.errno, error.stage, error.step)
    """
    inject = ["-e", "trace=prlimit64", "-e", "inject=prlimit64:error=EIO:when=3"]
    command = ["strace", "-f", "-o", str(tmp_path / "log"), *inject, sys.executable, "-c"]
    environment = {**os.environ, "PYTHONPATH": str(Path(nsext.__file__).parent.parent)}
    told = nsext.check_output([*command, textwrap.dedent(code)], text=True, env=environment)
    assert told == "5 setup restore what the mounts needed\n"


@does("mount_fs")
def test_mount_fs():
    places = inside(
        Tmpfs("/mnt", size="1m", nr_inodes=50, mode=0o770),
        Mount("tmpfs", "named", "/srv", flags=["ro", "noexec"], data="size=4k,mode=700"),
        Proc("/opt", hide_pid=2),
    )
    flags, fstype, options, _ = places["/mnt"]
    assert fstype == "tmpfs" and options >= {"size=1024k", "nr_inodes=50", "mode=770"}
    assert flags >= {"rw", "nosuid", "nodev"}
    flags, fstype, options, _ = places["/srv"]
    assert flags >= {"ro", "noexec"} and options >= {"size=4k", "mode=700"}
    assert places["/opt"][1] == "proc" and {"hidepid=invisible", "hidepid=2"} & places["/opt"][2]
    assert sh("stat -c %a /mnt", mounts=[Tmpfs("/mnt", mode=0o750)], new="mnt") == "750"


@fails("mount_fs")
def test_mount_fs_fails():
    refused(22, "mount tmpfs on /mnt", Mount("tmpfs", "x", "/mnt", data="size=1m,foo=2"))
    refused(19, "mount nofs on /mnt", Mount("nofs", "x", "/mnt"))


def test_what_a_file_system_says_is_the_hint():
    needs(has_call("mount_setattr"), "needs Linux 5.12: before, mounts are made by mount(2)")
    error = refused(22, "mount tmpfs on /mnt", Mount("tmpfs", "x", "/mnt", data="size=1m,foo=2"))
    assert "foo" in error.hint


@does("overlay")
def test_overlay(tmp_path):
    for name in ("one", "two", "up", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "a").write_text("first")
    (tmp_path / "two" / "a").write_text("second")
    (tmp_path / "two" / "b,:c").write_text("third")
    layers = [tmp_path / "one", tmp_path / "two"]
    script = "cat /mnt/a '/mnt/b,:c'; echo new >/mnt/a"
    assert sh(script, mounts=[Overlay("/mnt", lower=layers)], new="mnt") == "firstthird"
    assert (tmp_path / "one" / "a").read_text() == "first"
    kept = Overlay("/mnt", lower=layers, upper=tmp_path / "up", work=tmp_path / "work")
    sh(script, mounts=[kept], new="mnt")
    assert (tmp_path / "up" / "a").read_text() == "new\n"
    assert inside(Overlay("/mnt", lower=layers))["/mnt"][1] == "overlay"


@fails("overlay")
def test_overlay_shows_no_mounts(tmp_path):
    error = refused(16, f"overlay {tmp_path.parts[0]}", Overlay("/mnt", lower="/"))
    assert "recursive=True" in error.hint
    below = inside(Overlay("/mnt", lower="/", recursive=True), cwd="/")
    assert below["/mnt/proc"][1] == "proc" and "ro" in below["/mnt/proc"][0]


@does("change")
def test_change():
    places = inside(ReadOnly("/usr"), Remount("/proc", readonly=True, noexec=True))
    assert "ro" in places["/usr"][0] and "ro" in places["/proc"][0]
    places = inside(Tmpfs("/mnt"), Remount("/mnt", readonly=True), Remount("/mnt", readonly=False))
    assert "rw" in places["/mnt"][0]
    assert "/nonexistent" not in inside(ReadOnly("/nonexistent", optional=True))
    everything = inside(ReadOnly("/"), cwd="/")
    ours = {place for place, row in everything.items() if "rw" in row[0]}
    assert ours == {"/proc"}  # the fresh one, which a user namespace in there has to write to


@fails("change")
def test_change_of_what_is_not_there():
    error = refused(2, "make /nonexistent", ReadOnly("/nonexistent"))
    assert error.path == "/nonexistent"


@does("mask")
def test_mask():
    mounts = [Mask("/etc/passwd"), Mask("/usr/share"), Mask("/nonexistent", optional=True)]
    told = sh("cat /etc/passwd | wc -c; ls /usr/share | wc -l", mounts=mounts, new="mnt")
    assert told.split() == ["0", "0"]
    places = inside(*mounts)
    assert places["/usr/share"][0] >= {"ro", "nosuid", "nodev", "noexec"}
    assert places["/etc/passwd"][0] >= {"ro", "nosuid", "noexec"}


@fails("mask")
def test_mask_of_what_is_not_there():
    refused(2, "mask /nonexistent", Mask("/nonexistent"))


@does("make_dir")
@does("make_link")
@does("make_file")
def test_make():
    mounts = [
        Tmpfs("/mnt"),
        Dir("/mnt/a/b", mode=0o700),
        File("/mnt/a/c/d", "text", mode=0o640),
        Symlink("/mnt/a/c/d", "/mnt/link"),
        File("/etc/hostname", b"covered"),
    ]
    command = (
        "stat -c '%a %F' /mnt/a /mnt/a/b /mnt/a/c/d; cat /mnt/link; echo;"
        "readlink /mnt/link; cat /etc/hostname"
    )
    told = sh(command, mounts=mounts, new="mnt", umask=0o77)
    assert told.splitlines() == [
        "755 directory",
        "700 directory",
        "640 regular file",
        "text",
        "/mnt/a/c/d",
        "covered",
    ]
    assert Path("/etc/hostname").read_text() != "covered"
    again = [
        Tmpfs("/mnt"),
        Symlink("x", "/mnt/l"),
        Symlink("x", "/mnt/l"),
        Dir("/mnt/d"),
        Dir("/mnt/d"),
    ]
    sh(":", mounts=again, new="mnt")


@fails("make_dir")
@fails("make_link")
@fails("make_file")
def test_nothing_is_made_in_the_tree_of_the_host():
    for spec, words in (
        (Dir("/etc/nsext-dir"), "make directory /etc/nsext-dir"),
        (Symlink("x", "/etc/nsext-link"), "make link /etc/nsext-link"),
        (File("/etc/nsext-file", ""), "make file /etc/nsext-file"),
    ):
        error = refused(2, words, spec)
        assert "never written" in error.hint
        assert not os.path.lexists(error.path)
    refused(17, "make link /mnt/l", Tmpfs("/mnt"), Symlink("x", "/mnt/l"), Symlink("y", "/mnt/l"))


@does("pivot")
def test_pivot(tmp_path):
    places = inside(
        Bind("/usr"), *[Symlink(f"usr/{n}", f"/{n}") for n in ("bin", "lib", "lib64")], root=Tmpfs()
    )
    assert places["/"][1] == "tmpfs" and set(places) == {"/", "/usr", "/proc"}
    # One ".." too many leads nowhere.
    links = [Symlink(f"usr/{n}", f"/{n}") for n in ("bin", "lib", "lib64")]
    for root in (Tmpfs(), Overlay(lower=tmp_path)):
        told = sh(
            "cd /..; ls; cd ../../..; pwd", mounts=[Bind("/usr"), *links], root=root, new="pid mnt"
        )
        assert told.split() == ["bin", "lib", "lib64", "proc", "usr", "/"]


@fails("pivot")
def test_pivot_is_refused():
    script(
        """
        before = state()
        refuse(pivot_root=1)
        for start in (nsext.run, nsext.spawn):
            error = failure(start, ["true"], new="mnt", root=nsext.Tmpfs())
            assert is_plain(error), error
            assert (error.errno, error.step) == (1, "change to the new root"), error
        assert not changes(before, state()), changes(before, state())
        """
    )


def test_in_a_chroot():
    script(
        """
        own_mounts()
        mount("tmpfs", "/mnt", "tmpfs")
        for name in os.listdir("/"):  # all that is here is there, in a directory that is no mount
            place = f"/mnt/here/{name}"
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), place)
            elif os.path.isdir(f"/{name}") and name != "mnt":
                os.makedirs(place)
                mount(f"/{name}", place, None, 0x5000)
        os.chroot("/mnt/here")
        error = failure(nsext.run, ["true"], new="mnt", root=nsext.Tmpfs())
        assert (error.errno, error.stage) == (22, "setup"), error
        assert "chroot" in error.hint, error.hint
        """
    )


def can_be_idmapped(path):
    """Does the kernel let mounts of that file system be idmapped?  mount_setattr(2)"""
    libc = ctypes.CDLL(None, use_errno=True)
    if not has_call("mount_setattr"):
        return False
    maps = [(0, 5000, 100)]
    with running(new="user", uid_map=maps, gid_map=maps) as process:
        user = os.open(f"/proc/{process.pid}/ns/user", os.O_RDONLY)
    tree = libc.syscall(428, -100, os.fsencode(path), 1)  # OPEN_TREE_CLONE
    attributes = struct.pack("QQQQ", 0x100000, 0, 0, user)  # MOUNT_ATTR_IDMAP
    try:
        return libc.syscall(442, tree, b"", 0x1000, attributes, len(attributes)) == 0
    finally:
        os.close(tree)
        os.close(user)


@does("idmap")
def test_idmap(tmp_path):
    needs(can_be_idmapped(tmp_path), "needs idmapped mounts of a temporary directory (tmpfs: 6.3)")
    (tmp_path / "file").touch()
    mapped = Bind(tmp_path, "/mnt", idmap=[(0, 5000, 100)], readonly=False)
    assert sh("stat -c %u:%g /mnt/file", mounts=[mapped], new="mnt") == "5000:5000"
    assert (tmp_path / "file").stat().st_uid == 0


@fails("idmap")
def test_idmap_of_what_cannot_be_mapped():
    number = 22 if has_call("mount_setattr") else 38
    error = refused(number, "map the ids of /proc", Bind("/proc", "/mnt", idmap=[(0, 5000, 100)]))
    assert "5.12" in error.hint


@does("reenter")
def test_reenter(tmp_path):
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert sh("pwd; ls", mounts=[Tmpfs(tmp_path)], new="mnt") == str(tmp_path)
        (tmp_path / "file").touch()
        assert sh("ls", mounts=[Tmpfs("/mnt")], new="mnt") == "file"
        assert sh("ls", mounts=[Tmpfs(tmp_path)], new="mnt") == ""
        assert sh("ls", mounts=[Tmpfs("/mnt")], new="mnt", cwd=".") == "file"
    finally:
        os.chdir(before)


@fails("reenter")
def test_reenter_what_is_hidden(tmp_path):
    place = tmp_path / "below"
    place.mkdir()
    before = os.getcwd()
    os.chdir(place)
    try:
        error = failure(nsext.run, ["true"], new="mnt", mounts=[Tmpfs(tmp_path)])
    finally:
        os.chdir(before)
    assert isinstance(error, FileNotFoundError) and error.stage == "cwd"
    assert error.filename == str(place)
    assert error.hint.startswith(f"{Tmpfs(tmp_path)!r} lies over it; ") and "say cwd=" in error.hint


def test_the_mode_of_a_directory_is_whole():
    """mkdir(2) takes no set-group-ID bit."""
    for mode in (0o2755, 0o6700, 0o1777, 0):
        told = sh(
            "stat -c %a /mnt/dir", mounts=[Tmpfs("/mnt"), Dir("/mnt/dir", mode=mode)], new="mnt"
        )
        assert int(told, 8) == mode
