"""seccomp=: filters by what they refuse, and the built-in profile by an interpreter of its own.

The simulation runs the profile of both architectures on every call; the real thing is asked too.
"""

import errno
import importlib.util
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys

import pytest
from support import as_user, needs, output, running, script, status

import nsext
from nsext._bpf import ALLOW, MAX_INSTRUCTIONS
from nsext._profile import profile, read_table

root = pytest.mark.usefixtures("root")
MACHINE = platform.machine()
ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
NEW_FLAGS = [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000]


def column(machine):
    """{name: number} of the table."""
    index = {"x86_64": 1, "aarch64": 2}[machine]
    return {name: row[index] for name, row in read_table().items() if row[index] is not None}


def section(name):
    return read_table()[name][0]


# ---- the profile, simulated


def simulate(code, number, arguments=(), arch=ARCHES["x86_64"]):
    """What a program says to a call: "allow", or an errno.  A small BPF machine, for that alone."""
    data = struct.pack("<iIQ6Q", number, arch, 0, *[*arguments, *[0] * 6][:6])
    steps = [struct.unpack_from("@HBBI", code, at) for at in range(0, len(code), 8)]
    at, word = 0, 0
    for _ in range(len(steps)):
        op, true, false, k = steps[at]
        at += 1
        match op:
            case 0x20:
                word = struct.unpack_from("<I", data, k)[0]
            case 0x05:
                at += k
            case 0x15:
                at += true if word == k else false
            case 0x35:
                at += true if word >= k else false
            case 0x45:
                at += true if word & k else false
            case 0x06:
                return "allow" if k == ALLOW else k & 0xFFFF
            case _:
                raise AssertionError(f"unknown instruction {op:#x}")
    raise AssertionError("no end")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_profile_of_every_call(machine):
    code, arch = profile(machine), ARCHES[machine]
    names = {number: name for name, number in column(machine).items()}
    answers = {"allow": "allow", "EPERM": errno.EPERM, "ENOSYS": errno.ENOSYS}
    for number in range(1024):
        wanted = errno.ENOSYS
        if number in names:
            wanted = answers.get(section(names[number]))
        if wanted is not None:
            assert simulate(code, number, arch=arch) == wanted, (number, names.get(number))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_profile_of_other_architectures(machine):
    """Whose numbers mean something else."""
    code = profile(machine)
    for name, arch in ARCHES.items():
        for number in (0, 20, 39, 64, 162):
            answer = simulate(code, number, arch=arch)
            assert (answer == errno.EPERM) or name == machine, (name, number)
    for number in column(machine).values():  # x32
        assert simulate(code, number | 0x40000000, arch=ARCHES[machine]) == errno.EPERM
    assert simulate(code, -1, arch=ARCHES[machine]) == errno.EPERM


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("dirt", [0, 0xDEAD << 32])
def test_profile_by_arguments(machine, dirt):
    """dirt: the upper half of an int argument, which the kernel does not look at."""
    code, arch, numbers = profile(machine), ARCHES[machine], column(machine)

    def ask(name, *arguments):
        given = [argument | dirt for argument in arguments]
        return simulate(code, numbers[name], given, arch)

    for flag in NEW_FLAGS:
        for name in ("clone", "unshare"):
            assert ask(name, flag) == ask(name, flag | 0x100) == errno.EPERM
    assert ask("clone", 0x3D0F00) == ask("clone", 17) == "allow"  # a thread, a fork
    assert ask("clone", 0x80 | 17) == "allow"  # no flag: a part of the exit signal
    assert ask("unshare", 0x80) == errno.EPERM
    assert ask("unshare", 0x400 | 0x200) == "allow"
    for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert ask("personality", value) == "allow"
    for value in (0x40000, 0x100000, 0x400000, 1):
        assert ask("personality", value) == errno.EPERM
    for request in (0x5412, 0x541C):
        assert ask("ioctl", 0, request) == errno.EPERM
    for request in (0x5401, 0x5413, 0x541B, 0x541D, 0x8912):
        assert ask("ioctl", 0x5412, request) == "allow"
    for family in (1, 2, 10, 16, 17, 44, 45):
        assert ask("socket", family) == "allow"
    for family in (12, 38, 40, 46, 100, 0x7FFFFFFF):
        assert ask("socket", family) == errno.EPERM


