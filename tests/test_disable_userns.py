"""disable_userns=: the program can make no user namespace, whatever it is and has."""

import pytest
from support import as_user, ask, id_map, needs_root, ns_id, output, running, script, sh, status

import nsext

BOX = {"new": "user pid mnt uts net", "disable_userns": True}
RANGES = {"uid_map": [(0, 100000, 65536)], "gid_map": [(0, 100000, 65536)]}
CAPABLE = ["sys_admin", "sys_resource", "setuid", "dac_override"]
OWN = {"uid_map": [(0, 0, 1), (1, 100000, 10)], "gid_map": [(0, 0, 5)]}
SHAPES = {
    "root": {},
    "self": {"uid_map": "self", "gid_map": "self"},
    "another": {"uid_map": 1000, "gid_map": 1000},
    "ranges": OWN,
    "user": {**OWN, "user": 7, "ambient": CAPABLE},
    "everything": {"uid_map": "auto", "gid_map": "auto"},
    "init": {"init": True, "kill_on_parent_exit": True},
    "alone": {"new": "user"},
    "all": {"new": "all", "init": True},
}

# What a root of the namespace can try.  Each user is counted apart, so others try as well.
HOSTILE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
NEWUSER = 0x10000000

def result(value):
    return value if value >= 0 else -ctypes.get_errno()

