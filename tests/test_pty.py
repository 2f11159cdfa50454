"""pty=True: a terminal of the program's own."""

import errno
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios

import pytest
from helping import gone, wait_for
from support import DEADLINE, ns_id, script, stat_field, status

import nsext

pytestmark = pytest.mark.usefixtures("root")

DONE, FAILED = {}, {}
INSIDE = {"new": "pid mnt", "root": nsext.Tmpfs(), "mounts": nsext.hostlike()}
PLACES = {
    "inline": {},
    "pid": {"new": "pid"},
    "init": {"init": True},
    "pid 1": {"new": "user pid mnt", "init": True},
    "inside": INSIDE,
    "inside init": {**INSIDE, "init": True},
    "inside user": {**INSIDE, "new": "user pid mnt"},
}
places = pytest.mark.parametrize("keywords", PLACES.values(), ids=PLACES)


def does(step):
    """Marks the test of a step's success."""
    return lambda test: DONE.setdefault(step, test)


def fails(step):
    """Marks the test of a step's failure."""
    return lambda test: FAILED.setdefault(step, test)


def talk(command, **keywords):
    """What a shell command shows on its terminal."""
    done = nsext.run(["sh", "-c", command], pty=True, text=True, timeout=DEADLINE, **keywords)
    assert done.returncode == 0, done
    return done.stdout


def read_until(process, end):
    """What the terminal shows up to *end*."""
    shown = b""
    while end not in shown:
        shown += os.read(process.pty.fileno(), 1)
    return shown


# ---- steps


@does("ctty")
@places
def test_ctty(keywords):
    """A session with this terminal, in whose foreground the program is."""
    with nsext.Popen(["cat"], pty=True, **keywords) as process:
        pid = process.program_pid
        session, terminal, foreground = (int(stat_field(n, pid)) for n in (6, 7, 8))
        assert session == process.pid != os.getsid(0)
        assert foreground == pid == os.getpgid(pid)
        own = os.stat(f"/proc/{pid}/fd/0").st_rdev
        numbers = terminal >> 8 & 0xFFF, terminal & 0xFF | terminal >> 12 & 0xFFF00
        assert numbers == (os.major(own), os.minor(own))
        process.kill()


def refused(request, step, **keywords):
    """The error of a child whose ioctl(2) of this kind is refused."""
    script(
        """
        request, step, keywords = json.loads(sys.argv[1])
        refuse(ioctl=(errno.EPERM, request, "second"))
        failure(nsext.Popen, ["true"], pty=True, **keywords)  # what is kept from a first time on
        before = state()
        error = failure(nsext.Popen, ["true"], pty=True, **keywords)
        assert (error.errno, error.stage) == (errno.EPERM, "setup") and is_plain(error), error
        assert error.step == step, error.step
        assert not changes(before, state()), changes(before, state())
        """,
        json.dumps([request, step, keywords]),
    )


@fails("ctty")
def test_ctty_fails():
    for keywords in ({}, {"init": True}, {"new": "pid", "kill_on_parent_exit": True}):
        refused(termios.TIOCSCTTY, "take the terminal: TIOCSCTTY", **keywords)


@does("pty")
def test_pty_is_of_the_devpts_that_the_program_sees():
    """So it has a name there, and can be opened by it."""
    command = "tty; ls -l $(tty) >/dev/null && echo by name >$(tty)"
    assert talk(command, **INSIDE) == "/dev/pts/0\nby name\n"
    with nsext.Popen(["cat"], pty=True, **INSIDE) as process:
        device = os.stat(f"/proc/{process.pid}/fd/0").st_dev
        assert device != os.stat("/dev/pts").st_dev
        assert device == os.stat(f"/proc/{process.pid}/root/dev/pts").st_dev
        process.kill()
    host = nsext.Popen(["cat"], pty=True, new="mnt pid")
    with host as process:
        assert os.stat(f"/proc/{process.pid}/fd/0").st_dev == os.stat("/dev/pts").st_dev
        process.kill()


@fails("pty")
def test_pty_fails():
    script("""
    mounts = [*nsext.hostlike(), nsext.Mount("tmpfs", "none", "/dev/pts")]
    keywords = {"new": "pid mnt", "root": nsext.Tmpfs(), "mounts": mounts, "pty": True}
    failure(nsext.Popen, ["true"], **keywords)
    before = state()
    error = failure(nsext.Popen, ["true"], **keywords)
    assert (error.errno, error.stage) == (errno.ENOENT, "setup") and is_plain(error), error
    assert error.step == "open /dev/pts/ptmx", error.step
    assert not changes(before, state()), changes(before, state())
    """)


@does("foreground")
def test_foreground():
    """Where an init leads the session the program has a group of its own, and the terminal."""
    for new in ("", "pid"):
        with nsext.Popen(["cat"], pty=True, init=True, new=new) as process:
            program = process.program_pid
            assert program != process.pid
            assert int(stat_field(8, program)) == os.getpgid(program) == program
            os.write(process.pty.fileno(), b"\x03")  # Ctrl-C
            assert process.wait(DEADLINE) == -signal.SIGINT


