"""The short form of `make soak`, and that it finds what it is made to leak."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import sanitized
import soak
from support import needs

import nsext

FULL = os.environ.get("NSEXT_FULL") == "1"
SHORT = ["--seconds", "60"] if FULL else ["--spawns", "1000", "--samples", "2"]


@pytest.fixture(scope="module", autouse=True)
def everything() -> None:
    report = nsext.check("all")
    needs(report and report["proc"], f"needs all kinds of namespaces:\n{report}")


def run(arguments: Sequence[str]) -> Any:
    return subprocess.run(
        [sys.executable, soak.__file__, *arguments],
        env={**os.environ, **sanitized.RUNTIME},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )


def grown(text: str) -> set[str]:
    """What the output says of."""
    return set(re.findall(r"^GROWS: (.+) \d+ -> \d+$", text, re.MULTILINE))


def test_nothing_grows() -> None:
    done = run(SHORT)
    print(done.stdout)
    assert (done.returncode, grown(done.stdout)) == (0, set()), done.stdout
    assert done.stdout.endswith("\nflat\n")


def leaky(leaks: Sequence[str]) -> set[str]:
    short = "--kinds plain --threads 2 --spawns 40 --samples 1 --patience 0.5".split()
    done = run([*short, "--leak", ",".join(leaks)])
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    return grown(done.stdout)


def test_leaks_are_found() -> None:
    """Each by its own count, which no other one touches; but a zombie is a process, too.

    The namespace is in flight between two sockets: nobody has it open.
    """
    leaks = ["fds", "threads", "children", "processes", "RSS KiB", "uts"]
    with soak.own_group() as group:
        leaks += ["cgroups"] if group else []
    found = leaky(leaks)
    assert found >= set(leaks), found


def test_leaked_namespaces_are_found() -> None:
    """Of a process in a user and a pid namespace: the kernel counts them here, too."""
    found = leaky(["pid"])
    assert found >= {"pid", "net", "user", "children", "processes"}, found


def test_a_wrong_outcome_is_told() -> None:
    done = run(["--kinds", "plain", "--threads", "2", "--spawns", "40", "--leak", "nothing"])
    assert done.returncode == 1
    assert "leak of nothing, in thread" in done.stdout and "KeyError" in done.stdout
    assert re.search(r"--seed \d+$", done.stdout, re.MULTILINE)
