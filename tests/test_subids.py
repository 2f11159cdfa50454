"""uid_map="auto", and maps of more than the own id: subuid(5), newuidmap(1).

/etc is not changed: each test's script has a mount namespace in which other files lie on top.
"""

import os

import pytest
from support import GID, UID, id_map, needs, ns_id, running, script

from nsext import _idmaps, _subids
from nsext._limits import LimitedPopen

pytestmark = pytest.mark.usefixtures("root")

# What becomes of /etc; then as_user() finds a user with a name and ranges.
ETC = f"""
    own_mounts()
    mount("tmpfs", "/mnt", "tmpfs", 0, "mode=0755")
    def put(path, text, mode=0o644):
        place = Path("/mnt", path.strip("/").replace("/", "-"))
        fresh = not place.exists()
        place.write_text(text)
        place.chmod(mode)
        if fresh:
            mount(str(place), path, None, 0x1000)  # MS_BIND
        return place
    put("/etc/passwd", Path("/etc/passwd").read_text() + "anna:x:{UID}:{GID}::/:/bin/sh\\n")
    put("/etc/subuid", "else:1:2\\nanna:100000:65536\\n")
    put("/etc/subgid", "anna:200000:65536\\n")
    os.environ["PATH"] = f"/mnt/bin:{{os.environ['PATH']}}"
    def fake(text, place="/mnt/bin"):
        # Set-user-ID of a script is ignored: it runs as the user.
        Path(place).mkdir()
        Path(place, "newuidmap").write_text("#!/bin/sh\\n" + text)
        Path(place, "newuidmap").chmod(0o4755)
    def user(code):
        print(as_user(code, uid={UID}, gid={GID}))
"""

AUTO = {"new": "user", "uid_map": "auto", "gid_map": "auto"}


@pytest.fixture(scope="module", autouse=True)
def tools():
    """Both programs, with their bits."""
    for which in ("uid", "gid"):
        path = _subids._find(f"new{which}map")
        needs(path and _subids._has_privileges(path), "needs newuidmap(1): apt install uidmap")
        needs(os.path.exists(_subids.file_of(which)), f"needs a {_subids.file_of(which)}")


def with_etc(code):
    """What a script prints, in which /etc is as above."""
    return script(ETC + code)


def by_user(code, etc=""):
    """The same, by anna.  etc: what is done before, as root."""
    return with_etc(f"    {etc}\n    user({code!r})\n")


# ---- as an ordinary user


def test_auto_is_root_and_all_of_the_ranges():
    """The kernel's maps; files of inner ids belong to ids of the range."""
    by_user("""
    import tempfile
    uids, gids = [(0, 12345, 1), (1, 100000, 65536)], [(0, 23456, 1), (1, 200000, 65536)]
    for keywords in ({}, {"init": True}, {"start": nsext.spawn}, {"new": "user pid mnt uts"}):
        keywords = {"new": "user", "uid_map": "auto", "gid_map": "auto", **keywords}
        with running(**keywords) as child:
            assert id_map("uid_map", child.pid) == uids
            assert id_map("gid_map", child.pid) == gids
            assert Path(f"/proc/{child.pid}/setgroups").read_text() == "allow\\n"
            assert status(child.pid)["Uid"].split() == ["12345"] * 4
    assert nsext.check(())["id_ranges"].ok
    keywords = {"new": "user", "uid_map": "auto", "gid_map": "auto"}
    for uid in (1, 1000, 65535, 65536):
        with running(**keywords, user=uid, group=uid, extra_groups=[7]) as child:
            assert status(child.pid)["Uid"].split() == [str(99999 + uid)] * 4
            assert status(child.pid)["Gid"].split() == [str(199999 + uid)] * 4
            assert status(child.pid)["Groups"].split() == ["200006"]
    with tempfile.TemporaryDirectory() as place:
        sh(f"touch {place}/a {place}/b; chown 1000:65536 {place}/b; ls -n {place}", **keywords)
        owner = os.stat(place + "/a")
        assert (owner.st_uid, owner.st_gid) == (12345, 23456)
        owner = os.stat(place + "/b")
        assert (owner.st_uid, owner.st_gid) == (100999, 265535)
        sh(f"rm {place}/b", **keywords)
    """)


