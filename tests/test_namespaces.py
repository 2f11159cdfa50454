"""Namespaces are new where asked for, the caller's where not, and set up as described."""

import itertools
import json
import os
import time

import pytest
from support import (
    DEADLINE,
    KINDS,
    as_user,
    ask,
    namespaces,
    needs,
    ns_id,
    python,
    running,
    script,
    sh,
    status,
)

import nsext
from nsext import CloneFlags

pytestmark = pytest.mark.usefixtures("root")

FLAGS = {
    "mnt": CloneFlags.NEWNS,
    "uts": CloneFlags.NEWUTS,
    "ipc": CloneFlags.NEWIPC,
    "user": CloneFlags.NEWUSER,
    "pid": CloneFlags.NEWPID,
    "net": CloneFlags.NEWNET,
    "cgroup": CloneFlags.NEWCGROUP,
    "time": CloneFlags.NEWTIME,
}


def made(**keywords):
    """The kinds in which a child differs from us."""
    with running(**keywords) as child:
        ours, its = namespaces(), namespaces(child.pid)
    return {kind for kind in KINDS if ours[kind] != its[kind]}


# ---- which ones are new


@pytest.mark.parametrize("start", [nsext.Popen, nsext.spawn])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone(kind, start):
    assert made(new=kind, start=start) == {kind}


def test_every_pair():
    for pair in itertools.combinations(KINDS, 2):
        assert made(new=pair) == set(pair)


def test_none_and_all():
    assert made() == set()
    assert made(new="all") == set(KINDS)
    assert made(new=" ".join(KINDS)) == set(KINDS)


@pytest.mark.parametrize(
    "form",
    [
        "uts ipc",
        "uts,ipc",
        " ipc ,  uts ",
        "uts uts ipc",
        ["uts", "ipc"],
        ("ipc", "uts"),
        {"uts", "ipc"},
        iter(["uts", "ipc"]),
        (kind for kind in ("uts", "ipc")),
        CloneFlags.NEWUTS | CloneFlags.NEWIPC,
        0x04000000 | 0x08000000,
    ],
    ids=lambda form: type(form).__name__,
)
def test_every_form_of_new(form):
    assert made(new=form) == {"uts", "ipc"}


@pytest.mark.parametrize("empty", ["", (), [], 0, CloneFlags(0)])
def test_every_form_of_nothing(empty):
    assert made(new=empty) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_each_flag_makes_its_kind(kind):
    assert made(new=FLAGS[kind]) == {kind}
    assert made(new=int(FLAGS[kind])) == {kind}


def test_two_children_have_two_namespaces():
    with running(new="all") as one, running(new="all") as other:
        for kind in KINDS:
            assert ns_id(kind, one.pid) != ns_id(kind, other.pid)


def test_a_namespace_ends_with_its_last_process():
    """What is left of it would be a leak: a pidfd or descriptor that still holds it."""
    with running(new="net") as child:
        inode = os.stat(f"/proc/{child.pid}/ns/net").st_ino
    alive = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            alive.add(os.stat(f"/proc/{pid}/ns/net").st_ino)
        except OSError:
            pass
    assert inode not in alive


# ---- pid


def test_pid_the_program_is_pid_1():
    assert sh("echo $$", new="pid mnt") == "1"
    with running(new="pid") as child:
        assert status(child.pid)["NSpid"].split() == [str(child.pid), "1"]


# ---- /proc


PROC_MOUNTS = "grep -c ' /proc ' /proc/self/mountinfo"


def test_proc_is_fresh_when_pid_and_mnt_are_new():
    assert sh("echo /proc/[0-9]*", new="pid mnt") == "/proc/1"


@pytest.mark.parametrize("new", ["mnt", "pid", "mnt uts", "pid uts ipc net"])
def test_proc_is_ours_otherwise(new):
    with running(new=new) as child:
        proc = os.stat("/proc").st_dev
        assert os.stat(f"/proc/{child.pid}/root/proc").st_dev == proc


def test_proc_false_leaves_ours():
    with nsext.Popen(["readlink", "/proc/self"], new="pid mnt", proc=False, stdout=-1) as child:
        assert int(child.stdout.read()) == child.pid


