"""``nsext list``, ``show``, ``hold``, ``drop``, ``check`` and ``completion``."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from support import DEADLINE, KINDS, as_user, needs, ns_id

import nsext
from nsext import _cli

pytestmark = pytest.mark.usefixtures("root")
NSEXT = [sys.executable, "-m", "nsext"]


def command(*words, **keywords):
    keywords = {"capture_output": True, "text": True, "timeout": DEADLINE, **keywords}
    return subprocess.run([*NSEXT, *words], **keywords)


def shown(*words, **keywords):
    """What a command that works prints."""
    done = command(*words, **keywords)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def number(kind, pid="self"):
    """The inode of a process's namespace."""
    return int(ns_id(kind, pid).split("[")[1][:-1])


@contextmanager
def in_a_terminal(*words, **environment):
    """The output of a command whose standard output is a terminal."""
    master, slave = pty.openpty()
    variables = {**os.environ, "TERM": "xterm", **environment}
    variables = {name: value for name, value in variables.items() if value is not None}
    try:
        subprocess.run([*NSEXT, *words], stdout=slave, env=variables, timeout=DEADLINE, check=True)
        os.close(slave)
        slave = -1
        text = b""
        try:
            while data := os.read(master, 65536):
                text += data
        except OSError:
            pass  # EIO: the end
        yield text.decode()
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)


# ---- list


@contextmanager
def sample():
    with nsext.Popen(["sleep", "1000"], new="user net uts pid", hostname="listed") as process:
        try:
            yield process
        finally:
            process.kill()


def test_list_is_a_table():
    with sample() as process:
        lines = shown("list", "net", "uts").splitlines()
        assert lines[0].split() == ["NS", "TYPE", "NPROCS", "PID", "USER", "COMMAND"]
        rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
        for kind in ("net", "uts"):
            row = rows[str(number(kind, process.pid))]
            assert row == [kind, "1", str(process.pid), "root", "sleep", "1000"]
        assert {row[0] for row in rows.values()} == {"net", "uts"}


def test_list_for_programs():
    with sample() as process:
        found = json.loads(shown("list", "--json"))
        mine = next(item for item in found if item["id"] == number("net", process.pid))
        assert mine["kind"] == "net" and mine["pid"] == process.pid and mine["nprocs"] == 1
        assert mine["owner"] == number("user", process.pid)
        assert {item["kind"] for item in found} == set(KINDS)
        assert json.loads(shown("list", "--json", "uts", "ipc,mnt")) != found


def test_list_agrees_with_lsns():
    needs(shutil.which("lsns"), "needs lsns")
    with sample() as process:
        ours = {item["id"]: item for item in json.loads(shown("list", "--json", "net", "user"))}
        listed = subprocess.check_output(["lsns", "-J", "-t", "net", "-o", "NS,NPROCS,PID"])
        theirs = {int(item["ns"]): item for item in json.loads(listed)["namespaces"]}
        one = number("net", process.pid)
        assert ours[one]["nprocs"] == int(theirs[one]["nprocs"]) == 1
        assert ours[one]["pid"] == int(theirs[one]["pid"]) == process.pid


def test_tree():
    with sample() as process:
        lines = shown("list", "--tree", "user", "net").splitlines()
        depth = {line.split()[0]: len(line) - len(line.lstrip()) for line in lines[1:]}
        top, user = str(number("user")), str(number("user", process.pid))
        assert depth[top] == 0 < depth[user] < depth[str(number("net", process.pid))]


def test_a_reader_that_leaves_ends_it_quietly():
    """nsext list | head -1, and a reader that has gone before."""
    line = f"{sys.executable} -m nsext list | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=DEADLINE)
    first, status = done.stdout.splitlines()
    assert first.startswith("NS ") or first.split()[0] == "NS"
    assert status in ("0", "141") and done.stderr == ""
    reader, writer = os.pipe()
    os.close(reader)
    for words in (
        ["list"],
        ["list", "--json"],
        ["check", "uts"],
        ["completion", "bash"],
    ):
        done = subprocess.run(
            [*NSEXT, *words], stdout=writer, stderr=subprocess.PIPE, timeout=DEADLINE
        )
        assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b""), words
    os.close(writer)


