"""Capabilities, securebits and no_new_privs, by what the kernel says of the program.

The rule of capabilities= is that the program has exactly these, whoever it is.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import as_user, dumpable, needs, output, running, script, sh, state, status

import nsext
from nsext._capabilities import NAMES, NUMBERS

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
LAST = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
FULL = (1 << LAST + 1) - 1

root = pytest.mark.usefixtures("root")


def sets(pid="self"):
    facts = status(pid)
    return {name: int(facts[name], 16) for name in SETS}


def bits(*names):
    return sum(1 << NUMBERS[name] for name in names)


def sets_of(**keywords):
    with running(**keywords) as child:
        return sets(child.program_pid)


# ---- the set


def test_names_are_the_kernels():
    header = Path("/usr/include/linux/capability.h")
    needs(header.exists(), "needs linux/capability.h")
    known = [line.split() for line in header.read_text().splitlines()]
    numbers = {
        words[1].removeprefix("CAP_").lower(): int(words[2])
        for words in known
        if len(words) == 3 and words[1].startswith("CAP_") and words[2].isdigit()
    }
    assert len(numbers) > 35
    assert numbers.items() <= NUMBERS.items()
    assert len(NAMES) > LAST, "this kernel has a capability without a name here"


USERS = {
    "root": {},
    "ordinary": {"user": 12345, "group": 23456},
    "root of a namespace": {"new": "user"},
    "id of a namespace": {"new": "user", "uid_map": 1000},
    "ordinary in a namespace": {
        "new": "user",
        "uid_map": [(0, 100000, 1000)],
        "gid_map": [(0, 100000, 1000)],
        "user": 7,
        "group": 7,
    },
    "with an init": {"new": "user pid mnt", "init": True},
}


@root
@pytest.mark.parametrize("wanted", [(), ("net_raw",), ("chown", "sys_admin", "setpcap"), "all"])
@pytest.mark.parametrize("name", USERS)
def test_the_program_has_exactly_these(name, wanted):
    keywords = USERS[name]
    found = sets_of(capabilities=wanted, **keywords)
    have = FULL if "user" in keywords.get("new", "") else sets()["CapPrm"]
    expected = have if wanted == "all" else bits(*wanted)
    assert found["CapPrm"] == found["CapEff"] == found["CapBnd"] == expected
    # Who is not root has them over exec by ambient ones only.
    ambient = 0 if name in ("root", "root of a namespace", "with an init") else expected
    assert found["CapInh"] == found["CapAmb"] == ambient


@root
@pytest.mark.parametrize("name", USERS)
def test_none_is_the_kernels_rule(name):
    keywords = USERS[name]
    found = sets_of(**keywords)
    assert found["CapInh"] == found["CapAmb"] == 0
    if name in ("root", "root of a namespace", "with an init"):
        assert found["CapPrm"] == found["CapBnd"]
    else:
        assert found["CapPrm"] == found["CapEff"] == 0 and found["CapBnd"]


@root
@pytest.mark.parametrize("name", USERS)
def test_they_work(name):
    """chroot(2) by who has it, and by who has something else; chroot(1) says how far it came."""
    for wanted, ends in ((["sys_chroot"], 127), (["chown"], 125)):
        command = ["chroot", "/usr", "/nonexistent"]
        done = nsext.run(command, capabilities=wanted, capture_output=True, **USERS[name])
        assert done.returncode == ends, done.stderr


@root
def test_setpriv_agrees():
    """util-linux's view of the same."""
    needs(shutil.which("setpriv"), "needs setpriv")
    shown = output(["setpriv", "--dump"], capabilities=["NET_RAW", "CAP_kill"], user=12345)
    lines = dict(line.split(": ", 1) for line in shown.splitlines() if ": " in line)
    for name in ("Inheritable capabilities", "Ambient capabilities", "Capability bounding set"):
        assert lines[name] == "kill,net_raw", name
    assert lines["no_new_privs"] == "1" and lines["uid"] == "12345"
    shown = output(["setpriv", "--dump"], capabilities=[])
    assert "Capability bounding set: [none]" in shown
    shown = output(["setpriv", "--dump"], securebits=1 | 2, capabilities=["kill"])
    assert "Securebits: noroot,noroot_locked" in shown


