"""The nsext command starts with what a spawn needs, and no more; a library has everything at once.

re, enum, typing, dataclasses, subprocess ...: each costs a good part of what a bare interpreter
does.  The modules on the way to a spawn leave them to TYPE_CHECKING, or to where they are needed.
"""

import os
import subprocess
import sys
from pathlib import Path

import nsext

PACKAGE = Path(nsext.__file__).parent
HEAVY = {
    "argparse",
    "ast",
    "asyncio",
    "collections.abc",
    "contextlib",
    "dataclasses",
    "enum",
    "functools",
    "inspect",
    "pathlib",
    "re",
    "signal",
    "subprocess",
    "threading",
    "tomllib",
    "typing",
}


def as_script(place, name, code, *args):
    """What a script of that name prints."""
    path = place / name
    path.write_text(code)
    done = subprocess.run(
        [sys.executable, "-S", str(path), *args],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_imports_what_a_spawn_needs(tmp_path):
    code = """if True:
    import sys
    from nsext._spawn import spawn
    assert spawn(["true"], new="", hostname=None, rlimits={}, affinity=None).wait() == 0
    print(*sys.modules)
    """
    loaded = set(as_script(tmp_path, "nsext", code).split())
    assert "nsext._spawn" in loaded
    assert not loaded & HEAVY, "imported at the start of every nsext command"


def test_nsext_run_imports_what_it_needs():
    command = Path(sys.executable).with_name("nsext")  # as it was installed
    words = ["run", "--new", "pid,uts", "--hostname", "x", "--nice=5", "--init", "true"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-S", command, *words],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "nsext._cli.supervise" in loaded
    assert not loaded & HEAVY, "imported at the start of every nsext run"


def test_a_script_of_the_same_name_has_everything(tmp_path):
    code = """if True:
    import nsext
    assert nsext.Sandbox(new="pid").new == nsext.CloneFlags.NEWPID
    assert nsext.run(["true"]).returncode == 0
    from nsext import *
    assert Popen is nsext.Popen
    try:
        nsext.nothing
    except AttributeError as error:
        print(error)
    """
    assert "has no attribute 'nothing'" in as_script(tmp_path, "nsext", code)


def test_a_library_has_everything_at_once(tmp_path):
    """Its caller may chroot, and then nothing can be imported."""
    code = """if True:
    import os, sys
    import nsext
    before = set(sys.modules)
    nsext.spawn(["true"], rlimits={"nofile": 64}, affinity=[0], extra_groups=None).wait()
    with nsext.Popen(["true"], user=None, hold="uts") as p:
        p.namespaces.close()
    for fields in ({"uid_map": [(0, os.geteuid(), 1)]}, {"uid_map": "auto", "gid_map": "auto"}):
        try:
            nsext.spawn(["true"], new="user pid", disable_userns=True, init=True, **fields).wait()
        except nsext.SpawnError as error:  # an ordinary user without a line in subuid(5)
            str(error)
    for bad in ({"nice": -20, "user": 1, "join": 10**9}, {"executable": "/nonexistent"}):
        try:
            nsext.spawn(["true"], **bad)
        except nsext.SpawnError as error:
            str(error)
    for call in (lambda: nsext.Sandbox(rlimits={"nofile": "1k"}), lambda: nsext.Namespace.of(1, "net")):
        try:
            call()
        except OSError:
            pass
    print(*sorted(set(sys.modules) - before))
    """
    assert as_script(tmp_path, "library", code).split() == []