def test_colour_in_terminals_only():
    assert "\033" not in shown("list", "uts")
    with in_a_terminal("list", "uts", NO_COLOR=None) as text:
        assert text.startswith("\033[1m")
    for quiet in ({"NO_COLOR": "1"}, {"TERM": "dumb", "NO_COLOR": None}):
        with in_a_terminal("list", "uts", **quiet) as text:
            assert "\033" not in text and "NS" in text
    with in_a_terminal("check", "uts", NO_COLOR=None) as text:
        assert "\033[32myes\033[m" in text


def test_a_command_line_cannot_control_the_terminal():
    """What a process calls itself is nobody's to trust."""
    evil = "\033]0;owned\a\x9b31m"
    with nsext.Popen(
        ["sh", "-c", "echo; read x", evil], new="net", stdin=nsext.PIPE, stdout=nsext.PIPE
    ) as p:
        p.stdout.readline()
        text = shown("list", "net")
        assert "owned" in text and not {"\033", "\a", "\x9b"} & set(text)
        text = shown("show", str(p.pid))
        assert "owned" in text and not {"\033", "\a", "\x9b"} & set(text)


# ---- show


def test_show():
    with sample() as process:
        text = shown("show", str(process.pid))
        assert f"process  {process.pid}  sleep 1000" in text and "inside   1" in text
        assert "uid_map  0 0 1" in text
        rows = {line.split()[0]: line for line in text.splitlines() if "[" not in line}
        for kind in KINDS:
            assert str(number(kind, process.pid)) in rows[kind]
            own = ns_id(kind) == ns_id(kind, process.pid)
            assert rows[kind].endswith("the caller's" if own else "another")
        facts = json.loads(shown("show", "--json", str(process.pid)))
        assert facts["inner_pids"] == [process.pid, 1]
        assert {item["kind"]: item["id"] for item in facts["namespaces"]} == {
            kind: number(kind, process.pid) for kind in KINDS
        }
    done = command("show", str(process.pid))
    assert done.returncode == 1 and done.stderr.startswith("nsext: ")


# ---- hold, enter, drop


def is_mount(path):
    """os.path.ismount() sees no bind mount within a file system."""
    lines = open("/proc/self/mountinfo").read().splitlines()
    return any(line.split()[4] == path for line in lines)


@pytest.fixture
def name():
    """A name that nobody else has, dropped at the end."""
    name = f"nsext-test-{os.getpid()}"
    places = ("/run/nsext", "/run/netns")
    before = {path: (os.path.exists(path), is_mount(path)) for path in places}
    yield name
    command("drop", name)
    for path, (existed, mounted) in before.items():
        if not mounted and is_mount(path):  # ip netns makes it one
            subprocess.run(["umount", path], check=True)
        if not existed and os.path.isdir(path) and not os.listdir(path):
            os.rmdir(path)


def test_hold_enter_and_drop(name):
    held = shown("hold", name, "--new", "uts,net", "--new", "user").split()
    assert held == [f"/run/nsext/{name}/user", f"/run/nsext/{name}/uts", f"/run/netns/{name}"]
    ids = {os.stat(path).st_ino for path in held}
    # No process is in them, and they live.
    listed = {item["id"]: item for item in json.loads(shown("list", "--json"))}
    assert all(listed[id]["nprocs"] == 0 and listed[id]["paths"] for id in ids)
    user = os.stat(held[0]).st_ino
    assert all(listed[id]["owner"] == user for id in ids - {user})
    show = ["sh", "-c", "id -u; for k in user uts net; do readlink /proc/self/ns/$k; done"]
    uid, *links = shown("enter", name, "--", *show).split()
    assert uid == "0" and {int(link.split("[")[1][:-1]) for link in links} == ids
    link = shown("enter", name, "--only", "uts", "readlink", "/proc/self/ns/net").strip()
    assert link == ns_id("net")
    assert command("enter", name, "--only", "ipc", "true").returncode == 125
    done = command("hold", name, "--new", "ipc")
    assert done.returncode == 1 and "already" in done.stderr
    assert shown("drop", name) == ""
    assert not any(map(os.path.lexists, held)) and not os.path.exists(f"/run/nsext/{name}")
    assert command("drop", name).returncode == 1
    assert command("enter", name, "true").returncode == 125