@root
def test_inheritable_ones_are_emptied(public):
    """Trap 30: a file with =ei capabilities gains nothing by what the caller had inheritable."""
    needs(shutil.which("setcap") or os.path.exists("/sbin/setcap"), "needs setcap")
    program = public / "grep"
    shutil.copy("/bin/grep", program)
    setcap = shutil.which("setcap") or "/sbin/setcap"
    subprocess.run([setcap, "cap_net_raw=ei", str(program)], check=True)
    script(
        """
        program = sys.argv[1]
        libc = ctypes.CDLL(None)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        data = (ctypes.c_uint32 * 6)()
        libc.capget(header, data)
        data[2] |= 1 << 13  # inheritable net_raw
        assert libc.capset(header, data) == 0
        def permitted(**keywords):
            shown = output([program, "CapPrm", "/proc/self/status"], user=12345, **keywords)
            return int(shown.split()[1], 16)
        assert permitted() == 1 << 13  # the file gains it where nothing is said
        assert permitted(capabilities=(), no_new_privs=False) == 0
        # Its own capabilities make it a file that ambient ones do not go over to.
        assert permitted(capabilities=["chown"], no_new_privs=False) == 0
        """,
        str(program),
    )


@root
def test_a_set_user_id_program_gains_no_more(public):
    """With no_new_privs off it is the bounding set that limits it."""
    program = public / "grep"
    shutil.copy("/bin/grep", program)
    program.chmod(0o4755)
    command = [str(program), "^CapEff", "/proc/self/status"]

    def effective(**keywords):
        return int(output(command, user=12345, **keywords).split()[1], 16)

    assert effective() == sets()["CapBnd"]
    assert effective(no_new_privs=True) == 0
    assert effective(capabilities=["kill"], no_new_privs=False) == bits("kill")
    assert effective(capabilities=[], no_new_privs=False) == 0


def test_an_ordinary_user_drops_all():
    """Without CAP_SETPCAP the bounding set stays: no_new_privs sees to it that it is of no use."""
    as_user("""
    assert sh("grep CapPrm /proc/self/status", capabilities=()).split()[1] == "0" * 16
    with running(capabilities=()) as child:
        assert status(child.pid)["NoNewPrivs"] == "1"
    error = failure(nsext.run, ["true"], capabilities=(), no_new_privs=False)
    assert (error.errno, error.stage) == (errno.EPERM, "setup") and is_plain(error), error
    assert error.step == "drop capability chown from the bounding set", error.step
    assert "CAP_SETPCAP" in error.hint
    error = failure(nsext.run, ["true"], capabilities=["kill"])
    assert error.errno == errno.EPERM and "capability kill" in error.step
    with running(new="user", capabilities=["kill"]) as child:
        facts = status(child.pid)
        assert int(facts["CapPrm"], 16) == int(facts["CapBnd"], 16) == 1 << 5
    """)


@root
def test_root_without_setpcap_gains_nothing():
    """uid 0 gets by exec what is bounding, unless no_new_privs holds it to what it has."""
    script("""
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc.capget(header, data)
    for half in (0, 1):
        data[half] &= ~(1 << 8)  # effective, permitted
    assert libc.capset(header, data) == 0
    with running(capabilities=["kill"]) as child:
        facts = status(child.pid)
        assert int(facts["CapPrm"], 16) == int(facts["CapEff"], 16) == 1 << 5
    error = failure(nsext.run, ["true"], capabilities=["kill"], no_new_privs=False)
    assert error.step == "drop capability chown from the bounding set" and error.errno == 1
    """)


# ---- ambient, securebits


@root
def test_ambient_alone_leaves_the_rest():
    own = sets()["CapBnd"]
    found = sets_of(user=12345, ambient=["net_bind_service"])
    one = bits("net_bind_service")
    assert found == {"CapInh": one, "CapPrm": one, "CapEff": one, "CapBnd": own, "CapAmb": one}
    found = sets_of(ambient=["net_bind_service"])
    assert (found["CapAmb"], found["CapPrm"], found["CapBnd"]) == (one, own, own)


