"""exec_label=: its form, where it is written, and machines without such a security module.

What a kernel with AppArmor or SELinux makes of it is in tests/vm/test_label_modules.py.
"""

import errno
import os

import pytest
from support import changes, failure, state

import nsext
from nsext import Sandbox, _labels
from nsext._compile import compile

CONTEXT = "system_u:system_r:container_t:s0:c1,c2"


@pytest.mark.parametrize(
    "label, file, text",
    [
        (CONTEXT, "exec", CONTEXT),
        ("u:r:t", "exec", "u:r:t"),
        ("docker-default", "apparmor/exec", "exec docker-default"),
        ("/usr/bin/man", "apparmor/exec", "exec /usr/bin/man"),
        ("a//&b", "apparmor/exec", "exec a//&b"),
        (":ns:profile", "apparmor/exec", "exec :ns:profile"),
        (":ns://a:b", "apparmor/exec", "exec :ns://a:b"),
    ],
)
def test_where_it_is_written(label, file, text):
    step = ("exec_label", f"/proc/self/attr/{file}".encode(), text.encode())
    assert step in compile(Sandbox(exec_label=label)).steps
    assert f"write {text!r} to /proc/self/attr/{file}" in Sandbox(exec_label=label).explain()


@pytest.mark.parametrize(
    "fields, more",
    [
        ({}, {}),
        ({"new": "all"}, {}),
        ({"new": "all", "root": "/srv", "user": 5, "capabilities": ()}, {"body": "helper"}),
        ({"init": True}, {"body": "helper", "init": True}),
        ({"new": "user pid", "disable_userns": True, "init": True}, {"body": "helper"}),
        ({"join": 1, "seccomp": "default"}, {"body": "helper", "joined": 0x60000000}),
        ({"cgroup": "/sys/fs/cgroup"}, {"body": "helper", "exact": True, "paused": True}),
    ],
)
def test_no_exec_and_no_clone_comes_between(fields, more):
    """It is a task's own, and for its next exec; the caller's /proc is held until step fds."""
    steps = [name for name, *_ in compile(Sandbox(exec_label="a", **fields), **more).steps]
    at = steps.index("exec_label")
    assert steps[at + 1] == "fds" and steps[-1] == "exec"
    assert not {"helper", "relay", "init", "pty", "join"} & {*steps[at:]}


@pytest.mark.parametrize("value", ["", " ", "a\nb", "a\0b", "\x7f", "x" * 4001])
def test_values_refused(value):
    with pytest.raises(ValueError, match="exec_label"):
        Sandbox(exec_label=value)


@pytest.mark.parametrize("value", [b"a", 1, True, ["a"]])
def test_types_refused(value):
    with pytest.raises(TypeError, match="exec_label"):
        Sandbox(exec_label=value)


def test_not_for_a_function():
    with pytest.raises(ValueError, match="is for programs"):
        nsext.clone(1 << 20, exec_label="a")


@pytest.mark.parametrize("label, name", [("a", "AppArmor"), (CONTEXT, "SELinux")])
def test_where_the_module_is_not_active(label, name, monkeypatch):
    """Whatever machine this is: an error before any clone."""
    monkeypatch.setattr(_labels, "_text", lambda path: "")
    before = state()
    for start in (nsext.run, nsext.spawn, Sandbox(new="uts").run):
        error = failure(start, ["true"], exec_label=label)
        assert type(error) is nsext.UnsupportedError and error.errno == errno.EOPNOTSUPP
        assert error.stage == "plan" and f"{name} is not active" in str(error)
        assert os.uname().release in str(error) and repr(label) in error.step
    assert not changes(before, state())


@pytest.mark.parametrize(
    "files, active",
    [
        ({"/sys/kernel/security/lsm": "lockdown,capability,apparmor"}, {"apparmor"}),
        ({"/sys/kernel/security/lsm": "capability,selinux,bpf"}, {"selinux"}),
        # The list is believed, where it is to be seen.
        (
            {
                "/sys/kernel/security/lsm": "capability",
                "/sys/module/apparmor/parameters/enabled": "Y\n",
                "/proc/filesystems": "nodev\tselinuxfs\n",
            },
            set(),
        ),
        ({"/sys/module/apparmor/parameters/enabled": "Y\n"}, {"apparmor"}),
        ({"/sys/module/apparmor/parameters/enabled": "N\n"}, set()),
        ({"/proc/filesystems": "nodev\tproc\nnodev\tselinuxfs\n"}, {"selinux"}),
        ({}, set()),
    ],
)
def test_what_is_active(files, active, monkeypatch):
    monkeypatch.setattr(_labels, "_text", lambda path: files.get(path, ""))
    assert {name for name in ("apparmor", "selinux") if _labels._is_active(name)} == active