def attempts():
    said = [result(libc.unshare(NEWUSER)), result(libc.unshare(NEWUSER | 0x20000))]
    pid = os.fork()
    if not pid:
        os._exit(-result(libc.unshare(NEWUSER)))
    said.append(-os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return said

def raise_limit():
    try:
        with open("/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("1000000")
        return True
    except OSError:
        return False

found = {"first": attempts(), "raised": raise_limit(), "then": attempts()}
own = os.open("/proc/self/ns/user", os.O_RDONLY)
found["parent"] = result(libc.ioctl(own, 0xB702))  # NS_GET_PARENT
found["uid"] = os.getuid()
found["uids"] = open("/proc/self/uid_map").read().split()
found["others"] = []
for uid in (1, 5):
    pid = os.fork()
    if not pid:
        try:
            os.setresuid(uid, uid, uid)
        except OSError:
            os._exit(0)
        os._exit(all(number == -28 for number in attempts()) and 28)
    found["others"].append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(found))
"""


@pytest.fixture
def root():
    needs_root()


@pytest.mark.parametrize("shape", SHAPES)
def test_no_root_can_undo_it(shape, root):
    found = ask(HOSTILE, **{**BOX, **SHAPES[shape]}, cwd="/")
    nobody = [-28] * 3  # ENOSPC
    assert found["first"] == found["then"] == nobody, found
    capable = found["uid"] == 0 or shape == "user"
    assert found["raised"] == capable  # its own namespace's, which is of no use
    assert found["parent"] == -1  # EPERM: it is not its to see
    several = "uid_map" in SHAPES[shape] and found["uids"] != ["0", "0", "1"] and capable
    assert found["others"] == ([28, 28] if several else [0, 0]), found


def test_where_the_maps_lack_the_own_ids(root):
    command = (
        "echo 99 > /proc/sys/user/max_user_namespaces; unshare -U true; unshare -Ur true; id -u"
    )
    done = nsext.run(["/bin/sh", "-c", command], **BOX, **RANGES, capture_output=True, cwd="/")
    assert done.stdout == b"0\n" and done.stderr.count(b"No space left") == 2, done


def test_as_user():
    as_user("""
    for keywords in ({}, {"init": True}, {"uid_map": "self"}, {"new": "all"}):
        keywords = {"new": "user pid mnt", "disable_userns": True, **keywords}
        with running(**keywords) as child:
            assert status(child.pid)["Uid"].split() == ["12345"] * 4
        done = nsext.run(["unshare", "-U", "true"], **keywords, capture_output=True, text=True)
        assert done.returncode == 1 and "No space left" in done.stderr, done
    """)


def test_the_namespaces_are_its_own(root):
    """All others belong to the inner user namespace, so that its root has power over them."""
    with running(**BOX) as child, nsext.Namespace.of(child, "user") as inner:
        for kind in ("pid", "mnt", "uts", "net"):
            with nsext.Namespace.of(child, kind) as other, other.user_namespace() as owner:
                assert owner == inner
        with inner.parent() as outer, outer.parent() as ours:
            assert str(ours.id) in ns_id("user") and outer != inner
    command = "hostname inside; mount -t tmpfs none /mnt; ip link add name d0 type dummy; hostname"
    assert sh(command, **BOX).split() == ["inside"]
    assert sh("unshare -m echo yes", **BOX) == "yes"


def test_ids_and_privileges_are_as_without_it(root):
    for keywords in (
        {},
        {"uid_map": "self"},
        {"uid_map": 1000, "gid_map": 7},
        {"uid_map": [(0, 0, 5), (7, 10, 3)], "gid_map": [(0, 0, 3)], "user": 8, "group": 2},
        {"capabilities": ["net_admin"], "uid_map": "self"},
        {**RANGES, "user": 5, "group": 6, "extra_groups": [1, 2], "capabilities": ["kill"]},
        {"init": True, "no_new_privs": False, "seccomp": "default", "oom_score_adj": 100},
    ):
        facts = []
        for more in ({}, {"disable_userns": True}):
            with running(new="user pid mnt", **keywords, **more) as child:
                pid = child.program_pid
                own = status(pid)
                names = "Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp"
                fact = {name: own[name] for name in names.split()}
                fact["setgroups"] = open(f"/proc/{pid}/setgroups").read()
                fact["maps"] = open(f"/proc/{pid}/uid_map").read()
                fact["oom"] = open(f"/proc/{pid}/oom_score_adj").read()
            facts.append(fact)
        assert facts[0] == facts[1], keywords


def test_every_way_to_spawn(root, tmp_path):
    with nsext.Popen(["true"], **BOX, paused=True) as child:
        assert status(child.pid)["Uid"].split()[0] == "0"
        assert child.namespaces["net"].id != nsext.namespaces()["net"].id
        child.resume()
    done = nsext.run(["unshare", "-U", "true"], **BOX, cpu_time_limit=10, stderr=-3)
    assert done.verdict == "nonzero"
    assert nsext.spawn(["true"], **BOX, hostname="x").wait() == 0
    box = nsext.Sandbox(**BOX, root=nsext.Tmpfs(), mounts=nsext.hostlike(), init=True)
    assert output(["id", "-u"], sandbox=nsext.Sandbox.from_toml(box.to_toml())) == "0"
    assert "user.max" not in box.explain() and "max_user_namespaces" in box.explain()
    with nsext.Popen(["sleep", "1000"], **BOX, cgroup=nsext.Cgroup()) as child:
        assert child.cgroup.path.split("/")[-1] in open(f"/proc/{child.pid}/cgroup").read()
        child.kill()
    with nsext.Popen(["sleep", "1000"], **BOX, **RANGES, cgroup=nsext.Cgroup()) as child:
        assert child.cgroup.path.split("/")[-1] in open(f"/proc/{child.pid}/cgroup").read()
        child.kill()


@pytest.mark.parametrize("maps", [{}, RANGES, OWN, SHAPES["everything"]], ids=str)
@pytest.mark.parametrize("joined", ["net", "pid", "net uts ipc time", "mnt"])
def test_with_what_is_joined(joined, maps, root):
    """That is entered first, and is not the program's; what is new is."""
    new = "user uts mnt" if joined == "net" else "user cgroup"
    command = "unshare -U true; cat"
    with running(new="net uts ipc time pid mnt") as other:
        keywords = {"new": new, **maps, "disable_userns": True, "join": {joined: other}}
        args = ["/bin/sh", "-c", command]
        with nsext.Popen(args, **keywords, cwd="/", stdin=-1, stderr=-1) as child:
            assert b"No space left" in child.stderr.readline()
            for kind in joined.split():
                assert ns_id(kind, child.pid) == ns_id(kind, other.pid)
            inner = [(inside, count) for inside, _, count in id_map("uid_map", child.pid)]
            lines = maps.get("uid_map", [(0, 0, 1)])
            assert lines == "auto" or inner == [(inside, count) for inside, _, count in lines]
            with nsext.Namespace.of(child, new.split()[1]) as made, made.user_namespace() as owner:
                with nsext.Namespace.of(child, "user") as user:
                    assert owner == user


def test_with_what_is_joined_in_other_ways(root):
    with running(new="net pid") as other:
        keywords = {"new": "user mnt", "disable_userns": True, "join": {"net pid": other}}
        with nsext.Popen(["true"], **keywords, init=True, paused=True, **OWN) as child:
            assert ns_id("net", child.pid) == ns_id("net", other.pid)
            child.resume()
        with nsext.Popen(["true"], **keywords, cgroup=nsext.Cgroup(), **RANGES) as child:
            assert child.wait() == 0
        for more in ({"uid_map": "auto"}, {"cpu_time_limit": 9}, {"spawn_timeout": 20}):
            assert nsext.run(["true"], **keywords, **more).returncode == 0
        box = nsext.Sandbox.untrusted(
            new="user pid mnt uts ipc", join={"net": other}, loopback=None
        )
        assert box.run(["true"]).returncode == 0


@pytest.mark.parametrize("fields", [{"disable_userns": True}, {"join": "uts"}], ids=str)
def test_an_init_ends_as_its_program_does(fields, root):
    """Behind a second clone it has never executed anything, and still the program has run.

    With a filter the parent looks at that, and may come when both have ended.
    """
    with running(new="uts") as other:
        joined = {"join": {fields["join"]: other}} if "join" in fields else fields
        box = nsext.Sandbox(new="user pid", init=True, seccomp="default", **joined)
        for _ in range(300):
            assert nsext.spawn(["/bin/true"], sandbox=box).wait() == 0


def test_many_lines(root):
    """As many as there can be, each of them wide."""
    lines = [(10 * n, 4 * 10**9 + 2 * n, 2) for n in range(100)]
    with running(new="user", disable_userns=True, uid_map=lines, gid_map=[(0, 0, 1)]) as child:
        assert open(f"/proc/{child.pid}/uid_map").read().split()[:3] == ["0", str(4 * 10**9), "2"]
    lines = [(n, n, 1) for n in range(340)]
    assert sh("id -u", new="user", disable_userns=True, uid_map=lines, gid_map=lines) == "0"


def test_untrusted(root):
    """The filter refuses it first; without a filter it is the limit."""
    box = nsext.Sandbox.untrusted()
    assert box.disable_userns
    for more, words in (({}, b"not permitted"), ({"seccomp": None}, b"No space left")):
        done = box.run(["unshare", "-U", "true"], capture_output=True, **more)
        assert done.returncode == 1 and words in done.stderr, done


def test_room_for_one_only(root):
    """The second one is refused by a limit of the caller's; nothing is left, time and again."""
    script(
        """
    Path("/proc/sys/user/max_user_namespaces").write_text("1")
    end = time.monotonic() + 30
    for _ in range(20):
        error = failure(nsext.run, ["true"], new="user", disable_userns=True)
        while error.step == "clone":  # the kernel counts one for a moment after its end
            assert time.monotonic() < end, error
            error = failure(nsext.run, ["true"], new="user", disable_userns=True)
        assert (error.errno, error.step) == (errno.ENOSPC, "clone again with new user"), error
        assert "limit" in error.hint
    assert not children()
    """,
        new="user pid mnt",
    )


def test_refused_before_any_clone():
    with pytest.raises(ValueError, match="add 'user' to new="):
        nsext.Sandbox(new="pid", disable_userns=True)
    with pytest.raises(ValueError, match="is for programs"):
        nsext.clone(1 << 20, new="user", disable_userns=True)
