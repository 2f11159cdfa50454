"""In containers: what can work works, the rest fails with its cause, and check() has said so.

`make containertest` runs these with the installed wheel, `make test` with this tree.
"""

import json
import re
from pathlib import Path

import pytest
from podman import Podman, profile_like_dockers

INSIDE = Path(__file__).with_name("inside.py").read_text()
KINDS = ("mnt", "uts", "ipc", "user", "pid", "net", "cgroup", "time")
# What needs neither a namespace nor a privilege.
ALWAYS = {"plain", "helper", "subreaper", "dies_with_parent", "no_capabilities", "terminal"}
ALWAYS |= {"limits", "command", "seccomp"}
# Everything that needs a user namespace, by somebody without CAP_SYS_ADMIN.
BY_USER = {*KINDS, "rootless", "proc", "id_ranges", "time_offsets", "init", "join", "loopback"}
BY_USER |= {"root", "sandbox", "untrusted", "disable_userns", "all_kinds", "old_proc"}

MASKED = dict.fromkeys(("proc", "sandbox", "all_kinds"), "/proc is masked")
READ_ONLY = dict.fromkeys(("untrusted", "disable_userns"), "/proc/sys is mounted read-only")
NAMED = dict.fromkeys(("join", "old_proc"), "a seccomp filter refuses sethostname(2)")
DEFAULT = {**MASKED, **READ_ONLY, **NAMED}
ORDINARY = {"id_ranges": "has no range in /etc/sub", "other_user": "need CAP_SETGID"}
FILTERED = dict.fromkeys(BY_USER, "a seccomp filter refuses clone(2) with CLONE_NEWUSER")
FILTERED |= {"clone3": "clone3"}
NO_NET = dict.fromkeys(("net", "loopback", "sandbox"), "this needs CAP_NET_ADMIN")
UNCAPPED = dict.fromkeys(BY_USER, "CAP_SETFCAP") | {"other_user": "need CAP_SETGID"}
UNCAPPED |= dict.fromkeys(("id_ranges", "untrusted"), "range")

OPEN = [f"--security-opt={word}=unconfined" for word in ("seccomp", "apparmor")]
OPEN += ["--security-opt=unmask=ALL"]
READONLY = ["--read-only", "--read-only-tmpfs=false"]

# {name: (options of `podman run`, {what may fail: words of its hint})}.  How much an engine allows
# by default changes with its version: so what may fail may also work, but for `must` below.
CASES = {
    "root": ([], DEFAULT),
    "user": (["--user=1000"], DEFAULT | ORDINARY),
    "docker": (["docker's"], FILTERED),
    "docker-user": (["docker's", "--user=1000"], FILTERED | ORDINARY),
    "privileged": (["--privileged"], {}),
    "sys-admin": (
        ["--cap-add=SYS_ADMIN"],
        {**MASKED, **READ_ONLY, **NO_NET, "time_offsets": "needs CAP_SYS_TIME"},
    ),
    "no-capability": (["--cap-drop=ALL"], UNCAPPED),
    "read-only": (["--read-only"], DEFAULT),
    "read-only-tmp": (READONLY, DEFAULT),
    "open": (OPEN, {}),
    "open-user": ([*OPEN, "--user=1000"], ORDINARY),
    "no-new-privileges": (
        ["--user=1000", "--security-opt=no-new-privileges"],
        DEFAULT | ORDINARY,
    ),
    "user-namespace": (["--uidmap=0:100000:65536"], DEFAULT),
}
MUST_FAIL = {"docker": FILTERED, "docker-user": FILTERED, "no-capability": ["user"]}


@pytest.fixture(scope="module")
def podman(request):
    podman = Podman()
    try:
        yield podman
    finally:
        podman.close()


@pytest.fixture(scope="module")
def inside(podman):
    """Runs inside.py in a container with these options, once for each."""
    found = {}
    filtered = profile_like_dockers(podman.place)

    def run(options, first=True):
        options = [filtered if option == "docker's" else option for option in options]
        key = (*options, first)
        if key not in found:
            found[key] = json.loads(podman.run(options, INSIDE, first=first))
        return found[key]

    return run


def failures(found):
    return {name: item for name, item in found["did"].items() if item is not True}


@pytest.mark.parametrize("case", CASES)
def test_what_can_work_works(case, inside, root):
    options, may_fail = CASES[case]
    found = inside(options)
    failed = failures(found)
    # Which groups a container has, and what the kernel has, is the machine's matter.
    for name in ("cgroup2", "landlock"):
        failed.pop(name, None)
    for name, error in failed.items():
        assert name in may_fail and name not in ALWAYS, (name, error)
        assert may_fail[name] in error["text"], (name, error)
    assert not set(MUST_FAIL.get(case, ())) - set(failed), failed.keys()
    assert (found["is"]["pid"], found["is"]["uid"]) == (1, 1000 if "--user=1000" in options else 0)


@pytest.mark.parametrize("case", CASES)
def test_check_says_what_happens(case, inside, root):
    found = inside(CASES[case][0])
    for name, (ok, reason, remedy) in found["check"].items():
        did = found["did"][name]
        assert ok == (did is True), (name, reason, did)
        if name in found["others"]:
            assert ok == found["others"][name], (name, reason)
        # The same words as the exception's, where it is the same attempt.
        if not ok and name not in ("clone3", "id_ranges"):
            assert reason.rpartition(": ")[2] in did["text"], (reason, did)
            assert (remedy or "") in did["text"], (remedy, did)


@pytest.mark.parametrize("case", ["root", "user", "docker", "sys-admin"])
def test_not_as_pid_1(case, inside, root):
    """A shell is the container's init: it makes no difference."""
    options = CASES[case][0]
    other = inside(options, first=False)
    assert other["is"]["pid"] != 1
    for what in ("did", "check", "others"):
        assert other[what] == inside(options)[what]


@pytest.mark.parametrize("case", ["root", "docker", "no-capability"])
def test_the_remedy_is_one(case, inside, root):
    """The options for podman that the hints name, taken at their word."""
    options = CASES[case][0]
    failed = failures(inside(options))
    remedies = {}
    for name, error in failed.items():
        if words := re.findall(r"podman: (--[a-z-]+ [\w=]+)", error["text"]):
            remedies[name] = words[0].replace(" ", "=", 1)
    if case != "root":
        assert remedies
    # A later profile takes the place of an earlier one.
    kept = [option for option in options if option != "docker's"]
    mended = failures(inside([*kept, *sorted(set(remedies.values()))]))
    for name in remedies:
        # What has failed for another cause has another remedy.
        assert name not in mended or mended[name]["text"] != failed[name]["text"], mended[name]
    for name in ("user", "uts", "net"):
        assert name not in mended, mended[name]
