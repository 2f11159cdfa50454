"""Popen, run and their kin: subprocess's results, and what only a pidfd or a namespace can do."""

import errno
import io
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import time

import pytest
from support import DEADLINE, children, namespaces, open_fds, python, release, running, script

import nsext
from nsext import PIPE

BOTH = [subprocess, nsext]


def same(call, **keywords):
    """What *call* gives for both modules: (class of the result or error, its facts)."""
    found = []
    for module in BOTH:
        try:
            result = call(module)
        except Exception as error:
            kind = type(error) if not isinstance(error, OSError) else OSError
            facts = [getattr(error, name, None) for name in ("args", "cmd", "returncode", "output")]
            result = kind, facts, getattr(error, "stderr", None), str(error)
        if isinstance(result, subprocess.CompletedProcess):
            result = result.args, result.returncode, result.stdout, result.stderr
        found.append(result)
    assert found[0] == found[1]
    return found[1]


# ---- the names


def test_import_nsext_as_subprocess():
    assert set(subprocess.__all__) <= set(nsext.__all__)
    for name in ("PIPE", "STDOUT", "DEVNULL", "SubprocessError", "CalledProcessError"):
        assert getattr(nsext, name) is getattr(subprocess, name)
    assert nsext.TimeoutExpired is subprocess.TimeoutExpired
    assert issubclass(nsext.Popen, subprocess.Popen) and nsext.Popen.__name__ == "Popen"
    assert issubclass(nsext.CompletedProcess, subprocess.CompletedProcess)


def test_neutral_values_of_what_is_refused():
    neutral = {
        "preexec_fn": None,
        "startupinfo": None,
        "creationflags": 0,
        "user": None,
        "group": None,
        "extra_groups": None,
        "umask": -1,
        "pipesize": -1,
        "process_group": None,
        "start_new_session": False,
        "restore_signals": True,
        "universal_newlines": None,
        "cwd": None,
        "env": None,
        "bufsize": -1,
        "close_fds": True,
        "shell": False,
        "pass_fds": (),
    }
    assert nsext.run(["true"], **neutral).returncode == 0


def test_positional_order_is_subprocess():
    null = subprocess.DEVNULL
    args = (
        ["sh", "-c", "pwd; echo $A"],
        -1,
        "/bin/sh",
        null,
        PIPE,
        null,
        None,
        True,
        False,
        "/tmp",
    )
    args += ({"A": "1"}, True, None, 0, True, False, ())
    shown = []
    for module in BOTH:
        with module.Popen(*args) as process:
            shown.append(process.stdout.read())
    assert shown == ["/tmp\n1\n"] * 2


def test_preexec_fn_names_the_keywords():
    with pytest.raises(TypeError) as caught:
        nsext.Popen(["true"], preexec_fn=os.setsid)
    for word in ("start_new_session", "process_group", "umask", "rlimits", "new="):
        assert word in str(caught.value)


def test_other_platforms_arguments_as_subprocess():
    same(lambda module: module.Popen(["true"], startupinfo=1))
    same(lambda module: module.Popen(["true"], creationflags=1))


# ---- run and its kin, against subprocess

