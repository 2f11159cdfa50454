"""Which body for what, and that both do the same: the facts of a program under each of them."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from helping import running_helper, talking
from support import (
    DEADLINE,
    KINDS,
    as_user,
    id_map,
    namespaces,
    ns_id,
    script,
    stat_field,
    status,
)

import nsext
from nsext._compile import body_of
from nsext._flags import parse_kinds

# ---- the rule ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, paused, joined, body",
    [
        ({}, False, "", "inline"),
        ({"new": "all", "hostname": "h", "nice": 1, "umask": 0}, False, "", "inline"),
        ({"new": "user", "uid_map": [(0, 0, 10)]}, False, "", "inline"),
        ({"start_new_session": True, "cwd": "/", "rlimits": {"core": 0}}, False, "", "inline"),
        ({"user": 0}, False, "", "helper"),
        ({"group": 0}, False, "", "helper"),
        ({"extra_groups": ()}, False, "", "helper"),
        ({"init": True}, False, "", "helper"),
        ({"kill_on_parent_exit": True}, False, "", "helper"),
        ({}, True, "", "helper"),
        ({}, False, "user", "helper"),
        ({}, False, "pid", "helper"),
        ({}, False, "time", "helper"),
        ({}, False, "net uts ipc cgroup", "inline"),
        ({"new": "pid mnt"}, False, "net", "inline"),
        ({"new": "user"}, False, "net", "helper"),
        ({"new": "time"}, False, "net", "helper"),
        # Who owns a mount namespace decides what a program in it is: "#!/proc/self/exe" would
        # be the caller's own binary (CVE-2019-5736).
        ({}, False, "mnt", "helper"),
    ],
)
def test_the_rule(fields: dict[str, Any], paused: bool, joined: str, body: str) -> None:
    spec = nsext.Sandbox(**fields)
    assert body_of(spec, paused, int(parse_kinds(joined)) if joined else 0) == body


def test_popen_tells_the_body() -> None:
    with talking() as process:
        assert process.body == "inline"
    with talking(kill_on_parent_exit=True) as process:
        assert process.body == "helper"


# ---- the same facts under both -----------------------------------------------------------------


def _init(args: Any, **keywords: Any) -> nsext.Popen:
    return nsext.Popen(args, init=True, **keywords)


def _tied(args: Any, **keywords: Any) -> nsext.Popen:
    return nsext.Popen(args, kill_on_parent_exit=True, **keywords)


BODIES: dict[str, Any] = {"paused": running_helper, "tied": _tied, "init": _init}
_STATUS = "Umask Uid Gid Groups NoNewPrivs Seccomp SigBlk SigIgn SigCgt CapInh CapPrm CapEff CapBnd"
_STATUS += " CapAmb Cpus_allowed Mems_allowed Threads THP_enabled"


def _mounts(pid: int) -> list[tuple[str, ...]]:
    """Mount points, options, propagation and types; ids differ from one namespace to the next."""
    found = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        words = left.split()
        shared = [word.split(":")[0] for word in words[6:]]
        found.append((*words[3:6], *shared, *right.split()))
    return found


def facts(process: Any) -> dict[str, Any]:
    """What the kernel says of a program."""
    pid = process.program_pid
    words = status(pid)
    own = namespaces()
    leader = {process.pid: "p.pid", pid: "own", os.getpgid(0): "caller's", os.getsid(0): "caller's"}
    fds = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        info = Path(f"/proc/{pid}/fdinfo/{name}").read_text().split()
        found = os.stat(f"/proc/{pid}/fd/{name}")
        fds[int(name)] = (found.st_dev, found.st_ino, info[3]) if int(name) > 1 else "pipe"
    return {
        "status": {name: words.get(name) for name in _STATUS.split()},
        "fds": fds,
        "new": [kind for kind in KINDS if ns_id(kind, pid) != own[kind]],
        "maps": (id_map("uid_map", pid), id_map("gid_map", pid)),
        "setgroups": Path(f"/proc/{pid}/setgroups").read_text(),
        "limits": Path(f"/proc/{pid}/limits").read_text(),
        "environ": Path(f"/proc/{pid}/environ").read_bytes(),
        "cmdline": Path(f"/proc/{pid}/cmdline").read_bytes(),
        "comm": Path(f"/proc/{pid}/comm").read_text(),
        "exe": os.readlink(f"/proc/{pid}/exe"),
        "cwd": os.readlink(f"/proc/{pid}/cwd"),
        "root": os.readlink(f"/proc/{pid}/root"),
        "mounts": _mounts(pid),
        "offsets": Path(f"/proc/{pid}/timens_offsets").read_text(),
        "oom": Path(f"/proc/{pid}/oom_score_adj").read_text(),
        "nice": stat_field(19, pid),
        "owner": os.stat(f"/proc/{pid}").st_uid,  # of who is not dumpable: root
        "session": leader.get(os.getsid(pid), "other"),
        "group": leader.get(os.getpgid(pid), "other"),
    }


RANGES = [(0, 0, 1000), (1000, 50000, 10)]
DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "namespaces": {
        "new": "all",
        "hostname": "both",
        "domainname": "bodies",
        "time_offsets": {"boottime": 1000, "monotonic": 5},
    },
    "root's": {"new": "pid mnt uts ipc net cgroup", "propagation": "slave", "hostname": "x"},
    "ranges": {"new": "user pid mnt", "uid_map": RANGES, "gid_map": RANGES},
    "self": {"new": "user mnt", "uid_map": "self", "gid_map": "self"},
    "other id": {"new": "user pid mnt", "uid_map": 77, "gid_map": 78},
    "time": {"new": "time", "time_offsets": {"monotonic": 7.5}},
    "process": {
        "rlimits": {"core": 0, "nofile": (64, 128), "as": 1 << 32},
        "cwd": "/usr",
        "umask": 0o27,
        "nice": 7,
        "affinity": [min(os.sched_getaffinity(0))],
        "env": {"A": "b", "PATH": "/bin:/usr/bin"},
    },
    "no restore": {"restore_signals": False},
    "open": {"close_fds": False},
}


@pytest.fixture
def odd_signals() -> Any:
    """Signals that this thread blocks or ignores: what a program inherits."""
    old = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGRTMIN + 3])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.signal(signal.SIGUSR1, old)


@pytest.mark.parametrize("how", BODIES)
@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_same_facts(name: str, how: str, root: None, odd_signals: None) -> None:
    """The program is the same, to the bit, whichever body made it."""
    fields = DESCRIPTIONS[name]
    with talking(**fields) as process:
        assert process.body == "inline"
        wanted = facts(process)
    with talking(BODIES[how], **fields) as process:
        assert process.body == "helper"
        found = facts(process)
    assert {key: found[key] for key in found if found[key] != wanted[key]} == {}
    assert wanted["status"]["SigIgn"] != "0000000000000000"
    assert wanted["comm"] == "cat\n"


@pytest.mark.parametrize("how", ["inline", *BODIES])
def test_names_and_clocks_inside(how: str, root: None) -> None:
    """What only the inside tells: names, clocks, the own /proc."""
    fields: dict[str, Any] = {"new": "all", "hostname": "h1", "domainname": "d1"}
    fields["time_offsets"] = {"boottime": 10**8}
    command = "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname /proc/uptime; ls /proc"
    start = BODIES.get(how, nsext.Popen)
    with start(["sh", "-c", command], stdout=-1, text=True, **fields) as process:
        host, domain, uptime, *listing = process.communicate(timeout=DEADLINE)[0].splitlines()
    assert (host, domain) == ("h1", "d1")
    assert float(uptime.split()[0]) > 10**8
    pids = [name for name in listing if name.isdigit()]
    assert len(pids) == (3 if how == "init" else 2) and "1" in pids


@pytest.mark.parametrize("session", [{"start_new_session": True}, {"process_group": 0}])
@pytest.mark.parametrize("how", ["paused", "tied"])
def test_same_session(how: str, session: dict[str, Any]) -> None:
    with talking(**session) as process:
        wanted = facts(process)
    with talking(BODIES[how], **session) as process:
        found = facts(process)
    assert found["group"] == wanted["group"] == "p.pid" or found["group"] == "own"
    assert (found["session"], found["group"]) == (wanted["session"], wanted["group"])


# ---- descriptors -------------------------------------------------------------------------------


def _numbered(base: int, count: int) -> list[int]:
    """Descriptors of distinct files, from *base* up; close-on-exec, as Python's are."""
    made = []
    for number in range(count):
        fd = os.memfd_create(f"file {number}", os.MFD_CLOEXEC)
        made.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, base))
        os.close(fd)
    return made


