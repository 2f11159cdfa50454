"""``nsext run`` is a transparent prefix: streams, descriptors, signals, exit status."""

import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from helping import children_of, gone, state_of, wait_for
from support import DEADLINE, as_user, ns_id, status

import nsext
from nsext._cli.words import in_options

pytestmark = pytest.mark.usefixtures("root")
NSEXT = [sys.executable, "-m", "nsext"]


def nsext_run(*words, **keywords):
    """A finished ``nsext run``."""
    keywords = {"capture_output": True, "text": True, "timeout": DEADLINE, **keywords}
    return subprocess.run([*NSEXT, "run", *words], **keywords)


@contextmanager
def running(*words, command="run", **keywords):
    """A running ``nsext run``, ended with the block."""
    with subprocess.Popen([*NSEXT, command, *words], **keywords) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def script(code):
    """Arguments of a Python program."""
    return [sys.executable, "-I", "-S", "-u", "-c", textwrap.dedent(code)]


# Not signal.pause(): a signal just before that would be handled after the next one only.
TRAPS = """
import os, signal, sys
def handler(number, frame):
    print(number, flush=True)
    if number == signal.SIGTERM:
        os._exit(42)
for number in [*map(int, sys.argv[1].split())]:
    signal.signal(number, handler)
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
print("ready", flush=True)
while True:
    os.read(reader, 1)
"""


# ---- exit status


@pytest.mark.parametrize("new", ["", "pid", "user", "time,net"])
@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_status_is_the_programs(new, code):
    assert nsext_run("--new", new, "sh", "-c", f"exit {code}").returncode == code


def test_own_failures_are_125():
    for words in (
        ["--nothing", "true"],
        [],
        ["--new", "pid"],
        ["--hostname", "x", "true"],
        ["--nice", "x", "true"],
        ["--cwd", "/nonexistent", "true"],
        ["--join", "999999999", "true"],
        ["--from", "/nonexistent", "true"],
        ["--user", "nobody-of-that-name", "true"],
    ):
        done = nsext_run(*words)
        assert done.returncode == 125, (words, done)
        assert done.stderr.startswith("nsext: ") and done.stdout == "", (words, done)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hostname", "x"], "--hostname needs a new uts namespace: add 'uts' to --new"),
        (["--bind", "/etc:/mnt"], "--mounts (--bind, --tmpfs ...) needs a new mnt namespace: add "
         "'mnt' to --new"),
        (["--scheduler", "fifo"], "--scheduler: 'fifo' needs a priority, as in fifo:1"),
        (["--keyring", "x"], "--keyring: 'x' is none of 'new', 'inherit'"),
        (["--user", "nobody-of-that-name"], "there is no user 'nobody-of-that-name'"),
        (["--group", "no-such-group"], "there is no group 'no-such-group'"),
        (["--timeout", "-1"], "--timeout: '-1' is no number of seconds"),
        (["--timeout", "nan"], "--timeout: 'nan' is no number of seconds"),
        (["--bind", "/a:/b:/c:d"], "--bind: '/a:/b:/c:d' is not SRC[:DST][:ro|rw]"),
        (["--mounts", "/usr"], "--mounts: "),
        (["--landlock", "x=1"], "--landlock: unknown: x; one of read, write, execute, tcp-bind"),
        (["--from", "/nonexistent"], "/nonexistent: No such file or directory"),
        (["--from", "/etc/passwd"], "/etc/passwd: "),
        (["--from", "/bin/true"], "/bin/true: "),
    ],
)  # fmt: skip
def test_errors_are_in_the_command_lines_words(words, said):
    done = nsext_run(*words, "true")
    assert done.returncode == 125 and done.stderr.startswith(f"nsext: {said}"), done.stderr


def test_words():
    """What is a field is said as an option; nothing else is changed."""
    assert in_options("proc=False leaves the old one") == "--no-proc leaves the old one"
    assert in_options("no_new_privs=True") == "--no-new-privs"
    assert in_options("propagation='unchanged', or") == "--propagation 'unchanged', or"
    assert in_options("init=True or not") == "--init or not"
    for same in ("type=bind,root=/x", "/a/env=b: gone", "optional=True", "A=b", "x: y"):
        assert in_options(same) == same