CALLS = {
    "run": lambda m: m.run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True),
    "text": lambda m: m.run(["echo", "é"], capture_output=True, text=True),
    "encoding": lambda m: m.run(["echo", "é"], stdout=PIPE, encoding="latin-1"),
    "errors": lambda m: m.run(["printf", r"\377"], stdout=PIPE, encoding="utf-8", errors="replace"),
    "input": lambda m: m.run(["cat"], input=b"in", stdout=PIPE),
    "text input": lambda m: m.run(["cat"], input="ín\n", stdout=PIPE, text=True),
    "empty input": lambda m: m.run(["cat"], input=b"", stdout=PIPE),
    "input None": lambda m: m.check_output(["cat"], input=None),
    "input None, text": lambda m: m.check_output(["cat"], input=None, text=True),
    "check": lambda m: m.run(["sh", "-c", "echo x; exit 4"], stdout=PIPE, check=True),
    "input and stdin": lambda m: m.run(["cat"], input=b"", stdin=PIPE),
    "capture and stdout": lambda m: m.run(["cat"], capture_output=True, stdout=PIPE),
    "shell": lambda m: m.run("echo $0 $#; exit 5", shell=True, stdout=PIPE),
    "shell list": lambda m: m.run(["echo $0 $1", "a", "b"], shell=True, stdout=PIPE),
    "shell bytes": lambda m: m.run(b"echo $0", shell=True, stdout=PIPE),
    "shell path": lambda m: m.run(pathlib.Path("/bin/true"), shell=True),
    "shell executable": lambda m: m.run("echo $0", shell=True, executable="/bin/bash", stdout=PIPE),
    "executable": lambda m: m.run(["a", "-c", "echo $0"], executable="/bin/sh", stdout=PIPE),
    "signal": lambda m: m.run(["sh", "-c", "kill -9 $$"], stdout=PIPE),
    "call": lambda m: m.call(["sh", "-c", "exit 7"]),
    "check_call": lambda m: m.check_call(["true"]),
    "check_call fails": lambda m: m.check_call(["sh", "-c", "exit 7"]),
    "check_call by keyword": lambda m: m.check_call(args=["false"]),
    "check_call signal": lambda m: m.check_call(["sh", "-c", "kill -15 $$"]),
    "check_output": lambda m: m.check_output(["echo", "x"]),
    "check_output fails": lambda m: m.check_output(["sh", "-c", "echo x; exit 1"]),
    "check_output stderr": lambda m: m.check_output("echo x >&2", shell=True, stderr=m.STDOUT),
    "check_output stdout": lambda m: m.check_output(["echo"], stdout=PIPE),
    "check_output check": lambda m: m.check_output(["echo"], check=True),
    "getoutput": lambda m: m.getoutput("echo x; echo y >&2; exit 3"),
    "getoutput encoding": lambda m: m.getoutput(r"printf '\351'", encoding="latin-1"),
    "getstatusoutput": lambda m: m.getstatusoutput("echo x; exit 3"),
    "getstatusoutput newlines": lambda m: m.getstatusoutput("printf 'x\\n\\n'"),
    "getstatusoutput signal": lambda m: m.getstatusoutput("kill -9 $$"),
    "getstatusoutput missing": lambda m: m.getstatusoutput("nsext-no-such 2>/dev/null"),
    "timeout": lambda m: m.run(["sh", "-c", "echo x; exec sleep 9"], stdout=PIPE, timeout=0.3),
    "timeout text": lambda m: m.run(
        ["sh", "-c", "echo x; exec sleep 9"], capture_output=True, text=True, timeout=0.3
    ),
    "call timeout": lambda m: m.call(["sleep", "9"], timeout=0.05),
    "check_output timeout": lambda m: m.check_output(["sleep", "9"], timeout=0.05),
    "missing": lambda m: m.run(["/no/such"]),
    "returncode": lambda m: m.run(["true"]).check_returncode(),
    "no arguments": lambda m: m.Popen(),
    "bufsize": lambda m: m.Popen(["true"], bufsize="x"),
    "pipesize": lambda m: m.Popen(["true"], pipesize="x"),
    "text conflict": lambda m: m.run(["true"], text=False, universal_newlines=True),
    "process_group and session": lambda m: m.run(["true"], start_new_session=True),
    "env": lambda m: m.run(["/usr/bin/env"], env={"A": "1", "B": "é"}, stdout=PIPE),
    "env empty": lambda m: m.run(["/usr/bin/env"], env={}, stdout=PIPE),
    "env bytes": lambda m: m.run(["/usr/bin/env"], env={b"A": b"\xff"}, stdout=PIPE),
    "env paths": lambda m: m.run(["/usr/bin/env"], env={"A": pathlib.Path("/x")}, stdout=PIPE),
    "cwd": lambda m: m.run(["pwd"], cwd="/usr/../tmp", stdout=PIPE),
    "relative program": lambda m: m.run(["./true"], cwd="/bin"),
    "PATH of env": lambda m: m.run(["true"], env={"PATH": "/no/such"}),
    "PATH empty": lambda m: m.run(["true"], env={"PATH": ""}, cwd="/bin"),
    "PATH with empty part": lambda m: m.run(["true"], env={"PATH": "/no/such:"}, cwd="/bin"),
    "PATH not there": lambda m: m.run(["true"], env={}),
}


@pytest.mark.parametrize("name", CALLS)
def test_same_as_subprocess(name):
    same(CALLS[name])


