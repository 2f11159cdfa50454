"""Steps on what a program may do: that each does what it says, and how its failure is told.

The meta-test is test_steps.test_every_step_has_both; combinations are in test_privileges.py.
"""

import platform
import sys

import pytest
from support import output, running, script, status
from test_helper_steps import refused as refused_in_helper
from test_steps import refused

import nsext

KEYCTL = {"x86_64": 250, "aarch64": 219}[platform.machine()]
SESSION = "import ctypes, sys; print(ctypes.CDLL(None).syscall(int(sys.argv[1]), 0, -3, 0))"

pytestmark = pytest.mark.usefixtures("root")

DONE, FAILED = {}, {}


def session_keyring(**keywords):
    """The serial number of a program's session keyring: KEYCTL_GET_KEYRING_ID."""
    return int(output([sys.executable, "-c", SESSION, str(KEYCTL)], **keywords))


def does(step):
    """Marks the test of a step's success."""
    return lambda test: DONE.setdefault(step, test)


def fails(step):
    """Marks the test of a step's failure."""
    return lambda test: FAILED.setdefault(step, test)


@does("keep_capabilities")
def test_keep_capabilities():
    """Over a change of ids; and the bit is not left on."""
    with running(user=12345, capabilities=["net_raw"]) as child:
        facts = status(child.pid)
        assert facts["Uid"].split() == ["12345"] * 4
        assert int(facts["CapPrm"], 16) == 1 << 13
    with running(user=12345, ambient=["kill"]) as child:
        assert int(status(child.pid)["CapPrm"], 16) == 1 << 5


@fails("keep_capabilities")
def test_keep_capabilities_fails():
    refused_in_helper("prctl", 1, "keep capabilities over", argument=8, user=5, capabilities=[])


@does("capabilities")
def test_capabilities():
    with running(capabilities=["net_raw", "chown"]) as child:
        facts = status(child.pid)
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(facts[name], 16) == 1 << 13 | 1
        assert int(facts["CapInh"], 16) == int(facts["CapAmb"], 16) == 0


@fails("capabilities")
def test_capabilities_fail():
    refused("prctl", 1, "setup", "drop capability chown", argument=24, capabilities=[])
    refused("capset", 1, "setup", "set capabilities to kill", capabilities=["kill"])
    refused("prctl", 1, "setup", "set ambient capabilities to kill", argument=47, ambient=["kill"])
    refused("prctl", 1, "setup", "set securebits", argument=28, securebits=1)


def test_a_capability_that_is_not_there():
    script("""
    own = int(status()["CapBnd"], 16)
    absent = 13 if not own >> 13 & 1 else None
    ctypes.CDLL(None).prctl(24, 13, 0, 0, 0)  # PR_CAPBSET_DROP net_raw; still permitted
    for start in (nsext.spawn, nsext.Popen):
        error = failure(start, ["true"], capabilities=["kill", "net_raw"])
        assert (error.errno, error.stage) == (errno.EPERM, "setup") and is_plain(error), error
        assert error.step == "keep capability net_raw, which is not there"
        assert "bounding" in error.hint
    # In a user namespace of its own it is.
    assert sh("grep CapEff /proc/self/status", new="user", capabilities=["net_raw"]).endswith(
        "0000002000"
    )
    """)


@does("no_new_privs")
def test_no_new_privs():
    with running(no_new_privs=True) as child:
        assert status(child.pid)["NoNewPrivs"] == "1"
    assert status()["NoNewPrivs"] == "0"


@fails("no_new_privs")
def test_no_new_privs_fails():
    refused("prctl", 1, "setup", "set no_new_privs", argument=38, no_new_privs=True)


@does("keyring")
def test_keyring():
    """The child's session keyring is another one; what that means is in test_keyring.py."""
    assert session_keyring() == session_keyring(keyring="inherit")
    assert session_keyring() != session_keyring(keyring="new")


@fails("keyring")
def test_keyring_fails():
    refused("keyctl", 1, "setup", "join a new session keyring", keyring="new")


