"""What the tests share: the kernel's facts, scripts with a deadline, ordinary users, seccomp.

Scripts that run in an interpreter of their own import this module too, perhaps as an ordinary user
without access to pytest; so pytest is imported where it is used.
"""

import atexit
import ctypes
import errno
import importlib.util
import json
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import types
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import bodies
import sanitized

import nsext
from nsext import _cgroupfs

bodies.install()

KINDS = ("mnt", "uts", "ipc", "user", "pid", "net", "cgroup", "time")
UID, GID = 12345, 23456  # an ordinary user, known to nobody
DEADLINE = 60
MUSL = "musl" in str(sysconfig.get_config_var("SOABI"))

# ---- skipping


def needs(condition, reason):
    """Skip the test without *condition*; with NSEXT_MUST_WORK=1 fail it."""
    import pytest

    if condition:
        return
    if os.environ.get("NSEXT_MUST_WORK") == "1":
        pytest.fail(f"NSEXT_MUST_WORK=1, but: {reason}")
    pytest.skip(reason)


def needs_root():
    """Root with CAP_SYS_ADMIN, in a system that lets it make namespaces."""
    effective = int(status()["CapEff"], 16)
    needs(os.geteuid() == 0 and effective >> 21 & 1, "needs root with CAP_SYS_ADMIN")


# ---- facts


def landlock_abi():
    """The version of Landlock, or -1: LANDLOCK_CREATE_RULESET_VERSION."""
    return ctypes.CDLL(None).syscall(444, None, 0, 1)


def has_call(name):
    """Is there this system call, of those in _NUMBERS that have one number everywhere?"""
    (number,) = set(_NUMBERS[name])
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(number, -1, -1, -1, -1, -1, -1) >= 0 or ctypes.get_errno() != errno.ENOSYS


def release():
    """The version of the kernel: (6, 18)."""
    major, minor = os.uname().release.split("-")[0].split(".")[:2]
    return int(major), int(minor)


# The body of what needs no helper.  Before Linux 5.16 a core dump of a child in our memory ended us.
INLINE = "inline" if release() >= (5, 16) else "helper"

# Why a test is skipped where the error says the same.
TOMOYO = "TOMOYO, in a root without /dev/fd, lets no helper be run from memory"


def ns_id(kind, pid="self"):
    """The inode, in words, of a namespace: "uts:[4026531838]"."""
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def namespaces(pid="self"):
    return {kind: ns_id(kind, pid) for kind in KINDS}


def status(pid="self"):
    """/proc/PID/status, as {field: text}."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def stat_field(number, pid="self"):
    """Field *number*, counted as in proc_pid_stat(5), of /proc/PID/stat."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()[number - 3]


def id_map(which, pid="self"):
    """The lines of /proc/PID/uid_map or gid_map, as tuples."""
    lines = Path(f"/proc/{pid}/{which}").read_text().splitlines()
    return [tuple(int(number) for number in line.split()) for line in lines]


