"""landlock=: what the program can reach, and what it cannot, asked of a program."""

import ctypes
import errno
import json
import os
import pickle
import socket
import struct
import sys
import threading
from contextlib import contextmanager

import faults
import pytest
from support import as_user, output, python, running, status

import nsext
from nsext import Landlock

here = pytest.mark.usefixtures("landlock_here")
root = pytest.mark.usefixtures("root", "landlock_here")


# What a program tries in a directory, and what comes of it: 0 or an errno.
TRIES = """
import json, os, sys
place = sys.argv[1]
def attempt(job):
    try:
        job()
        return 0
    except OSError as error:
        return error.errno
def at(name):
    return os.path.join(place, name)
print(json.dumps({
    "read": attempt(lambda: os.close(os.open(at("file"), os.O_RDONLY))),
    "list": attempt(lambda: os.listdir(place)),
    "write": attempt(lambda: os.close(os.open(at("file"), os.O_WRONLY))),
    "truncate": attempt(lambda: os.truncate(at("file"), 1)),
    "make": attempt(lambda: os.close(os.open(at("new"), os.O_WRONLY | os.O_CREAT))),
    "mkdir": attempt(lambda: os.mkdir(at("directory"))),
    "symlink": attempt(lambda: os.symlink("x", at("link"))),
    "fifo": attempt(lambda: os.mkfifo(at("fifo"))),
    "rename": attempt(lambda: os.rename(at("file2"), at("file3"))),
    "remove": attempt(lambda: os.unlink(at("file4"))),
    "rmdir": attempt(lambda: os.rmdir(at("empty"))),
    "execute": attempt(lambda: os.posix_spawn(at("program"), ["program"], {})),
    "stat": attempt(lambda: os.stat(at("file"))),
}))
"""
CHANGES = ("write", "truncate", "make", "mkdir", "symlink", "fifo", "rename", "remove", "rmdir")
SYSTEM = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/dev", "/proc", sys.base_prefix, sys.prefix]


def populate(place):
    place.mkdir()
    for name in ("file", "file2", "file4"):
        (place / name).write_text("text")
    (place / "empty").mkdir()
    (place / "program").write_bytes(open("/bin/true", "rb").read())
    (place / "program").chmod(0o755)
    return place


def tries(place, rules, **keywords):
    """{what is tried: 0 or errno} by a program that reaches the system and, by the rules, more."""
    system = [path for path in SYSTEM if os.path.exists(path)]
    rules = {**rules, "execute": [*rules.get("execute", ()), *system]}
    command = python(TRIES, str(place))
    return json.loads(output(command, landlock=Landlock(**rules), **keywords))


KEYWORDS = [{}, {"user": 0}, {"new": "user pid mnt", "init": True}]


@root
@pytest.mark.parametrize("keywords", KEYWORDS, ids=["inline", "helper", "init"])
@pytest.mark.parametrize("given", ["nothing", "read", "write", "execute", "read write", "all"])
def test_rights_below_a_directory(given, keywords, tmp_path):
    place = populate(tmp_path / "place")
    words = {"nothing": [], "all": ["read", "write", "execute"]}.get(given, given.split())
    found = tries(place, {word: [str(place)] for word in words}, **keywords)
    allowed = {"stat"}  # which Landlock does not limit
    if "read" in words or "execute" in words:
        allowed |= {"read", "list"}
    if "execute" in words:
        allowed.add("execute")
    if "write" in words:
        allowed.update(CHANGES)
    assert found == {name: 0 if name in allowed else errno.EACCES for name in found}


@root
def test_a_rule_for_one_file(tmp_path):
    place = populate(tmp_path / "place")
    file = str(place / "file")
    found = tries(place, {"read": [file], "write": [file]})
    allowed = {"stat", "read", "write", "truncate"}
    assert found == {name: 0 if name in allowed else errno.EACCES for name in found}
    program = str(place / "program")
    found = tries(place, {"execute": [program]})
    assert {name for name, number in found.items() if number == 0} == {"stat", "execute"}


