"""compile(): pure, and the one place where the order of the steps is decided."""

import os
import signal
import struct
import subprocess
import sys

import pytest
from support import native_spawn, script

import nsext
from nsext import CloneFlags, Sandbox, _native
from nsext._compile import compile
from nsext._describe import describe

EVERYTHING = Sandbox(
    new="all",
    uid_map="self",
    gid_map=100,
    hostname="box",
    domainname="example.org",
    time_offsets={"monotonic": 1.25, "boottime": -3},
    rlimits={"nofile": (10, 20), "core": 0},
    affinity=[0, 3],
    nice=5,
    cwd="/tmp",
    umask=0o22,
    start_new_session=True,
    process_group=0,
    env={"A": "1"},
)
RESET = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1

LAST = ["no_new_privs", "default_signals", "exec"]

GOLDEN = (
    ("setgroups_deny",),
    ("gid_map", 100),
    ("uid_map", -1),
    ("unshare", 0x80),
    ("time_offsets", b"boottime -3 0\nmonotonic 1 250000000\n"),
    ("hostname", b"box"),
    ("domainname", b"example.org"),
    ("loopback",),
    ("propagation", 1 << 18),
    ("mount_proc", b"/proc"),
    ("keyring", 0),
    ("fds",),
    ("setsid",),
    ("setpgid", 0),
    ("rlimit", 4, 0, 0),
    ("rlimit", 7, 10, 20),
    ("affinity", struct.pack("@L", 0b1001)),
    ("nice", 5),
    ("chdir", b"/tmp"),
    ("umask", 0o22),
    ("no_new_privs",),
    ("default_signals", RESET),
    ("exec",),
)


def test_golden_everything():
    compiled = compile(EVERYTHING)
    assert compiled.steps == GOLDEN
    assert compiled.clone_flags == sum(CloneFlags) - CloneFlags.NEWTIME
    assert (compiled.uid_map, compiled.gid_map) == (None, None)


def test_golden_nothing():
    compiled = compile(Sandbox())
    assert compiled.steps == (("fds",), ("default_signals", RESET), ("exec",))
    assert compiled.clone_flags == 0


def test_golden_ranges():
    box = Sandbox(new="user", uid_map=[(0, 100000, 10), (10, 0, 1)], gid_map=[(0, 5, 1)])
    compiled = compile(box)
    assert compiled.steps[0] == ("gate",)
    assert [step[0] for step in compiled.steps] == ["gate", "keyring", "fds", *LAST]
    assert compiled.uid_map == b"0 100000 10\n10 0 1\n"
    assert compiled.gid_map == b"0 5 1\n"


def test_golden_ranges_on_one_side():
    compiled = compile(Sandbox(new="user", uid_map=[(0, 5, 1)]))
    assert [step[0] for step in compiled.steps[:3]] == ["gate", "setgroups_deny", "gid_map"]
    compiled = compile(Sandbox(new="user", gid_map=[(0, 5, 1)]))
    assert [step[0] for step in compiled.steps[:2]] == ["gate", "uid_map"]


def test_golden_auto():
    """Its lines are found at the spawn."""
    compiled = compile(Sandbox(new="user", uid_map="auto", gid_map="auto", user=1))
    names = [step[0] for step in compiled.steps]
    assert names == ["gate", "keyring", "fds", "setgroups", "setuid", *LAST]
    assert compiled.uid_map is None and compiled.gid_map is None
    compiled = compile(Sandbox(new="user", uid_map="auto", gid_map="self"))
    assert compiled.steps[:3] == (("gate",), ("setgroups_deny",), ("gid_map", -1))


def test_golden_copy():
    """clone(entry) leaves descriptors alone, enters the time namespace itself and calls."""
    steps = compile(Sandbox(new="time"), True, "copy").steps
    expected = [("unshare", 0x80), ("enter_time",), ("default_signals", RESET), ("call",)]
    assert list(steps) == expected


def test_restore_signals():
    assert compile(Sandbox(), False).steps == (("fds",), ("default_signals", 0), ("exec",))


