"""The guard: after every test, whatever it did, the process is as it was."""

import os
import signal
import tempfile
import time
from pathlib import Path

import bodies
import pytest
import support


def pytest_addoption(parser):
    parser.addoption(
        "--body",
        choices=["helper"],
        help="run the tests of the spawn core in this body, also where another would do",
    )


def pytest_configure(config):
    # Before anything is spawned; what it imports looks for it.
    if body := config.getoption("--body"):
        os.environ[bodies.VARIABLE] = body
        bodies.install()


def pytest_ignore_collect(collection_path):
    if bodies.forced() and collection_path.suffix == ".py" and not bodies.is_core(collection_path):
        return True
    return None


def pytest_collection_modifyitems(config, items):
    if bodies.forced():
        items[:], others = bodies.select(items)
        config.hook.pytest_deselected(items=others)


# Who starts us in the background of a script, or by nohup(1), has these ignored, and children
# inherit that: what the tests send would not arrive.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


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
def landlock_here():
    """Skip where there is less of Landlock than the tests use."""
    support.needs(support.landlock_abi() >= 4, "needs Landlock ABI 4, Linux 6.7")


@pytest.fixture
def root():
    """Skip without root."""
    support.needs_root()