def test_several_ranges_by_name_and_number():
    """In their order; what stands there twice counts once, what is no range not at all."""
    by_user(
        """
    with running(new="user", uid_map="auto") as child:
        assert id_map("uid_map", child.pid) == [
            (0, 12345, 1), (1, 300000, 10), (11, 200000, 5), (16, 200005, 1)
        ]
        assert id_map("gid_map", child.pid) == [(0, 23456, 1)]
        assert Path(f"/proc/{child.pid}/setgroups").read_text() == "deny\\n"
    """,
        r'put("/etc/subuid", "anna:300000:10\n\nanna:x:1\nanna:7\nbert:1:9\n12345:200000:5\n'
        r'12345:300000:10\nanna:200005:1\nanna:5:0\n")',
    )


def test_lines_that_newuidmap_permits():
    by_user("""
    lines = [(0, 12345, 1), (1, 100000, 65536)]
    with running(new="user", uid_map=lines) as child:
        assert id_map("uid_map", child.pid) == lines
        assert id_map("gid_map", child.pid) == [(0, 23456, 1)]
    lines = [(1000, 200010, 5)]
    with running(new="user", uid_map="self", gid_map=lines) as child:
        assert id_map("uid_map", child.pid) == [(12345, 12345, 1)]
        assert id_map("gid_map", child.pid) == lines
    # One's own id needs nobody.
    os.environ["PATH"] = "/bin/none"
    with running(["/bin/sleep", "1000"], new="user", uid_map=[(5, 12345, 1)]) as child:
        assert id_map("uid_map", child.pid) == [(5, 12345, 1)]
    """)


def test_every_way_to_spawn():
    """Paused, in a root of its own, from a thread, asynchronously, from the command line, text."""
    by_user("""
    import asyncio
    keywords = {"new": "user pid mnt", "uid_map": "auto", "gid_map": "auto"}
    uids = [(0, 12345, 1), (1, 100000, 65536)]
    with nsext.Popen(["true"], **keywords, paused=True) as child:
        assert id_map("uid_map", child.pid) == uids
        child.resume()
    root = nsext.Sandbox(**keywords, root=nsext.Tmpfs(), mounts=nsext.hostlike(), user=1000)
    assert sh("id -u", sandbox=nsext.Sandbox.from_toml(root.to_toml())) == "1000"
    assert "write the id maps" in root.explain()
    found = []
    def one():
        found.append(sh("cat /proc/self/uid_map | wc -l", **keywords))
    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["2"] * 4
    async def many():
        box = nsext.Sandbox(**keywords)
        started = [box.create_subprocess_exec("sleep", "1000") for _ in range(4)]
        for child in await asyncio.gather(*started):
            async with child:
                assert id_map("uid_map", child.pid) == uids
    asyncio.run(many())
    args = [sys.executable, "-m", "nsext", "run", "--new", "user", "--uid-map", "auto"]
    assert subprocess.check_output([*args, "--", "id", "-u"]) == b"0\\n"
    """)


def test_with_no_more_user_namespaces():
    """The outer one gets the ranges, the inner one the same ids."""
    by_user("""
    keywords = {"new": "user pid mnt", "uid_map": "auto", "gid_map": "auto"}
    for more in ({}, {"user": 1000, "group": 5}, {"init": True}):
        with running(**keywords, **more, disable_userns=True) as child:
            assert id_map("uid_map", child.pid) == [(0, 12345, 1), (1, 100000, 65536)]
            own = status(child.program_pid)["Uid"].split()
            assert own == (["100999"] if "user" in more else ["12345"]) * 4
    done = nsext.run(["unshare", "-U", "true"], **keywords, disable_userns=True, stderr=-1)
    assert b"No space left" in done.stderr
    """)


