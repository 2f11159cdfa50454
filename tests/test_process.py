"""Process: what spawn() returns, held by its pidfd."""

import errno
import gc
import os
import select
import signal
import subprocess
import threading
import time
import warnings
from pathlib import Path

import pytest
from support import (
    DEADLINE,
    children,
    is_plain,
    ns_id,
    open_fds,
    release,
    running,
    script,
    status,
)

import nsext


def program(command="exit 0", **keywords):
    return nsext.spawn(["/bin/sh", "-c", command], **keywords)


def waiting(**keywords):
    """A program that ends when what is returned beside it is closed."""
    reader, writer = os.pipe()
    try:
        return nsext.spawn(["cat"], stdin=reader, stdout=nsext.DEVNULL, **keywords), writer
    finally:
        os.close(reader)


# ---- the end


@pytest.mark.parametrize("code", [0, 1, 77, 255])
def test_exit_status(code):
    process = program(f"exit {code}")
    assert process.wait() == process.returncode == code == process.poll()


@pytest.mark.parametrize("number", ["TERM", "KILL", "SEGV", "USR1", "34"])
def test_end_by_signal(number):
    process = program(f"kill -{number} $$")
    expected = int(number) if number.isdigit() else getattr(signal, "SIG" + number)
    assert process.wait() == -expected


def test_poll_never_blocks():
    process, end = waiting()
    assert process.poll() is None and process.returncode is None
    os.close(end)
    assert select.select([process], [], [], DEADLINE)[0] == [process]
    assert process.poll() == 0


def test_wait_with_timeout():
    process, end = waiting()
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        process.wait(timeout=0.05)
    assert 0.05 <= time.monotonic() - start < 5
    assert (caught.value.cmd, caught.value.timeout) == (["cat"], 0.05)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    os.close(end)
    assert process.wait(timeout=DEADLINE) == 0


def test_wait_by_many_threads():
    process, end = waiting()
    results = []
    threads = [threading.Thread(target=lambda: results.append(process.wait())) for _ in range(8)]
    for thread in threads:
        thread.start()
    os.close(end)
    for thread in threads:
        thread.join(DEADLINE)
    assert results == [0] * 8


def test_context_manager_waits():
    with program("exit 3") as process:
        assert process.returncode is None
    assert process.returncode == 3


# ---- the pidfd


def test_fileno_is_a_pidfd():
    process, end = waiting()
    fd = process.fileno()
    assert fd == process.pidfd > 2
    assert os.readlink(f"/proc/self/fd/{fd}") in (
        "anon_inode:[pidfd]",
        f"pidfd:[{os.fstat(fd).st_ino}]",
    )
    info = dict(line.split(":\t") for line in open(f"/proc/self/fdinfo/{fd}").read().splitlines())
    assert int(info["Pid"]) == process.pid
    assert not os.get_inheritable(fd)
    os.close(end)
    process.wait()


def test_pidfd_is_closed_after_the_wait():
    process = program()
    fd = process.fileno()
    process.wait()
    assert fd not in open_fds()
    assert process.pidfd == -1
    with pytest.raises(ValueError, match="waited"):
        process.fileno()


def test_pidfd_is_readable_at_the_end():
    process, end = waiting()
    assert select.select([process.fileno()], [], [], 0)[0] == []
    os.close(end)
    assert select.select([process.fileno()], [], [], DEADLINE)[0] == [process.fileno()]
    process.wait()


# ---- signals


@pytest.mark.parametrize(
    "send, number",
    [
        (lambda process: process.send_signal(signal.SIGUSR1), signal.SIGUSR1),
        (lambda process: process.terminate(), signal.SIGTERM),
        (lambda process: process.kill(), signal.SIGKILL),
    ],
    ids=["send_signal", "terminate", "kill"],
)
def test_signals(send, number):
    process, end = waiting()
    send(process)
    assert process.wait() == -number
    os.close(end)
    send(process)  # to one that has ended: nothing


def test_signals_to_a_zombie_are_nothing():
    process = program("exit 5")
    select.select([process], [], [], DEADLINE)
    process.kill()
    assert process.returncode == 5


def test_wrong_signal():
    process, end = waiting()
    with pytest.raises(OSError) as caught:
        process.send_signal(12345)
    assert caught.value.errno == errno.EINVAL
    os.close(end)
    process.wait()


def test_trap_16_pid_1_ignores_what_it_has_no_handler_for():
    """The literal behaviour of a program that is PID 1: see pid_namespaces(7)."""
    with running(new="pid", start=nsext.spawn) as process:
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGTERM)
        # A pending signal would show, and it is not killed either: it was dropped.
        assert status(process.pid)["ShdPnd"].strip("0") == ""
        assert process.poll() is None
        process.kill()
        assert process.wait(DEADLINE) == -signal.SIGKILL


# ---- traps