def test_a_timeout_may_be_long():
    for options in ([], ["--pty"]):
        done = nsext_run("--timeout", "1e300", *options, "sh", "-c", "sleep 0.2; exit 3")
        assert done.returncode == 3, done


def test_closed_and_full_outputs():
    """An error of nsext's own, without a traceback; and the exit status of what has failed."""
    run = f'"{sys.executable}" -m nsext run'
    for command, code, said in (
        (f"{run} --explain >&-", 125, "standard output is closed"),
        (f"{run} --write-toml >&-", 125, "standard output is closed"),
        (f"{run} --write-toml --new pid >/dev/full", 125, "No space left on device"),
        (f"{run} nonexistent-program <&- >&- 2>&-", 127, ""),
        (f"{run} sh -c 'exit 4' <&- >&- 2>&-", 4, ""),
        (f"{run} --pty sh -c 'exit 4' <&- >&- 2>&-", 4, ""),
        (f'"{sys.executable}" -m nsext show 999999999 2>&-', 1, ""),
        (f'"{sys.executable}" -m nsext list >&-', 1, "standard output is closed"),
        (f'"{sys.executable}" -m nsext show $$ >/dev/full', 1, "No space left on device"),
    ):
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == code and said in done.stderr, (command, done)
        assert "Traceback" not in done.stderr and done.stdout == "", done


@pytest.mark.parametrize("closed", ["<&-", "</dev/null >&-", "<&- >&-", "2>&-", "<&- >&- 2>&-"])
def test_pty_with_closed_streams(closed, tmp_path):
    """Nothing of nsext's own is taken for one of them."""
    program = f"echo hi; read x; echo $x- >{tmp_path}/read; exit 6"
    words = shlex.join([*NSEXT, "run", "--pty", "sh", "-c", program])
    done = subprocess.run(
        ["sh", "-c", f"{words} {closed}"], stdin=subprocess.DEVNULL, capture_output=True,
        timeout=DEADLINE,
    )  # fmt: skip
    assert done.returncode == 6 and done.stderr == b"", done
    assert done.stdout == (b"" if ">&-" in closed.replace("2>&-", "") else b"hi\r\n")
    assert (tmp_path / "read").read_text() == "-\n"


def test_missing_and_unusable_programs(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x")
    done = nsext_run("nonexistent-program")
    assert done.returncode == 127
    assert done.stderr == "nsext: nonexistent-program: No such file or directory\n"
    done = nsext_run("")
    assert (done.returncode, done.stderr) == (127, "nsext: '': No such file or directory\n")
    done = nsext_run(str(plain))
    assert done.returncode == 126 and "Permission denied" in done.stderr
    plain.chmod(0o755)
    plain.write_bytes(b"\x7fELF")
    assert nsext_run(str(plain)).returncode == 126


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGQUIT])
@pytest.mark.parametrize("init", [[], ["--init", "--new", "pid"]], ids=["bare", "init"])
def test_a_killed_program_ends_nsext_by_the_same_signal(number, init, tmp_path):
    """And nsext leaves no core, which would be the interpreter's."""
    code = f"ulimit -c unlimited; kill -{number.name[3:]} $$"
    done = nsext_run(*init, "--rlimits", "core=0", "sh", "-c", code, cwd=tmp_path)
    assert done.returncode == -number
    assert os.listdir(tmp_path) == []


# ---- streams, descriptors, environment


def test_streams_and_descriptors_are_the_programs_own():
    reader, writer = os.pipe()
    with open(os.devnull) as null, open(reader) as file:
        fds = [0, 1, 2, writer, null.fileno()]
        code = f"import os; print(*[os.readlink(f'/proc/self/fd/{{fd}}') for fd in {fds}], file=open({writer}, 'w'))"
        keywords = {"pass_fds": fds, "stdin": null, "stdout": writer, "stderr": null}
        done = nsext_run(
            "--new", "pid,uts", *script(code), capture_output=False, text=None, **keywords
        )
        os.close(writer)
        assert done.returncode == 0
        pipe = os.readlink(f"/proc/self/fd/{reader}")
        assert file.read().split() == ["/dev/null", pipe, "/dev/null", pipe, "/dev/null"]