@fails("foreground")
def test_foreground_fails():
    for keywords in ({"init": True}, {"init": True, "new": "user pid"}):
        refused(termios.TIOCSPGRP, "give the program the terminal: TIOCSPGRP", **keywords)


# ---- what it is


@places
def test_the_streams_are_the_terminal(keywords):
    command = "test -t 0 && test -t 1 && test -t 2 && echo all three; echo tty >/dev/tty; stty size"
    assert talk(command, **keywords) == "all three\ntty\n24 80\n"


def test_those_that_are_redirected_are_not(tmp_path):
    command = "test -t 0 && test -t 2 && echo two >&2; test -t 1 || echo not"
    with nsext.Popen(["sh", "-c", command], pty=True, stdout=nsext.PIPE) as process:
        assert process.stdout.read() == b"not\n"
        assert read_until(process, b"\n") == b"two\r\n"
    with open(os.devnull, "r+") as null:
        keywords = {"stdin": null, "stdout": null}
        with nsext.Popen(["sh", "-c", "echo here >&2"], pty=True, **keywords) as process:
            assert read_until(process, b"\n") == b"here\r\n"
        with pytest.raises(ValueError, match="all three"):
            nsext.Popen(["true"], pty=True, stderr=null, **keywords)


def test_without_there_is_none():
    with nsext.Popen(["true"]) as process:
        assert process.pty is None
    with nsext.Popen(["true"], pty=False) as process:
        assert process.pty is None
    with pytest.raises(TypeError, match="pty"):
        nsext.spawn(["true"], pty=True)


def test_master_is_a_file_that_is_closed_with_the_process():
    with nsext.Popen(["cat"], pty=True) as process:
        master = process.pty
        assert master is process.pty and not os.get_inheritable(master.fileno())
        master.write(b"typed\n")
        assert read_until(process, b"typed\r\ntyped\r\n")
    assert master.closed
    assert process.returncode == -signal.SIGHUP  # a terminal that hangs up


def test_window_size_from_the_start():
    for keywords in ({}, INSIDE):
        done = nsext.run(["stty", "size"], pty=(11, 222), **keywords)
        assert done.stdout == b"11 222\r\n"
    for wrong in ((0, 5), (1,), (5, 1 << 16), ("a", "b"), 5):
        with pytest.raises((TypeError, ValueError)):
            nsext.Popen(["true"], pty=wrong)


def test_window_size():
    script_ = "trap 'stty size' WINCH; stty size; while :; do sleep 0.01; done"
    with nsext.Popen(["sh", "-c", script_], pty=True) as process:
        assert read_until(process, b"\n") == b"24 80\r\n"
        termios.tcsetwinsize(process.pty, (33, 99))
        assert read_until(process, b"\n") == b"33 99\r\n"
        process.kill()


@places
def test_ctrl_c(keywords):
    command = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.01; done"
    with nsext.Popen(["sh", "-c", command], pty=True, **keywords) as process:
        read_until(process, b"ready\r\n")
        process.pty.write(b"\x03")
        assert b"interrupted" in read_until(process, b"interrupted\r\n")
        assert process.wait(DEADLINE) == 3


@places
def test_a_shell_has_job_control(keywords):
    environment = {"PS1": "> ", "PATH": os.environ["PATH"], "TERM": "dumb"}
    args = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
    with nsext.Popen(args, pty=True, env=environment, **keywords) as process:
        assert b"job control" not in read_until(process, b"> ")
        process.pty.write(b"sleep 1000\n")
        read_until(process, b"\r\n")
        # Ctrl-Z counts when sleep has the foreground.
        shell = process.program_pid
        wait_for(lambda: status(int(stat_field(8, shell)))["Name"] == "sleep")
        process.pty.write(b"\x1a")
        assert b"Stopped" in read_until(process, b"> ")
        process.pty.write(b"fg\n")
        wait_for(lambda: status(int(stat_field(8, shell)))["Name"] == "sleep")
        process.pty.write(b"\x03")
        read_until(process, b"> ")
        process.pty.write(b"exit 5\n")
        assert process.wait(DEADLINE) == 5


def test_paused_and_async():
    with nsext.Popen(["tty"], pty=True, paused=True, new="pid") as process:
        master = process.pty
        process.resume()
        assert process.communicate(timeout=DEADLINE)[0].startswith(b"/dev/pts/")
        assert master.closed is False
    script("""
    import asyncio
    async def main():
        process = await nsext.create_subprocess_exec("sh", "-c", "tty; exit 4", pty=True)
        loop = asyncio.get_running_loop()
        shown = await loop.run_in_executor(None, os.read, process.popen.pty.fileno(), 100)
        assert shown.startswith(b"/dev/pts/"), shown
        assert await process.wait() == 4
        process.popen.pty.close()
    asyncio.run(main())
    """)


# ---- run() and communicate()