def test_a_bad_item_of_args_as_subprocess():
    for args in ([b"a", 5], [None], 5, None):
        kinds = []
        for module in BOTH:
            with pytest.raises((TypeError, ValueError)) as caught:
                module.run(args)
            kinds.append(type(caught.value))
        assert kinds[0] is kinds[1]


def test_attributes_as_subprocess():
    found = []
    for module in BOTH:
        with module.Popen(["cat"], stdin=PIPE, stdout=PIPE, text=True) as process:
            found.append((process.args, process.returncode, process.text_mode, repr(process)))
            assert isinstance(process.stdin, io.TextIOWrapper)
            assert process.communicate("x\n") == ("x\n", None)
            found[-1] += (process.returncode, repr(process))
    assert found[0] == found[1]


def test_pipesize():
    import fcntl

    with nsext.Popen(["cat"], stdin=PIPE, stdout=PIPE, pipesize=4096) as process:
        assert fcntl.fcntl(process.stdin, 1032) == 4096  # F_GETPIPE_SZ
        assert process.communicate(b"x")[0] == b"x"


def test_session_and_process_group():
    with running(start_new_session=True) as child:
        assert os.getsid(child.pid) == os.getpgid(child.pid) == child.pid
    with running(process_group=0) as child:
        assert os.getpgid(child.pid) == child.pid != os.getsid(child.pid)


def test_subclass():
    class Mine(nsext.Popen):
        def __init__(self, *args, **keywords):
            super().__init__(*args, **keywords)
            self.mine = True

    with Mine(["true"], new="") as process:
        assert process.mine and process.wait() == 0


# ---- the pidfd


def test_fileno_is_a_pidfd():
    with running() as child:
        fd = child.fileno()
        info = open(f"/proc/self/fdinfo/{fd}").read().split()
        assert int(info[info.index("Pid:") + 1]) == child.pid
        assert not os.get_inheritable(fd) and fd > 2
        assert select.select([child], [], [], 0)[0] == []
        child.kill()
        assert select.select([child], [], [], DEADLINE)[0] == [child]
        child.wait()
        assert fd not in open_fds()
        with pytest.raises(ValueError):
            child.fileno()


def test_signals_after_the_end_are_nothing():
    process = nsext.Popen(["true"])
    process.wait()
    for send in (process.terminate, process.kill, lambda: process.send_signal(signal.SIGUSR1)):
        assert send() is None


def test_signal_to_a_zombie_is_nothing():
    process = nsext.Popen(["sh", "-c", "exit 5"])
    select.select([process], [], [], DEADLINE)
    process.send_signal(signal.SIGKILL)
    assert process.returncode == 5


def test_waited_for_by_many_threads():
    process = nsext.Popen(["cat"], stdin=PIPE)
    found = []
    threads = [threading.Thread(target=lambda: found.append(process.wait())) for _ in range(6)]
    threads += [threading.Thread(target=lambda: found.append(process.wait(DEADLINE)))]
    for thread in threads:
        thread.start()
    process.stdin.close()
    for thread in threads:
        thread.join(DEADLINE)
    assert found == [0] * 7


def test_wait_lets_other_threads_run():
    """The GIL is released: or else nobody would end the child."""
    process = nsext.Popen(["cat"], stdin=PIPE)
    thread = threading.Thread(target=process.stdin.close)
    thread.start()
    assert process.wait(timeout=DEADLINE) == 0
    thread.join(DEADLINE)


# ---- traps


def test_trap_32_timeout_kills_grandchildren(tmp_path):
    """In a pid namespace the init's death is everybody's: nobody is left to hold the pipe."""
    command = "sleep 1000 & sleep 1000 & echo started; wait"
    reader, writer = os.pipe()
    start = time.monotonic()
    with pytest.raises(nsext.TimeoutExpired) as caught:
        nsext.run(["sh", "-c", command], new="pid", stdout=PIPE, timeout=0.3, pass_fds=[writer])
    os.close(writer)
    assert caught.value.output == b"started\n"
    # The grandchildren held a copy of the writing end; the last one closes it.
    assert select.select([reader], [], [], DEADLINE)[0] and os.read(reader, 1) == b""
    os.close(reader)
    assert time.monotonic() - start < 20


def test_trap_28_sigchld_ignored():
    kept = release() >= (6, 15)
    script(f"""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for code in (0, 3):
        assert nsext.run(["sh", "-c", f"exit {{code}}"]).returncode == (code if {kept} else 0)
    done = nsext.run(["cat"], input=b"x", capture_output=True)
    assert done.stdout == b"x"
    """)


