"""In a container: what check() says, what really happens, and what others can do there.

Printed as JSON: {"check": {name: [ok, reason, remedy]}, "did": {name: true, or what failed},
"others": {name: could they?}, "is": facts about the container}.  A success is the kernel's word:
who does the work asserts it, and an AssertionError is the end of the script.
"""

import ctypes
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import nsext

KINDS = ("mnt", "uts", "ipc", "user", "pid", "net", "cgroup", "time")
DEADLINE = 60


def field(name, text=None):
    lines = (text or Path("/proc/self/status").read_text()).splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{name}:"))


OWN = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS}
ADMIN = int(field("CapEff"), 16) >> 21 & 1


# Who is no root, or may not change his ids, is one already.
AS_USER = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"]
if os.geteuid() != 0 or not int(field("CapEff"), 16) >> 7 & 1:
    AS_USER = []


def new(kinds):
    """As whoever has not CAP_SYS_ADMIN says it."""
    return kinds if ADMIN or "user" in kinds.split() else f"user {kinds}"


def output(args, **fields):
    done = nsext.run(args, capture_output=True, text=True, timeout=DEADLINE, **fields)
    assert (done.returncode, done.stderr) == (0, ""), (args, fields, done)
    return done.stdout


def sh(script, *args, **fields):
    return output(["/bin/sh", "-c", script, "sh", *args], **fields)


# ---- what is tried


def kind(name):
    inside = output(["readlink", f"/proc/self/ns/{name}"], new=new(name)).strip()
    assert inside.startswith(f"{name}:[") and inside != OWN[name], inside


def all_kinds():
    script = 'for kind in "$@"; do readlink /proc/self/ns/$kind; done; echo $$'
    *inside, pid = sh(script, *KINDS, new="all").split()
    assert pid == "1" and not set(inside) & set(OWN.values()), (inside, OWN)


def proc():
    found = sh("echo $$; echo /proc/[0-9]*; readlink /proc/self/ns/pid", new=new("pid mnt"))
    pid, seen, inside = found.splitlines()
    assert (pid, seen) == ("1", "/proc/1") and inside != OWN["pid"], found


def old_proc():
    """The same namespaces without it, as the hint says."""
    kinds = [kind for kind in KINDS if kind != "time"]
    found = sh("echo $$; uname -n", new=kinds, proc=False, hostname="inner").split()
    assert found == ["1", "inner"], found


def id_ranges():
    found = output(["cat", "/proc/self/uid_map"], new="user", uid_map="auto", gid_map="auto")
    assert sum(int(line.split()[2]) for line in found.splitlines()) > 1, found


def time_offsets():
    with open("/proc/uptime") as here:
        before = float(here.read().split()[0])
    after = output(["cat", "/proc/uptime"], new=new("time"), time_offsets={"boottime": 10**6})
    assert float(after.split()[0]) >= before + 10**6, (before, after)


