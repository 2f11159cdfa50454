"""The nsext command as a person uses it: in a real terminal, below a shell with job control."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helping import children_of, gone, state_of, wait_for
from support import needs, status

pexpect = pytest.importorskip("pexpect")
pytestmark = pytest.mark.usefixtures("root")

NSEXT = f"{sys.executable} -m nsext"
OUTER, INNER = "OUTER> ", "INNER> "
BASH = "bash --norc --noprofile --noediting -i"
# The prompt is not to be found in the echo of what sets it.
SETENV = "--setenv 'PS1=INNE''R> '"

KINDS = {
    "bare": "",
    "pid": "--new pid,mnt",
    "init": "--new pid,mnt --init",
    "subreaper": "--init",
    "user": "--new user,pid,mnt,uts",
    "pty": "--pty",
    "pty pid": "--pty --new pid,mnt",
    "pty init": "--pty --new pid,mnt --init",
    "pty subreaper": "--pty --init",
    "pty root": "--pty --new user,pid,mnt --root tmpfs --hostlike",
}
kinds = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
with_pty = pytest.mark.parametrize(
    "options", [v for v in KINDS.values() if "--pty" in v], ids=[k for k in KINDS if "pty" in k]
)


class Terminal(pexpect.spawn):
    """A shell in a terminal."""

    def expect_exact(self, *args, **keywords):
        try:
            return super().expect_exact(*args, **keywords)
        except pexpect.TIMEOUT as error:
            error.add_note(self.told())
            raise

    def told(self):
        """Of the processes below the shell: state, groups and signals."""
        lines = [f"foreground: {os.tcgetpgrp(self.child_fd)}"]
        below = [self.pid]
        for pid in below:
            try:
                below += children_of(pid)
                own = status(pid)
                wanted = ("Name", "State", "Pid", "PPid", "NSpid", "NSpgid", "Threads")
                wanted += ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")
                lines.append(" ".join(f"{key}={own.get(key)}" for key in wanted))
            except OSError:
                lines.append(f"{pid}: it has ended")
        return "\n".join(lines)

    def do(self, line, prompt=OUTER):
        """Type a line; return what is shown up to the next prompt."""
        self.sendline(line)
        self.expect_exact("\n")  # the echo
        self.expect_exact(prompt)
        return self.before.replace("\r", "")

    def settings(self):
        return self.do("stty -a")

    def find(self, name):
        """The process of that name below the shell."""

        def look():
            below = [self.pid]
            for pid in below:
                try:
                    below += children_of(pid)
                    if pid != self.pid and status(pid)["Name"] == name:
                        return pid
                except (OSError, KeyError):
                    pass
            return None

        return wait_for(look, f"a process {name}")


@pytest.fixture
def shell(tmp_path):
    environment = {**os.environ, "PS1": OUTER, "TERM": "xterm", "HISTFILE": ""}
    terminal = Terminal(
        BASH, env=environment, cwd=tmp_path, dimensions=(30, 150), encoding="utf-8", timeout=30
    )
    try:
        terminal.expect_exact(OUTER)
        yield terminal
    finally:
        terminal.close(force=True)
        terminal.wait() if terminal.isalive() else None


def test_the_shell_here_has_job_control(shell):
    """Else what follows would prove nothing."""
    shell.sendline("sleep 1000")
    pid = shell.find("sleep")
    shell.sendcontrol("z")
    shell.expect_exact("Stopped")
    assert state_of(pid) == "T"
    shell.expect_exact(OUTER)
    shell.do("kill -9 %1")


# ---- Ctrl-C, Ctrl-Z, exit status


@kinds
def test_ctrl_c_ends_it(shell, options):
    before = shell.settings()
    shell.sendline(f"{NSEXT} run {options} sleep 1000")
    pid = shell.find("sleep")
    shell.sendcontrol("c")
    shell.expect_exact(OUTER)
    gone(pid)
    assert shell.do("echo $?").strip() == "130"
    assert shell.settings() == before


# bash drops a signal that comes while its trap runs: so the trap does no more than to remember it.
CATCHES = """
trap n=1 INT
echo ready
while ! test -e stop; do
    sleep 0.02
    if test "$n"; then
        n=
        echo caught
    fi