@root
def test_paths_are_those_of_the_program(tmp_path):
    """Looked up when the mounts are done, in the root that the program has."""
    place = populate(tmp_path / "place")
    other = tmp_path / "other"
    other.mkdir()
    mounts = [nsext.Bind(place, str(other), readonly=False)]
    found = tries(other, {"read": [str(other)]}, new="mnt", mounts=mounts)
    assert (found["read"], found["write"]) == (0, errno.EACCES)
    box = nsext.Sandbox(new="mnt", root="/", landlock=Landlock(execute=["/usr", "/bin", "/lib"]))
    done = box.run(["cat", "/etc/passwd"], capture_output=True, text=True)
    assert done.returncode != 0 and "Permission denied" in done.stderr


PORTS = """
import json, socket, sys
ports = [int(word) for word in sys.argv[1:]]
def attempt(job, port):
    with socket.socket() as sock:
        try:
            job(sock)(("127.0.0.1", port))
            return 0
        except OSError as error:
            return error.errno
print(json.dumps({
    "bind": [attempt(lambda sock: sock.bind, port) for port in ports],
    "connect": [attempt(lambda sock: sock.connect, port) for port in ports],
}))
"""


def ports(*numbers, **rules):
    """What bind(2) and connect(2) to these ports give, in a network of one's own."""
    command = python(PORTS, *map(str, numbers))
    found = json.loads(output(command, new="user net", landlock=Landlock(**rules)))
    return found["bind"], found["connect"]


@here
def test_ports():
    no, refused = errno.EACCES, errno.ECONNREFUSED
    assert ports(80, 4000, tcp_bind=[80]) == ([0, no], [refused, refused])
    assert ports(80, 4000, tcp_connect=[4000]) == ([0, 0], [no, refused])
    assert ports(80, 4000, tcp_bind=[4000], tcp_connect=[80, 4000]) == ([no, 0], [refused] * 2)
    assert ports(80, 65535, tcp_bind=(), tcp_connect=()) == ([no, no], [no, no])


@here
def test_ports_alone_leave_files_alone():
    with open("/etc/hostname") as file:
        assert output(["cat", "/etc/hostname"], landlock=Landlock(tcp_bind=())) == (
            file.read().strip()
        )


@root
def test_what_is_open_stays_open(tmp_path):
    file = tmp_path / "file"
    file.write_text("inherited")
    with open(file) as opened:
        shown = output(["cat"], stdin=opened, landlock=Landlock(execute=["/"], read=["/usr"]))
        assert shown == "inherited"


@root
def test_no_descriptor_of_the_ruleset_is_left():
    rules = Landlock(execute=["/"], write=["/tmp"], tcp_bind=[1])
    shown = output(["ls", "/proc/self/fd"], landlock=rules, rlimits={"nofile": (4, 4)})
    assert shown.split() == ["0", "1", "2", "3"]  # the last is ls's own


@root
def test_a_low_limit_on_descriptors():
    with running(landlock=Landlock(execute=["/"]), rlimits={"nofile": (1, 1)}, args=["true"]):
        pass
    assert (
        nsext.run(["true"], landlock=Landlock(execute=["/"]), stdin=nsext.DEVNULL).returncode == 0
    )


@root
def test_a_copy_is_limited_too(tmp_path):
    """unlink(2) as the entry of clone()."""
    file = tmp_path / "file"
    file.touch()
    path = ctypes.create_string_buffer(os.fsencode(file))
    unlink = ctypes.CDLL(None).unlink
    address = ctypes.addressof(path)
    assert nsext.clone(unlink, address, landlock=Landlock(read=["/"])).wait() == 255
    assert file.exists()
    assert nsext.clone(unlink, address, landlock=Landlock(write=[tmp_path])).wait() == 0
    assert not file.exists()


# ---- no_new_privs


@here
def test_as_user():
    as_user("""
    rules = nsext.Landlock(execute=["/"], write=["/dev/null"])
    with running(landlock=rules) as child:
        assert status(child.pid)["NoNewPrivs"] == "1"
    done = nsext.run(["sh", "-c", "echo > /tmp/nsext-x"], landlock=rules, capture_output=True)
    assert done.returncode != 0 and b"ermission denied" in done.stderr
    error = failure(nsext.run, ["true"], landlock=rules, no_new_privs=False)
    assert (error.errno, error.stage) == (errno.EPERM, "setup") and is_plain(error), error
    assert error.step == "enforce Landlock" and "no_new_privs" in error.hint
    """)