def test_run():
    done = nsext.run(["sh", "-c", "read x; echo got $x; exit 3"], pty=True, input=b"word\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"word\r\ngot word\r\n", None, 3)
    assert nsext.check_output(["echo", "a"], pty=True, text=True) == "a\n"
    assert nsext.getstatusoutput("echo a; echo b >&2; exit 3", pty=True) == (3, "a\nb")
    done = nsext.run(["cat"], pty=True, input="all of it\n", text=True, timeout=DEADLINE)
    assert done.stdout == "all of it\n" * 2
    many = nsext.run(["seq", "100000"], pty=True, text=True).stdout
    assert many.split() == [str(n) for n in range(1, 100001)]


def test_what_is_no_size():
    for wrong in (3, "x", (24,), (24, 80, 1)):
        with pytest.raises(TypeError, match=r"pty: True or \(rows, columns\), not"):
            nsext.Popen(["true"], pty=wrong)
    with pytest.raises(ValueError, match="no size of a window"):
        nsext.Popen(["true"], pty=(0, 80))


def test_run_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="capture_output"):
        nsext.run(["true"], pty=True, capture_output=True)
    with pytest.raises(ValueError, match="limits"):
        nsext.run(["true"], pty=True, output_limit=5)
    with nsext.Popen(["cat"], pty=True, stdin=nsext.PIPE) as process:
        with pytest.raises(ValueError, match="pipes"):
            process.communicate()


def test_timeout_has_what_was_shown():
    with pytest.raises(nsext.TimeoutExpired) as caught:
        nsext.run(["sh", "-c", "echo so far; exec sleep 1000"], pty=True, timeout=0.5)
    assert caught.value.output == b"so far\r\n" and caught.value.timeout == 0.5


# ---- what it is for


STEAL = """
import fcntl, sys, termios
fd = int(sys.argv[1])
try:
    for char in b"touch /stolen\\n":
        fcntl.ioctl(fd, termios.TIOCSTI, bytes([char]))
    print("typed")
except OSError as error:
    print(error.errno)
"""


def test_nothing_can_be_typed_at_the_callers_terminal():
    """TIOCSTI, CVE-2017-5226: from a session of its own, not even through a leaked descriptor."""
    master, slave = os.openpty()
    try:
        # A session whose controlling terminal that is, as a login shell's: in it, nsext.
        code = """
import fcntl, os, sys, termios
import nsext
steal, mode = sys.argv[1:]
keywords = {"pty": True} if mode == "own" else {}
done = nsext.run(
    [sys.executable, "-I", "-S", "-c", steal, "9"], fd_map={9: 0}, new="user pid", text=True,
    **keywords, **({} if keywords else {"stdout": nsext.PIPE}),
)
print(done.stdout.strip(), file=open(1, "w"))
"""
        results = {}
        for mode in ("own", "shared"):
            process = subprocess.Popen(
                [sys.executable, "-c", code, STEAL, mode],
                stdin=slave,
                stdout=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
                text=True,
            )
            results[mode] = process.communicate(timeout=DEADLINE)[0].strip()
            assert process.returncode == 0
        assert results["own"] in (str(errno.EPERM), str(errno.EIO))
        waiting = struct.unpack("i", fcntl.ioctl(slave, termios.FIONREAD, bytes(4)))[0]
        legacy = "/proc/sys/dev/tty/legacy_tiocsti"
        open_to_all = not os.path.exists(legacy) or open(legacy).read().strip() == "1"
        # The proof that the test can fail: without pty=True it works, where the kernel lets it.
        assert results["shared"] == ("typed" if open_to_all else str(errno.EIO))
        assert bool(waiting) == open_to_all
    finally:
        os.close(master)
        os.close(slave)


def test_hangup_when_the_caller_dies():
    pid = script("""
    print(nsext.Popen(["sleep", "1000"], pty=True).pid, flush=True)
    os._exit(0)
    """)
    gone(int(pid))


def test_missing_ptmx_is_an_error():
    script("""
    own_mounts()
    mount("tmpfs", "/dev", "tmpfs")
    before = state()
    error = failure(nsext.Popen, ["true"], pty=True)
    assert (error.errno, error.stage, error.step) == (errno.ENOENT, "plan", "open /dev/ptmx")
    assert not changes(before, state()), changes(before, state())
    """)


def test_closed_streams_are_no_trap():
    """Where 0, 1, 2 are closed here, the terminal's own descriptors are not at their numbers."""
    script("""
    kept = os.dup(1)
    for fd in (0, 1, 2):
        os.close(fd)
    p = nsext.Popen(["sh", "-c", "test -t 0 && test -t 1 && test -t 2"], pty=True)
    master = p.pty.fileno()
    code = p.wait()
    p.pty.close()
    os.dup2(kept, 1)
    os.dup2(kept, 2)
    assert master > 2 and code == 0, (master, code)
    """)


def test_every_namespace_too():
    with nsext.Popen(["cat"], pty=True, new="all", init=True) as process:
        for kind in ("mnt", "uts", "ipc", "user", "net", "cgroup", "time"):
            assert ns_id(kind, process.program_pid) != ns_id(kind)
        assert status(process.program_pid)["Name"] in ("cat", "nsext-helper")
        process.kill()