def test_clone_of_an_entry():
    with_etc(
        """
    from nsext import _native
    libc = ctypes.CDLL(None)
    ids = (0, 100005, 0)
    """
        + """
    user('''
    libc = ctypes.CDLL(None)
    child = nsext.clone(libc.pause, new="user", uid_map="auto", gid_map="auto")
    assert id_map("uid_map", child.pid) == [(0, 12345, 1), (1, 100000, 65536)]
    child.kill()
    child.wait()
    ''')
    """
    )


# ---- what is known to fail, before there is a child


def refused(code, etc, *words, number="EPERM", keywords=AUTO):
    """The error of a spawn by anna has all these words."""
    text = by_user(
        f"""
    {code}
    before = state()
    error = failure(nsext.run, ["true"], **{keywords})
    assert is_plain(error) and error.stage == "idmap" and error.errno == errno.{number}, repr(error)
    assert not changes(before, state())
    print(error)
    finding = nsext.check(())["id_ranges"]
    assert {keywords != AUTO} or not finding and str(error.hint).endswith(finding.remedy or ""), finding
    """,
        etc,
    )
    for word in words:
        assert word in text, text


def test_missing_range():
    refused(
        "",
        r'put("/etc/subuid", "bert:100000:65536\n")',
        "anna has no range in /etc/subuid",
        "usermod --add-subuids 165536-231071 anna, or the line anna:165536:65536 in /etc/subuid",
    )


def test_missing_range_of_groups():
    refused("", 'put("/etc/subgid", "")', "map gids by newgidmap", "--add-subgids 100000-165535")


def test_missing_ranges_of_both():
    """One command mends it."""
    refused(
        "",
        'put("/etc/subgid", ""); put("/etc/subuid", "")',
        "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 anna, or the line "
        "anna:100000:65536 in /etc/subuid and the line anna:100000:65536 in /etc/subgid",
    )


def test_ranges_by_another_service():
    refused(
        "",
        r'put("/etc/subuid", ""); put("/etc/nsswitch.conf", "subid: sss\n")',
        "/etc/nsswitch.conf has subid: sss",
        "uid_map=[(0, 12345, 1), (1, FIRST, COUNT)]",
    )


@pytest.mark.parametrize(
    "lines, words",
    [
        (r"anna:10000:65536\n", "the range 10000:65536 overlaps with the own id"),
        (r"anna:12345:2\n", "the range 12345:2 overlaps with the own id"),
        (r"anna:100000:10\nanna:100009:10\n", "the range 100009:10 overlaps with another"),
    ],
)
def test_ranges_that_overlap(lines, words):
    refused("", f'put("/etc/subuid", "{lines}")', words, number="EINVAL")


def test_missing_program():
    refused(
        'os.environ["PATH"] = "/bin/none"',
        "",
        "newgidmap is not installed",
        "apt install uidmap",
        number="ENOENT",
    )


def test_program_without_its_bit():
    etc = 'fake(""); Path("/mnt/bin/newuidmap").chmod(0o755)'
    refused(
        "", etc, "/mnt/bin/newuidmap is neither setuid root nor", "chmod u+s /mnt/bin/newuidmap"
    )


def test_program_by_a_file_capability():
    """In place of the bit."""
    by_user(
        """
    with running(new="user", uid_map="auto") as child:
        assert id_map("uid_map", child.pid) == [(0, 12345, 1), (1, 100000, 65536)]
    """,
        """
    import shutil
    for which, bit in (("uid", 7), ("gid", 6)):
        shutil.copy(shutil.which(f"new{which}map"), "/mnt")
        raw = [0x02000001, 1 << bit, 0, 0, 0]  # VFS_CAP_REVISION_2, effective
        data = b"".join(number.to_bytes(4, "little") for number in raw)
        os.chmod(f"/mnt/new{which}map", 0o755)
        os.setxattr(f"/mnt/new{which}map", "security.capability", data)
    os.environ["PATH"] = f"/mnt:{os.environ['PATH']}"
    """,
    )