def test_status_stolen_by_waitpid():
    process = nsext.Popen(["sh", "-c", "exit 3"])
    os.waitpid(process.pid, 0)
    assert process.wait() == (3 if release() >= (6, 15) else 0)
    assert process.poll() == process.returncode


def test_trap_49_never_started():
    """What __init__ has refused is collected without a word, and can be asked."""
    script("""
    import gc, warnings
    warnings.simplefilter("error")
    made = []
    class Popen(nsext.Popen):
        def __init__(self, *args, **keywords):
            made.append(self)
            super().__init__(*args, **keywords)
    for keywords in ({"preexec_fn": print}, {"hostname": "x"}, {"executable": "/no/such"}):
        try:
            Popen(["true"], **keywords)
        except (TypeError, ValueError, OSError):
            pass
    assert len(made) == 3
    made.clear()
    gc.collect()
    """)


def test_trap_49_dropped_while_running():
    script("""
    import gc, warnings
    warnings.simplefilter("ignore")
    process = nsext.Popen(["cat"], stdin=subprocess.PIPE)
    end = process.stdin
    del process
    gc.collect()
    end.close()
    deadline = time.monotonic() + 20
    while children() and time.monotonic() < deadline:
        nsext.run(["true"])  # each start looks for those that were dropped
    assert not children()
    """)


def test_trap_13_threads_start_after_any_spawn():
    for new in ("pid", "user pid", "time", "all"):
        before = namespaces()
        nsext.run(["true"], new=new, check=True)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(namespaces()))
        thread.start()
        thread.join()
        assert seen == [before] == [namespaces()]
        if os.fork() == 0:
            os._exit(0)
        assert os.wait()[1] == 0


def test_interrupt_as_soon_as_the_program_runs():
    """Between the core's return and the first line of Python after it: it has an owner even there."""
    script("""
    from nsext import _native
    def interrupt(frame, event, arg):  # a signal's exception lands at the end of a call, as this
        if event == "c_return" and arg in (_native.spawn, _native.clone):
            sys.setprofile(None)
            raise KeyboardInterrupt
    pause = ctypes.CDLL(None).pause
    for start in (nsext.spawn, nsext.Popen, nsext.run, nsext.clone):
        args = pause if start is nsext.clone else ["sleep", "1000"]
        sys.setprofile(interrupt)
        try:
            start(args)
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("no KeyboardInterrupt")
        assert not children(), start
        assert [name for name in open_fds().values() if "pidfd" in name] == [], start
    """)


def test_interrupt_while_it_runs():
    """The program is killed; as with subprocess, the next start may be the one that reaps it."""
    script("""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    kill = f"until grep -q '^State:.S' /proc/{os.getpid()}/status; do :; done; kill -INT {os.getpid()}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        nsext.run(["sh", "-c", f"sleep 0.2; {kill}; exec sleep 1000"], **quiet)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("no KeyboardInterrupt")
    import gc
    gc.collect()
    deadline = time.monotonic() + 20
    while children() and time.monotonic() < deadline:
        nsext.run(["true"])
    assert not children()
    """)


def test_large_arguments():
    """Plans larger than the slot that is kept: many and long arguments, and a large environment."""
    args = ["/bin/echo", *("x" * 1000 for _ in range(500))]
    env = {f"V{n}": "y" * 1000 for n in range(500)}
    done = nsext.run(args, env=env, stdout=PIPE)
    assert done.stdout == b" ".join([b"x" * 1000] * 500) + b"\n"
    code = "import os; print(sum(len(v) for k, v in os.environ.items() if k[0] == 'V'))"
    assert nsext.check_output(python(code), env=env) == b"500000\n"
    for size in (60_000, 64_000, 65_400, 65_536, 70_000, 120_000):
        assert len(nsext.check_output(["echo", "z" * size])) == size + 1
    with pytest.raises(OSError) as caught:
        nsext.run(["true", "x" * (1 << 21)])
    assert caught.value.errno == errno.E2BIG and caught.value.stage == "exec"
    assert not children()


def test_stdin_of_a_script_is_untouched():
    done = nsext.run([sys.executable, "-"], input=b"print(1)", stdout=PIPE)
    assert done.stdout == b"1\n"
