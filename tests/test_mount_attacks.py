"""Attacks on the file system of a sandbox: each is tried, and none may reach the host.

Whatever becomes of an attempt, the host's mounts and the places that it is about are as before:
names, contents, owners, times.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faults
import pytest
from support import DEADLINE, as_user, failure, is_plain, needs, open_fds, running, script, status

import nsext
from nsext import Bind, Dev, Dir, File, Mask, Overlay, Proc, ReadOnly, Symlink, Tmpfs
from nsext._helper import HELPER

pytestmark = pytest.mark.usefixtures("root")

LINKS = [Symlink(f"usr/{name}", f"/{name}") for name in ("bin", "lib", "lib64")]

# ---- what has to hold ----------------------------------------------------------------------------


def listing(*places: Path) -> dict[str, Any]:
    """All that a write would change, of these and of what is below: without following links."""
    found: dict[str, Any] = {}

    def add(path: Path) -> None:
        status = os.lstat(path)
        entry: tuple[Any, ...] = (
            status.st_mode,
            status.st_ino,
            status.st_nlink,
            (status.st_uid, status.st_gid),
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        if stat.S_ISLNK(status.st_mode):
            entry += (os.readlink(path),)
        elif stat.S_ISREG(status.st_mode):
            entry += (hashlib.sha256(path.read_bytes()).hexdigest(),)
        found[str(path)] = entry
        if stat.S_ISDIR(status.st_mode):
            for name in sorted(os.listdir(path)):
                add(path / name)

    for place in places:
        add(place)
    return found


@contextmanager
def untouched(*places: Path) -> Iterator[None]:
    """The block changes nothing of the host: not these places, no mount."""
    before = listing(*places), Path("/proc/self/mountinfo").read_text()
    yield
    after = listing(*places), Path("/proc/self/mountinfo").read_text()
    changed = {
        name: (before[0].get(name), after[0].get(name))
        for name in before[0] | after[0]
        if before[0].get(name) != after[0].get(name)
    }
    assert not changed, changed
    assert before[1] == after[1]


def attempt(*args: Any, **fields: Any) -> Any:
    """What a program in a sandbox says, or the SpawnError."""
    fields.setdefault("new", "pid mnt")
    try:
        return nsext.run(*args, capture_output=True, text=True, timeout=DEADLINE, **fields)
    except nsext.SpawnError as error:
        return error


# ---- a renamer: two names change places as fast as they can --------------------------------------

RENAMER = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
static pthread_t thread;
static const char *first, *second;
static volatile int stop;
static volatile long count;
static void *exchange(void *unused)
{
    while (!stop)
        if (renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE) == 0)
            count++;
    return unused;
}
int renamer_start(const char *a, const char *b)
{
    first = a, second = b, stop = 0, count = 0;
    return pthread_create(&thread, NULL, exchange, NULL);
}
long renamer_stop(void)
{
    stop = 1;
    pthread_join(thread, NULL);
    if (count % 2) /* as it was */
        renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE);
    return count;
}
"""

# The scripts' part: renaming(a, b) as a context manager, whose value tells the count at the end.
RENAMING = """
import contextlib
lib = ctypes.CDLL(sys.argv[1])
lib.renamer_stop.restype = ctypes.c_long
@contextlib.contextmanager
def renaming(a, b):
    names = os.fsencode(a), os.fsencode(b)
    told = []
    assert lib.renamer_start(*names) == 0
    try:
        yield told
    finally:
        told.append(lib.renamer_stop())
"""


@pytest.fixture(scope="module")
def renamer(tmp_path_factory: pytest.TempPathFactory) -> str:
    needs(shutil.which("cc"), "needs a C compiler")
    place = tmp_path_factory.mktemp("renamer") / "librenamer.so"
    command = ["cc", "-O1", "-shared", "-fPIC", "-pthread", "-x", "c", "-", "-o", place]
    subprocess.run(command, input=RENAMER, text=True, check=True)
    return str(place)


def race(code: str, *args: str) -> str:
    """What a script that uses renaming() prints."""
    return script(RENAMING + textwrap.dedent(code), *args, deadline=400)