done
exit 9
"""


@kinds
def test_ctrl_c_is_the_programs_if_it_wants_it(shell, options):
    Path(shell.cwd, "catches").write_text(CATCHES)
    bind = f"--bind {shell.cwd}" if "--root" in options else ""
    shell.sendline(f'{NSEXT} run {options} {bind} bash -c "cd {shell.cwd} && . ./catches"')
    shell.expect_exact("ready")
    for _ in range(2):
        shell.sendcontrol("c")
        shell.expect_exact("caught")
    Path(shell.cwd, "stop").touch()
    shell.expect_exact(OUTER)
    assert shell.do("echo $?").strip() == "9"


@kinds
def test_ctrl_z_and_fg(shell, options):
    before = shell.settings()
    shell.sendline(f"{NSEXT} run {options} sleep 1000")
    pid = shell.find("sleep")
    for _ in range(2):
        shell.sendcontrol("z")
        shell.expect_exact("Stopped")
        shell.expect_exact(OUTER)
        assert shell.settings() == before
        wait_for(lambda: state_of(pid) == "T", "the program is stopped")
        assert "Stopped" in shell.do("jobs")
        shell.sendline("fg")
        shell.expect_exact("nsext run")
        wait_for(lambda: state_of(pid) == "S", "the program goes on")
    shell.sendcontrol("c")
    shell.expect_exact(OUTER)
    gone(pid)
    assert shell.settings() == before


@pytest.mark.parametrize("kind", ["pid", "user"])
def test_a_second_ctrl_z_does_not_pass_by_nsext(shell, kind):
    """A PID 1 does not stop by it: nsext has to see it, however early it comes after fg."""
    shell.sendline(f"{NSEXT} run {KINDS[kind]} sleep 1000")
    pid = shell.find("sleep")
    shell.sendcontrol("z")
    shell.expect_exact("Stopped")
    nsext = int(status(pid)["PPid"])
    assert state_of(nsext) == "T"
    assert int(status(nsext)["SigBlk"], 16) >> (signal.SIGTSTP - 1) & 1
    shell.expect_exact(OUTER)
    shell.do("kill -9 %1")


@kinds
def test_background_and_kill(shell, options):
    """bg, and what the shell's kill sends to the group."""
    shell.sendline(f"{NSEXT} run {options} sleep 1000")
    pid = shell.find("sleep")
    shell.sendcontrol("z")
    shell.expect_exact("Stopped")
    shell.expect_exact(OUTER)
    shell.do("bg")
    wait_for(lambda: state_of(pid) == "S", "the program goes on")
    # As the shell tells it: wait %1 has no status to give when that was before it.
    shell.sendline("kill %1; wait %1")
    shell.expect_exact("Terminated")
    gone(pid)


@kinds
@pytest.mark.parametrize(
    ("program", "shown"),
    [("sh -c 'exit 7'", "7"), ("nonexistent", "127"), ("/etc", "126")],
)
def test_exit_status(shell, options, program, shown):
    before = shell.settings()
    shell.do(f"{NSEXT} run {options} {program}")
    assert shell.do("echo $?").strip() == shown
    assert shell.settings() == before


def test_reading_in_a_pipeline(shell):
    """Two of them in one process group, and the last one reads the keyboard."""
    line = f"{NSEXT} run --new pid echo piped | {NSEXT} run --new pid sh -c 'cat; read x </dev/tty; echo got $x'"
    shell.sendline(line)
    shell.expect_exact("\npiped")
    shell.sendline("typed")
    shell.expect_exact("got typed")
    shell.expect_exact(OUTER)


# ---- a shell inside