def test_profile_is_sane():
    table = read_table()
    assert {row[0] for row in table.values()} == {"allow", "EPERM", "ENOSYS", "arguments"}
    for machine in ("x86_64", "aarch64"):
        numbers = column(machine)
        assert len(set(numbers.values())) == len(numbers)
        assert len(profile(machine)) // 8 < MAX_INSTRUCTIONS / 8
        for name in ("execve", "exit_group", "rt_sigaction", "rt_sigprocmask", "prctl", "seccomp"):
            assert section(name) == "allow", "the set-up itself needs it"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_numbers_are_the_kernels(machine):
    header = {"x86_64": "asm/unistd_64.h", "aarch64": "asm-generic/unistd.h"}[machine]
    wants = ["RENAMEAT", "NEW_STAT", "SET_GET_RLIMIT", "TIME32_SYSCALLS", "SYS_CLONE3"]
    wants += ["MEMFD_SECRET"]
    source = "".join(f"#define __ARCH_WANT_{name}\n" for name in wants)
    source += f"#define __BITS_PER_LONG 64\n#include <{header}>\n"
    done = subprocess.run(
        ["cc", "-E", "-dM", "-"], input=source, capture_output=True, text=True, check=False
    )
    needs(done.returncode == 0, f"needs {header}")
    words = dict(re.findall(r"^#define (__NR\w+) (\w+)$", done.stdout, re.MULTILINE))
    known = {}
    for name, value in words.items():
        value = words.get(value, value)
        if name.startswith("__NR_") and value.isdigit():
            known[name.removeprefix("__NR_")] = int(value)
    ours = column(machine)
    compared = {name: number for name, number in ours.items() if name in known}
    assert len(compared) > 280
    assert all(known[name] == number for name, number in compared.items())
    # What the headers lack is what came after them.
    assert all(ours[name] > 330 for name in ours.keys() - known.keys())


# ---- the profile, for real

TRY = """
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(value) for value in arguments])
    return 0 if result >= 0 else ctypes.get_errno()
"""

PROGRAM = (
    "import ctypes, json, sys"
    + TRY
    + """
wanted = json.loads(sys.argv[1])
print(json.dumps({name: call(number, *args) for name, (number, args) in wanted.items()}))
"""
)
BAD = -1 << 20  # an address, a descriptor, a flag that nobody has


def answers(calls, **keywords):
    """{name: errno or 0} of calls that a program makes: {name: arguments}."""
    numbers = column(MACHINE)
    wanted = {name: (numbers[name.split()[0]], list(args)) for name, args in calls.items()}
    return json.loads(
        output([sys.executable, "-I", "-S", "-c", PROGRAM, json.dumps(wanted)], **keywords)
    )


@root
@pytest.mark.parametrize("keywords", [{}, {"new": "user pid mnt"}, {"user": 0}], ids=str)
def test_what_is_refused(keywords):
    harmless = ("reboot", "vhangup", "sethostname", "setdomainname", "chroot", "swapoff")
    names = [name for name, row in read_table().items() if row[0] == "EPERM"]
    calls = {name: (BAD,) * 6 for name in names if name in column(MACHINE)}
    found = answers(calls, seccomp="default", **keywords)
    assert found == dict.fromkeys(calls, errno.EPERM)
    without = answers({name: calls[name] for name in calls if name not in harmless})
    assert errno.EFAULT in without.values(), "without the filter they are tried"