def test_ip_netns_knows_what_hold_made_and_the_other_way_round(name):
    needs(shutil.which("ip"), "needs ip")
    shown("hold", name, "--new", "net")
    assert name in subprocess.check_output(["ip", "netns", "list"], text=True)
    inside = ["ip", "netns", "exec", name, "readlink", "/proc/self/ns/net"]
    link = subprocess.check_output(inside, text=True).strip()
    assert int(link.split("[")[1][:-1]) == os.stat(f"/run/netns/{name}").st_ino
    shown("drop", name)
    subprocess.run(["ip", "netns", "add", name], check=True)
    assert shown("enter", name, "--", "readlink", "/proc/self/ns/net") != ns_id("net")
    shown("drop", name)
    assert name not in subprocess.check_output(["ip", "netns", "list"], text=True)


def test_hold_is_all_or_nothing(name):
    for words in (["--new", "uts,pid"], ["--new", "uts,nothing"], ["--new", ""]):
        done = command("hold", name, *words)
        assert done.returncode == 125 and done.stderr.startswith("nsext: "), done
        assert not os.path.exists(f"/run/nsext/{name}")
    for bad in ("a/b", "..", "12"):
        assert command("hold", bad, "--new", "uts").returncode == 125
    assert "enter it by the id" in command("hold", name, "--new", "pid").stderr
    as_user("""
    done = subprocess.run([sys.executable, "-m", "nsext", "hold", "x", "--new", "uts"], capture_output=True)
    assert done.returncode == 1 and done.stderr == b"nsext: to hold namespaces needs CAP_SYS_ADMIN\\n", done
    """)


# ---- check


def test_check():
    done = command("check", "user", "net")
    report = nsext.check("user net")
    assert done.returncode == (0 if report else 1)
    assert done.stdout.splitlines()[0].split()[:2] == ["user", "yes" if report["user"] else "no"]
    found = json.loads(command("check", "--json").stdout)
    names = [item["name"] for item in found["findings"]]
    assert names == list(nsext.check())
    assert found["ok"] == bool(nsext.check())


