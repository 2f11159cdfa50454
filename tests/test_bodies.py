"""That the tests of the core run in the body that --body names: here, and in what they start."""

from pathlib import Path

import bodies
import faults
from support import as_user, script

import nsext

WANTED = bodies.forced() or "inline"
CODE = "print(nsext.Popen(['true'], new='user').body)"


def test_the_body():
    for fields in ({}, {"new": "user", "hostname": None}, {"nice": 5}):
        with nsext.Popen(["true"], **fields) as process:
            assert process.body == WANTED
    with nsext.Popen(["true"], init=True) as process:
        assert process.body == "helper"


def test_the_body_in_scripts():
    assert script(CODE) == WANTED
    assert as_user(CODE) == WANTED


def inner_body():
    print(nsext.Popen(["true"]).body)


def test_the_body_in_subprocesses():
    assert faults.in_subprocess(inner_body).strip() == WANTED


def test_the_files_are_there():
    for name in bodies.CORE:
        assert (Path(__file__).parent / f"test_{name}.py").exists(), name