LABELLED = """
from nsext import _labels
_labels.require = lambda value: None  # whatever is active here
"""


@does("exec_label")
def test_exec_label():
    """Files that stand in for those of /proc; what a kernel does is in tests/vm/test_label_modules.py."""
    script(f"""{LABELLED}
fake_proc("attr/exec", "attr/apparmor/exec")
nsext.run(["true"], exec_label="a profile")
nsext.run(["true"], exec_label="u_u:r_r:t_t:s0")
os.chdir("/proc/self/attr")
assert Path("apparmor/exec").read_text() == "exec a profile"
assert Path("exec").read_text() == "u_u:r_r:t_t:s0"
""")


@fails("exec_label")
def test_exec_label_fails():
    script(f"""{LABELLED}
fake_proc("attr/current")
for label, place in (("a", "attr/apparmor/exec"), ("a:b:c", "attr/exec")):
    error = failure(nsext.run, ["true"], exec_label=label)
    assert is_plain(error) and (error.errno, error.stage) == (errno.ENOENT, "setup"), repr(error)
    assert error.step == f"open /proc/self/{{place}}" and error.path == f"/proc/self/{{place}}"
    assert "no such label" in error.hint
""")


@does("seccomp")
def test_seccomp():
    """What a filter refuses is in test_seccomp.py."""
    with running(seccomp="default") as child:
        assert (status(child.pid)["Seccomp"], status(child.pid)["Seccomp_filters"]) == ("2", "1")


@fails("seccomp")
def test_seccomp_fails():
    refused("prctl", 1, "setup", "load a seccomp filter", argument=22, seccomp="default")


# What Landlock does is in test_landlock.py.
here = pytest.mark.usefixtures("landlock_here")
REACH = nsext.Landlock(execute=["/"], tcp_bind=[80])
RULES = {"execute": ["/"], "tcp_bind": [80]}
CAN_BIND = """
import socket, sys
for port in map(int, sys.argv[1:]):
    try:
        socket.socket().bind(("127.0.0.1", port))
        print("yes")
    except PermissionError:
        print("no")
"""


def bound(*ports, **keywords):
    """Whether a program in a network of its own can bind to these ports."""
    command = [sys.executable, "-c", CAN_BIND, *map(str, ports)]
    return output(command, new="user net", **keywords).split()


@does("landlock")
@here
def test_landlock():
    """Whatever has no rule is refused."""
    assert bound(80, landlock=nsext.Landlock(tcp_bind=())) == ["no"]


@fails("landlock")
@here
def test_landlock_fails():
    refused("landlock_create_ruleset", 24, "setup", "make a Landlock ruleset", landlock=RULES)


@does("landlock_path")
@here
def test_landlock_path():
    with pytest.raises(PermissionError):
        nsext.run(["true"], landlock=nsext.Landlock(execute=["/etc"]))
    assert nsext.run(["true"], landlock=nsext.Landlock(execute=["/"])).returncode == 0


@fails("landlock_path")
@here
def test_landlock_path_fails():
    refused("landlock_add_rule", 12, "setup", "allow execute below /", landlock=RULES)


@does("landlock_port")
@here
def test_landlock_port():
    assert bound(80, 81, landlock=REACH) == ["yes", "no"]


@fails("landlock_port")
@here
def test_landlock_port_fails():
    rules = {"tcp_bind": [80]}
    refused("landlock_add_rule", 12, "setup", "allow tcp_bind of port 80", landlock=rules)


@does("landlock_restrict")
@here
def test_landlock_restrict():
    """A restricted one cannot mount, whoever it is: landlock(7)."""
    mount = ["mount", "-t", "tmpfs", "none", "/mnt"]
    assert nsext.run(mount, new="mnt").returncode == 0
    done = nsext.run(mount, new="mnt", landlock=REACH, capture_output=True)
    assert done.returncode != 0


@fails("landlock_restrict")
@here
def test_landlock_restrict_fails():
    refused("landlock_restrict_self", 7, "setup", "enforce Landlock", landlock=RULES)