@pytest.mark.skipif(release() < (6, 14), reason="pid_max is the pid namespace's since Linux 6.14")
def test_trap_44_a_pid_used_again_is_not_signalled():
    """Another process gets the pid of one that has ended; only a pidfd tells them apart."""
    script(
        """
        Path("/proc/sys/kernel/pid_max").write_text("310")
        first = nsext.spawn(["true"])
        while first.pid < 300:  # lower ones are not used again
            first.wait()
            first = nsext.spawn(["true"])
        os.waitid(os.P_PIDFD, first.fileno(), os.WEXITED)  # somebody else reaps it
        second = nsext.spawn(["sleep", "1000"])
        for _ in range(20):
            if second.pid == first.pid:
                break
            second.kill()
            second.wait()
            second = nsext.spawn(["sleep", "1000"])
        assert second.pid == first.pid
        first._signal(signal.SIGKILL)  # as if it had ended between the question and the signal
        first.kill()
        first.send_signal(signal.SIGTERM)
        first.poll()
        try:
            second.wait(timeout=0.3)  # a signal that reached it would end it now
        except subprocess.TimeoutExpired:
            pass
        assert second.returncode is None
        second.kill()
        assert second.wait() == -9
        """,
        new="pid mnt",
    )


def test_trap_28_sigchld_ignored():
    """The kernel reaps children itself then; the code is known where it keeps it (Linux 6.15)."""
    script("""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    kept = release() >= (6, 15)
    for code in (0, 7):
        process = nsext.spawn(["sh", "-c", f"exit {code}"])
        assert process.wait() == (code if kept else 0)
        process = nsext.Popen(["sh", "-c", f"exit {code}"])
        assert process.wait() == (code if kept else 0)
    process = nsext.spawn(["sleep", "1000"])
    try:
        process.wait(0.01)
    except subprocess.TimeoutExpired:
        process.kill()
    assert process.wait() == (-9 if kept else 0)
    error = failure(nsext.spawn, ["/nonexistent"])
    assert isinstance(error, FileNotFoundError)
    error = failure(nsext.spawn, ["true"], rlimits={"nofile": 1 << 62})
    assert error.stage == "setup" and error.errno in (errno.EPERM, errno.EINVAL)
    """)


def test_status_stolen_by_waitpid():
    kept = release() >= (6, 15)
    process = program("exit 9")
    os.waitpid(process.pid, 0)
    assert process.wait() == (9 if kept else 0)
    process = program("exit 9")
    os.waitpid(process.pid, 0)
    assert process.poll() == (9 if kept else 0)


def test_trap_49_dropped_while_running():
    process, end = waiting()
    fd = process.fileno()
    with pytest.warns(ResourceWarning, match="still running"):
        del process
        gc.collect()
    os.close(end)
    select.select([fd], [], [], DEADLINE)
    program().wait()  # the next spawn reaps it
    assert not children() and fd not in open_fds()


def test_trap_49_interpreter_ends_with_live_processes():
    shown = script("""
    import warnings
    warnings.simplefilter("ignore")
    atexit.unregister(end_children)
    keep = [nsext.spawn(["sleep", "1"]), nsext.Popen(["sleep", "1"])]
    keep.append(keep)
    broken = nsext.Process.__new__(nsext.Process)
    unstarted = nsext.Popen.__new__(nsext.Popen)
    print(repr(unstarted.__class__))
    for process in keep[:2]:
        process.kill()
    """)
    assert "Popen" in shown


def test_trap_49_never_started_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for start in (nsext.spawn, nsext.Popen):
            with pytest.raises(FileNotFoundError):
                start(["/nonexistent"])
        del start
        process = nsext.Process.__new__(nsext.Process)
        del process
        process = nsext.Popen.__new__(nsext.Popen)
        del process
        gc.collect()


@pytest.mark.parametrize(
    "new", ["", "pid", "mnt", "uts", "ipc", "user", "net", "cgroup", "time", "all"]
)
@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen, nsext.run])
def test_trap_33_a_missing_program_is_an_error_at_once(new, start):
    with pytest.raises(FileNotFoundError) as caught:
        start(["/nonexistent/program"], new=new, **({"timeout": 20} if start is nsext.run else {}))
    assert isinstance(caught.value, nsext.SpawnError) and not is_plain(caught.value)
    assert (caught.value.stage, caught.value.filename) == ("exec", "/nonexistent/program")


# ---- arguments


@pytest.mark.parametrize("args", ["true", b"true", ["true"], ("true",), [b"true"], iter(["true"])])
def test_forms_of_args(args):
    assert nsext.spawn(args).wait() == 0


def test_args_may_be_a_path():
    assert nsext.spawn(Path("/bin/true")).wait() == 0
    assert nsext.spawn([Path("/bin/echo"), Path("x")], stdout=nsext.DEVNULL).wait() == 0


def test_executable_and_argv0():
    assert nsext.spawn(["anything", "-c", "test $0 = x", "x"], executable="/bin/sh").wait() == 0


def test_repr_tells_the_state():
    process = program("exit 4")
    assert f"pid: {process.pid}" in repr(process) and "None" in repr(process)
    process.wait()
    assert "returncode: 4" in repr(process)


def test_new_namespaces_by_spawn():
    with running(new="uts ipc", start=nsext.spawn) as process:
        assert ns_id("uts", process.pid) != ns_id("uts")
        assert ns_id("net", process.pid) == ns_id("net")