def test_program_on_a_nosuid_mount():
    etc = 'fake(""); mount("none", "/mnt", None, 0x22)'  # MS_REMOUNT | MS_NOSUID
    refused("", etc, "/mnt/bin/newuidmap gets no privileges: its file system is mounted nosuid")


def test_no_new_privs():
    refused("ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)", "", "no_new_privs is set")


def test_user_without_a_name():
    refused(
        "",
        r'put("/etc/passwd", ""); put("/etc/subuid", "12345:100000:65536\n");'
        r' put("/etc/subgid", "12345:100000:65536\n")',
        "uid 12345 has no name in /etc/passwd",
    )


@pytest.mark.parametrize("line", [(0, 165535, 2), (0, 12345, 2), (0, 0, 1), (5, 99999, 1)])
def test_lines_that_nobody_permits(line):
    refused(
        "",
        "",
        f"{line[1]} to {line[1] + line[2] - 1} are not all in a range of anna in /etc/subuid",
        keywords={"new": "user", "uid_map": [line]},
    )


# ---- what fails later


def test_what_newuidmap_says():
    refused(
        "",
        'fake("echo no luck >&2; exit 3\\n")',
        "/proc/PID/uid_map by /mnt/bin/newuidmap: no luck",
    )


def test_asyncio_hears_of_it():
    """In a later turn of the loop."""
    by_user(
        """
    import asyncio
    async def main():
        await nsext.create_subprocess_exec("true", stdout=-1, new="user", uid_map="auto")
    asyncio.run(asyncio.sleep(0))
    before = state()
    error = failure(asyncio.run, main())
    assert is_plain(error) and error.stage == "idmap" and "no luck" in str(error), repr(error)
    assert not changes(before, state())
    """,
        'fake("sleep 0.1; echo no luck >&2; exit 3\\n")',
    )


def test_newuidmap_that_says_nothing():
    """Its exit status alone is not believed: the kernel's map is looked at."""
    refused("", 'fake("exit 0\\n")', "uid_map by /mnt/bin/newuidmap: it ended with 0")
    refused("", 'fake("exit 3\\n")', "uid_map by /mnt/bin/newuidmap: it ended with 3")


def test_the_real_one_refuses():
    """What only newuidmap knows: its own words."""
    refused(
        "",
        r'put("/etc/nsswitch.conf", "subid: files nix\n"); put("/etc/subuid", "anna:5:1\n")',
        "by /usr/bin/newuidmap: newuidmap: ",
        keywords={"new": "user", "uid_map": [(0, 100000, 2)]},
    )


def test_child_that_dies_meanwhile():
    by_user(
        """
    before = state()
    error = failure(nsext.run, ["true"], new="user", uid_map="auto")
    assert error.errno == errno.ECHILD and "SIGKILL" in str(error), error
    assert not changes(before, state())
    """,
        'fake("kill -9 $1; exit 1\\n")',
    )


def test_deadline_while_it_hangs():
    by_user(
        """
    before = state()
    for options in ({"spawn_timeout": 0.3}, {"timeout": 0.3}):
        try:
            nsext.run(["true"], new="user", uid_map="auto", **options)
        except nsext.SpawnTimeout as error:
            assert error.stage == "idmap" and error.step == "write the id maps", error
        else:
            raise AssertionError
        assert not changes(before, state())
    """,
        'fake("exec sleep 1000\\n")',
    )


def test_interrupt_while_it_hangs():
    by_user(
        """
    before = state()
    try:
        nsext.run(["true"], new="user", uid_map="auto")
    except KeyboardInterrupt:
        assert not changes(before, state())
    else:
        raise AssertionError
    """,
        'fake("kill -INT $PPID; exec sleep 1000\\n")',
    )