@root
def test_ambient_ones_live_on_over_exec_and_ids():
    """What root's program hands on to a program of its own that is somebody else."""
    code = "import os; os.setresuid(5, 5, 5); print(open('/proc/self/status').read())"
    shown = output([sys.executable, "-c", code], capabilities=["setuid", "kill"], ambient=["kill"])
    assert "CapAmb:\t0000000000000000" in shown  # setuid(2) from 0 takes them
    shown = output(
        [sys.executable, "-c", code],
        capabilities=["setuid", "kill"],
        ambient=["kill"],
        securebits=1 << 2,  # SECBIT_NO_SETUID_FIXUP
    )
    assert "CapAmb:\t0000000000000020" in shown


@root
def test_securebits():
    def securebits(**keywords):
        shown = sh("setpriv --dump", **keywords)
        return next(line for line in shown.splitlines() if line.startswith("Securebits"))

    needs(shutil.which("setpriv"), "needs setpriv")
    assert securebits() == "Securebits: [none]"
    assert securebits(securebits=0x2F).endswith(
        "noroot,noroot_locked,no_setuid_fixup,no_setuid_fixup_locked,keep_caps_locked"
    )
    assert securebits(securebits=1, user=12345).endswith("noroot")
    found = sets_of(securebits=1)  # uid 0 is nobody special now
    assert found["CapPrm"] == found["CapEff"] == 0
    found = sets_of(securebits=1, capabilities=["kill"])
    assert found["CapPrm"] == found["CapAmb"] == bits("kill")


def test_securebits_as_user():
    as_user("""
    error = failure(nsext.run, ["true"], securebits=1)
    assert error.errno == errno.EPERM and error.step == "set securebits", error
    assert nsext.run(["true"], new="user", securebits=1).returncode == 0
    """)


# ---- no_new_privs


@root
@pytest.mark.parametrize(
    "keywords, expected",
    [
        ({}, "0"),
        ({"new": "pid mnt net uts ipc cgroup time"}, "0"),
        ({"new": "user"}, "1"),
        ({"new": "user", "no_new_privs": False}, "0"),
        ({"new": "user", "no_new_privs": None}, "1"),
        ({"capabilities": ()}, "1"),
        ({"capabilities": "all"}, "1"),
        ({"capabilities": (), "no_new_privs": False}, "0"),
        ({"ambient": ["kill"]}, "0"),
        ({"user": 12345}, "0"),
        ({"no_new_privs": True}, "1"),
    ],
    ids=str,
)
def test_default_of_no_new_privs(keywords, expected):
    with running(**keywords) as child:
        assert status(child.pid)["NoNewPrivs"] == expected
    assert status()["NoNewPrivs"] == "0"


@root
def test_a_joined_user_namespace_is_no_new_one():
    with running(new="user") as other, running(join=other) as child:
        assert status(child.pid)["NoNewPrivs"] == "0"


# ---- traps


@root
@pytest.mark.parametrize(
    "body",
    [pytest.param("inline", marks=pytest.mark.inline("the memory is the caller's")), "helper"],
)
def test_trap_2_the_caller_stays_as_it_is(body):
    """The kernel makes a memory non-dumpable when capabilities grow or ids change in it."""
    before = state()
    fields = {"capabilities": ["kill"], "ambient": ["kill"], "securebits": 1, "no_new_privs": True}
    if body == "helper":
        fields["user"] = 12345
    for start in (nsext.Popen, nsext.spawn):
        process = start(["true"], **fields)
        assert process.wait() == 0
        if start is nsext.Popen:
            assert process.body == body
        assert dumpable() == 1
    assert state() == before


@root
def test_an_init_has_no_more_than_its_program():
    """A program with CAP_SYS_PTRACE is root over its init."""
    with running(new="pid mnt", init=True, capabilities=["sys_ptrace"]) as child:
        found = sets(child.pid)
        assert found["CapPrm"] == found["CapEff"] == bits("sys_ptrace", "kill")
        assert status(child.pid)["NoNewPrivs"] == "1"
        assert sets(child.program_pid)["CapPrm"] == bits("sys_ptrace")
    with running(new="user pid mnt", init=True) as child:
        assert sets(child.pid)["CapPrm"] == FULL