@root
def test_what_is_refused_by_arguments():
    calls = {
        "unshare": (0x20000,),
        "unshare user": (0x10000000,),
        "clone": (0x20000 | 17, 0, 0, 0, 0),
        "socket vsock": (40, 1, 0),
        "socket alg": (38, 5, 0),
        "ioctl": (0, 0x5412, BAD),
        "personality": (0x40000,),
    }
    assert answers(calls, seccomp="default") == dict.fromkeys(calls, errno.EPERM)
    calls = {"clone3": (BAD, 88), "unshare files": (0x400,), "socket": (2, 1, 0)}
    assert answers(calls, seccomp="default") == {
        "clone3": errno.ENOSYS,
        "unshare files": 0,
        "socket": 0,
    }


ORDINARY = """
import asyncio, os, select, signal, socket, subprocess, sys, tempfile, threading, multiprocessing
def work(queue): queue.put(os.getpid())
if __name__ == "__main__":
    threads = [threading.Thread(target=os.getpid) for _ in range(4)]
    [thread.start() for thread in threads]; [thread.join() for thread in threads]
    assert subprocess.check_output(["sh", "-c", "ls / | sort | head -1"])
    with tempfile.TemporaryDirectory() as place:
        os.mkfifo(os.path.join(place, "fifo"))
        os.symlink("a", os.path.join(place, "link"))
        open(os.path.join(place, "file"), "w").close()
        os.chmod(os.path.join(place, "file"), 0o600)
        os.utime(os.path.join(place, "file"))
    a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
    async def main():
        process = await asyncio.create_subprocess_exec("true")
        return await process.wait()
    assert asyncio.run(main()) == 0
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue(); child = context.Process(target=work, args=(queue,))
    child.start(); queue.get(); child.join()
    if os.fork() == 0: os._exit(0)
    os.wait()
    signal.sigwait.__name__; os.sched_yield(); os.nice(1); os.getloadavg(); os.urandom(1)
    print("well")
"""


@root
@pytest.mark.parametrize("keywords", [{}, {"new": "user pid mnt", "init": True}], ids=str)
def test_ordinary_programs_run(keywords, tmp_path):
    file = tmp_path / "ordinary.py"
    file.write_text(ORDINARY)
    assert output([sys.executable, str(file)], seccomp="default", **keywords) == "well"
    if shutil.which("cc"):
        source = tmp_path / "hello.c"
        source.write_text('#include <stdio.h>\nint main(void) { puts("compiled"); return 0; }\n')
        target = tmp_path / "hello"
        output(["cc", str(source), "-o", str(target)], seccomp="default", **keywords)
        assert output([str(target)], seccomp="default", **keywords) == "compiled"