def test_asyncio_while_it_hangs():
    """The loop goes on; cancelled, nothing is left.  And one that is slow is waited for."""
    by_user(
        """
    import asyncio
    ours = before = None
    async def main():
        global ours
        task = asyncio.ensure_future(
            nsext.create_subprocess_exec("true", new="user", uid_map="auto")
        )
        turns = 0
        while not (ours := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[1:]):
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            raise AssertionError
    before = state()
    asyncio.run(main())
    assert not changes(before, state())
    assert not children()
    async def slow():
        os.environ["PATH"] = os.environ["PATH"].replace("/mnt/bin", "/mnt/slow")
        child = await nsext.create_subprocess_exec("sleep", "1000", new="user", uid_map="auto")
        async with child:
            assert id_map("uid_map", child.pid) == [(0, 12345, 1), (1, 100000, 65536)]
    asyncio.run(slow())
    """,
        """
    fake("exec sleep 1000\\n")
    fake("sleep 0.2; exec /usr/bin/newuidmap $@\\n", place="/mnt/slow")
    """,
    )


# ---- with capabilities


def test_root_has_all_that_it_may_map():
    whole = [(0, 0, 2**32 - 1)]
    with running(**AUTO) as child:
        assert id_map("uid_map", child.pid) == id_map("gid_map", child.pid) == whole
    keywords = {"new": "user mnt pid", "uid_map": [(0, 0, 500), (1000, 200000, 9)]}
    keywords["gid_map"] = [(0, 0, 700)]
    inside = """
    with running(new="user", uid_map="auto", gid_map="auto") as child:
        print(id_map("uid_map", child.pid), id_map("gid_map", child.pid))
    """
    assert script(inside, **keywords) == "[(0, 0, 500), (1000, 1000, 9)] [(0, 0, 700)]"


def test_behind_a_second_clone():
    """Which joins and measurements ask for: then the gate is that one's."""
    whole = [(0, 0, 2**32 - 1)]
    with running(new="net") as other:
        with running(**AUTO, join={"net": other}) as child:
            assert id_map("uid_map", child.pid) == id_map("gid_map", child.pid) == whole
            assert ns_id("net", child.pid) == ns_id("net", other.pid)
    keywords = {**AUTO, "new": "user pid", "init": True, "cpu_limit": None}
    with running(start=LimitedPopen, **keywords) as child:
        assert id_map("uid_map", child.program_pid) == whole


def test_another_id_with_capabilities():
    """It is 0 inside, and who had that id before is nobody."""
    inside = """
    with running(new="user", uid_map="auto", gid_map="auto") as child:
        print(id_map("uid_map", child.pid), id_map("gid_map", child.pid))
    """
    ids = {"user": 1000, "group": 7, "extra_groups": (), "capabilities": "all"}
    rest = 2**32 - 1
    uids = [(0, 1000, 1), (1, 1, 999), (1001, 1001, rest - 1001)]
    gids = [(0, 7, 1), (1, 1, 6), (8, 8, rest - 8)]
    assert script(inside, **ids) == f"{uids} {gids}"


def test_everything_in_parts(monkeypatch):
    """Of a user namespace with gaps."""
    lines = "0 5 1\n3 9 4\n10 90 1\n"
    monkeypatch.setattr(_idmaps, "read", lambda path: lines)
    for own, expected in {
        0: [(0, 0, 1), (3, 3, 4), (10, 10, 1)],
        3: [(0, 3, 1), (4, 4, 3), (10, 10, 1)],
        5: [(0, 5, 1), (3, 3, 2), (6, 6, 1), (10, 10, 1)],
        10: [(0, 10, 1), (3, 3, 4)],
    }.items():
        monkeypatch.setattr(_idmaps, "_own", lambda which, own=own: own)
        assert _idmaps._everything("uid") == expected


def test_as_many_lines_as_the_kernel_takes():
    lines = [(n, 10 * n, 1) for n in range(400)]
    assert len(_idmaps._fitting(lines)) == 340
    lines = [(10**9 + n, 2 * 10**9 + n, 10**9) for n in range(400)]
    fitting = _idmaps._fitting(lines)
    assert len(_idmaps._text(fitting)) < os.sysconf("SC_PAGESIZE")
