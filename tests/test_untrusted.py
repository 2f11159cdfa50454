"""Sandbox.untrusted(): what a program in it can and cannot do, asked of the kernel."""

import json
import os
import platform
import textwrap
from pathlib import Path

import pytest
from support import as_user, needs, state

import nsext
from nsext import Sandbox

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="no profile for this machine"
)

# By a program of every system: neither this interpreter nor this package is inside.
LOOK = r"""
status() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status; }
for field in Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp; do
    echo "$field=$(status $field | tr -s '\t ' ' ')"
done
echo "pid=$$"
echo "fds=$(ls /proc/self/fd | tr '\n' ' ')"
echo "cwd=$(pwd)"
echo "hostname=$(cat /proc/sys/kernel/hostname)"
echo "interfaces=$(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \n')"
echo "core=$(ulimit -c) files=$(ulimit -n)"
echo "oom=$(cat /proc/self/oom_score_adj)"
for place in / /usr /etc /home /root /run /dev /proc/sys/kernel/hostname; do
    if (: >"$place/x") 2>/dev/null || (echo x >"$place") 2>/dev/null; then echo "written=$place"; fi
done
echo x >/tmp/x && echo "tmp=$(cat /tmp/x)"
unshare -U true 2>/dev/null && echo "userns=made"
mount -t tmpfs x /mnt 2>/dev/null && echo "mount=made"
cat /etc/shadow 2>/dev/null && echo "shadow=read"
env | cut -d= -f1 | sort | tr '\n' ' ' | sed 's/^/env=/'
echo
"""


def facts(text):
    found = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    return {name: value.strip() for name, value in found.items()}


def check(found, uid):
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found[name], 16) == 0, found
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert set(found["Uid"].split()) == {str(uid)}
    assert found["pid"] == "2"  # an init is PID 1
    assert found["fds"] == "0 1 2 3", found["fds"]  # the last is what ls reads
    assert (found["cwd"], found["hostname"], found["interfaces"]) == ("/tmp", "sandbox", "lo")
    assert found["core"] == "0 files=1024" and found["oom"] == "500"
    assert found["tmp"] == "x"
    assert not found.keys() & {"written", "userns", "mount", "shadow"}, found
    assert set(found["env"].split()) <= {"HOME", "LANG", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}


def test_as_root(root):
    os.environ["NSEXT_SECRET"] = "x"
    before = state()
    try:
        done = Sandbox.untrusted().run(["sh", "-c", LOOK], capture_output=True, text=True)
    finally:
        del os.environ["NSEXT_SECRET"]
    assert done.returncode == 0, done
    found = facts(done.stdout)
    check(found, 65534)
    assert found["Groups"] == ""
    del before["fds"]
    after = state()
    assert {name: after[name] for name in before} == before


def test_the_kernel_sees_nobody(root):
    """Not only inside: an id that owns nothing on the host."""
    with Sandbox.untrusted().popen(["sleep", "1000"]) as process:
        lines = Path(f"/proc/{process.program_pid}/status").read_text().splitlines()
        process.kill()
    ids = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("Uid", "Gid"))}
    assert ids == {"Uid:": ["65534"] * 4, "Gid:": ["65534"] * 4}
    assert "Groups:\t " in lines or "Groups:\t" in lines


def test_as_an_ordinary_user(root):
    told = as_user(
        """
        box = nsext.Sandbox.untrusted()
        done = box.run(["sh", "-c", sys.argv[1]], capture_output=True, text=True)
        assert done.returncode == 0, done
        print(json.dumps(done.stdout))
        """,
        LOOK,
    )
    check(facts(json.loads(told)), 12345)


def test_fields_replace_the_defaults():
    box = Sandbox.untrusted(env={"A": "1"}, rlimits={"core": 0}, hostname="mine")
    assert (box.env, box.rlimits, box.hostname) == ({"A": "1"}, {"core": (0, 0)}, "mine")
    assert box.init and box.no_new_privs and box.capabilities == ()
    assert isinstance(box, Sandbox) and Sandbox.from_toml(box.to_toml()) == box


def test_it_has_bounds(root):
    box = Sandbox.untrusted()
    script = """
        head -c 300000000 /dev/zero >/tmp/full 2>/dev/null; stat -c %s /tmp/full
        head -c 300000000 /dev/zero >/dev/shm/full 2>/dev/null; stat -c %s /dev/shm/full
    """
    done = box.run(["sh", "-c", textwrap.dedent(script)], capture_output=True, text=True)
    tmp, shm = map(int, done.stdout.split())
    assert tmp == shm == 256 << 20


def test_grandchildren_go_with_it(root):
    box = Sandbox.untrusted()
    done = box.run(
        ["sh", "-c", "sleep 1000 & sleep 1000 & echo gone"], capture_output=True, timeout=60
    )
    assert done.stdout == b"gone\n"


def test_what_cannot_be_had_raises(root):
    needs(Path("/proc/self/ns/user").exists(), "needs user namespaces")
    with pytest.raises(ValueError, match="hostname"):
        Sandbox.untrusted(new="user pid mnt")
    error = None
    try:
        Sandbox.untrusted(root="/nonexistent/root").run(["true"])
    except nsext.SpawnError as raised:
        error = raised
    assert error is not None and error.path == "/nonexistent/root"