@root
def test_root_needs_no_no_new_privs():
    with running(landlock=Landlock(execute=["/"]), no_new_privs=False) as child:
        assert status(child.pid)["NoNewPrivs"] == "0"


# ---- what goes wrong


@root
def test_the_program_is_out_of_reach():
    with pytest.raises(PermissionError, match="execute=") as caught:
        nsext.run(["true"], landlock=Landlock(read=["/"]))
    assert isinstance(caught.value, nsext.SpawnError) and caught.value.stage == "exec"


@root
def test_a_path_that_is_missing():
    with pytest.raises(nsext.SpawnError) as caught:
        nsext.run(["true"], landlock=Landlock(execute=["/"], write=["/nonexistent"]))
    error = caught.value
    assert type(error) is nsext.SpawnError and error.errno == errno.ENOENT
    assert (error.stage, error.path) == ("setup", "/nonexistent")
    assert error.step == "allow write below /nonexistent by Landlock"


# ---- older kernels, by a supervisor that answers for them

RESULT = struct.Struct("@QqiI")  # struct seccomp_notif_resp


@contextmanager
def pretending(abi):
    """In a thread: a kernel of this ABI, as far as its version goes; -errno: no Landlock."""
    faults.need(faults.can_inject(), "no seccomp listener (CAP_SYS_ADMIN, Linux 5.5)")
    import fcntl
    import queue
    import select

    jobs, results = queue.SimpleQueue(), queue.SimpleQueue()

    def work():
        calls = ((*text, "landlock_create_ruleset") for text in faults.child_text())
        results.put(faults.install(*calls))
        while (job := jobs.get()) is not None:
            try:
                results.put((job(), None))
            except BaseException as error:
                results.put((None, error))

    thread = threading.Thread(target=work)
    thread.start()
    listener = results.get()

    def answer():
        call = faults.receive(listener)
        if call is None:
            return
        if call.args[2] == 1:  # the version
            value, error = (abi, 0) if abi >= 0 else (0, abi)
            fcntl.ioctl(listener, 0xC0182101, RESULT.pack(call.id, value, error, 0))
        else:
            faults.reply(listener, call)

    def run(job):
        jobs.put(job)
        while results.empty():
            if select.select([listener], [], [], 0.01)[0]:
                answer()
        value, error = results.get()
        if error:
            raise error
        return value

    try:
        yield run
    finally:
        jobs.put(None)
        faults.join(thread)
        os.close(listener)


FILES = Landlock(execute=["/"])


@root
@pytest.mark.parametrize("abi", [-errno.ENOSYS, -errno.EOPNOTSUPP, 1, 2])
def test_an_older_kernel_is_an_error(abi):
    with pretending(abi) as run, pytest.raises(nsext.UnsupportedError) as caught:
        run(lambda: nsext.spawn(["true"], landlock=FILES))
    error = caught.value
    assert error.errno == errno.EOPNOTSUPP and error.stage == "setup"
    assert "Linux 6.2" in str(error) and "landlock_strict=False" in str(error)
    assert os.uname().release in str(error)
    assert (f"ABI {abi};" in str(error)) == (abi > 0)


@root
def test_ports_need_a_newer_kernel():
    both = Landlock(execute=["/"], tcp_bind=())
    with pretending(3) as run:
        assert run(lambda: nsext.spawn(["true"], landlock=FILES).wait()) == 0
        with pytest.raises(nsext.UnsupportedError, match=r"Linux 6\.7"):
            run(lambda: nsext.spawn(["true"], landlock=both))
    with pretending(4) as run:
        assert run(lambda: nsext.spawn(["true"], landlock=both).wait()) == 0