@pytest.mark.parametrize(
    "fields, names",
    [
        ({"new": "mnt"}, ["propagation"]),
        ({"new": "pid"}, []),
        ({"new": "pid mnt"}, ["propagation", "mount_proc"]),
        ({"new": "pid mnt", "proc": False}, ["propagation"]),
        ({"new": "mnt", "proc": True}, ["propagation", "mount_proc"]),
        ({"new": "mnt", "propagation": "unchanged"}, []),
        ({"new": "net"}, ["loopback"]),
        ({"new": "net", "loopback": True}, ["loopback"]),
        ({"new": "net", "loopback": False}, []),
        ({"new": "uts"}, []),
        ({"new": "time"}, ["unshare"]),
        (
            {"new": "user", "no_new_privs": False},
            ["setgroups_deny", "gid_map", "uid_map", "keyring"],
        ),
    ],
    ids=str,
)
def test_defaults(fields, names):
    found = [step[0] for step in compile(Sandbox(**fields)).steps]
    assert found == [*names, "fds", "default_signals", "exec"]
    if "no_new_privs" in fields:
        del fields["no_new_privs"]
        found = [step[0] for step in compile(Sandbox(**fields)).steps]
        assert found == [*names, "fds", *LAST]


def test_order_facts():
    """Each pair with its reason."""
    names = [step[0] for step in GOLDEN]
    for first, second in [
        ("setgroups_deny", "gid_map"),  # else EPERM for an ordinary user
        ("gid_map", "uid_map"),  # gids need a capability that a mapped uid may lose
        ("uid_map", "mount_proc"),  # without maps, O_CREAT is EOVERFLOW
        ("unshare", "time_offsets"),  # they are those of the new namespace
        ("propagation", "mount_proc"),  # else the host would see the mount
        ("fds", "chdir"),  # trap 39: closed for real before
        ("fds", "exec"),
        ("setsid", "setpgid"),
        ("chdir", "exec"),
        ("default_signals", "exec"),
    ]:
        assert names.index(first) < names.index(second), (first, second)


def test_every_step_is_known_to_c():
    for compiled in (compile(EVERYTHING), compile(Sandbox(new="all"), True, "copy")):
        for name, *args in compiled.steps:
            assert len(args) == len(_native.STEPS[name][1])
            assert describe((name, *args))


def test_same_description_same_steps():
    again = Sandbox(**{name: getattr(EVERYTHING, name) for name in ("new", "hostname", "nice")})
    assert compile(EVERYTHING) == compile(EVERYTHING.replace())
    assert compile(again) == compile(Sandbox(new="all", hostname="box", nice=5))


def test_pure():
    """No file is opened, nothing is imported or looked up: nothing that sys.audit() tells of."""
    script("""
    from nsext import Sandbox
    from nsext._compile import compile
    calls = []
    sys.addaudithook(lambda event, args: calls.append(event))
    box = Sandbox(new="all", hostname="x", rlimits={"core": 0}, cwd="/", uid_map=[(0, 0, 1)])
    compile(box)
    for name in ("open", "os.", "subprocess", "socket", "import"):
        assert not [event for event in calls if event.startswith(name)], calls
    """)


def test_no_system_call_at_all():
    """As strace sees it, between two marks."""
    strace = "/usr/bin/strace"
    if not os.path.exists(strace):
        pytest.skip("strace is not installed")
    code = """if True:
        import os
        from nsext import Sandbox
        from nsext._compile import compile
        def both():
            return compile(Sandbox(new="all", hostname="x", cwd="/", rlimits={"core": 0}))
        both()
        os.chdir("/.")
        both()
        os.chdir("/./.")
    """
    command = [strace, "-f", "-o", "/dev/stderr", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-1000:]
    between = done.stderr.split('chdir("/.")')[1].split('chdir("/./.")')[0].splitlines()[1:-1]
    memory = ("brk", "mmap", "munmap", "mremap", "madvise")
    assert [line for line in between if line.split()[1].split("(")[0] not in memory] == []


# ---- C believes nothing of it


