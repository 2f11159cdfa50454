"""run() with limits: what ends a program, what its verdict is, and that nothing is raised."""

import os
import signal
import subprocess
import sys
import time

import pytest
from support import DEADLINE, children, python, settle

import nsext
from nsext import _limits
from nsext._limits import tree_time

MIB = 1 << 20
LOOP = ["sh", "-c", "while :; do :; done"]
LONG = {"wall_time_limit": DEADLINE}


def run(args, **keywords):
    return nsext.run(args, **{**LONG, "timeout": DEADLINE, **keywords})


# ---- verdicts


@pytest.mark.parametrize("limits", [{}, LONG, {"cpu_time_limit": 30}])
@pytest.mark.parametrize(
    ("command", "code", "verdict"),
    [
        ("exit 0", 0, "ok"),
        ("exit 3", 3, "nonzero"),
        ("kill -TERM $$", -signal.SIGTERM, "signal"),
        ("kill -KILL $$", -signal.SIGKILL, "signal"),
    ],
)
def test_verdict_of_its_own_end(command, code, verdict, limits):
    done = nsext.run(["sh", "-c", command], timeout=DEADLINE, **limits)
    assert (done.returncode, done.verdict) == (code, verdict)


def test_wall_time():
    done = run(
        ["sh", "-c", "echo begun; exec sleep 1000"], wall_time_limit=0.3, capture_output=True
    )
    assert (done.returncode, done.verdict) == (-signal.SIGKILL, "timeout")
    assert done.stdout == b"begun\n"
    assert 0.3 <= done.usage.wall < 10
    assert not children()


def test_cpu_time_of_one_process():
    done = run(LOOP, cpu_time_limit=0.3)
    assert (done.returncode, done.verdict) == (-signal.SIGKILL, "cpu")
    assert 0.3 <= done.usage.user + done.usage.system < 0.8


def test_cpu_time_of_a_tree():
    """No process passes the limit: all together do."""
    code = """
    import os, time
    for _ in range(3):
        if os.fork() == 0:
            while time.process_time() < 0.25:
                pass
            time.sleep(1000)
    time.sleep(1000)
    """
    done = run(python(code), cpu_time_limit=0.6, new="user pid")
    assert (done.returncode, done.verdict) == (-signal.SIGKILL, "cpu")


def test_tree_time_is_that_of_all():
    code = """
    import os, time
    reaped = os.fork()
    if reaped == 0:
        while time.process_time() < 0.2:
            pass
        os._exit(0)
    os.wait()
    into = os.pipe()[1]
    if os.fork() == 0:
        while time.process_time() < 0.15:
            pass
        print("ready", flush=True)
        time.sleep(1000)
    while time.process_time() < 0.1:
        pass
    time.sleep(1000)
    """
    with nsext.Popen(python(code), stdout=subprocess.PIPE, new="user pid") as process:
        assert process.stdout.readline() == b"ready\n"
        settle(process)
        assert 0.44 <= tree_time(process.pid) < 0.8
        process.kill()
    assert tree_time(process.pid) == 0


def test_cpu_time_that_was_seen_too_late(monkeypatch):
    monkeypatch.setattr(_limits, "tree_time", lambda pid: 0.0)
    code = "import time\nwhile time.process_time() < 0.3: pass"
    done = run(python(code), cpu_time_limit=0.2)
    assert (done.returncode, done.verdict) == (0, "cpu")


def test_an_idle_program_is_left_alone(monkeypatch):
    looks = []
    monkeypatch.setattr(_limits, "tree_time", lambda pid: looks.append(pid) or 0.0)
    begun = time.thread_time()
    done = run(["sleep", "0.5"], cpu_time_limit=3600)
    assert done.verdict == "ok"
    assert len(looks) == 1
    assert time.thread_time() - begun < 0.25