def test_proc_true_mounts_one_in_a_mount_namespace():
    ours = int(sh(PROC_MOUNTS))
    assert int(sh(PROC_MOUNTS, new="mnt")) == ours
    assert int(sh(PROC_MOUNTS, new="mnt", proc=True)) == ours + 1
    assert int(sh(PROC_MOUNTS, new="mnt pid")) == ours + 1


def test_fresh_proc_has_safe_flags():
    line = sh("grep ' /proc ' /proc/self/mountinfo | tail -n 1", new="pid mnt")
    assert {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))


# ---- mount propagation


def test_propagation_of_each_kind():
    """In a world whose mounts are shared: what each word does to a child's."""
    found = json.loads(
        script("""
        nsext.unshare("mnt")
        mount("none", "/", None, 0x104000)  # MS_SHARED | MS_REC
        result = {}
        for word in (None, "private", "slave", "shared", "unchanged"):
            with running(new="mnt", propagation=word) as child:
                lines = Path(f"/proc/{child.pid}/mountinfo").read_text().splitlines()
            fields = [line.split(" - ")[0].split()[6:] for line in lines]
            result[str(word)] = sorted({field.split(":")[0] for line in fields for field in line})
        print(json.dumps(result))
        """)
    )
    assert found == {
        "None": [],
        "private": [],
        "slave": ["master"],
        "shared": ["shared"],
        "unchanged": ["shared"],
    }


def test_propagation_decides_what_mounts_are_seen_where():
    found = json.loads(
        script("""
        nsext.unshare("mnt")
        mount("none", "/", None, 0x104000)
        place = tempfile.mkdtemp()
        result = {}
        for word in (None, "private", "slave", "shared", "unchanged"):
            sh(f"mount -t tmpfs inside {place}", new="mnt", propagation=word)
            seen_here = os.path.ismount(place)
            if seen_here:
                sh(f"umount {place}")
            with nsext.Popen(["sh", "-c", f"echo; read line; mountpoint -q {place}"], new="mnt",
                             propagation=word, stdin=-1, stdout=-1) as child:
                child.stdout.readline()
                mount("outside", place, "tmpfs")
                child.communicate(b"\\n")
                sh(f"umount {place}")
            result[str(word)] = [seen_here, child.returncode == 0]
        os.rmdir(place)
        print(json.dumps(result))
        """)
    )
    assert found == {
        "None": [False, False],
        "private": [False, False],
        "slave": [False, True],
        "shared": [True, True],
        "unchanged": [True, True],
    }


def test_host_mounts_stay(tmp_path):
    """The guard compares mountinfo; this makes sure that there was something to see."""
    command = f"mount -t tmpfs x {tmp_path} && touch {tmp_path}/inside && ls {tmp_path}"
    assert sh(command, new="mnt") == "inside"
    assert os.listdir(tmp_path) == []


# ---- uts


def test_hostname_and_domainname():
    before = os.uname()
    shown = sh(
        "uname -n; cat /proc/sys/kernel/domainname",
        new="uts",
        hostname="wasweb01",
        domainname="example.org",
    )
    assert shown.split() == ["wasweb01", "example.org"]
    assert os.uname() == before


@pytest.mark.parametrize("name", ["a" * 64, "x", "né"])
def test_hostnames_of_every_length(name):
    assert sh("uname -n", new="uts", hostname=name) == name


def test_new_uts_alone_keeps_the_name():
    assert sh("uname -n", new="uts") == os.uname().nodename


# ---- net

LOOPBACK = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    flags = fcntl.ioctl(sock, 0x8913, struct.pack("16sh14x", b"lo", 0))  # SIOCGIFFLAGS
    up = bool(struct.unpack_from("16sh", flags)[1] & 1)
with socket.socket() as server, socket.socket() as client:
    server.bind(("127.0.0.1" if up else "0.0.0.0", 0))
    server.listen()
    error = client.connect_ex(("127.0.0.1", server.getsockname()[1]))