REFUSED: dict[str, dict[str, int]] = {
    "openat2": {},
    "step by step": {"openat2": 38},
}
CLASSIC = dict.fromkeys(
    ["open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "mount_setattr"], 38
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", REFUSED)
def test_a_renamed_directory_leads_nowhere(way: str, renamer: str, tmp_path: Path) -> None:
    """100,000 times each way: a directory of the root changes places with links that lead out, and
    with a directory outside, so that ".." is another one than it was."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for place in (root / "a", root / "d/e/x", outside / "f/x", tmp_path / "victim"):
        place.mkdir(parents=True)
    (root / "a" / "file").write_text("inside")
    (root / "file").write_text("inside")
    (root / "d" / "file").write_text("inside")
    for place in (tmp_path, outside, tmp_path / "victim"):
        (place / "file").write_text("outside")
    (root / "relative").symlink_to("../victim")
    (root / "absolute").symlink_to(tmp_path / "victim")
    (root / "up").symlink_to(
        "../../../../../../../../../../../../../../.." + str(tmp_path / "victim")
    )
    (root / "root").symlink_to("/proc/self/root" + str(tmp_path / "victim"))
    told = race(
        """
        from nsext import _native
        place, refused = Path(sys.argv[2]), json.loads(sys.argv[3])
        refuse(**refused)
        root = place / "root"
        fd = os.open(root, os.O_PATH)
        ours = {os.stat(path).st_ino for path in (root / "file", root / "a/file", root / "d/file")}
        long = "x/../" * 100  # so that there is time to be moved before ".."
        pairs = [("a", name, "a/file", 23_000) for name in ("relative", "absolute", "up", "root")]
        pairs.append(("d/e", "../outside/f", f"d/e/{long}../../file", 4_000))
        pairs.append(("d/e", "../outside/f", f"/d/e/{long}../file", 4_000))
        for one, other, path, tries in pairs:
            # That the attack is one: who resolves it as any path gets out.
            out = 0
            with renaming(root / one, root / other):
                end = time.monotonic() + 60
                while out < 10 and time.monotonic() < end:
                    with contextlib.suppress(OSError):
                        out += os.stat(path.lstrip("/"), dir_fd=fd).st_ino not in ours
            assert out == 10, (one, other, path)
            seen, errors = 0, {}
            with renaming(root / one, root / other) as count:
                for number in range(tries):
                    try:
                        found = _native.resolve(fd, path, os.O_PATH)
                    except OSError as error:
                        errors[error.errno] = errors.get(error.errno, 0) + 1
                        continue
                    inode = os.fstat(found).st_ino
                    os.close(found)
                    assert inode in ours, (one, other, path, number)
                    seen += 1
            print(one, other, path[:10], "found", seen, "errors", errors, "renames", count[0])
            assert seen > 100 and count[0] > 1000, "no race"
            assert set(errors) <= {errno.ENOENT}, errors
            assert errors or one == "d/e", "no race"
        """,
        renamer,
        str(tmp_path),
        json.dumps(REFUSED[way]),
    )
    print(told)
    assert (tmp_path / "victim" / "file").read_text() == "outside"


@pytest.mark.parametrize("way", REFUSED)
def test_no_file_is_made_or_read_outside(way: str, renamer: str, tmp_path: Path) -> None:
    """open_in() in a directory that the sandbox's program may rename."""
    for name in ("root/a", "victim"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root" / "a" / "file").write_text("inside")
    (tmp_path / "root" / "link").symlink_to("../victim")
    (tmp_path / "root" / "a" / "out").symlink_to(tmp_path / "victim" / "made")
    told = race(
        """
        place, refused = Path(sys.argv[2]), json.loads(sys.argv[3])
        refuse(**refused)
        root = place / "root"
        fd = os.open(root, os.O_PATH)
        done = missing = 0
        with renaming(root / "a", root / "link") as count:
            for number in range(20_000):
                try:
                    if number % 4 == 0:
                        with nsext.open_in(fd, "a/file") as file:
                            assert file.read() == b"inside"
                    elif number % 4 == 1:
                        with nsext.open_in(fd, "a/made", "w") as file:
                            file.write("x")
                    elif number % 4 == 2:
                        nsext.open_in(fd, f"a/{number}", "xb").close()
                    else:
                        nsext.open_in(fd, "/a/out", "w").close()
                    done += 1
                except FileNotFoundError:
                    missing += 1
                assert not os.listdir(place / "victim"), number
        print("done", done, "missing", missing, "renames", count[0])
        assert done > 100 and missing > 100 and count[0] > 1000, "no race"
        """,
        renamer,
        str(tmp_path),
        json.dumps(REFUSED[way]),
    )
    print(told)
    assert not os.listdir(tmp_path / "victim")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["new", "classic"])
def test_two_thousand_sandboxes_on_a_renamed_directory(
    way: str, renamer: str, tmp_path: Path
) -> None:
    """What is mounted on, and made in, a directory that an attacker shares: it lands there or
    nowhere, with its flags."""
    for name in ("shared/a/x", "shared/b/x", "victim", "clean", "source", "rootfs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "source" / "file").write_text("source")
    (tmp_path / "shared" / "link").symlink_to(tmp_path / "victim")
    (tmp_path / "shared" / "a" / "up").symlink_to("../../../../../victim")
    with untouched(tmp_path / "victim", tmp_path / "clean", tmp_path / "source"):
        told = race(
            """
            from nsext import Bind, Dir, File, Mask, Overlay, ReadOnly, Symlink, Tmpfs
            place, refused = Path(sys.argv[2]), json.loads(sys.argv[3])
            refuse(**refused)
            shared, source = place / "shared", place / "source"
            base = [
                Bind("/usr"),
                *[Symlink(f"usr/{name}", f"/{name}") for name in ("bin", "lib", "lib64")],
                Bind(shared, "/shared", readonly=False),
                Bind(place / "clean", "/clean", readonly=False),
            ]
            cases = {
                "bind": [Bind(source, "/shared/a/x")],
                "tmpfs": [Tmpfs("/shared/a/x"), Dir("/clean/new")],
                "overlay": [Overlay("/shared/a/x", lower=source), Dir("/clean/new")],
                "readonly": [ReadOnly("/shared/a/x")],
                "mask": [Mask("/shared/a/x")],
                "make": [Dir("/shared/a/new")],
                "up": [File("/shared/a/up/new", "x")],
                "file": [File("/shared/a/x/new", "x")],
            }
            before = state()
            outcomes = {}
            text = os.fsdecode(source)
            for other in ("link", "b"):
                with renaming(shared / "a", shared / other) as count:
                    for number in range(1200):
                        name = list(cases)[number % len(cases)]
                        try:
                            done = nsext.run(
                                ["cat", "/proc/self/mountinfo"],
                                new="pid mnt",
                                root=Tmpfs(),
                                mounts=[*base, *cases[name]],
                                capture_output=True,
                                text=True,
                            )
                            outcome = "done"
                            assert done.returncode == 0, done
                        except nsext.SpawnError as error:
                            outcome = errno.errorcode[error.errno]
                        key = name, outcome
                        outcomes[key] = outcomes.get(key, 0) + 1
                        for line in done.stdout.splitlines() if outcome == "done" else ():
                            words = line.split()
                            if name == "bind" and words[3].endswith(text):
                                assert words[5].startswith("ro,"), line
                                assert words[4].startswith("/shared/"), line
                assert count[0] > 1000, "no race"
            assert not changes(before, state()), changes(before, state())
            for key, number in sorted(outcomes.items()):
                print(*key, number)
            for name in ("bind", "mask", "readonly"):
                assert outcomes[(name, "done")] > 10 and outcomes[(name, "ENOENT")] > 10, "no race"
            for name in ("tmpfs", "overlay", "make", "up", "file"):
                assert {number for key, number in outcomes if key == name} == {"ENOENT"}, outcomes
            """,
            renamer,
            str(tmp_path),
            json.dumps(CLASSIC if way == "classic" else {}),
        )
    print(told)
    names = {name for _, _, files in os.walk(tmp_path / "shared") for name in files}
    assert "new" not in names


# ---- links of a hostile root ---------------------------------------------------------------------


def hostile_root(place: Path, victim: Path, how: str) -> Path:
    """A root whose directories are links that lead to *victim*, which a naive tool would follow."""
    root = place / "rootfs"
    root.mkdir()
    up = "../" * 30
    to = {
        "absolute": str(victim),
        "relative": up + str(victim).lstrip("/"),
        "magic": "/proc/self/root" + str(victim),
        "magic cwd": "/proc/self/cwd",
        "through itself": "/etc" + str(victim),
    }[how]
    for name in ("dev", "etc", "proc", "srv", "run", "mnt"):
        (root / name).symlink_to(to)
    for name in ("usr", "good"):
        (root / name).mkdir()
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    return root


HOSTILE_MOUNTS: dict[str, list[Any]] = {
    "dev": [Dev()],
    "proc": [Proc()],
    "tmpfs": [Tmpfs("/srv"), Tmpfs("/srv/below"), Tmpfs("/mnt/a/b")],
    "bind": [Bind("/usr", "/mnt"), Bind("/usr/share", "/etc/share")],
    "bind a file": [Bind("/etc/passwd", "/etc/passwd")],
    "file": [File("/etc/hostname", "made"), File("/dev/null", "made")],
    "dir": [Dir("/etc/made/deep"), Dir("/run/made")],
    "link": [Symlink("/etc/shadow", "/etc/made")],
    "overlay": [Overlay("/run", lower="/usr"), Overlay("/run/made", lower="/usr")],
    "mask": [Mask("/etc"), Mask("/srv", optional=True)],
    "readonly": [ReadOnly("/etc"), ReadOnly("/run", optional=True)],
}


@pytest.mark.parametrize("how", ["absolute", "relative", "magic", "magic cwd", "through itself"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("user", ["", "user "])
def test_links_of_a_hostile_root(
    how: str, mirrored: bool, user: str, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mirrored: what they name exists inside, too; then that is what they lead to."""
    victim = public / "victim"
    victim.mkdir()
    root = hostile_root(public, victim, how)
    if mirrored:
        (root / str(victim).lstrip("/")).mkdir(parents=True)
    monkeypatch.chdir(victim)
    roots = [root, Bind(root), Bind(root, readonly=False), Overlay(lower=root)]
    outcomes = set()
    with untouched(public):
        for each in roots:
            for name, mounts in HOSTILE_MOUNTS.items():
                for proc in (None, False):
                    told = attempt(
                        ["/bin/sh", "-c", "ls -a /good; cd /; pwd"],
                        new=user + "pid mnt",
                        root=each,
                        proc=proc,
                        mounts=[Bind("/usr"), *mounts],
                    )
                    if isinstance(told, nsext.SpawnError):
                        assert told.stage == "setup" and is_plain(told), told
                        outcomes.add((name, told.errno))
                    else:
                        assert told.returncode == 0 and told.stdout == ".\n..\n/\n", told
                        outcomes.add((name, 0))
                    assert os.listdir(victim) == []
    reached = {name for name, number in outcomes if number == 0}
    if mirrored and how in ("absolute", "relative"):
        assert reached == set(HOSTILE_MOUNTS), outcomes
    else:
        assert reached < set(HOSTILE_MOUNTS), outcomes


def test_ordinary_absolute_links_work(tmp_path: Path) -> None:
    """/var/run -> /run, as in every Debian."""
    for name in ("run", "var", "usr", "proc", "tmp", "etc"):
        (tmp_path / name).mkdir()
    for name in ("bin", "lib", "lib64"):
        (tmp_path / name).symlink_to(f"/usr/{name}")
    (tmp_path / "var" / "run").symlink_to("/run")
    (tmp_path / "var" / "tmp").symlink_to("../../../../tmp")  # one ".." too many is none
    (tmp_path / "etc" / "resolv.conf").symlink_to("/run/systemd/resolv.conf")
    mounts = [
        Bind("/usr"),
        Tmpfs("/var/run"),
        File("/var/run/lock/made", "one"),
        Tmpfs("/var/tmp"),
        File("/var/tmp/made", "two"),
    ]
    with untouched(tmp_path):
        command = ["/bin/sh", "-c", "cat /run/lock/made /tmp/made"]
        assert attempt(command, root=tmp_path, mounts=mounts).stdout == "onetwo"
        # A link that leads nowhere gives way to a file; one that leads somewhere is followed.
        dangling = [Bind("/usr"), File("/etc/resolv.conf", "three")]
        command = ["/bin/sh", "-c", "cat /etc/resolv.conf; ls -F /etc /run"]
        told = attempt(command, root=Overlay(lower=tmp_path), mounts=dangling)
        assert told.stdout == "three/etc:\nresolv.conf\n\n/run:\n", told
        leading = [Bind("/usr"), File("/run/systemd/resolv.conf", ""), *dangling[1:]]
        command[2] = "cat /run/systemd/resolv.conf; ls -F /etc"
        told = attempt(command, root=Overlay(lower=tmp_path), mounts=leading)
        assert told.stdout == "threeresolv.conf@\n", told


def test_a_fifo_or_device_in_the_place_of_a_file(tmp_path: Path) -> None:
    """It is covered, never opened: opening it to write would wait for a reader."""
    for name in ("lower", "upper", "work", "lower/usr", "lower/proc"):
        (tmp_path / name).mkdir()
    for name in ("bin", "lib", "lib64"):
        (tmp_path / "lower" / name).symlink_to(f"usr/{name}")
    os.mkfifo(tmp_path / "lower" / "fifo")
    os.mknod(tmp_path / "lower" / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    files = [File("/fifo", "one"), File("/device", "two")]
    for root in (
        Overlay(lower=tmp_path / "lower"),
        Overlay(lower=tmp_path / "lower", upper=tmp_path / "upper", work=tmp_path / "work"),
        tmp_path / "lower",
    ):
        told = attempt(
            ["/bin/sh", "-c", "cat /fifo /device"],
            root=root,
            mounts=[Bind("/usr"), *files],
            spawn_timeout=20,
        )
        assert not isinstance(told, nsext.SpawnError) and told.stdout == "onetwo", told
    error = attempt(["true"], root=tmp_path / "lower", mounts=[Bind("/usr"), File("/usr/bin", "")])
    assert isinstance(error, nsext.SpawnError) and error.path == "/usr/bin", error


# ---- leaked descriptors --------------------------------------------------------------------------


@pytest.fixture
def leaked() -> Iterator[list[int]]:
    """200 descriptors of the host's root directory, every other one inheritable."""
    fds = [os.open("/", os.O_RDONLY | (os.O_PATH if number % 3 else 0)) for number in range(200)]
    for fd in fds[::2]:
        os.set_inheritable(fd, True)
    yield fds
    for fd in fds:
        os.close(fd)


def simple_root(place: Path) -> Path:
    for name in ("usr", "proc", "tmp"):
        (place / name).mkdir()
    for name in ("bin", "lib", "lib64"):
        (place / name).symlink_to(f"usr/{name}")
    return place


@pytest.mark.parametrize("user", ["", "user "])
def test_leaked_descriptors_lead_nowhere(user: str, leaked: list[int], public: Path) -> None:
    base: dict[str, Any] = {"new": user + "pid mnt", "mounts": [Bind("/usr")]}
    base["root"] = simple_root(public)
    laid: dict[str, Any] = {"new": user + "pid mnt", "mounts": [Tmpfs("/mnt")]}
    assert attempt(["/bin/sh", "-c", "ls /proc/self/fd"], **base).stdout.split() == list("0123")
    with untouched(public):
        for fd in leaked:
            magic = f"/proc/self/fd/{fd}"
            # One that is close-on-exec is gone by then, if it is not another one.
            wrong = {errno.ELOOP} if os.get_inheritable(fd) else {errno.ELOOP, errno.ENOENT}
            for fields in (base, laid):
                error = attempt(["true"], cwd=magic, **fields)
                assert isinstance(error, FileNotFoundError) and error.stage == "cwd", repr(error)
                error = attempt(["sh"], executable=f"{magic}/bin/sh", **fields)
                assert isinstance(error, FileNotFoundError) and error.stage == "exec", repr(error)
                source = [*fields["mounts"], Bind(magic, "/tmp")]
                error = attempt(["true"], **{**fields, "mounts": source})
                assert error.errno in wrong and error.stage == "setup", error
            for root in (magic, f"{magic}/usr", Overlay(lower=f"{magic}/usr")):
                error = attempt(["true"], **{**base, "root": root})
                assert error.errno in wrong and error.stage == "setup", error


def test_a_passed_descriptor_is_no_working_directory(tmp_path: Path) -> None:
    """It is the program's, who asked for it; but a relative path would lead to the host."""
    held = os.open("/", os.O_PATH)
    try:
        fields: dict[str, Any] = {"root": simple_root(tmp_path), "mounts": [Bind("/usr")]}
        for path in (f"/proc/self/fd/{held}", f"/proc/self/fd/{held}/etc"):
            error = attempt(["true"], cwd=path, pass_fds=[held], **fields)
            assert isinstance(error, FileNotFoundError) and error.stage == "cwd", repr(error)
        inside = attempt(["pwd"], cwd="/proc/self", **fields)
        assert inside.stdout == "/proc/1\n", inside
    finally:
        os.close(held)


COUNT_FDS = "for n in $(seq 3 400); do if ( : <&$n ); then echo $n; fi; done; echo end"


def test_a_fake_directory_of_descriptors(tmp_path: Path) -> None:
    """Where close_range(2) is refused, they are closed by the list in the caller's own /proc, not
    by what a root, or a mount on /proc, says of itself."""
    simple_root(tmp_path)
    (tmp_path / "proc" / "self" / "fd").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "fd" / "1000").touch()
    with untouched(tmp_path):
        told = script(
            """
            refuse(close_range=38)
            fds = [os.open("/", os.O_RDONLY) for _ in range(200)]
            for fd in fds[::2]:
                os.set_inheritable(fd, True)
            usr = nsext.Bind("/usr")
            command = ["/bin/sh", "-c", sys.argv[2]]
            kept = os.open("/dev/null", os.O_RDONLY)
            for more, expected in (({}, []), ({"fd_map": {3: kept, 5: kept}}, ["3", "5"])):
                for fields in (
                    {"root": sys.argv[1], "proc": False, "mounts": [usr]},
                    {"mounts": [nsext.Tmpfs("/proc"), nsext.Dir("/proc/self/fd")], "proc": False},
                ):
                    streams = {"capture_output": True, "text": True}
                    told = nsext.run(command, new="pid mnt", **streams, **fields, **more)
                    assert told.stdout.split() == [*expected, "end"], (fields, told)
            error = failure(nsext.run, command, new="pid mnt", init=True, mounts=[usr])
            assert error.errno == errno.ENOSYS, error  # an init has no other way
            """,
            str(tmp_path),
            COUNT_FDS,
        )
        assert told == ""


# ---- /proc/self/exe, and a fake /proc ------------------------------------------------------------


def checksum() -> list[str]:
    binaries = [os.path.realpath(sys.executable), HELPER]
    return [hashlib.sha256(Path(binary).read_bytes()).hexdigest() for binary in binaries]


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize("user", ["", "user "])
def test_a_program_that_is_its_own_interpreter(user: str, init: bool, public: Path) -> None:
    """#!/proc/self/exe in a root of somebody else's (CVE-2019-5736)."""
    simple_root(public)
    program = public / "program"
    program.write_text("#!/proc/self/exe\nimport this\n")
    program.chmod(0o755)
    fields: dict[str, Any] = {"new": user + "pid mnt", "mounts": [Bind("/usr")], "init": init}
    before = checksum()
    with untouched(public):
        told = attempt(["/program", "5", "x"], root=public, **fields)
        # The helper, which ends: it has no plan.
        assert not isinstance(told, nsext.SpawnError), told
        assert (told.returncode, told.stdout) == (125, ""), told
        # Who opens what runs around it has nothing to write to.
        command = (
            "for p in /proc/[0-9]*; do if [ $p != /proc/$$ ] && ( : >>$p/exe ); then "
            "echo written $p; fi; done; echo done"
        )
        told = attempt(["/bin/sh", "-c", command], root=public, **fields)
        assert told.stdout == "done\n", told
    assert checksum() == before


def test_a_fake_proc_in_the_root(tmp_path: Path) -> None:
    """What is to be written to /proc goes to the real one (CVE-2025-52881)."""
    simple_root(tmp_path)
    names = ["uid_map", "gid_map", "setgroups", "oom_score_adj", "timens_offsets", "mountinfo"]
    fake = tmp_path / "proc" / "self"
    (fake / "ns").mkdir(parents=True)
    (fake / "fd").mkdir()
    for name in [*names, "ns/time_for_children", "attr"]:
        (fake / name).touch()
    (fake.parent / "1").symlink_to("self")
    mounted = [Bind(tmp_path / "proc", "/proc", readonly=False)]
    for fields in (
        {"root": tmp_path, "mounts": [Bind("/usr")]},
        {"root": Bind(tmp_path, readonly=False), "mounts": [Bind("/usr")]},
        {"mounts": mounted},
        {"mounts": [*mounted, Overlay("/mnt", lower=tmp_path / "usr"), ReadOnly("/mnt")]},
    ):
        for init in (False, True):
            with untouched(tmp_path):
                with running(
                    ["/bin/sleep", "1000"],
                    new="user pid mnt time uts",
                    proc=False,
                    oom_score_adj=321,
                    time_offsets={"boottime": 1234},
                    hostname="fake",
                    init=init,
                    **fields,
                ) as child:
                    pid = child.program_pid
                    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "321\n"
                    offsets = Path(f"/proc/{pid}/timens_offsets").read_text().split()
                    assert offsets[offsets.index("boottime") + 1] == "1234"
                    assert status(pid)["Uid"].split() == ["0"] * 4
                    lines = Path(f"/proc/{pid}/uid_map").read_text().split()
                    assert lines == ["0", "0", "1"]


def test_nothing_of_the_set_up_is_left_in_the_program(public: Path) -> None:
    """Its descriptors are its own, its directories lie inside."""
    simple_root(public)
    kept = os.open("/dev/null", os.O_RDONLY)
    try:
        for root in (public, Overlay(lower=public), Bind(public, readonly=False)):
            mounts = [Bind("/usr"), Dev("/tmp"), ReadOnly("/usr"), Mask("/usr/share")]
            with running(
                ["/bin/sleep", "1000"],
                new="user pid mnt",
                root=root,
                mounts=mounts if root is public else [*mounts, File("/made", "x")][:3],
                fd_map={4: kept},
            ) as child:
                table = open_fds(child.pid)
                assert sorted(table) == [0, 1, 2, 4], table
                assert os.readlink(f"/proc/{child.pid}/cwd") == "/"
                names = set(os.listdir(f"/proc/{child.pid}/root/"))
                assert "boot" not in names and {"usr", "proc"} <= names
    finally:
        os.close(kept)


def test_an_ordinary_user_and_the_files_of_others(public: Path) -> None:
    """Its user namespace gives it no more of the host's files than it has."""
    secret = public / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    (public / "closed").mkdir(mode=0o700)
    (public / "closed" / "file").write_text("x")
    (public / "target").touch()
    with untouched(public):
        as_user(
            """
            from nsext import Bind, Overlay, Tmpfs
            place = Path(sys.argv[1])
            new = "user pid mnt"
            for mounts in ([Bind(place / "secret", place / "target")], [Bind(place, "/mnt")]):
                told = nsext.run(
                    ["cat", place / "target", "/mnt/secret"],
                    new=new, mounts=mounts, capture_output=True, text=True,
                )
                assert told.returncode == 1 and not told.stdout, told
                assert "Permission denied" in told.stderr, told
            for mounts in (
                [Bind(place / "closed" / "file", "/mnt")],
                [Overlay("/mnt", lower=place / "closed" / "file")],
            ):
                error = failure(nsext.run, ["true"], new=new, mounts=mounts)
                assert (error.errno, error.stage) == (errno.EACCES, "setup"), error
            """,
            str(public),
        )


def test_the_guards_of_this_file_see_a_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for change in (
        lambda: (tmp_path / "new").mkdir(),
        lambda: os.utime(tmp_path / "file"),
        lambda: (tmp_path / "file").write_text("y"),
        lambda: os.chmod(tmp_path, 0o711),
    ):
        with pytest.raises(AssertionError), untouched(tmp_path):
            change()
    error = failure(nsext.run, [faults.noop()], new="pid mnt", mounts=[Bind("/nowhere", "/mnt")])
    assert error.path == "/nowhere"