def rootless():
    """User namespaces of ordinary users: by a Python that has become one."""
    code = (
        "import nsext\n"
        "try:\n"
        "    nsext.run(['uname', '-n'], new='user uts', check=True)\n"
        "except nsext.SpawnError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [*AS_USER, sys.executable, "-Bc", code], capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stderr
    if done.stdout != f"{os.uname().nodename}\n":
        raise RuntimeError(done.stdout)


def cgroup2():
    with nsext.Popen(["cat"], cgroup=nsext.Cgroup(), stdin=nsext.PIPE) as process:
        pids = Path(process.cgroup.path, "cgroup.procs").read_text().split()
        assert pids == [str(process.pid)], pids
        process.communicate()
    assert not os.path.exists(process.cgroup.path)


def seccomp():
    found = output(["cat", "/proc/self/status"], seccomp="default")
    filters = int(field("Seccomp_filters", found)) - int(field("Seccomp_filters"))
    assert field("Seccomp", found) == "2" and filters >= 1, found


def landlock():
    box = nsext.Landlock(read=["/usr", "/proc", "/bin", "/lib", "/lib64"], execute=["/usr"])
    done = nsext.run(["/usr/bin/cat", "/etc/hostname"], landlock=box, capture_output=True)
    assert done.returncode == 1 and b"Permission denied" in done.stderr, done


def clone3():
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(435, None, 0) == -1
    if ctypes.get_errno() != errno.EINVAL:
        raise OSError(ctypes.get_errno(), "clone3")


def plain():
    assert output(["echo", "hi"]) == "hi\n"
    with nsext.spawn(["sh", "-c", "exit 7"]) as process:
        assert process.wait(timeout=DEADLINE) == 7
    try:
        nsext.run(["/nowhere"])
    except FileNotFoundError:
        pass


def helper():
    with nsext.Popen(["cat"], stdin=nsext.PIPE, stdout=nsext.PIPE, paused=True) as process:
        assert process.body == "helper", process.body
        process.resume()
        assert process.communicate(b"meow", timeout=DEADLINE)[0] == b"meow"


def subreaper():
    """An init without a pid namespace of its own."""
    found = sh("(sleep 0.01; exit 3)& echo $$; grep PPid: /proc/self/status", init=True).split()
    assert found[0] != "1" and found[2] == found[0], found


def init():
    found = sh("(exit 3)& echo $$", new=new("pid"), init=True)
    assert found == "2\n", found


def dies_with_parent():
    found = sh("grep -c . /proc/self/status", kill_on_parent_exit=True)
    assert int(found) > 20, found


def other_user():
    found = output(["cat", "/proc/self/status"], user=65534, group=65534, extra_groups=[])
    assert field("Uid", found).split() == ["65534"] * 4 and field("Groups", found) == "", found


def no_capabilities():
    found = output(["cat", "/proc/self/status"], capabilities=())
    sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"]
    if int(field("CapEff"), 16) >> 8 & 1:  # CAP_SETPCAP
        sets.append("CapBnd")
    assert not [name for name in sets if int(field(name, found), 16)], found
    assert field("NoNewPrivs", found) == "1", found


def terminal():
    with nsext.Popen(["tty"], pty=True) as process:
        found = process.communicate(timeout=DEADLINE)[0]
    assert b"/dev/pts/" in found, found


def limits():
    found = sh("ulimit -n; ulimit -c", rlimits={"nofile": 64, "core": 0})
    assert found == "64\n0\n", found


def join():
    with nsext.Popen(["cat"], new=new("uts"), hostname="inner", stdin=nsext.PIPE) as process:
        assert output(["uname", "-n"], join=process) == "inner\n"
        process.communicate()


def loopback():
    found = sh("cat /proc/net/dev; ip -o link 2>&1 | grep UP", new=new("net"))
    assert "lo:" in found and "LOOPBACK,UP" in found, found


def root():
    """A root of its own, with the old /proc."""
    box = nsext.Sandbox(new=new("mnt"), root=nsext.Tmpfs(), mounts=nsext.hostlike())
    found = box.check_output(["sh", "-c", "echo x >/tmp/x; cat /tmp/x; ls /"], text=True).split()
    assert found[0] == "x" and "opt" not in found, found


def sandbox():
    """With a fresh one."""
    kinds = "pid mnt net uts ipc"
    box = nsext.Sandbox(new=new(kinds), root=nsext.Tmpfs(), mounts=nsext.hostlike())
    found = box.check_output(["sh", "-c", "echo $$; ls /"], text=True).split()
    assert found[0] == "1" and "opt" not in found and "proc" in found, found


def untrusted():
    found = nsext.Sandbox.untrusted().check_output(["cat", "/proc/self/status"], text=True)
    assert field("Seccomp", found) == "2" and not int(field("CapBnd", found), 16), found


def disable_userns():
    done = nsext.run(
        ["unshare", "-U", "true"], new="user", disable_userns=True, capture_output=True, text=True
    )
    assert done.returncode == 1 and "unshare" in done.stderr, done


def command():
    done = subprocess.run(
        [sys.executable, "-B", "-m", "nsext", "run", "--", "echo", "hi"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "hi\n"), done


FEATURES = (rootless, proc, id_ranges, time_offsets, clone3, cgroup2, seccomp, landlock)
MORE = (plain, helper, subreaper, init, dies_with_parent, other_user, no_capabilities, terminal)
MORE += (limits, join, loopback, root, sandbox, untrusted, disable_userns, all_kinds, old_proc)
MORE += (command,)


def outcome(function, *args):
    """True, or what failed."""
    try:
        function(*args)
    except nsext.SpawnError as error:
        words = {"type": type(error).__name__, "errno": errno.errorcode.get(error.errno)}
        return {**words, "stage": error.stage, "step": error.step, "text": str(error)}
    except (OSError, RuntimeError) as error:
        return {"type": type(error).__name__, "text": str(error)}
    return True


# ---- the same by others: util-linux


def works(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


OPTIONS = {
    "mnt": "-m",
    "uts": "-u",
    "ipc": "-i",
    "pid": "-pf",
    "cgroup": "-C",
    "time": "-T",
}


def others():
    unshare = ["unshare"] if ADMIN else ["unshare", "-r"]
    found = {name: works(*unshare, option, "true") for name, option in OPTIONS.items()}
    found["user"] = works("unshare", "-Ur", "true")
    found["net"] = works(*unshare, "-n", "ip", "link", "set", "lo", "up")
    found["proc"] = works(*unshare, "-pfm", "--mount-proc", "true")
    found["time_offsets"] = works(*unshare, "-T", "--boottime", "1000", "true")
    found["rootless"] = works(*AS_USER, "unshare", "-ru", "true")
    return found


def main():
    report = nsext.check()
    found = {
        "check": {name: [item.ok, item.reason, item.remedy] for name, item in report.items()},
        "did": {name: outcome(kind, name) for name in KINDS}
        | {function.__name__: outcome(function) for function in (*FEATURES, *MORE)},
        "others": others(),
        "is": {"pid": os.getpid(), "uid": os.geteuid(), "admin": bool(ADMIN)},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