print(json.dumps([up, error == 0, [name for _, name in socket.if_nameindex()]]))
"""


def test_loopback_is_up_in_a_new_net():
    up, connected, interfaces = ask(LOOPBACK, new="net")
    assert up and connected
    assert "lo" in interfaces and "eth0" not in interfaces
    assert ask(LOOPBACK, new="net", loopback=True)[:2] == [True, True]


def test_loopback_false_leaves_it_down():
    assert ask(LOOPBACK, new="net", loopback=False)[:2] == [False, False]


# ---- time

CLOCKS = """
text = open("/proc/self/timens_offsets").read().split()
clocks = [__import__("time").clock_gettime(clock) for clock in (1, 7)]  # MONOTONIC, BOOTTIME
print(json.dumps([text, float(open("/proc/uptime").read().split()[0]), *clocks]))
"""


@pytest.mark.parametrize("start", ["run", "spawn"])
@pytest.mark.parametrize(
    "boottime, monotonic", [(86400, 0), (0, 1000), (0.5, 7.25), (-1, -0.75), (-1.5, 10**6)]
)
def test_time_offsets(boottime, monotonic, start):
    needs(time.clock_gettime(time.CLOCK_MONOTONIC) > 10, "needs a machine that is up")
    offsets = {"boottime": boottime, "monotonic": monotonic}
    before = [time.clock_gettime(clock) for clock in (1, 7)]
    if start == "run":
        text, uptime, *clocks = ask(CLOCKS, new="time", time_offsets=offsets)
    else:
        text, uptime, *clocks = ask_by_spawn(CLOCKS, new="time", time_offsets=offsets)
    after = [time.clock_gettime(clock) for clock in (1, 7)]
    table = {name: int(seconds) + int(rest) / 1e9 for name, seconds, rest in zip(*[iter(text)] * 3)}
    assert table == offsets
    for low, shown, high, offset in zip(before, clocks, after, (monotonic, boottime)):
        assert low + offset <= shown <= high + offset
    assert before[1] + boottime - 0.02 <= uptime <= after[1] + boottime


def ask_by_spawn(code, **keywords):
    reader, writer = os.pipe()
    with open(reader) as file:
        with nsext.spawn(python("import json\n" + code), stdout=writer, **keywords) as child:
            os.close(writer)
            shown = json.load(file)
    assert child.wait(DEADLINE) == 0
    return shown


def test_new_time_without_offsets_has_none():
    text, *_ = ask(CLOCKS, new="time")
    assert text == ["monotonic", "0", "0", "boottime", "0", "0"]


def test_children_of_the_program_are_in_its_time_namespace():
    new = sh("readlink /proc/self/ns/time /proc/self/ns/time_for_children", new="time").split()
    assert len(set(new)) == 1 and new[0] != ns_id("time")


# ---- as an ordinary user


def test_unprivileged_each_kind_with_user():
    as_user("""
    for kind in (*KINDS, " ".join(KINDS)):
        wanted = {"user", *kind.split()}
        with running(new="user " + kind) as child:
            ours, its = namespaces(), namespaces(child.pid)
        assert {kind for kind in KINDS if ours[kind] != its[kind]} == wanted, kind
    """)


def test_unprivileged_set_up():
    """Everything that root can have set up, an ordinary user has in a user namespace."""
    shown = as_user("""
    print(sh("id -u; echo $$; uname -n; cat /proc/sys/kernel/domainname; echo /proc/[0-9]*; "
             "cat /proc/self/timens_offsets; grep -c 'shared:' /proc/self/mountinfo; "
             "cat /proc/net/dev | grep -c lo:",
             new="all", hostname="box", domainname="example.org",
             time_offsets={"boottime": 3600}, propagation="private"))
    """)
    clocks = "monotonic 0 0 boottime 3600 0"
    assert shown.split() == f"0 1 box example.org /proc/1 {clocks} 0 1".split()


def test_unprivileged_loopback():
    up, connected, _ = json.loads(
        as_user(f"""
        print(json.dumps(ask({LOOPBACK!r}, new="user net")))
        """)
    )
    assert up and connected


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "user"])
def test_unprivileged_without_user_is_refused_with_a_hint(kind):
    as_user(f"""
    before = state()
    error = failure(nsext.run, ["true"], new={kind!r})
    assert is_plain(error), repr(error)
    assert error.errno == errno.EPERM
    assert error.stage == ("setup" if {kind!r} == "time" else "clone"), error.stage
    assert error.hint and "user" in error.hint and "new=" in error.hint, error.hint
    assert not changes(before, state())
    """)