@root
def test_an_init_still_passes_signals_on():
    ranges = [(0, 100000, 1000)]
    fields = {"new": "user pid mnt", "uid_map": ranges, "gid_map": ranges}
    with nsext.Popen(
        ["sleep", "1000"], init=True, user=5, group=5, capabilities=(), **fields
    ) as child:
        child.terminate()
        assert child.wait(timeout=30) == -15


# ---- every combination that there can be an order for: traps 29 and 30

AXES = {
    "ids": [{}, {"user": 12345}, {"user": 12345, "group": 5, "extra_groups": [7]}],
    "new": [{}, {"new": "user pid mnt"}, {"new": "pid mnt uts", "hostname": "x"}],
    "caps": [{}, {"capabilities": ()}, {"capabilities": ["kill", "chown"]}, {"ambient": ["kill"]}],
    "nnp": [{"no_new_privs": True}, {"no_new_privs": False}],
    "init": [{}, {"init": True}],
}


@root
@pytest.mark.parametrize("clone3", [0, 38, 1])
def test_each_combination(clone3):
    """With clone3(2), without it, and with it refused as old container profiles do."""
    script(
        """
        import itertools
        clone3 = int(sys.argv[1])
        if clone3:
            refuse(clone3=clone3)
        before = state()
        for parts in itertools.product(*json.loads(sys.argv[2])):
            fields = {}
            for part in parts:
                fields |= part
            own = "user" in fields.get("new", "")
            if own and "user" in fields:
                fields |= {"user": 0, "group": 0}
                fields.pop("extra_groups", None)
            with running(**fields) as child:
                facts = status(child.program_pid)
                assert facts["NoNewPrivs"] == str(int(fields["no_new_privs"])), fields
                uid = 0 if own else fields.get("user", 0)
                assert facts["Uid"].split() == [str(uid)] * 4, fields
                if "extra_groups" in fields:
                    assert facts["Groups"].split() == ["7"], fields
                if "capabilities" in fields:
                    wanted = {0: 0, 2: 1 | 1 << 5}[len(fields["capabilities"])]
                    for name in ("CapPrm", "CapEff", "CapBnd"):
                        assert int(facts[name], 16) == wanted, (fields, name)
                    assert int(facts["CapAmb"], 16) == (wanted if uid else 0), fields
                elif "ambient" in fields:
                    assert int(facts["CapAmb"], 16) == 1 << 5, fields
        assert not changes(before, {**state(), "fds": before["fds"]})
        """,
        str(clone3),
        json.dumps(list(AXES.values())),
        deadline=300,
    )


def test_the_axes_are_a_product():
    assert len(list(itertools.product(*AXES.values()))) == 3 * 3 * 4 * 2 * 2


# ---- refused before any clone


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"capabilities": ["net_rawr"]}, "net_rawr"),
        ({"capabilities": "net_raw"}, "names"),
        ({"ambient": "all"}, "names"),
        ({"ambient": ["everything"]}, "everything"),
        ({"capabilities": ["kill"], "ambient": ["chown", "kill"]}, "chown is missing"),
        ({"capabilities": (), "ambient": ["kill"]}, "kill is missing"),
        ({"securebits": -1}, "securebits"),
        ({"securebits": 1 << 32}, "securebits"),
    ],
)
def test_wrong_values(fields, words):
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        nsext.run(["true"], **fields)
    assert not isinstance(caught.value, nsext.SpawnError)


@pytest.mark.parametrize(
    "fields", [{"capabilities": 5}, {"capabilities": [5]}, {"ambient": 0}, {"securebits": True}]
)
def test_wrong_types(fields):
    with pytest.raises(TypeError):
        nsext.Sandbox(**fields)


def test_one_value_has_one_form():
    box = nsext.Sandbox(capabilities=["CAP_NET_RAW", "chown", "Chown"], ambient=["CHOWN"])
    assert box == nsext.Sandbox(capabilities=("chown", "net_raw"), ambient=["cap_chown"])
    assert box.capabilities == ("chown", "net_raw") and hash(box)
    assert nsext.Sandbox(capabilities="ALL").capabilities == "all"
    assert "set capabilities to chown net_raw" in box.explain()
    assert nsext.Sandbox(capabilities=()) != nsext.Sandbox()