def test_check_says_what_is_wrong():
    code = 'echo 0 >/proc/sys/user/max_uts_namespaces; exec "$@"'
    box = nsext.Sandbox(new="user pid mnt")
    done = box.run(["sh", "-c", code, "sh", *NSEXT, "check", "uts"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "uts           no" in done.stdout and "max_uts_namespaces" in done.stdout


# ---- usage, completion


def test_wrong_usage_is_125():
    for words in (
        [],
        ["nothing"],
        ["list", "--nothing"],
        ["show"],
        ["hold", "x"],
        ["completion", "csh"],
        ["list", "nothing"],
        ["check", "nothing"],  # 1 is the answer "it does not work"
    ):
        done = command(*words)
        assert done.returncode == 125 and "--help" in done.stderr, words
    assert "unknown namespace kind" in command("list", "nothing").stderr
    done = command("show", "999999999")
    assert (done.returncode, done.stderr) == (1, "nsext: there is no process 999999999\n")


def test_every_command_has_help_with_examples():
    for name in _cli.COMMANDS:
        text = shown(name, "--help")
        assert "examples:" in text and f"nsext {name}" in text
    assert shown("--version") == f"nsext {nsext.__version__}\n"


def completed(*words):
    """What bash offers for the last word."""
    script = """
    source <("$@" completion bash)
    COMP_WORDS=($LINE) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    [[ $LINE == *' ' ]] && COMP_WORDS+=("") && ((COMP_CWORD++))
    compopt() { :; }
    _nsext
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *NSEXT],
        env={**os.environ, "LINE": " ".join(words)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.stderr == "", done.stderr
    return done.stdout.split()


def test_bash_completion(tmp_path):
    assert set(_cli.COMMANDS) <= set(completed("nsext", ""))
    assert completed("nsext", "ru") == ["run"]
    assert completed("nsext run --hostn") == ["--hostname"]
    assert {"--no-new-privs", "--new-privs"} <= set(completed("nsext run --n"))
    assert completed("nsext run --new pi") == ["pid"]
    assert completed("nsext run --new pid,u") == ["pid,uts", "pid,user"]
    assert "bash" in completed("nsext run --new pid bas")
    assert "bash" in completed("nsext run --init --hostname x -- bas")
    assert completed("nsext run bash --hostn") == []
    assert "--only" in completed("nsext enter 1 --on")
    assert completed("nsext list ne") == ["net"]
    assert completed("nsext list --j") == ["--json"]
    assert "1" in completed("nsext show 1")
    assert completed("nsext completion b") == ["bash"]


def test_fish_completion(tmp_path):
    needs(shutil.which("fish"), "no fish here")
    (tmp_path / "nsext.fish").write_text(shown("completion", "fish"))
    (tmp_path / "some-file").touch()

    def offered(line):
        code = f"source nsext.fish; complete -C '{line}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", code], capture_output=True, text=True, cwd=tmp_path,
            timeout=DEADLINE,
        )  # fmt: skip
        assert done.stderr == "", done.stderr
        return [shown.partition("\t")[0] for shown in done.stdout.splitlines()]

    assert set(offered("nsext ")) == set(_cli.COMMANDS)
    assert offered("nsext run --hostn") == ["--hostname"]
    assert offered("nsext run --new pi") == ["pid"]
    assert set(offered("nsext run --new pid,u")) == {"pid,uts", "pid,user"}
    assert set(offered("nsext run --keyring ")) == {"new", "inherit"}
    assert offered("nsext run --from some") == ["some-file"]
    assert "bash" in offered("nsext run --init --hostname x -- bas")
    assert offered("nsext run --new pid cat some") == ["some-file"]
    assert "bash" in offered("nsext enter 1 --only net bas")
    assert offered("nsext run bash --hostn") == []
    assert offered("nsext list ne") == ["net"]
    assert set(offered("nsext completion ")) == {"bash", "zsh", "fish"}


def test_zsh_completion(tmp_path):
    """In a terminal: its completion works nowhere else."""
    needs(shutil.which("zsh"), "no zsh here")
    pexpect = pytest.importorskip("pexpect")
    (tmp_path / "nsext.zsh").write_text(shown("completion", "zsh"))
    (tmp_path / "show.zsh").write_text("""
        PS1='> '
        suddenly() { }
        show() { echo; echo "has: $BUFFER;"; zle .kill-buffer }
        zle -N show; bindkey '^X' show
    """)
    environment = {**os.environ, "TERM": "dumb", "ZDOTDIR": str(tmp_path)}
    shell = pexpect.spawn("zsh", ["-f", "-i"], env=environment, cwd=tmp_path, encoding="utf-8")
    try:
        shell.sendline("source ./nsext.zsh; source ./show.zsh; echo do''ne")
        shell.expect_exact("done")
        for typed, completed in (
            ("nsext ru", "nsext run"),
            ("nsext run --hostn", "nsext run --hostname"),
            ("nsext run --new pid,ut", "nsext run --new pid,uts"),
            ("nsext run --new pid sudden", "nsext run --new pid suddenly"),
            ("nsext list --js", "nsext list --json"),
        ):
            shell.send(f"{typed}\t\x18")
            shell.expect(r"has: (.*?) *;")
            assert shell.match[1] == completed
            assert "not found" not in shell.before
    finally:
        shell.close(force=True)


def test_scripts_of_other_shells():
    assert "complete -c nsext" in shown("completion", "fish")
    assert "bashcompinit" in shown("completion", "zsh")
    for shell in ("bash", "zsh", "fish"):
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=shown("completion", shell), text=True, check=True)