@root
@pytest.mark.parametrize("abi", [-errno.ENOSYS, 1, 2, 3, 4])
def test_what_an_older_kernel_can(abi, tmp_path):
    """landlock_strict=False: truncate(2) is limited since ABI 3, ports since 4."""
    file = tmp_path / "file"
    code = f"""
    import json, os, socket
    def attempt(job):
        try:
            job()
            return 0
        except OSError as error:
            return error.errno
    print(json.dumps([
        attempt(lambda: os.close(os.open({str(file)!r}, os.O_WRONLY))),
        attempt(lambda: os.truncate({str(file)!r}, 0)),
        attempt(lambda: socket.socket().bind(("127.0.0.1", 0))),
    ]))
    """
    file.write_text("text")
    rules = Landlock(execute=["/"], tcp_bind=())
    keywords = {"landlock": rules, "landlock_strict": False}
    with pretending(abi) as run:
        found = json.loads(run(lambda: output(python(code), **keywords)))
    no = errno.EACCES
    assert found == [no if abi >= 1 else 0, no if abi >= 3 else 0, no if abi >= 4 else 0]


@root
def test_another_failure_is_no_older_kernel():
    with pretending(-errno.EMFILE) as run, pytest.raises(nsext.SpawnError) as caught:
        run(lambda: nsext.spawn(["true"], landlock=FILES, landlock_strict=False))
    assert caught.value.errno == errno.EMFILE
    assert not isinstance(caught.value, nsext.UnsupportedError)


# ---- the value


def test_the_value():
    rules = Landlock(read=["/b", b"/a", "/a"], tcp_bind=[80, 80], tcp_connect=())
    assert rules == Landlock(read=("/a", "/b"), tcp_bind={80}, tcp_connect=[])
    assert hash(rules) == hash(pickle.loads(pickle.dumps(rules)))
    assert pickle.loads(pickle.dumps(rules)) == rules
    assert repr(rules) == "Landlock(read=('/a', '/b'), tcp_bind=(80,), tcp_connect=())"
    assert eval(repr(rules)) == rules
    with pytest.raises(AttributeError):
        rules.read = ()
    box = nsext.Sandbox(landlock=rules)
    assert box == nsext.Sandbox(
        landlock={"read": ["/a", "/b"], "tcp_bind": [80], "tcp_connect": ()}
    )
    assert nsext.Sandbox.from_toml(box.to_toml()) == box
    assert pickle.loads(pickle.dumps(box)) == box


def test_the_steps():
    rules = Landlock(read=["/a"], execute=["/b"], write=["/a"], tcp_bind=[7], tcp_connect=[7, 8])
    lines = nsext.Sandbox(landlock=rules).explain().splitlines()
    assert lines[3:8] == [
        "make a Landlock ruleset for files and ports",
        "allow read write below /a by Landlock",
        "allow execute below /b by Landlock",
        "allow tcp_bind tcp_connect of port 7 by Landlock",
        "allow tcp_connect of port 8 by Landlock",
    ]
    assert lines[8:10] == ["set no_new_privs", "enforce Landlock"]


@pytest.mark.parametrize(
    "fields, words",
    [
        ({}, "nothing"),
        ({"read": ()}, "nothing"),
        ({"read": ["relative"]}, "absolute"),
        ({"write": ["/a\0b"]}, "null"),
        ({"tcp_bind": [65536]}, "port"),
        ({"tcp_connect": [-1]}, "port"),
    ],
    ids=str,
)
def test_wrong_values(fields, words):
    with pytest.raises(ValueError, match=words):
        Landlock(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"read": "/usr"},
        {"read": 5},
        {"read": [5]},
        {"tcp_bind": 80},
        {"tcp_bind": ["80"]},
        {"x": 1},
    ],
    ids=str,
)
def test_wrong_types(fields):
    with pytest.raises(TypeError):
        Landlock(**fields)


@pytest.mark.parametrize("value", [5, "/usr", ["/usr"], True])
def test_what_is_no_landlock(value):
    with pytest.raises(TypeError, match="Landlock"):
        nsext.Sandbox(landlock=value)


@here
def test_loopback_only():
    """The port that a rule opens leads to somebody who listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        rules = {"landlock": Landlock(tcp_connect=[port])}
        assert nsext.run(python(code), **rules).returncode == 0
        rules = {"landlock": Landlock(tcp_connect=[])}
        assert nsext.run(python(code), capture_output=True, **rules).returncode != 0
