"""The guard: after every test, whatever it did, the process is as it was."""

import os
import time

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
def root():
    """Skip without root."""
    support.needs_root()