def pack(*steps, flags=0, uid_map=None, gid_map=None):
    return _native.pack(flags, steps, uid_map, gid_map)


END = ("default_signals", 0), ("exec",)


@pytest.mark.parametrize(
    "steps, keywords",
    [
        ((), {}),
        ((("fds",),), {}),  # no end
        ((("exec",), ("fds",)), {}),  # an end that is none
        ((("exec",), ("exec",)), {}),
        (END, {"uid_map": b"0 0 1\n"}),  # maps that nobody waits for
        (((("fds",), ("gate",), *END)), {"uid_map": b"0 0 1\n"}),
        ((("nosuch",), *END), {}),
        ((("hostname",), *END), {}),
        ((("fds", 1), *END), {}),
        ((("hostname", b"a\0b"), *END), {}),
        (END, {"flags": 0x100}),  # CLONE_VM
        (END, {"flags": 0x80000000}),
        ((("fds",),) * 5000 + END, {}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_pack_refuses(steps, keywords):
    with pytest.raises(ValueError):
        pack(*steps, **keywords)


@pytest.mark.parametrize("steps", [("fds",), [("fds",)], None, (("hostname", "text"), *END), (1,)])
def test_pack_refuses_types(steps):
    with pytest.raises((TypeError, ValueError, SystemError)):
        _native.pack(0, steps, None, None)


def test_explain():
    box = nsext.Sandbox(new="user pid mnt", hostname=None, nice=5)
    assert box.explain(["ls", "-l"]).splitlines() == [
        "body: inline",
        "clone with new mnt user pid",
        "write 'deny' to /proc/self/setgroups",
        "map the own gid to 0 in /proc/self/gid_map",
        "map the own uid to 0 in /proc/self/uid_map",
        "make all mounts private",
        "mount proc on /proc",
        "join a new session keyring",
        "pass file descriptors",
        "set nice 5",
        "set no_new_privs",
        "reset signals",
        "exec ls -l",
    ]
    assert nsext.Sandbox(join=1).explain().startswith("body: helper\nclone\nstart the helper\njoin")
    assert nsext.Sandbox(join={"net": 1}).explain().splitlines()[:3] == [
        "body: inline",
        "clone",
        "join namespaces",
    ]


def test_spawn_refuses_what_pack_did_not_make():
    blob = pack(*END)
    for wrong in (b"", blob[:-1], blob + b"x", bytes(len(blob)), b"\xff" * len(blob)):
        with pytest.raises(ValueError):
            native_spawn(_native, wrong, None)


def test_spawn_refuses_every_damaged_blob_or_stays_sound():
    """Whatever one byte is changed to: refused, or a child whose end is known."""
    script(
        """
    from nsext import _native
    blob = _native.pack(0, (("hostname", b"x"), ("default_signals", 0), ("exec",)), None, None)
    refused = 0
    for at in range(0, len(blob)):
        damaged = bytearray(blob)
        damaged[at] ^= 0x7f
        if at in range(8, 12):
            continue  # other namespaces: not the matter here
        try:
            owner, failed = native_spawn(_native, bytes(damaged), 5.0)
        except ValueError:
            refused += 1
            continue
        if failed is None:
            _native.wait(owner._pidfd, None, owner)
            os.close(owner._pidfd)
    assert refused > 20, refused
    assert not children()
    """,
        new="user uts pid mnt",
    )


def test_a_gate_that_nobody_opens():
    """No maps, and nobody else to write them: an error, and no child that waits."""
    script(
        """
    from nsext import _native
    blob = _native.pack(0x10000000, (("gate",), ("default_signals", 0), ("exec",)), None, None)
    owner, failed = native_spawn(_native, blob, 5.0)
    assert failed[:4] == ("step", 0, errno.EINVAL, 4), failed
    assert not children()
    """,
        new="user pid mnt",
    )


def test_unknown_values_are_strict():
    with pytest.raises((TypeError, SystemError)):
        native_spawn(_native, pack(*END), None, fds=[(1, 1)])
    with pytest.raises(TypeError):
        nsext._native.pack()
