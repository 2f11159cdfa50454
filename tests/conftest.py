"""The guard: after every test, whatever it did, the process is as it was."""

import os
import tempfile
import time
from pathlib import Path

import pytest
import support


@pytest.fixture(autouse=True)
def guard():
    """Compare what must not change: descriptors, threads, children, mounts, masks and so on."""
    before = support.state()
    yield
    # A thread that was joined is in /proc for a moment yet.
    deadline = time.monotonic() + 2
    while len(os.listdir("/proc/self/task")) > before["threads"] and time.monotonic() < deadline:
        os.sched_yield()
    changed = support.changes(before, support.state())
    support.end_children()  # for the next test
    if changed:
        pytest.fail(f"the test changed the process: {changed}")


@pytest.fixture
def public():
    """A directory that everybody may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="nsext-tests-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def root():
    """Skip without root."""
    support.needs_root()