def test_nothing_of_nsext_is_left_open_in_the_program():
    code = "import os; print(*sorted(map(int, os.listdir('/proc/self/fd'))))"
    for new in ("", "pid", "user,pid,mnt", "time"):
        done = nsext_run("--new", new, *script(code), stdin=subprocess.DEVNULL)
        assert done.stdout == "0 1 2 3\n", done  # 3: the directory's own


def test_what_the_program_closes_is_closed():
    """nsext holds nothing of it: neither the pipe nor a lock on an inherited descriptor."""
    code = "import os, signal; os.closerange(0, 20); signal.pause()"
    with running(*script(code), stdout=subprocess.PIPE) as process:
        assert process.stdout.read() == b""
        assert process.poll() is None


def test_with_a_root_descriptors_are_passed_by_name(tmp_path):
    """One of a directory would lead out of it."""
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    reader, writer = os.pipe()
    words = ["--new", "mnt,pid", "--root", "tmpfs", "--hostlike"]
    show = ["sh", "-c", "ls /proc/self/fd"]
    keywords = {"pass_fds": [directory, writer], "stdin": subprocess.DEVNULL}
    try:
        done = nsext_run(*words, *show, **keywords)
        assert done.stdout.split() == ["0", "1", "2", "3"], done  # 3: ls's own
        done = nsext_run(*words, "--pass-fds", str(writer), *show, **keywords)
        assert {*done.stdout.split()} == {"0", "1", "2", "3", str(writer)}, done
    finally:
        for fd in (directory, reader, writer):
            os.close(fd)


def test_mounts(tmp_path):
    (tmp_path / "file").write_text("here")
    done = nsext_run(
        "--new", "mnt", "--bind", f"{tmp_path}:/mnt", "--tmpfs", "/media:4k", "sh", "-c",
        "cat /mnt/file; touch /media/x; ls /media; touch /mnt/x",
    )  # fmt: skip
    assert done.stdout == "herex\n" and "Read-only" in done.stderr


def test_environment_and_directory(tmp_path):
    done = nsext_run("sh", "-c", "pwd; echo $SAID", cwd=tmp_path, env={**os.environ, "SAID": "so"})
    assert done.stdout == f"{tmp_path}\nso\n"
    done = nsext_run("--env", "A=1", "--env", "B=2", "env")
    assert done.stdout == "A=1\nB=2\n"
    done = nsext_run(
        "--setenv", "A=1", "sh", "-c", "echo $A $SAID", env={**os.environ, "SAID": "so"}
    )
    assert done.stdout == "1 so\n"


def test_namespaces_are_new_and_fields_are_set():
    done = nsext_run(
        "--new", "uts,net", "--hostname", "box", "--rlimits", "nofile=55", "--umask", "77", "sh", "-c",
        "uname -n; ulimit -n; umask; readlink /proc/self/ns/net /proc/self/ns/uts /proc/self/ns/ipc",
    )  # fmt: skip
    name, files, mask, net, uts, ipc = done.stdout.split()
    assert (name, files, mask) == ("box", "55", "0077")
    assert net != ns_id("net") and uts != ns_id("uts") and ipc == ns_id("ipc")


# ---- signals