@pytest.mark.parametrize("close_fds", [True, False])
@pytest.mark.parametrize("how", ["inline", *BODIES])
def test_descriptors(how: str, close_fds: bool) -> None:
    """Cycles, a file at two numbers, one that stays; what is not named is closed, or CLOEXEC."""
    a, b, c, d, e = fds = _numbered(50, 5)
    inherited = fcntl.fcntl(a, fcntl.F_DUPFD, 60)
    fd_map = {a: b, b: c, c: a, 40: d, 41: d, e: e}
    try:
        inode = {fd: os.fstat(fd).st_ino for fd in fds}
        start = BODIES.get(how, nsext.Popen)
        with talking(start, fd_map=fd_map, close_fds=close_fds) as process:
            pid = process.program_pid
            found = {
                int(name): os.stat(f"/proc/{pid}/fd/{name}").st_ino
                for name in os.listdir(f"/proc/{pid}/fd")
            }
    finally:
        for fd in (*fds, inherited):
            os.close(fd)
    wanted = {child: inode[parent] for child, parent in fd_map.items()}
    if not close_fds:
        wanted[inherited] = inode[a]
    named = {fd: ino for fd, ino in found.items() if fd in wanted or ino in inode.values()}
    assert named == wanted
    if close_fds:
        assert found.keys() == {0, 1, 2, *wanted}


