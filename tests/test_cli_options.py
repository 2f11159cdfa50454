"""The options of the nsext command: one for each field, read as argparse would."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sandbox import FULL

from nsext import (
    Bind,
    Cgroup,
    Dev,
    File,
    Mask,
    Overlay,
    Proc,
    ReadOnly,
    Remount,
    Sandbox,
    Symlink,
    Tmpfs,
    _cli,
    hostlike,
)
from nsext._cli import parser, run
from nsext._cli.options import FIELD_OPTIONS, RUN_OPTIONS, Option, UsageError, read
from nsext._cli.run import OPTIONS, describe
from nsext._spec import FIELDS

# field: command lines, each with the value that it gives.
SAMPLES = {
    "new": [("--new pid,mnt", "pid mnt"), ("--new pid --new=uts", "pid uts"), ("--new all", "all")],
    "join": [
        ("--join 12", 12),
        ("--join /run/netns/blue", "/run/netns/blue"),
        ("--join net,mnt=12 --join uts=/run/uts", {"net mnt": 12, "uts": "/run/uts"}),
        ("--join /a=b", "/a=b"),
    ],
    "uid_map": [
        ("--new user --uid-map self", "self"),
        ("--new user --uid-map auto", "auto"),
        ("--new user --uid-map 7", 7),
        ("--new user --uid-map 0:1000:1,1:5000:9", [(0, 1000, 1), (1, 5000, 9)]),
    ],
    "gid_map": [("--new user --gid-map root", "root")],
    "hostname": [("--new uts --hostname box", "box")],
    "domainname": [("--new uts --domainname example.org", "example.org")],
    "time_offsets": [("--new time --time-offsets boottime=1.5,monotonic=-2", FULL["time_offsets"])],
    "loopback": [("--new net --loopback", True), ("--no-loopback", False)],
    "propagation": [("--new mnt --propagation slave", "slave")],
    "proc": [("--new mnt --proc", True), ("--no-proc", False)],
    "root": [
        ("--new mnt --root /srv", "/srv"),
        ("--new mnt --root tmpfs", Tmpfs()),
        (
            "--new mnt --root type=overlay,lower=/a:/b,recursive",
            Overlay(lower=["/a", "/b"], recursive=True),
        ),
    ],
    "mounts": [
        (
            "--new mnt --bind /usr --tmpfs /tmp:64m --bind /a:/b:rw --dev /dev --mask /x "
            "--mounts type=file,path=/y,content=z,mode=600 --read-only /usr --symlink a:/b",
            [
                Bind("/usr"),
                Tmpfs("/tmp", size="64m"),
                Bind("/a", "/b", readonly=False),
                Dev(),
                Mask("/x"),
                File("/y", "z", mode=0o600),
                ReadOnly("/usr"),
                Symlink("a", "/b"),
            ],
        ),
        (
            "--new mnt,pid --mounts type=proc,subset-pid,hide-pid=2 "
            "--mounts type=remount,target=/,nosuid=yes --bind /a:/c --tmpfs=/t",
            [
                Proc(subset_pid=True, hide_pid=2),
                Remount("/", nosuid=True),
                Bind("/a", "/c"),
                Tmpfs("/t"),
            ],
        ),
        ("--new mnt --hostlike", hostlike()),
    ],
    "cwd": [("--cwd /tmp", "/tmp")],
    "env": [("--env A=1 --env B=x=y", {"A": "1", "B": "x=y"})],
    "user": [("--user 12", 12), ("--user nobody", "nobody")],
    "group": [("--group 12", 12)],
    "extra_groups": [("--extra-groups 1,2 --extra-groups 3", [1, 2, 3]), ("--extra-groups=", [])],
    "umask": [("--umask 022", 0o22)],
    "start_new_session": [("--start-new-session", True), ("--no-start-new-session", False)],
    "process_group": [("--process-group 0", 0)],
    "rlimits": [
        ("--rlimits nofile=10:20,core=unlimited --rlimits as=1g", FULL["rlimits"] | {"as": "1g"})
    ],
    "affinity": [("--affinity 0-2,5", [0, 1, 2, 5])],
    "nice": [("--nice -5", -5), ("--nice=-5", -5)],
    "ionice": [("--ionice best-effort:7", ("best-effort", 7)), ("--ionice idle", "idle")],
    "scheduler": [("--scheduler batch", "batch"), ("--scheduler rr:5", ("rr", 5))],
    "oom_score_adj": [("--oom-score-adj 100", 100)],
    "personality": [("--personality 0x40000", 0x40000)],
    "timer_slack": [("--timer-slack 1000", 1000)],
    "dumpable": [("--dumpable", True), ("--no-dumpable", False)],
    "capabilities": [
        ("--capabilities net_admin,CAP_CHOWN", ["chown", "net_admin"]),
        ("--capabilities all", "all"),
        ("--capabilities=", ()),
    ],
    "ambient": [("--ambient chown --ambient kill", ["chown", "kill"])],
    "securebits": [("--securebits 0x3", 3)],
    "no_new_privs": [("--no-new-privs", True), ("--new-privs", False)],
    "landlock": [
        (
            "--landlock read=/usr --landlock read=/etc --landlock tcp-bind=",
            {"read": ["/etc", "/usr"], "tcp_bind": ()},
        )
    ],
    "disable_userns": [
        ("--new user --disable-userns", True),
        ("--new user --no-disable-userns", False),
    ],
    "landlock_strict": [("--landlock-strict", True), ("--no-landlock-strict", False)],
    "seccomp": [("--seccomp default --seccomp default", ["default", "default"])],
    "keyring": [("--keyring new", "new")],
    "exec_label": [("--exec-label a_u:b_r:c_t:s0:c1,c2", "a_u:b_r:c_t:s0:c1,c2")],
    "cgroup": [
        ("--cgroup /sys/fs/cgroup/job", "/sys/fs/cgroup/job"),
        (
            "--cgroup memory-max=64m,pids_max=5,cpu-max=0.5 --cgroup cpuset=0-3,5,name=x",
            Cgroup(memory_max="64m", pids_max=5, cpu_max=0.5, cpuset="0-3,5", name="x"),
        ),
        ("--cgroup cpu-max=5000:10000,cpu-weight=7", Cgroup(cpu_max=(5000, 10000), cpu_weight=7)),
    ],
    "init": [("--init", True), ("--no-init", False)],
    "kill_on_parent_exit": [("--kill-on-parent-exit", True), ("--no-kill-on-parent-exit", False)],
}
CASES = [(name, *case) for name, cases in SAMPLES.items() for case in cases]


def described(line):
    given, rest = read(OPTIONS["run"], line.split())
    assert rest == []
    return describe(given, None)


def test_every_field_has_an_option():
    fields = {option.field for option in FIELD_OPTIONS if option.field}
    assert fields == FIELDS, "see nsext/_cli/options.py"
    assert SAMPLES.keys() == FIELDS, "an option without a sample here"
    for option in FIELD_OPTIONS:
        assert option.help and not option.help.endswith(".")
        if option.into:
            continue
        assert option.name == "--" + option.field.replace("_", "-")
        assert (option.metavar is None) == (option.parse is None) == (option.opposite is not None)


@pytest.mark.parametrize(("name", "line", "value"), CASES, ids=[case[1] for case in CASES])
def test_options_give_their_fields(name, line, value):
    words = line.split()
    new = words[1] if words[0] == "--new" and name != "new" else ""
    assert described(line) == Sandbox.__base__(**{"new": new, name: value})


@pytest.mark.parametrize(("name", "line", "value"), CASES, ids=[case[1] for case in CASES])
def test_what_options_say_toml_says_too(name, line, value, tmp_path):
    """--write-toml of a command line, given to --from, is the same."""
    box = Sandbox(**{field: getattr(described(line), field) for field in FIELDS})
    path = tmp_path / "box.toml"
    path.write_text(box.to_toml())
    assert tomllib.loads(path.read_text()).keys() <= FIELDS
    assert described(f"--from {path}") == described(line)


def test_options_replace_what_the_file_says(tmp_path):
    path = tmp_path / "box.toml"
    path.write_text('new = "uts pid"\nhostname = "filed"\n[rlimits]\ncore = 0\nnofile = 5\n')
    spec = described(f"--hostname said --from {path} --rlimits as=1k")
    assert spec == Sandbox.__base__(new="uts pid", hostname="said", rlimits={"as": 1024})


# ---- reading


def test_reading_ends_at_the_program():
    given, rest = read(OPTIONS["run"], ["--nice", "5", "ls", "--nice", "6", "--", "-x"])
    assert [*given.values()] == [5] and rest == ["ls", "--nice", "6", "--", "-x"]
    assert read(OPTIONS["run"], ["--", "--nice"]) == ({}, ["--nice"])
    assert read(OPTIONS["run"], ["-"]) == ({}, ["-"])
    assert read(OPTIONS["run"], []) == ({}, [])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--nothing", "unknown option --nothing"),
        ("-x", "unknown option -x"),
        ("--n", "ambiguous: --new, --"),
        ("--nice", "--nice needs an argument: N"),
        ("--nice x", "--nice: 'x' is no number"),
        ("--init=1", "--init takes no argument"),
        ("--umask 9", "octal"),
        ("--env A", "NAME=VALUE"),
        ("--uid-map 1:2", "INSIDE:OUTSIDE:COUNT"),
        ("--join 1 --join 2", "names no kinds"),
        ("--timeout soon", "seconds"),
        ("--rlimits nofile", "NAME=LIMIT"),
        ("--affinity 1-x", "'x' is no number"),
        ("--affinity 0-999999999", "is no CPU, and no range of CPUs"),
        ("--affinity 3-1", "is no CPU, and no range of CPUs"),
        ("--mounts type=bind", "--mounts: bind: it needs source"),
        ("--mounts type=mount,target=/a", "--mounts: mount: it needs fstype, source"),
        ("--bind a:b:c:d", "SRC"),
        ("--bind rel", "relative"),
        ("--mounts type=floppy", "a mount's type is one of"),
        ("--mounts type=bind,source=/a,readonly=perhaps", "true or false"),
        ("--mounts type=bind,source=/a,colour=red", "no such field: colour"),
        ("--mounts /usr", "a mount's type is one of"),
        ("--symlink a", "TO:PATH"),
        ("--cgroup memory-max=much", "much"),
        ("--cgroup colour=red", "colour"),
        ("--cgroup 5,a=b", "KEY=VALUE"),
    ],
)
def test_wrong_lines_are_refused(line, says):
    with pytest.raises(UsageError, match=says):
        read(OPTIONS["run"], line.split())


def test_beginnings_of_names_will_do():
    assert described("--rlimit core=0").rlimits == {"core": (0, 0)}


WORDS = st.sampled_from(["0", "5", "x", "pid", "a=1", "", "-1"])


@st.composite
def lines(draw):
    """Options, mostly right, then a program, perhaps."""
    words = []
    options = [option for option in (*FIELD_OPTIONS, *RUN_OPTIONS) if not option.into]
    for option in draw(st.lists(st.sampled_from(options), max_size=4)):
        if option.metavar is None:
            words.append(draw(st.sampled_from([option.name, option.opposite or option.name])))
        elif draw(st.booleans()):
            words.append(f"{option.name}={draw(WORDS)}")
        else:
            words += [option.name, draw(st.sampled_from(["0", "5", "x", "pid", "a=1"]))]
    return words + draw(
        st.sampled_from([[], ["ls"], ["ls", "--nice", "3"], ["ls", "-l", "--init"]])
    )


@settings(deadline=None, max_examples=200)
@given(lines())
def test_argparse_reads_the_same(words):
    """argparse makes the help; what it would make of the line is what we make of it."""
    plain = {
        option: Option(option.name, option.help, option.metavar, None, option.opposite)
        for option in OPTIONS["run"]
    }
    ours, rest = read(plain.values(), words)
    theirs = vars(parser.build().parse_args(["run", *words]))
    assert theirs.pop("program") == rest
    assert theirs.pop("command") == "run"
    given = {name: value for name, value in theirs.items() if value is not None}
    assert given == {option.name: value for option, value in ours.items()}


def test_help_shows_every_option_and_examples(capsys):
    for name in ("run", "enter"):
        assert parser.command([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert "examples:" in shown and f"nsext {name}" in shown
        for option in OPTIONS[name]:
            assert option.name in shown
        for words in (["-h"], ["--new", "pid", "--help"], ["--init", "-h", "true"]):
            assert run.command(name, ["1", *words] if name == "enter" else words) == 0
            assert capsys.readouterr().out.startswith(f"usage: nsext {name}")
    assert parser.command(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in _cli.COMMANDS:
        assert f"    {name}" in shown


def documented(command):
    """(options with their arguments' names, all options that are mentioned) of docs/cli.md."""
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
    section = page.partition(f"## `nsext {command}")[2].partition("\n## ")[0]
    assert section or command == "drop", command
    title, _, text = section.partition("\n")
    text = re.sub(r"```sh.*?```", "", text, flags=re.DOTALL).replace("\\|", "/")
    cells = re.findall(r"^\| (`--[^|]*) \|", text, re.MULTILINE)
    spans = re.findall(r"`(--[^`]*)`", " ".join(cells)) + re.findall(
        r"--[a-z-]+(?: [A-Z]+)?", title
    )
    rows = {span.partition(" ")[0]: span.partition(" ")[2].replace("/", "|") for span in spans}
    return rows, set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section))


def test_the_manual_has_every_option():
    """docs/cli.md has each option of each command, as the help has it, and no other."""
    commands = parser.build()._subparsers._group_actions[0].choices
    assert commands.keys() == _cli.COMMANDS.keys()
    known = {}
    for command, its in commands.items():
        known[command] = {
            name: action.metavar or ""
            for action in its._actions
            for name in action.option_strings
            if name not in ("-h", "--help")
        }
    said, mentioned = documented("run")
    assert said == known["run"] and mentioned <= said.keys() | {"--help"}
    said, mentioned = documented("enter")  # the others are those of run, and one is not
    assert known["enter"].keys() - known["run"].keys() == {"--only"}
    assert known["run"].keys() - known["enter"].keys() == {"--join"}
    assert mentioned == {"--only", "--join"}
    for command in commands.keys() - {"run", "enter", "drop"}:
        said, mentioned = documented(command)
        assert said == known[command] and mentioned == said.keys(), command
    assert known["drop"] == {}
