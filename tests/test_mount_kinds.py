"""Each kind of mount, for root and without, with the newer system calls and without them.

The checks are in mount_facts.py.  One interpreter runs them all for a caller and a set of refused
calls; the tests here read its report.
"""

import json
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import mount_facts
import pytest
from support import as_user, needs, needs_root, script

TEXT = Path(mount_facts.__file__).read_text()
NEWER = ("open_tree", "move_mount", "fsopen", "mount_setattr", "openat2")
REFUSALS = {
    "nothing": {},
    **{name: {name: 38} for name in NEWER},
    "all": dict.fromkeys([*NEWER, "fsconfig", "fsmount", "close_range"], 38),
}
CALLERS = ("root", "user", "nested")


@pytest.fixture(scope="module")
def probe():
    """The program of probe.c, where everybody may run it."""
    needs(shutil.which("cc"), "needs a C compiler")
    with tempfile.TemporaryDirectory(prefix="nsext-tests-") as place:
        Path(place).chmod(0o755)
        program = Path(place, "probe")
        subprocess.run(
            ["cc", "-O1", "-o", program, Path(__file__).with_name("probe.c")], check=True
        )
        yield str(program)


@cache
def report(who, refusal, probe):
    """{check: what went wrong, or None}."""
    run = f"\nmain({who!r}, {REFUSALS[refusal]!r}, {probe!r})\n"
    if who == "root":
        told = script(TEXT + run, deadline=240)
    elif who == "user":
        told = as_user(TEXT + run, deadline=240)
    else:
        told = as_user(
            """
            command = [sys.executable, "-P", "-c", sys.argv[1]]
            print(nsext.check_output(command, new="user pid mnt net ipc", text=True))
            """,
            "from support import *\n" + TEXT + run,
            deadline=240,
        )
    return json.loads(told.splitlines()[-1])


@pytest.mark.parametrize("check", mount_facts.CHECKS)
@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_kind(check, who, refusal, probe):
    needs_root()  # also for its ordinary users and filters
    wrong = report(who, refusal, probe)[check]
    assert wrong is None, wrong


def test_a_check_for_each_kind():
    from nsext import _mounts

    kinds = {name for name, value in vars(_mounts).items() if isinstance(value, type)}
    kinds = {name for name in kinds if issubclass(getattr(_mounts, name), _mounts.MountSpec)}
    used = {name for name in kinds if f"{name}(" in TEXT}
    assert used == {name for name in kinds if not name.startswith("_")} - {"MountSpec"}