@kinds
def test_a_shell_inside_has_job_control(shell, options):
    before = shell.settings()
    shell.sendline(f"{NSEXT} run {SETENV} {options} {BASH}")
    shell.expect_exact(INNER)
    assert "job control" not in shell.before
    shell.sendline("sleep 1000")
    pid = shell.find("sleep")
    wait_for(lambda: state_of(pid) == "S")
    shell.sendcontrol("z")
    shell.expect_exact("Stopped")
    shell.expect_exact(INNER)
    assert state_of(pid) == "T"
    assert "sleep 1000" in shell.do("jobs", INNER)
    shell.sendline("fg")
    wait_for(lambda: state_of(pid) == "S")
    shell.sendcontrol("c")
    shell.expect_exact(INNER)
    assert shell.do("echo $?", INNER).strip() == "130"
    shell.sendline("exit 3")
    shell.expect_exact(OUTER)
    assert shell.do("echo $?").strip() == "3"
    assert shell.settings() == before


@pytest.mark.parametrize("kind", ["bare", "init", "pty", "pty init"])
def test_a_shell_that_stops_itself(shell, kind):
    """By its builtin suspend.  Below an init nobody is told, and nobody would read the terminal."""
    bash = BASH
    if kind == "init":
        # Who has started it is in no process group that it can see, and only readline outlasts
        # that another one has the terminal for a moment.
        bash = BASH.replace("--noediting", "")
    shell.do(f"{NSEXT} run {SETENV} {KINDS[kind]} {bash}", INNER)
    for _ in range(2):
        shell.sendline("suspend -f; echo go''ing on")
        shell.expect_exact("Stopped")
        shell.expect_exact(OUTER)
        shell.sendline("fg")
        shell.expect_exact("going on")
        shell.expect_exact(INNER)
    shell.do("exit 5")
    assert shell.do("echo =$?=").strip() == "=5="


@kinds
def test_window_size_follows(shell, options):
    shell.sendline(f"{NSEXT} run {SETENV} {options} {BASH}")
    shell.expect_exact(INNER)
    assert shell.do("stty size", INNER).strip() == "30 150"
    shell.setwinsize(41, 132)
    wait_for(lambda: shell.do("stty size", INNER).strip() == "41 132", "the new size inside")
    shell.sendline("exit")
    shell.expect_exact(OUTER)
    assert shell.do("stty size").strip() == "41 132"


@with_pty
def test_the_terminal_inside_is_another(shell, options):
    outside = shell.do("tty").strip()
    shell.sendline(f"{NSEXT} run {options} sh -c 'echo [$(tty)]; readlink /proc/self/fd/0'")
    shell.expect(r"\[(/dev/pts/\d+)\]\s+(/dev/pts/\d+)")
    assert shell.match[1] == shell.match[2]
    assert shell.match[1] != outside or "--root" in options
    shell.expect_exact(OUTER)


@with_pty
def test_every_key_goes_through(shell, options):
    """Raw: what is typed is neither interpreted nor changed on the way."""
    code = "stty raw -echo; echo rea''dy; dd bs=1 count=6 2>/dev/null | od -An -tx1; stty sane"
    shell.sendline(f'{NSEXT} run {options} sh -c "{code}"')
    shell.expect_exact("ready")
    shell.send("\x03\x1a\x11\x13\r\x7f")
    shell.expect_exact("03 1a 11 13 0d 7f")
    shell.expect_exact(OUTER)


# ---- the terminal is restored, whatever happens


@with_pty
@pytest.mark.parametrize("end", ["program killed", "SIGTERM", "SIGHUP", "kill -9", "timeout"])
def test_the_terminal_is_restored(shell, options, end):
    before = shell.settings()
    timeout = "--timeout 1 " if end == "timeout" else ""
    # stty(1) in the line: bash restores the terminal by itself when it reads the next one.
    shell.sendline(f"{NSEXT} run {timeout}{options} sleep 1000; sleep 0.3; stty -a >after")
    program = shell.find("sleep")
    (nsext,) = children_of(shell.pid)
    wait_for(lambda: "-icanon" in stty(shell), "the terminal is raw")
    if end == "program killed":
        os.kill(program, signal.SIGKILL)
    elif end == "kill -9":
        os.kill(nsext, signal.SIGKILL)
    elif end != "timeout":
        os.kill(nsext, getattr(signal, end))
    shell.expect_exact(OUTER)
    gone(program)
    assert Path(shell.cwd, "after").read_text().split() == before.split()


