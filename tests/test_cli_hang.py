"""A set-up of ``nsext run`` that hangs is ended by a signal, and leaves nothing.

It hangs in exec, of a program whose file is leased: until the holder gives it up, whoever opens it
waits.  See fcntl(2), F_SETLEASE.
"""

import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from helping import children_of, gone, wait_for
from support import DEADLINE, needs, script, status

pytestmark = pytest.mark.usefixtures("root")
NSEXT = [sys.executable, "-m", "nsext", "run"]
KINDS = {
    "bare": [],
    "inline": ["--no-kill-on-parent-exit"],
    "pid": ["--new", "pid,mnt"],
    "init": ["--new", "pid,mnt", "--init"],
    "pty": ["--pty"],
    "pty init": ["--pty", "--new", "pid,mnt", "--init"],
}

HOLDER = """
import fcntl, os, signal, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("leased", flush=True)
signal.sigwait([signal.SIGIO])
print("somebody waits", flush=True)
time.sleep(1000)
"""


def patience():
    """For how long the kernel lets a holder keep it: else it would be no hang."""
    with open("/proc/sys/fs/lease-break-time") as file:
        return int(file.read())


def switches(pid):
    """How often it has gone to sleep; a spawn that waits looks for signals now and then."""
    return int(status(pid)["voluntary_ctxt_switches"])


@contextmanager
def leased(place):
    """A program that nobody can open, and what tells that somebody tries to."""
    needs(patience() >= 20, "a lease is broken too soon: fs.lease-break-time")
    program = place / "leased"
    program.write_bytes(b"#!/bin/sh\nsleep 0.5; exit 3\n")
    program.chmod(0o755)
    command = [sys.executable, "-c", HOLDER, str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "leased\n"

            def somebody_waits():
                return holder.stdout.readline() == "somebody waits\n"

            somebody_waits.give_up = holder.kill
            yield str(program), somebody_waits
        finally:
            holder.kill()


def below(pid):
    """All descendants."""
    found = children_of(pid)
    for child in found:
        found += children_of(child)
    return found


@pytest.mark.parametrize(
    ("options", "number"),
    [(words, signal.SIGTERM) for words in KINDS.values()] + [([], signal.SIGINT)],
    ids=[*KINDS, "SIGINT"],
)
def test_one_signal_ends_it(options, number, tmp_path):
    """One is enough, also in the first second, in which it is kept for the program."""
    with leased(tmp_path) as (program, somebody_waits):
        command = [*NSEXT, *options, program]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                assert somebody_waits()
                started = below(process.pid)
                assert started
                process.send_signal(number)
                assert process.wait(DEADLINE) == -number
                for pid in started:
                    gone(pid)
                assert b"Traceback" not in process.stderr.read()
            finally:
                process.kill()


@pytest.mark.parametrize("options", [[], ["--pty"]], ids=["bare", "pty"])
def test_a_stop_that_is_over_does_nothing(options, tmp_path):
    """Nor does it end a hang; and when that is over by itself, the program runs."""
    with leased(tmp_path) as (program, somebody_waits):
        with subprocess.Popen(
            [*NSEXT, *options, program], stdin=subprocess.DEVNULL, process_group=0
        ) as process:
            try:
                assert somebody_waits()
                before = switches(process.pid)
                process.send_signal(signal.SIGTSTP)
                # Until it has woken for it, several times: else the kernel makes it void itself.
                wait_for(lambda: switches(process.pid) > before + 5, "nsext wakes")
                process.send_signal(signal.SIGCONT)
                somebody_waits.give_up()
                assert process.wait(DEADLINE) == 3
            finally:
                process.kill()


def test_the_thread_that_insists_takes_no_signals():
    """A signal for nsext, above all SIGCHLD, is for the thread that waits for it."""
    script("""
    from nsext._cli import signals
    early = signals.Early()
    os.kill(os.getpid(), signal.SIGTERM)
    assert early.got == [signal.SIGTERM]
    own = str(threading.get_native_id())
    (other,) = set(os.listdir("/proc/self/task")) - {own}
    while not status(f"self/task/{other}")["State"].startswith("S"):
        os.sched_yield()  # while it starts, the C library has them blocked
    masks = {each: int(status(f"self/task/{each}")["SigBlk"], 16) for each in (own, other)}
    assert masks[own] == 0
    assert all(masks[other] >> number - 1 & 1 for number in signals.WATCHED), masks
    early.over()
    """)


def test_its_timeout(tmp_path):
    with leased(tmp_path) as (program, _):
        done = subprocess.run([*NSEXT, "--timeout", "0.3", program], timeout=DEADLINE)
        assert done.returncode == 124


def test_ctrl_c_in_a_terminal(tmp_path):
    """With --pty, too, whose terminal is not the caller's yet."""
    pexpect = pytest.importorskip("pexpect")
    for options in ([], ["--pty"]):
        with leased(tmp_path) as (program, somebody_waits):
            command, *words = [*NSEXT, *options, program]
            terminal = pexpect.spawn(command, words, encoding="utf-8", timeout=30)
            try:
                assert somebody_waits()
                started = wait_for(lambda: below(terminal.pid), "children")
                terminal.sendintr()
                terminal.expect(pexpect.EOF)
                terminal.wait()
                assert terminal.signalstatus == signal.SIGINT, terminal.before
                for pid in started:
                    gone(pid)
            finally:
                terminal.close(force=True)