def test_looks_come_when_the_limit_can_be_reached(monkeypatch):
    """Each look is at the earliest moment at which all CPUs could have used what is left."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    looks = []

    def counted(pid):
        looks.append(pid)
        return tree_time(pid)

    monkeypatch.setattr(_limits, "tree_time", counted)
    assert run(LOOP, cpu_time_limit=0.3).verdict == "cpu"
    assert len(looks) < 150, "5 ms apart at the least"


# ---- the backstop

ASK = [*python("import resource; print(*resource.getrlimit(resource.RLIMIT_CPU))")]


def test_backstop_is_in_the_child():
    done = run(ASK, cpu_time_limit=2.5, capture_output=True, text=True)
    assert done.stdout == "4 5\n"


def test_backstop_keeps_what_is_lower():
    keywords = {"cpu_time_limit": 60, "capture_output": True, "text": True}
    assert run(ASK, rlimits={"cpu": (2, 3)}, **keywords).stdout == "2 3\n"
    assert run(ASK, rlimits={"cpu": (2, 300)}, **keywords).stdout == "2 62\n"
    box = nsext.Sandbox(rlimits={"nofile": 99, "cpu": "unlimited"})
    assert run(ASK, sandbox=box, **keywords).stdout == "61 62\n"
    assert run(["sh", "-c", "ulimit -n"], sandbox=box, **keywords).stdout == "99\n"


def test_backstop_ends_it(monkeypatch):
    monkeypatch.setattr(_limits, "tree_time", lambda pid: 0.0)
    done = run(LOOP, cpu_time_limit=0.5)
    assert (done.returncode, done.verdict) == (-signal.SIGXCPU, "cpu")


# ---- output


@pytest.mark.parametrize(
    ("size", "verdict", "kept"), [(999, "ok", 999), (1000, "ok", 1000), (1001, "output", 1000)]
)
def test_output_is_cut_at_the_limit(size, verdict, kept):
    code = "import sys; sys.stdout.write('x' * int(sys.argv[1]))"
    done = run(python(code, str(size)), output_limit=1000, capture_output=True)
    assert (done.verdict, done.stdout) == (verdict, b"x" * kept)


def test_output_of_both_streams_counts():
    code = "import sys; print('a' * 600, end='', flush=True); sys.stderr.write('b' * 600)"
    done = run(python(code), output_limit=1000, capture_output=True, text=True)
    assert done.verdict == "output"
    assert len(done.stdout) + len(done.stderr) == 1000


def test_endless_output():
    done = run(["yes"], output_limit="64k", capture_output=True)
    assert done.verdict == "output"
    assert done.stdout == b"y\n" * (32 << 10)
    assert done.returncode in (-signal.SIGKILL, -signal.SIGPIPE)


def test_half_a_character_is_left_out():
    done = run(["printf", "aé€"], output_limit=5, capture_output=True, text=True, encoding="utf-8")
    assert (done.verdict, done.stdout) == ("output", "aé")
    with pytest.raises(UnicodeDecodeError):
        run(["printf", "a\\377"], capture_output=True, text=True, encoding="utf-8")


def test_text_is_as_communicate_has_it():
    done = run(["printf", "a\\r\\nb\\rc"], capture_output=True, text=True)
    assert done.stdout == "a\nb\nc"
    assert done.stdout == nsext.run(["printf", "a\\r\\nb\\rc"], stdout=-1, text=True).stdout


def test_output_that_is_not_captured():
    with pytest.raises(ValueError, match="add capture_output=True"):
        run(["true"], output_limit=1)
    done = run(["true"], output_limit=1, stdout=subprocess.PIPE)
    assert (done.stdout, done.stderr) == (b"", None)


# ---- what else run() does


def test_input():
    data = os.urandom(3 * MIB)
    assert run(["cat"], input=data, capture_output=True).stdout == data
    assert run(["cat"], input="é\n" * MIB, capture_output=True, text=True).stdout == "é\n" * MIB
    assert run(["true"], input=data, capture_output=True).verdict == "ok"
    assert run(["cat"], input=b"", capture_output=True).stdout == b""
    assert run(["cat"], stdin=subprocess.PIPE, capture_output=True).stdout == b""


def test_timeout_raises_as_ever():
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        run(["sh", "-c", "echo begun; exec sleep 1000"], timeout=0.3, capture_output=True)
    assert (caught.value.output, caught.value.timeout) == (b"begun\n", 0.3)
    assert not children()


def test_check_raises_for_the_return_code():
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(LOOP, wall_time_limit=0.1, check=True)
    assert caught.value.returncode == -signal.SIGKILL
    assert run(["true"], check=True).verdict == "ok"


def test_a_program_that_cannot_start_is_an_error_as_ever():
    with pytest.raises(FileNotFoundError):
        run(["/does/not/exist"])


def test_who_else_holds_the_pipe_is_not_waited_for():
    out, into = os.pipe()
    command = "sleep 1000 & echo $! >&9"
    try:
        done = run(
            ["sh", "-c", command], fd_map={9: into}, capture_output=True, wall_time_limit=0.3
        )
        os.kill(int(os.read(out, 100)), signal.SIGKILL)
    finally:
        os.close(out)
        os.close(into)
    assert (done.returncode, done.verdict) == (0, "timeout")


def test_an_exception_ends_it():
    class Stop(Exception):
        pass

    def handler(number, frame):
        raise Stop

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(Stop):
            run(["sh", "-c", f"kill -USR1 {os.getpid()}; exec sleep 1000"], capture_output=True)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not children()


WRONG = [
    ({"cpu_time_limit": 0}, ValueError),
    ({"cpu_time_limit": -1}, ValueError),
    ({"wall_time_limit": float("nan")}, ValueError),
    ({"wall_time_limit": float("inf")}, ValueError),
    ({"wall_time_limit": "1"}, TypeError),
    ({"cpu_time_limit": True}, TypeError),
    ({"output_limit": -2}, ValueError),
    ({"output_limit": "many"}, ValueError),
    ({"output_limit": 1.5}, TypeError),
]


@pytest.mark.parametrize(("keywords", "error"), WRONG, ids=str)
def test_wrong_limits(keywords, error):
    with pytest.raises(error, match=next(iter(keywords))):
        nsext.run(["/does/not/exist"], capture_output=True, **keywords)


def test_limits_are_not_for_a_terminal():
    with pytest.raises(ValueError, match="pty="):
        run(["true"], pty=True)


def test_limits_are_for_run():
    with pytest.raises(TypeError, match="cpu_time_limit"):
        nsext.Popen(["true"], cpu_time_limit=1)


# ---- measured exactly


def test_peak_memory_is_the_programs_own():
    ballast = bytearray(b"x") * (64 * MIB)
    assert nsext.run(["true"]).usage.peak_memory > 64 * MIB, "the kernel counts the caller's"
    assert run(["true"]).usage.peak_memory < 16 * MIB
    for keywords in ({"new": "user pid"}, {"init": True}, {"kill_on_parent_exit": True}):
        assert run(["true"], **keywords).usage.peak_memory < 16 * MIB, keywords
    done = run([sys.executable, "-c", f"bytearray(b'x') * {80 * MIB}"])
    assert 80 * MIB < done.usage.peak_memory < 120 * MIB
    del ballast


def test_measuring_changes_nothing_else():
    script = ["sh", "-c", "id -u; echo $$; uname -n; ps -o pid= -e 2>/dev/null | wc -l"]
    keywords = {"new": "user pid mnt uts ipc net cgroup time", "hostname": "box"}
    plain = nsext.run(script, capture_output=True, timeout=DEADLINE, **keywords)
    assert plain.stdout.startswith(b"0\n1\nbox\n")
    assert run(script, capture_output=True, **keywords).stdout == plain.stdout
    done = run(["sh", "-c", "exit 5"], new="user pid", init=True, kill_on_parent_exit=True)
    assert done.returncode == 5


def test_where_there_is_no_helper(monkeypatch):
    from nsext import _launch

    monkeypatch.setattr(_launch, "helper", lambda: None)
    done = nsext.run(["sh", "-c", "exit 3"], wall_time_limit=DEADLINE)
    assert (done.returncode, done.verdict) == (3, "nonzero")