@pytest.mark.parametrize("how", ["inline", *BODIES])
def test_the_highest_descriptor(how: str) -> None:
    """The last number that RLIMIT_NOFILE allows may be a child's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with talking(BODIES.get(how, nsext.Popen), fd_map={255: 2}) as process:
            assert os.path.exists(f"/proc/{process.program_pid}/fd/255")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- errors ------------------------------------------------------------------------------------

FAILURES: dict[str, tuple[str, dict[str, Any]]] = {
    "no program": ("/nonexistent/program", {}),
    "no program in PATH": ("nonexistent-program", {}),
    "not executable": ("/etc/passwd", {}),
    "a directory": ("/etc", {}),
    "below a file": ("/etc/passwd/x", {}),
    "no such cwd": ("true", {"cwd": "/nonexistent"}),
    "cwd a file": ("true", {"cwd": "/etc/passwd"}),
    "rlimit": ("true", {"rlimits": {"nofile": (1 << 40, 1 << 40)}}),
    "process_group": ("true", {"process_group": 1}),
    "affinity": ("true", {"affinity": [5000]}),
    "time offsets": ("true", {"new": "time", "time_offsets": {"boottime": -(10**9)}}),
    "id map": ("true", {"new": "user", "uid_map": [(0, 0, 1), (1, 5, 2**32 - 7)]}),
    "proc in a foreign pid namespace": ("true", {"new": "user mnt", "proc": True}),
    "descriptor": ("true", {"fd_map": {9: 999}}),
}


@pytest.mark.parametrize("how", BODIES)
@pytest.mark.parametrize("name", FAILURES)
def test_same_errors(name: str, how: str, root: None) -> None:
    program, fields = FAILURES[name]

    def told(start: Any) -> dict[str, Any]:
        try:
            with start([program], stdout=nsext.DEVNULL, **fields):
                return {"started": True}
        except nsext.SpawnError as error:
            parts = {key: getattr(error, key) for key in ("errno", "stage", "step", "path", "hint")}
            return {**parts, "type": type(error), "text": str(error), "file": error.filename}

    wanted = told(nsext.Popen)
    found = told(BODIES[how])
    assert found == wanted
    if "started" not in wanted:
        assert wanted["stage"] in ("setup", "cwd", "exec", "idmap")


# ---- capabilities ------------------------------------------------------------------------------

_CAPABILITIES = """
def capabilities(start=nsext.Popen, **keywords):
    with start(["cat"], stdin=nsext.PIPE, stdout=nsext.PIPE, bufsize=0, **keywords) as process:
        process.stdin.write(b"x")
        process.stdout.read(1)
        found = status(process.program_pid)
        body = process.body
        process.kill()
    return body, [found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")]
def paused(*args, **keywords):
    process = nsext.Popen(*args, paused=True, **keywords)
    process.resume()
    return process
def compare(**fields):
    ways = capabilities(**fields), capabilities(paused, **fields)
    ways += (capabilities(kill_on_parent_exit=True, **fields), capabilities(init=True, **fields))
    assert [body for body, _ in ways] == ["inline", "helper", "helper", "helper"]
    assert [caps for _, caps in ways] == [ways[0][1]] * 4, (fields, ways)
    return ways[0][1]
"""


def test_capabilities_of_root(root: None) -> None:
    script(_CAPABILITIES + "compare(); compare(new='user'); compare(new='user', uid_map='self')")


@pytest.mark.parametrize("uid_map", ["root", "self", 5])
def test_capabilities_of_a_user_in_its_namespace(uid_map: Any) -> None:
    """Mapped to root it has them all after exec; to any other id none."""
    code = f"found = compare(new='user pid mnt', uid_map={uid_map!r}, gid_map={uid_map!r})\n"
    code += "print(found[1] == found[2], int(found[1], 16))"
    equal, permitted = as_user(_CAPABILITIES + code).split()
    assert equal == "True"
    assert bool(int(permitted)) == (uid_map == "root")


ORDINARY = """
libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
os.setgroups([]); os.setresgid(23456, 23456, 23456); os.setresuid(12345, 12345, 12345)
import struct
header = struct.pack("=Ii", 0x20080522, 0)
permitted, inheritable = 1 << 13 | 1 << 6 | 1, 1 << 13 | 1
sets = struct.pack("=6I", permitted, permitted, inheritable, 0, 0, 0)
assert libc.capset(header, sets) == 0
libc.prctl(4, 1, 0, 0, 0)
"""
AMBIENT = """
assert libc.prctl(47, 2, 13, 0, 0) == 0  # PR_CAP_AMBIENT_RAISE, CAP_NET_RAW
found = compare()
assert found == ["0000000000002001", *["0000000000002000"] * 2, found[3], "0000000000002000"], found
"""


def test_ambient_capabilities_live_on(root: None) -> None:
    """What an ordinary user's parent gave it, the program has: the helper takes none of it."""
    script(_CAPABILITIES + "libc = ctypes.CDLL(None)" + ORDINARY + AMBIENT)


def test_root_without_root(root: None) -> None:
    """SECBIT_NOROOT: uid 0 is nobody special, and keeps its capabilities over no exec."""
    code = "assert ctypes.CDLL(None).prctl(28, 1, 0, 0, 0) == 0\nfound = compare()\n"
    assert script(_CAPABILITIES + code + "print(int(found[1], 16))") == "0"


LESS = """
libc = ctypes.CDLL(None)
def lower(*numbers):
    "Give up effective and permitted capabilities, none of them bounding."
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    for number in numbers:
        for at in (0, 1):
            data[number // 32 * 3 + at] &= ~(1 << number % 32)
    assert libc.capset(header, data) == 0
def waiting(**fields):
    with nsext.Popen(["true"], paused=True, **fields) as p:
        p.namespaces.close()
        return [status(pid)[name] for pid in (p.pid, p.program_pid) for name in ("CapPrm", "CapEff")]
"""


def test_root_that_has_less(root: None) -> None:
    """By an exec root gets all that is bounding; the set-up does no more than root could here."""
    script(
        _CAPABILITIES
        + LESS
        + """
lower(8, 21)  # CAP_SETPCAP, CAP_SYS_ADMIN
own = status()["CapPrm"]
assert own != status()["CapBnd"]
compare()  # the program has them again, in every body
for fields in ({}, {"init": True}, {"extra_groups": []}):
    assert set(waiting(**fields)) == {own}, fields
join = "/proc/self/ns/uts"
for fields in ({}, {"init": True}, {"kill_on_parent_exit": True}, {"new": "net"}):
    error = failure(nsext.spawn, ["true"], join=join, **fields)
    assert (error.errno, error.stage) == (1, "clone" if fields.get("new") else "setup"), error
"""
    )


@pytest.mark.parametrize("refused", ["capset=54", "capget=54", "prctl=(54, 4)"])
def test_capabilities_that_cannot_be_given_back(refused: str, root: None) -> None:
    """The set-up goes on with none of them: an error.  4: PR_SET_DUMPABLE."""
    script(
        LESS
        + f"""
lower(8)
before = state()
refuse({refused})
for fields in ({{}}, {{"new": "user"}}):
    if "new" in fields and {refused!r} != "capget=54":
        assert nsext.run(["true"], kill_on_parent_exit=True, **fields).returncode == 0  # all its own
        continue
    error = failure(nsext.spawn, ["true"], kill_on_parent_exit=True, **fields)
    assert is_plain(error) and (error.errno, error.step) == (54, "start the helper"), repr(error)
assert changes(before, state()) == {{}}
"""
    )


def test_root_that_has_nothing(root: None) -> None:
    """No capability at all, and a program that gets them by its exec."""
    script(
        _CAPABILITIES
        + LESS
        + """
lower(*range(int(open("/proc/sys/kernel/cap_last_cap").read()) + 1))
assert status()["CapPrm"].strip("0") == ""
assert waiting() == ["0" * 16] * 4
compare()
assert failure(nsext.spawn, ["true"], user=5).errno == 1
"""
    )


def test_a_permitted_capability_that_is_not_bounding(root: None) -> None:
    """PR_CAPBSET_DROP of what one has: no exec brings it along, the helper's neither."""
    drop = "libc = ctypes.CDLL(None)\nassert libc.prctl(24, 6, 0, 0, 0) == 0"
    script(_CAPABILITIES + drop + ORDINARY + AMBIENT)


def test_none_is_to_be_made_ambient(root: None) -> None:
    """SECBIT_NO_CAP_AMBIENT_RAISE: the helper has none, and what needs none works."""
    script(
        _CAPABILITIES
        + LESS
        + "assert libc.prctl(28, 64, 0, 0, 0) == 0"
        + ORDINARY
        + """
assert libc.prctl(47, 2, 13, 0, 0) == -1
assert [int(one, 16) for one in compare()[:3]] == [1 << 13 | 1, 0, 0]
assert waiting(nice=os.getpriority(os.PRIO_PROCESS, 0)) == ["0" * 16] * 4
assert failure(nsext.spawn, ["true"], user=5).errno == 1
"""
    )