INT_80 = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("b814000000" "cd80" "c3"))  # mov eax, 20 (getpid); int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
print(ctypes.CFUNCTYPE(ctypes.c_int)(address)())
"""


@root
def test_the_entry_of_another_architecture():
    needs(MACHINE == "x86_64", "int 0x80 is x86's")
    command = [sys.executable, "-I", "-S", "-c", INT_80]
    plain = nsext.run(command, capture_output=True, text=True)
    needs(plain.returncode == 0 and int(plain.stdout) > 0, "needs the calls of i386")
    assert int(output(command, seccomp="default")) == -errno.EPERM
    done = answers({"getpid": ()}, seccomp="default")
    assert done == {"getpid": 0}
    program = PROGRAM.replace("name: call(number,", "name: call(number | 0x40000000,")
    wanted = json.dumps({"getpid": (39, [])})
    shown = output([sys.executable, "-I", "-S", "-c", program, wanted], seccomp="default")
    assert json.loads(shown) == {"getpid": errno.EPERM}


# ---- filters of one's own


def refusing(name, number=errno.EXFULL):
    """BPF that fails one call, and lets everything else pass."""
    lines = [
        (0x20, 0, 0, 0),
        (0x15, 0, 1, column(MACHINE)[name]),
        (0x06, 0, 0, 0x50000 | number),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    return b"".join(struct.pack("@HBBI", *line) for line in lines)


def killing(name):
    code = bytearray(refusing(name))
    struct.pack_into("@I", code, 20, 0x80000000)  # SECCOMP_RET_KILL_PROCESS
    return bytes(code)


@root
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_bytes(form):
    calls = {"uname": (BAD,)}
    assert answers(calls) == {"uname": errno.EFAULT}
    for value in (form(refusing("uname")), [form(refusing("uname"))]):
        assert answers(calls, seccomp=value) == {"uname": errno.EXFULL}


@root
def test_several_in_order():
    first, second = refusing("uname", 5), refusing("getcwd", 6)
    calls = {"uname": (BAD,), "getcwd": (BAD, 1)}
    assert answers(calls, seccomp=[first, second]) == {"uname": 5, "getcwd": 6}
    with running(seccomp=[first, second, "default"]) as child:
        facts = status(child.pid)
        assert facts["Seccomp"] == "2" and facts["Seccomp_filters"] == "3"
        assert facts["NoNewPrivs"] == "1"
    # The one that refuses to load another one has to come last.
    last = refusing("prctl", 7)
    with running(seccomp=[first, last]) as child:
        assert status(child.pid)["Seccomp_filters"] == "2"
    with pytest.raises(nsext.SpawnError) as caught:
        nsext.run(["true"], seccomp=[last, first])
    assert (caught.value.errno, caught.value.stage) == (7, "setup")
    assert caught.value.step == "load a seccomp filter of 4 instructions"


@root
def test_none_at_all():
    with running(seccomp=()) as child:
        assert status(child.pid)["Seccomp"] == "0" and status(child.pid)["NoNewPrivs"] == "0"


class Exporter:
    """As the bindings of libseccomp have it."""

    def __init__(self, code, by_number):
        self.code, self.by_number = code, by_number

    def export_bpf(self, file):
        if self.by_number:
            import os

            os.write(file.fileno(), self.code)
        else:
            file.write(self.code)


@root
@pytest.mark.parametrize("by_number", [True, False])
def test_what_exports_bpf(by_number):
    exporter = Exporter(refusing("uname"), by_number)
    for value in (exporter, [exporter], ("default", exporter)):
        assert answers({"uname": (BAD,)}, seccomp=value) == {"uname": errno.EXFULL}


@root
def test_pyseccomp():
    needs(importlib.util.find_spec("pyseccomp"), "needs pyseccomp")
    try:
        import pyseccomp
    except OSError as error:  # of another C library, or none
        needs(False, f"needs libseccomp: {error}")

    made = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    made.add_rule(pyseccomp.ERRNO(errno.EXFULL), "uname")
    assert answers({"uname": (BAD,)}, seccomp=made) == {"uname": errno.EXFULL}
    assert answers({"uname": (BAD,), "mount": ()}, seccomp=[made, nsext.seccomp_default()]) == {
        "uname": errno.EXFULL,
        "mount": errno.EPERM,
    }


# ---- no_new_privs, and what goes wrong


def test_without_no_new_privs_as_user():
    as_user("""
    for fields in ({}, {"capabilities": ()}):
        if fields:
            fields["new"] = "user"
        error = failure(nsext.run, ["true"], seccomp="default", no_new_privs=False, **fields)
        assert (error.errno, error.stage) == (errno.EACCES, "setup") and is_plain(error), error
        assert "seccomp filter" in error.step and "no_new_privs" in error.hint
    with running(seccomp="default") as child:
        assert status(child.pid)["NoNewPrivs"] == "1"
    with running(seccomp="default", new="user", no_new_privs=False) as child:
        assert status(child.pid)["NoNewPrivs"] == "0" and status(child.pid)["Seccomp"] == "2"
    """)


@root
def test_root_needs_no_no_new_privs():
    with running(seccomp="default", no_new_privs=False) as child:
        facts = status(child.pid)
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("0", "2")
    with pytest.raises(nsext.SpawnError, match="no_new_privs"):
        nsext.run(["true"], seccomp="default", no_new_privs=False, capabilities=["kill"])
    with running(seccomp="default", no_new_privs=False, capabilities=["sys_admin"]) as child:
        assert status(child.pid)["Seccomp"] == "2"


@root
@pytest.mark.parametrize("keywords", [{}, {"user": 0}], ids=["inline", "helper"])
def test_a_filter_that_refuses_exec(keywords):
    with pytest.raises(PermissionError) as caught:
        nsext.run(["true"], seccomp=refusing("execve", errno.EPERM), **keywords)
    assert isinstance(caught.value, nsext.SpawnError) and caught.value.stage == "exec"
    with pytest.raises(nsext.SpawnError, match=re.escape(os.strerror(errno.EXFULL))):
        nsext.run(["true"], seccomp=refusing("execve"), **keywords)


@root
@pytest.mark.inline("in the helper a death at the very end is the program's: the last lines")
def test_a_filter_that_kills():
    with pytest.raises(nsext.SpawnError, match="SIGSYS") as caught:
        nsext.run(["true"], seccomp=killing("execve"))
    assert caught.value.stage == "exec" and "seccomp" in caught.value.hint
    with pytest.raises(nsext.SpawnError, match="SIGSYS") as caught:
        nsext.run(["true"], seccomp=killing("rt_sigaction"))
    assert caught.value.step == "reset signals"
    # See design.md.
    done = nsext.run(["true"], seccomp=killing("execve"), user=0)
    assert done.returncode == -31


@root
def test_a_program_that_is_none():
    for code in (bytes(8), b"\xff" * 8, struct.pack("@HBBI", 0x20, 0, 0, 0)):
        with pytest.raises(nsext.SpawnError) as caught:
            nsext.run(["true"], seccomp=code)
        assert caught.value.errno == errno.EINVAL and "check" in caught.value.hint


@root
def test_the_longest_program():
    longest = (0x05, 0, 0, 0)
    code = struct.pack("@HBBI", *longest) * 4095 + struct.pack("@HBBI", 0x06, 0, 0, ALLOW)
    with running(seccomp=code) as child:
        assert status(child.pid)["Seccomp"] == "2"


@root
def test_inherited_by_what_the_program_starts():
    command = "exec 3>&1; (grep Seccomp: /proc/self/status | tr -d '\\n')"
    assert output(["sh", "-c", command], seccomp="default").split()[1] == "2"


@pytest.mark.parametrize(
    "value, words",
    [
        (b"", "0 bytes"),
        (b"1234567", "7 bytes"),
        (bytes(8 * 4097), "4097"),
        ("docker", "docker"),
        ([b"12345678", "docker"], "docker"),
        ([b""], "0 bytes"),
        (Exporter(b"123", False), "3 bytes"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_wrong_values(value, words):
    with pytest.raises(ValueError, match=words):
        nsext.Sandbox(seccomp=value)


@pytest.mark.parametrize("value", [5, [5], [None], object(), [[b"12345678"]]])
def test_wrong_types(value):
    with pytest.raises(TypeError, match="seccomp"):
        nsext.Sandbox(seccomp=value)


def test_the_description():
    code = nsext.seccomp_default()
    box = nsext.Sandbox(seccomp=code)
    assert box == nsext.Sandbox(seccomp="default") == nsext.Sandbox(seccomp=[bytearray(code)])
    assert hash(box) == hash(nsext.Sandbox(seccomp="default"))
    assert repr(box) == f"Sandbox(seccomp=(<{len(code) // 8} instructions>,))"
    assert nsext.Sandbox.from_toml(box.to_toml()) == box
    with pytest.raises(ValueError, match="text form"):
        nsext.Sandbox(seccomp=refusing("uname")).to_dict()
    assert "load a seccomp filter" in box.explain()


def test_no_profile_for_other_machines(monkeypatch):
    import os

    class Uname:
        machine = "riscv64"

    monkeypatch.setattr(os, "uname", lambda: Uname)
    with pytest.raises(nsext.UnsupportedError, match="riscv64"):
        nsext.seccomp_default()


@root
def test_after_a_chroot_the_profile_is_still_there(tmp_path):
    script(
        """
        os.chroot(sys.argv[1])
        assert len(nsext.Sandbox(seccomp="default").seccomp[0]) > 800
        """,
        str(tmp_path),
    )