def open_fds(pid="self"):
    """{descriptor: what it is}, without the one that lists them."""
    table = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            table[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            pass
    return table


def without_kept(table):
    """The same, but for what the core keeps: the helper's image, and the memfds of a few plans."""
    kept = [name for name in table.values() if name.startswith("/memfd:nsext-")]
    assert kept.count("/memfd:nsext-helper (deleted)") <= 1, kept
    assert len(kept) <= 9, kept
    return {fd: name for fd, name in table.items() if name not in kept}


def children():
    """Has this process children that nobody has waited for?"""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_children():
    """Kill and reap every child."""
    while children():
        for task in os.listdir("/proc/self/task"):
            for pid in Path(f"/proc/self/task/{task}/children").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        os.waitpid(-1, 0)


@cache
def _own_group():
    try:
        return _cgroupfs.own_group()
    except nsext.SpawnError:
        return None


def control_groups():
    """Groups below our own that this process has made."""
    path, ours = _own_group(), (f"nsext-{os.getpid()}-", f"test-{os.getpid()}-")
    if path is None or not os.path.isdir(path):
        return []
    return [name for name in os.listdir(path) if name.startswith(ours)]


def dumpable():
    return ctypes.CDLL(None, use_errno=True).prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE


def state():
    """All of this process that a spawn must leave as it was."""
    own = status()
    cwd_and_umask = os.getcwd(), own["Umask"]
    # Not ours: 32 and 33, which the C library ignores in what posix_spawn(3) starts and catches
    # when a process makes its first thread, and SIGALRM, which pytest-timeout catches.
    caught = int(own["SigCgt"], 16) & ~(3 << 31 | 1 << 13)
    ignored = int(own["SigIgn"], 16) & ~(3 << 31)
    return {
        "children": children(),
        "threads": len(os.listdir("/proc/self/task")),
        "fds": without_kept(open_fds()),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "namespaces": namespaces(),
        "cwd, umask": cwd_and_umask,
        "signals": [own["SigBlk"], ignored, caught],
        "capabilities": [own[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
        "ids": [own[name] for name in ("Uid", "Gid", "Groups")],
        "dumpable": dumpable(),
        "oom_score_adj": Path("/proc/self/oom_score_adj").read_text(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "affinity": os.sched_getaffinity(0),
        "session": (os.getsid(0), os.getpgid(0)),
        "cgroups": control_groups(),
        "hostname": os.uname().nodename,
    }


def changes(before, after):
    """What differs between two state()s, in words."""
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


# ---- children


def settle(process):
    """Wait until a program sleeps.

    A start ends when the child leaves our memory, which exec does first: signals, CLOEXEC, the
    time namespace and the name change a moment later, and then the loader has files open.
    """
    while status(process.pid)["State"][0] in "RD":
        os.sched_yield()


@contextmanager
def running(args=("sleep", "1000"), start=nsext.Popen, **keywords):
    """A program that sleeps until the block ends."""
    process = start(list(args) if isinstance(args, tuple) else args, **keywords)
    try:
        settle(process)
        yield process
    finally:
        process.kill()
        process.wait(timeout=DEADLINE)


def python(code, *args):
    """Arguments that run *code* in a bare interpreter: without site, so with its modules only."""
    return [sys.executable, "-I", "-S", "-c", textwrap.dedent(code), *args]


def output(args, **keywords):
    """What a program that must succeed prints, stripped."""
    done = nsext.run(args, capture_output=True, text=True, timeout=DEADLINE, **keywords)
    assert done.returncode == 0, done
    return done.stdout.strip()


def sh(command, **keywords):
    return output(["/bin/sh", "-c", command], **keywords)


def ask(code, *args, **keywords):
    """The JSON that a bare interpreter prints when it runs *code* as a child."""
    return json.loads(
        output(python("import json, os, sys\n" + textwrap.dedent(code), *args), **keywords)
    )


# ---- C, compiled by cffi


def compiled(place, name, cdef, source, **keywords):
    """(ffi, lib) of a module that cffi's API mode makes, in a directory of the test's."""
    try:
        import cffi
    except ImportError:
        needs(False, "needs cffi, which is not for every Python")

    builder = cffi.FFI()
    builder.cdef(cdef)
    builder.set_source(name, source, **keywords)
    path = builder.compile(tmpdir=str(place))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ffi, module.lib


# ---- scripts: an interpreter of their own, with a deadline

PRELUDE = """\
import atexit, ctypes, errno, json, os, signal, subprocess, sys, threading, time
import nsext
from support import *
atexit.register(end_children)  # where a script fails, its programs do not go on
"""


def _deliver(args, environment, deadline, run=subprocess.run, **keywords):
    done = run(
        args,
        env=environment,
        capture_output=True,
        text=True,
        timeout=deadline,
        stdin=subprocess.DEVNULL,
        **keywords,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def script(code, *args, deadline=DEADLINE, package=None, environment=None, **keywords):
    """Run *code* in an interpreter of its own, and return what it prints.  It must exit with 0.

    keywords: nsext.run's, for an interpreter in namespaces of its own.
    """
    here = Path(__file__).parent
    path = [str(package or Path(nsext.__file__).parent.parent), str(here)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    variables |= sanitized.RUNTIME | (environment or {})
    text = PRELUDE + textwrap.dedent(code)
    run = nsext.run if keywords else subprocess.run
    command = [sys.executable, "-P", "-X", "dev", "-c", text, *args]
    return _deliver(command, variables, deadline, run, **keywords)


# Before it becomes an ordinary user, root gives itself a mount namespace in which this interpreter,
# which may lie below a directory of root's only, is to be seen elsewhere too.
_BECOME = """\
import ctypes, os, sys
uid, gid, prefix, seen, *command = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
if prefix != seen:
    check(libc.unshare(0x20000))
    check(libc.mount(b"none", b"/", None, 0x44000, None))  # MS_PRIVATE | MS_REC
    check(libc.mount(prefix.encode(), seen.encode(), None, 0x5000, None))  # MS_BIND | MS_REC
os.chdir("/")
os.setgroups([])
os.setresgid(int(gid), int(gid), int(gid))
os.setresuid(int(uid), int(uid), int(uid))
os.execv(command[0], command)
"""


def _open_to_all(path):
    places = [Path(path), *Path(path).parents]
    return all(place.stat().st_mode & stat.S_IXOTH for place in places)


@cache
def _world():
    """A directory that everybody may read, with copies of the package and of what scripts import."""
    world = Path(tempfile.mkdtemp(prefix="nsext-tests-"))
    atexit.register(shutil.rmtree, world, ignore_errors=True)
    world.chmod(0o755)
    package = Path(nsext.__file__).parent
    shutil.copytree(package, world / "nsext", ignore=shutil.ignore_patterns("__pycache__"))
    for module in ("support", "bodies", "sanitized", "faults"):
        shutil.copy(Path(__file__).with_name(f"{module}.py"), world)
    (world / "python").mkdir()
    subprocess.run(["chmod", "-R", "a+rX", world], check=True)
    return world


def as_user(code, *args, uid=UID, gid=GID, deadline=DEADLINE):
    """As script(), as an ordinary user: no capability, no group, nothing of root's to be read.

    Who is an ordinary user already runs it as such.
    """
    text = PRELUDE + textwrap.dedent(code)
    world = _world()
    prefix = Path(sys.base_prefix)
    binary = Path(os.path.realpath(sys.executable))
    variables = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(world)}
    variables |= {"PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}
    variables |= sanitized.RUNTIME
    if bodies.VARIABLE in os.environ:
        variables[bodies.VARIABLE] = os.environ[bodies.VARIABLE]
    if os.geteuid() != 0:
        command = [str(binary), "-P", "-c", text, *args]
        return _deliver(command, variables, deadline)
    seen = prefix if _open_to_all(binary) else world / "python"
    variables["LD_LIBRARY_PATH"] = str(seen / "lib")
    command = [str(seen / binary.relative_to(prefix)), "-P", "-c", text, *args]
    become = [sys.executable, "-I", "-c", _BECOME, str(uid), str(gid), str(prefix), str(seen)]
    return _deliver([*become, *command], variables, deadline)


def failure(call, *args, **keywords):
    """The SpawnError that a call must raise."""
    try:
        call(*args, **keywords)
    except nsext.SpawnError as error:
        return error
    raise AssertionError("no SpawnError")


def is_plain(error):
    """Is it the error of a set-up: none of what an OSError for a missing program would be?"""
    wrong = FileNotFoundError, PermissionError, NotADirectoryError, BlockingIOError
    return type(error) is nsext.SpawnError and not isinstance(error, wrong)


# ---- making system calls fail

_NUMBERS = {  # name: (x86_64, aarch64); those since Linux 5.1 have one number everywhere
    "clone3": (435, 435),
    "close_range": (436, 436),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "openat2": (437, 437),
    "mount_setattr": (442, 442),
    "memfd_create": (319, 279),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "clone": (56, 220),
    "execveat": (322, 281),
    "prctl": (157, 167),
    "pivot_root": (155, 41),
    "prlimit64": (302, 261),
    "setgroups": (116, 159),
    "setfsgid": (123, 152),
    "setfsuid": (122, 151),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "capget": (125, 90),
    "capset": (126, 91),
    "ioctl": (16, 29),
    "ioprio_set": (251, 30),
    "keyctl": (250, 219),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
    "personality": (135, 92),
    "mount": (165, 40),
    "rt_sigaction": (13, 134),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setsid": (112, 157),
    "socket": (41, 198),
    "umask": (95, 166),
    "unshare": (272, 97),
    "waitid": (247, 95),
}
_MACHINES = {"x86_64": 0, "aarch64": 1}


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("code", ctypes.POINTER(_Instruction))]


def native_spawn(module, blob, timeout, fds=()):
    """(what has the child's pid and _pidfd, the failure or None) of the C core's spawn()."""
    owner = types.SimpleNamespace(pid=0, _pidfd=-1, _handle=None)
    values = (blob, ["true"], "true", None, fds, True, timeout, None, (), None, owner)
    return owner, module.spawn(*values)


def refuse(**errors):
    """From here on these system calls of this thread and its children fail: refuse(clone3=38).

    refuse(prctl=(1, 36)) refuses one first argument only; refuse(clone=(1, 0x60000000, "any"))
    those in which one of the bits is set, refuse(ioctl=(1, 0x540E, "second")) looks at the second
    argument; refuse(mount="kill") kills the process that calls.

    The filter stays; so this is for scripts.  Needs CAP_SYS_ADMIN, or sets no_new_privs.
    """
    column = _MACHINES[platform.machine()]
    code = []
    for name, number in errors.items():
        code.append((0x20, 0, 0, 0))  # load the number of the call
        if isinstance(number, (int, str)):
            code.append((0x15, 0, 1, _NUMBERS[name][column]))  # if it is this one
        else:
            number, argument, *how = number
            code.append((0x15, 0, 3, _NUMBERS[name][column]))
            second = how == ["second"]
            code.append((0x20, 0, 0, 24 if second else 16))  # and the low half of the argument
            code.append((0x45 if how == ["any"] else 0x15, 0, 1, argument))
        answer = 0x80000000 if number == "kill" else 0x00050000 | number
        code.append((0x06, 0, 0, answer))  # SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO
    code.append((0x06, 0, 0, 0x7FFF0000))  # SECCOMP_RET_ALLOW
    program = _Program(len(code), (_Instruction * len(code))(*code))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0:
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if libc.prctl(22, 2, ctypes.byref(program), 0, 0) != 0:  # PR_SET_SECCOMP, a filter
        raise OSError(ctypes.get_errno(), "seccomp")


def mount(source, target, fstype, flags=0, data=None):
    """mount(2), for scripts in a mount namespace of their own."""
    encoded = [None if item is None else os.fsencode(item) for item in (source, target, fstype)]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(*encoded, ctypes.c_ulong(flags), None if data is None else data.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def own_mounts():
    """A mount namespace for this script, from which nothing propagates."""
    nsext.unshare("mnt")
    mount("none", "/", None, 0x44000)  # MS_PRIVATE | MS_REC


def fake_proc(*files):
    """In a mount namespace of this script: a /proc with these files in /proc/self and no more."""
    own_mounts()
    mount("tmpfs", "/proc", "tmpfs")
    for name in files:
        place = Path("/proc/self", name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
