"""Labels of security modules, as kernels give them: in a virtual machine, which is theirs alone.

Debian's kernels have AppArmor active, and SELinux with `--append security=selinux`.  Policies as
small as can be are made by apparmor_parser and secilc of the machine that starts the guest.
"""

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest
from groups import group_of
from support import DEADLINE, changes, failure, is_plain, needs, output, running, state

import nsext
from nsext import _labels
from nsext._subids import _find

PROFILE = """
profile nsext-test {
  file,
  capability,
  signal,
  deny /etc/hosts r,
}
"""

# Classes and permissions that are not here are allowed.
POLICY = """
(handleunknown allow)
(mls true)
(policycap nnp_nosuid_transition)
(class process (setexec transition dyntransition))
(classorder (process))
(sensitivity s0)
(sensitivityorder (s0))
(category c0)
(category c1)
(categoryorder (c0 c1))
(sensitivitycategory s0 (c0 c1))
(user system_u)
(role system_r)
(type kernel_t)
(type box_t)
(type other_t)
(userrole system_u system_r)
(roletype system_r kernel_t)
(roletype system_r box_t)
(userlevel system_u (s0))
(userrange system_u ((s0) (s0 (c0 c1))))
(sid kernel)
(sid security)
(sid unlabeled)
(sidorder (kernel security unlabeled))
(sidcontext kernel (system_u system_r kernel_t ((s0) (s0 (c0 c1)))))
(sidcontext security (system_u system_r kernel_t ((s0) (s0))))
(sidcontext unlabeled (system_u system_r kernel_t ((s0) (s0))))
(allow kernel_t self (process (setexec)))
(allow kernel_t box_t (process (transition)))
"""

SHAPES = {
    "inline": {},
    "namespaces": {"new": "all"},
    "user": {"user": 1000, "group": 1000, "extra_groups": []},
    "init": {"new": "user pid mnt", "init": True, "no_new_privs": False},
    "nested": {"new": "user pid", "disable_userns": True, "no_new_privs": False},
    "root": {"new": "pid mnt", "root": nsext.Tmpfs(), "mounts": nsext.hostlike()},
    "filtered": {"seccomp": "default", "no_new_privs": False},
}


@pytest.fixture(autouse=True)
def machine():
    needs(os.geteuid() == 0 and os.path.isdir("/sys/fs/cgroup"), "needs root")
    needs(group_of() == "/" and Path("/packages").is_dir(), "needs a machine of its own")


@pytest.fixture
def profile(tmp_path):
    needs(_labels._is_active("apparmor"), "needs AppArmor")
    needs(_find("apparmor_parser"), "needs apparmor_parser: apt install apparmor")
    file = tmp_path / "profile"
    file.write_text(PROFILE)
    subprocess.run(["apparmor_parser", "--skip-cache", "--replace", file], check=True)
    return "nsext-test"


@pytest.fixture
def context(tmp_path):
    needs(_labels._is_active("selinux"), "needs SELinux: --append security=selinux")
    needs(_find("secilc"), "needs secilc: apt install secilc")
    if "system_u" not in Path("/proc/self/attr/current").read_text():
        (tmp_path / "policy.cil").write_text(POLICY)
        version = Path("/sys/fs/selinux/policyvers").read_text()
        made = ["secilc", "-c", version, "-o", "policy", "-f", "files", "policy.cil"]
        subprocess.run(made, check=True, cwd=tmp_path)
        with open("/sys/fs/selinux/load", "wb", buffering=0) as file:
            file.write((tmp_path / "policy").read_bytes())  # in one piece
    return "system_u:system_r:box_t:s0:c0"


def label_of(pid):
    return Path(f"/proc/{pid}/attr/current").read_text().strip("\0\n")


@pytest.mark.parametrize("shape", SHAPES)
def test_the_profile_is_the_programs(shape, profile):
    own = label_of("self")
    with running(**SHAPES[shape], exec_label=profile) as child:
        assert label_of(child.program_pid) == "nsext-test (enforce)"
        if child.program_pid != child.pid:
            assert label_of(child.pid) == own  # the init's
    assert label_of("self") == own


def test_the_profile_holds(profile):
    done = nsext.run(["cat", "/etc/hosts"], exec_label=profile, capture_output=True, text=True)
    assert done.returncode == 1 and "denied" in done.stderr
    assert output(["cat", "/etc/hosts"]) == "127.0.0.1 localhost"


def test_no_such_profile(profile):
    before = state()
    for keywords in ({}, {"init": True}, {"new": "user pid mnt"}):
        error = failure(nsext.run, ["true"], exec_label="none-such", **keywords)
        assert is_plain(error) and (error.errno, error.stage) == (errno.ENOENT, "setup"), error
        assert error.step == "write 'exec none-such' to /proc/self/attr/apparmor/exec"
        assert "no such label" in error.hint
        assert not changes(before, state())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_context_is_the_programs(shape, context):
    own = label_of("self")
    with running(**SHAPES[shape], exec_label=context) as child:
        end = time.monotonic() + DEADLINE
        while label_of(child.program_pid) != context:
            assert time.monotonic() < end, label_of(child.program_pid)
        if child.program_pid != child.pid:
            assert label_of(child.pid) == own
    assert label_of("self") == own


def test_no_such_context(context):
    before = state()
    for wrong in ("system_u:system_r:none_t:s0", "system_u:system_r:other_t:s0", "a:b:c"):
        error = failure(nsext.run, ["true"], exec_label=wrong)
        assert is_plain(error) and (error.errno, error.stage) == (errno.EINVAL, "setup"), error
        assert "no such label" in error.hint
        assert not changes(before, state())