def stty(shell):
    """The settings of the terminal, asked from outside."""
    return subprocess.check_output(["stty", "-a", "-F", f"/proc/{shell.pid}/fd/0"], text=True)


@with_pty
def test_a_terminal_that_is_gone_ends_it(shell, options):
    """Also where the shell cannot say so."""
    shell.sendline(f"{NSEXT} run {options} sleep 1000")
    program = shell.find("sleep")
    (nsext,) = children_of(shell.pid)
    wait_for(lambda: "-icanon" in stty(shell), "the terminal is raw")
    os.kill(shell.pid, signal.SIGKILL)
    shell.close(force=True)
    gone(program)
    gone(nsext)


@with_pty
def test_no_process_is_left(shell, options):
    for end in ("exit", "kill -9 $PPID"):
        if "pid" in options and "PPID" in end:
            continue
        shell.do(f"{NSEXT} run {options} sh -c '{end}'; true")
        wait_for(lambda: not children_of(shell.pid), "no child of the shell")


# ---- full-screen programs, in tmux


class Tmux:
    """A tmux of the test's own, with one window."""

    def __init__(self, place, command):
        needs(shutil.which("tmux"), "needs tmux")
        self.base = ["tmux", "-S", str(place / "tmux.socket"), "-f", "/dev/null"]
        environment = {**os.environ, "TERM": "xterm", "LANG": "C.UTF-8"}
        subprocess.run(
            [*self.base, "new-session", "-d", "-x", "80", "-y", "24", command],
            check=True,
            env=environment,
            cwd=place,
        )

    def do(self, *words):
        return subprocess.run(
            [*self.base, *words], check=True, capture_output=True, text=True
        ).stdout

    def screen(self):
        return self.do("capture-pane", "-p")

    def shows(self, text):
        return wait_for(lambda: re.search(text, self.screen()), f"{text!r} on the screen")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        subprocess.run([*self.base, "kill-server"], capture_output=True)


@pytest.mark.parametrize("options", ["--new pid,mnt", "--pty --new user,pid,mnt --init"])
def test_vi_is_resized(tmp_path, options):
    editor = shutil.which("vi") or shutil.which("vim")
    needs(editor, "needs vi")
    (tmp_path / "text").write_text("".join(f"line {n}\n" for n in range(1, 201)))
    with Tmux(
        tmp_path, f"{NSEXT} run {options} {editor} -u NONE text; echo left $?; sleep 1000"
    ) as tmux:
        tmux.shows(r"line 23\b")
        assert not re.search(r"line 30\b", tmux.screen())
        tmux.do("resize-window", "-x", "60", "-y", "40")
        tmux.shows(r"line 39\b")
        tmux.do("send-keys", "/line 150", "Enter")
        tmux.shows(r"line 150\b")
        tmux.do("send-keys", "Escape", ":cq", "Enter")
        tmux.shows(r"left 1\b")


@pytest.mark.parametrize("options", ["--new pid,mnt", "--pty --new pid,mnt"])
def test_top_shows_what_is_inside(tmp_path, options):
    needs(shutil.which("top"), "needs top")
    with Tmux(tmp_path, f"{NSEXT} run {options} top; echo left $?; sleep 1000") as tmux:
        tmux.shows(r"PID +USER")
        tmux.shows(r"\n +1 root .* top")
        assert not re.search(r"nsext|tmux", tmux.screen())
        tmux.do("resize-window", "-x", "100", "-y", "12")
        tmux.shows(r"PID +USER")
        tmux.do("send-keys", "q")
        tmux.shows(r"left 0\b")
