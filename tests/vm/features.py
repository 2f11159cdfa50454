"""What this kernel has of all that nsext uses: found by trying, told to tools/vm.py.

The rows of the first table in docs/kernels.md.  Run as root of a virtual machine.
"""

import ctypes
import errno
import fcntl
import json
import os
import sys
import tempfile
from pathlib import Path

import nsext
from nsext import Bind, Overlay

libc = ctypes.CDLL(None, use_errno=True)
GROUPS = Path("/sys/fs/cgroup")
ROWS = {}


def row(name):
    def enter(probe):
        ROWS[name] = probe
        return probe

    return enter


def call(number, *arguments):
    """What a system call returns, or -errno."""
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return result if result >= 0 else -ctypes.get_errno()


def exists(number, *arguments):
    return call(number, *arguments or (-1,) * 6) != -errno.ENOSYS


def works(*args, **keywords):
    """Does a program start, and end with 0?"""
    try:
        return nsext.run(args or ["true"], stdout=-3, stderr=-3, **keywords).returncode == 0
    except nsext.SpawnError:
        return False


def ioctl(fd, request, data=bytes(64)):
    try:
        fcntl.ioctl(fd, request, data)
    except OSError as error:
        return -error.errno
    return 0


@row("clone3(2)")
def _():
    return exists(435, 0, 0)


@row("close_range(2)")
def _():
    return exists(436, 2, 1, 0)


@row("openat2(2)")
def _():
    return exists(437)


@row("time namespaces")
def _():
    return works(new="time", time_offsets={"boottime": 1000})


@row("cgroup v2, with the controllers memory, pids, cpu and io")
def _():
    names = (GROUPS / "cgroup.controllers").read_text().split()
    return {"memory", "pids", "cpu", "io"} <= set(names)


@row("overlay in a user namespace")
def _():
    with tempfile.TemporaryDirectory() as place:
        return works(new="user mnt", mounts=[Overlay("/mnt", lower=[place])])


@row("mount_setattr(2)")
def _():
    return exists(442)


@row("idmapped mounts of tmpfs")
def _():
    return works(new="mnt", mounts=[Bind("/usr", "/mnt", idmap=[(0, 1000, 1)])])


@row("Landlock: ABI")
def _():
    return max(call(444, 0, 0, 1), 0) or False


@row("cgroup.kill")
def _():
    group = Path(tempfile.mkdtemp(dir=GROUPS))
    found = (group / "cgroup.kill").exists()
    group.rmdir()
    return found


@row("memory.peak")
def _():
    (GROUPS / "cgroup.subtree_control").write_text("+memory")
    group = Path(tempfile.mkdtemp(dir=GROUPS))
    found = (group / "memory.peak").exists()
    group.rmdir()
    return found


@row("exec enters a new time namespace")
def _():
    code = (
        "import ctypes, os; assert ctypes.CDLL(None).unshare(0x80) == 0;"
        "new = os.readlink('/proc/self/ns/time_for_children');"
        "os.execvp('sh', ['sh', '-c', f'test \"$(readlink /proc/$$/ns/time)\" = \"{new}\"'])"
    )
    return works(sys.executable, "-I", "-S", "-c", code)


@row("memfd_create(2): MFD_EXEC")
def _():
    name = ctypes.create_string_buffer(b"probe")
    fd = libc.memfd_create(name, 0x10)
    if fd < 0:
        return False
    os.close(fd)
    return True


@row("namespaces by pidfd: PIDFD_GET_UTS_NAMESPACE")
def _():
    fd = os.pidfd_open(os.getpid())
    try:
        space = fcntl.ioctl(fd, 0xFF0A)
        os.close(space)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


@row("ids across pid namespaces: NS_GET_PID_IN_PIDNS")
def _():
    fd = os.open("/proc/self/ns/pid", os.O_RDONLY)
    try:
        return fcntl.ioctl(fd, 2 << 30 | 4 << 16 | 0xB708, os.getpid()) == os.getpid()
    except OSError:
        return False
    finally:
        os.close(fd)


@row("PIDFD_GET_INFO")
def _():
    fd = os.pidfd_open(os.getpid())
    try:
        return ioctl(fd, 3 << 30 | 64 << 16 | 0xFF0B) == 0
    finally:
        os.close(fd)


@row("pid_max of a pid namespace")
def _():
    place = Path("/proc/sys/kernel/pid_max")
    before = place.read_text()
    works("sh", "-c", "echo 400 >/proc/sys/kernel/pid_max", new="pid mnt")
    after = place.read_text()
    place.write_text(before)
    return after == before


@row("the exit status after somebody else's wait")
def _():
    process = nsext.Popen(["sh", "-c", "exit 7"])
    os.waitpid(process.pid, 0)
    return process.wait() == 7


@row("ids of namespaces that are never used again")
def _():
    with nsext.Namespace.open("/proc/self/ns/uts") as space:
        return space.unique_id is not None


@row("listns(2)")
def _():
    return exists(470)


def told(probe):
    value = probe()
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    rows = {}
    for name, probe in ROWS.items():
        rows[name] = told(probe)
    print(f"nsext-vm: told {json.dumps({'features': rows})}")