def passed_on(words, numbers, code=TRAPS):
    """Send each signal to nsext; the program says each once."""
    line = [*words, *script(code), " ".join(map(str, map(int, numbers)))]
    with running(*line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        for number in numbers:
            process.send_signal(number)
            assert process.stdout.readline() == f"{int(number)}\n"
        assert process.stdout.read() == ""
        assert process.wait(DEADLINE) == 42


NUMBERS = [
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGCONT,
    signal.SIGALRM,
    signal.SIGTSTP,
    signal.SIGRTMIN + 5,
    signal.SIGTERM,
]


@pytest.mark.parametrize(
    "words",
    [[], ["--new", "pid"], ["--new", "pid", "--init"], ["--init"], ["--start-new-session"]],
    ids=" ".join,
)
def test_signals_are_passed_on_once(words):
    passed_on(words, NUMBERS)


def descendant(pid, name):
    """The process below *pid* of that name, as soon as there is one."""

    def find():
        below = [pid]
        for process in below:
            try:
                below += children_of(process)
                if process != pid and status(process)["Name"] == name:
                    return process
            except (OSError, KeyError):
                pass
        return None

    return wait_for(find, f"{name} below {pid}")


def test_a_program_that_handles_nothing_ends_by_the_signal():
    """As PID 1 too, for which the kernel would drop it."""
    for words in ([], ["--new", "pid"], ["--new", "pid", "--init"], ["--new", "user,pid,mnt"]):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            with running(*words, "sleep", "1000") as process:
                descendant(process.pid, "sleep")
                process.send_signal(number)
                assert process.wait(DEADLINE) == -number


def test_ignored_signals_stay_ignored():
    """As under nohup(1)."""
    for new in ("", "pid"):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            process = subprocess.Popen([*NSEXT, "run", "--new", new, "sleep", "1000"])
        finally:
            signal.signal(signal.SIGHUP, before)
        try:
            program = descendant(process.pid, "sleep")
            assert int(status(program)["SigIgn"], 16) & 1 << signal.SIGHUP - 1
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == -signal.SIGTERM
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("words", [[], ["--new", "pid"], ["--new", "pid", "--init"], ["--init"]])
def test_kill_9_ends_the_program(words):
    line = [*words, "sh", "-c", "echo ready; exec sleep 1000"]
    with running(*line, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        (child,) = children_of(process.pid)
        below = children_of(child)
        process.kill()
        process.wait(DEADLINE)
        for pid in (child, *below):
            gone(pid)


def test_the_program_may_outlive_nsext():
    line = ["--no-kill-on-parent-exit", "sh", "-c", "echo $$; exec sleep 1000"]
    with running(*line, stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        process.kill()
        process.wait(DEADLINE)
        pidfd = os.pidfd_open(pid)
        assert state_of(pid) in ("S", "R", "D")
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        gone(pid)


def stopped(pid):
    return wait_for(lambda: state_of(pid) == "T", f"{pid} stops")


@pytest.mark.parametrize(
    "words", [[], ["--init"], ["--new", "pid"], ["--new", "mnt,pid", "--start-new-session"]]
)
def test_stopping_and_going_on(words):
    """The program stops: nsext does, for its parent to see; SIGCONT to nsext wakes both."""
    line = [*words, *script(TRAPS), str(int(signal.SIGTERM))]
    with running(*line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        (child,) = children_of(process.pid)
        for _ in range(2):
            program = (*children_of(child), child)[0]
            os.kill(program, signal.SIGSTOP)
            _, wait_status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(wait_status) and os.WSTOPSIG(wait_status) == signal.SIGSTOP
            stopped(program)
            process.send_signal(signal.SIGCONT)
            wait_for(lambda pid=program: state_of(pid) in "SR", "the program goes on")
            wait_for(lambda: state_of(process.pid) in "SR", "nsext goes on")
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == f"{int(signal.SIGTERM)}\n"
        assert process.wait(DEADLINE) == 42


@pytest.mark.parametrize(
    "words", [[], ["--new", "pid"], ["--new", "pid,mnt", "--init"], ["--init"]]
)
def test_tstp_and_cont_to_nsext_alone(words):
    """One SIGCONT is enough, also where nsext has stopped a PID 1 itself."""
    line = [*words, "sh", "-c", "echo ready; exec sleep 1000"]
    with running(*line, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout.readline() == b"ready\n"
        (child,) = children_of(process.pid)
        program = (*children_of(child), child)[0]
        for _ in range(3):
            process.send_signal(signal.SIGTSTP)
            _, wait_status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(wait_status)
            stopped(program)
            process.send_signal(signal.SIGCONT)
            wait_for(lambda: state_of(program) in "SR", "the program goes on")
            wait_for(lambda: state_of(process.pid) in "SR", "nsext goes on")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == -signal.SIGTERM


@pytest.mark.parametrize(
    "words", [[], ["--new", "pid"], ["--new", "pid,mnt", "--init"], ["--init"]]
)
def test_tstp_to_the_group_stops_both(words):
    """As a terminal's Ctrl-Z; here by a sender of another group, so a second one is passed on."""
    line = [*words, "sh", "-c", "echo ready; exec sleep 1000"]
    # In a group of its own whose parent is in another one of the session: else it is orphaned.
    with running(*line, stdout=subprocess.PIPE, process_group=0) as process:
        assert process.stdout.readline() == b"ready\n"
        (child,) = children_of(process.pid)
        program = (*children_of(child), child)[0]
        os.killpg(process.pid, signal.SIGTSTP)
        _, wait_status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(wait_status)
        stopped(program)
        os.killpg(process.pid, signal.SIGCONT)
        wait_for(lambda: state_of(program) in "SR", "the program goes on")
        wait_for(lambda: state_of(process.pid) in "SR", "nsext goes on")
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(DEADLINE) == -signal.SIGTERM


def test_ignored_sigchld_is_no_matter():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = subprocess.Popen([*NSEXT, "run", "sh", "-c", "exit 3"], restore_signals=False)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert process.wait(DEADLINE) == 3


def test_signal_dispositions_are_the_callers():
    with running("sh", "-c", "echo ready; exec sleep 100", stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (child,) = children_of(process.pid)
        wait_for(lambda: status(child)["Name"] == "sleep")
        facts = status(child)
        assert int(facts["SigBlk"], 16) == int(status()["SigBlk"], 16)
        # What Python ignores is not; what was ignored before stays so.  32 and 33, the C library's,
        # are ignored by who is started by posix_spawn(3), as nsext here by newer Pythons.
        ours = sum(1 << number - 1 for number in (signal.SIGPIPE, signal.SIGXFSZ, 32, 33))
        ignored = [int(each["SigIgn"], 16) & ~ours for each in (facts, status())]
        assert ignored[0] == ignored[1] and int(facts["SigCgt"], 16) == 0
        python = sum(1 << number - 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))
        assert not int(facts["SigIgn"], 16) & python


# ---- --timeout, --from, --explain


def test_timeout():
    begun = time.monotonic()
    done = nsext_run("--new", "pid", "--timeout", "0.2", "sh", "-c", "sleep 1000; true")
    assert done.returncode == 124 and time.monotonic() - begun < DEADLINE / 2
    assert nsext_run("--timeout", "60", "sh", "-c", "exit 3").returncode == 3


def test_write_toml_and_from(tmp_path):
    path = tmp_path / "box.toml"
    with open(path, "w") as file:
        words = ["--new", "uts,pid", "--hostname", "filed", "--write-toml"]
        assert nsext_run(*words, capture_output=False, stdout=file).returncode == 0
    assert nsext.Sandbox.from_toml(path) == nsext.Sandbox(new="uts pid", hostname="filed")
    assert nsext_run("--from", str(path), "uname", "-n").stdout == "filed\n"
    assert nsext_run("--from", str(path), "--hostname", "x", "uname", "-n").stdout == "x\n"
    done = nsext_run("--write-toml", "--setenv", "A=1")
    assert done.returncode == 125 and "--env" in done.stderr


def test_explain_says_what_a_spawn_does():
    box = nsext.Sandbox(new="uts pid", hostname="box", init=True)
    done = nsext_run("--new", "uts,pid", "--hostname", "box", "--init", "--explain", "ls", "-l")
    box = box.replace(kill_on_parent_exit=True)
    assert done.stdout == box.explain(["ls", "-l"]) + "\n"
    assert "ask for SIGKILL at the parent's death" in nsext_run("--explain").stdout
    lives = nsext_run("--no-kill-on-parent-exit", "--explain")
    assert lives.stdout == nsext.Sandbox().explain() + "\n"
    lines = nsext_run("--pty", "--explain").stdout.splitlines()
    begin = lines.index("setsid")
    assert lines[begin + 1] == "take the terminal: TIOCSCTTY"
    mounts = nsext_run("--pty", "--new", "mnt", "--dev", "/dev", "--init", "--explain").stdout
    for step in ("open a terminal of the new /dev/pts", "give the program the terminal"):
        assert any(line.startswith(step) for line in mounts.splitlines()), mounts


def test_a_reader_that_leaves_ends_it_quietly():
    """nsext run --explain | head -0"""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*NSEXT, "run", "--explain"], stdout=writer, stderr=subprocess.PIPE, timeout=DEADLINE
        )
    finally:
        os.close(writer)
    assert done.returncode == -signal.SIGPIPE and done.stderr == b""


def test_untrusted():
    done = nsext_run(
        "--untrusted", "--hostname", "safe", "sh", "-c",
        "uname -n; grep -h NoNewPrivs /proc/self/status; ls /proc | grep -c '^[0-9]'; ls /root /home",
    )  # fmt: skip
    name, privileges, processes = done.stdout.splitlines()[:3]
    assert (name, privileges.split()[1]) == ("safe", "1") and int(processes) <= 5


def test_as_an_ordinary_user():
    as_user("""
    def nsext_run(*words):
        command = [sys.executable, "-m", "nsext", "run", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=50)
    done = nsext_run("--new", "user,pid,uts,mnt", "--hostname", "x", "sh", "-c", "id -u; uname -n; echo $$")
    assert done.stdout == "0\\nx\\n1\\n", done
    done = nsext_run("--new", "uts", "--hostname", "x", "true")
    assert done.returncode == 125 and "hint" in done.stderr, done
    done = nsext_run("--new", "user,pid", "--pty", "tty")
    assert done.stdout.startswith("/dev/pts/"), done
    """)


# ---- enter


def test_enter():
    with nsext.Popen(["sleep", "1000"], new="uts net pid", hostname="inside") as target:
        pid = str(target.pid)

        def enter(*words):
            return subprocess.run(
                [*NSEXT, "enter", *words], capture_output=True, text=True, timeout=DEADLINE
            )

        assert enter(pid, "uname", "-n").stdout == "inside\n"
        assert enter(pid, "--only", "net", "--", "uname", "-n").stdout == os.uname().nodename + "\n"
        show = ["readlink", "/proc/self/ns/net", "/proc/self/ns/uts"]
        net, uts = enter(pid, "--only=net", *show).stdout.split()
        assert net == ns_id("net", target.pid) and uts == ns_id("uts")
        path = f"/proc/{pid}/ns/uts"
        assert enter("--cwd", "/", path, "sh", "-c", "uname -n; pwd").stdout == "inside\n/\n"
        done = enter(pid, "--new", "mnt", "--", "sh", "-c", "exit 9")
        assert done.returncode == 9
        environment = {**os.environ, "SHELL": "/bin/hostname"}
        done = subprocess.run([*NSEXT, "enter", pid], env=environment, capture_output=True)
        assert done.stdout == b"inside\n"
        target.kill()
    assert enter(pid, "true").returncode == 125
    assert enter("nothing").returncode == 125
    assert enter().returncode == 125


def test_ctrl_c_among_the_imports_of_the_script():
    """It ends as by SIGINT, and shows no traceback."""
    code = """
    import os, signal, sys
    class Interrupt:
        def find_spec(self, name, *unused):
            if name == place:
                os.kill(os.getpid(), signal.SIGINT)
    place = sys.orig_argv[-2]
    sys.meta_path.insert(0, Interrupt())
    sys.argv = ["nsext", "run", "true"]
    exec(open(sys.orig_argv[-1]).read())
    """
    path = Path(nsext.__file__).parent / "_cli" / "nsext"
    if not path.exists():  # where it is installed
        path = Path(sys.executable).with_name("nsext")
    for place in ("nsext", "nsext._cli.run", "nsext._cli.supervise"):
        command = [sys.executable, "-c", textwrap.dedent(code), place, str(path)]
        done = subprocess.run(command, capture_output=True, timeout=DEADLINE)
        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")
    # Where it is no script, from the imports of run on.
    module = textwrap.dedent(code).rpartition("exec(")[0] + "from nsext._cli import main; main()"
    command = [sys.executable, "-c", module, "nsext._cli.supervise", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_the_installed_script():
    """pyproject.toml's entry, as an installer writes it."""
    script = Path(sys.executable).with_name("nsext")
    done = subprocess.run([script, "run", "sh", "-c", "exit 5"], timeout=DEADLINE)
    assert done.returncode == 5
