"""Every system call of the file system's steps, failing and killed.

A run without a fault says which calls there are, and the child's own record which step makes each;
what has to come of a fault is said by mount_sweep.py.  Here each call is met once on each way that
a step takes to it, whichever sandbox and mount that is of, and either fails or is killed.
NSEXT_SWEEP=full does both to every call of every sandbox.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
from helping import HELPER_TEXT, is_gone
from mount_sweep import (
    NEWER,
    REASONS,
    WAYS,
    Answers,
    At,
    Job,
    Places,
    Recorder,
    Site,
    cases,
    check_failed,
    check_killed,
    check_tolerated,
    is_tolerated,
    places,
)
from sweep import ODD, Sweep
from test_mount_attacks import listing

from nsext import SpawnError, _native
from nsext._hints_mounts import MOUNT_STEPS

pytestmark = pytest.mark.usefixtures("root")

FULL = os.environ.get("NSEXT_SWEEP") == "full"
STEPS = MOUNT_STEPS | {"propagation", "fs_begin", "fs_end", "reenter"}
NAMES = ["from nothing", "overlays", "over the caller's", "ranges", "a directory", "mapped ids"]
# Only a mount that has no place can be mapped.
PAIRS = [(name, way) for name in NAMES for way in WAYS if (name, way) != ("mapped ids", "classic")]


@pytest.fixture(scope="module")
def at() -> Iterator[Places]:
    with tempfile.TemporaryDirectory(prefix="nsext-tests-") as name:
        Path(name).chmod(0o755)
        with places(Path(name)) as found:
            assert list(cases(found)) == NAMES
            yield found


class Swept:
    """A sandbox under the filter, after one run without a fault."""

    def __init__(self, job: Job, way: str, sweep: Sweep) -> None:
        self.job, self.way, self.sweep = job, way, sweep
        recorder = Recorder(way, job.process)
        self.success, wrong = sweep.run(recorder)
        assert isinstance(self.success, dict), self.success
        assert wrong == []
        self.calls = recorder.sites
        self.sites = [
            (index, site)
            for index, site in enumerate(self.calls)
            if site.step >= 0 and self.op(site) in STEPS
        ]

    def op(self, site: Site) -> str:
        return str(self.job.steps[site.step][0])

    def run(self, index: int, site: Site, what: Any) -> None:
        answer = At(self.way, self.job.process, self.calls, index, what)
        name = f"{self.op(site)} {site.step}, {site.call} {site.nth}: {what}"
        if what == faults.KILL:
            check = check_killed(self.job, site)
        elif is_tolerated(self.op(site), site.call):
            check = check_tolerated(site, self.success)
        else:
            check = check_failed(self.job, site, what)
        self.sweep.case(name, answer, check)
        if not answer.done:
            self.sweep.wrong.append(f"{name}: not reached: {answer.strange or 'ended before'}")
        if not self.sweep.injector.drain(lambda: all(map(is_gone, answer.pids)), 1):
            self.sweep.wrong.append(f"{name}: left are {answer.pids}")


def seen_before(way: str, op: str, site: Site, seen: set[Any]) -> bool:
    """Has a step of this kind come to this call by the same calls?"""
    key = way, op, site.call, site.before
    known = key in seen
    seen.add(key)
    return known


SEEN: set[Any] = set()


@pytest.mark.timeout(1200 if FULL else 120)
@pytest.mark.parametrize("name, way", PAIRS)
def test_each_call_fails_and_is_killed(name: str, way: str, at: Places) -> None:
    job = Job(cases(at)[name])
    before = listing(at.lower, at.tree)  # an overlay marks its upper and work as its own
    with Sweep(job, HELPER_TEXT) as sweep:
        swept = Swept(job, way, sweep)
        for index, site in swept.sites:
            if FULL:
                swept.run(index, site, ODD)
                swept.run(index, site, faults.KILL)
            elif not seen_before(way, swept.op(site), site, SEEN):
                swept.run(index, site, faults.KILL if sweep.cases % 4 == 3 else ODD)
        print(f"{name}, {way}: {sweep.cases} faults")
    assert listing(at.lower, at.tree) == before
    assert os.listdir(at.upper) == []


def test_a_place_for_mapped_ids_needs_the_newer_calls(at: Places) -> None:
    job = Job(cases(at)["mapped ids"])
    with Sweep(job, HELPER_TEXT) as sweep:
        error, wrong = sweep.run(Answers("classic", job.process))
        sweep.cases += 1
    assert isinstance(error, SpawnError) and error.errno == errno.ENOSYS, error
    assert "map the ids of" in error.step and not wrong, (error.step, wrong)


def test_the_sandboxes_run_every_step_and_every_reason(at: Places) -> None:
    ran, tolerated = set(), set()
    for name, way in PAIRS:
        if way == "no openat2":
            continue
        job = Job(cases(at)[name])
        with Sweep(job, HELPER_TEXT) as sweep:
            swept = Swept(job, way, sweep)
            sweep.cases += 1
        ran |= {swept.op(site) for _, site in swept.sites}
        found = {(swept.op(site), site.call) for _, site in swept.sites}
        tolerated |= {(op if call != "close" else "*", call) for op, call in found}
    assert ran == STEPS
    assert STEPS >= {name for name in _native.HELPER_STEPS if name.startswith(("make_", "fs_"))}
    assert tolerated >= REASONS.keys()


# ---- errors with a meaning


AT_FDCWD = (1 << 32) - 100


class Always(Answers):
    """One errno for every call of this name, or for the first."""

    def __init__(self, way: str, process: int, name: str, number: int, first: bool) -> None:
        super().__init__(way, process)
        self.name, self.number, self.first = name, number, first
        self.count = 0

    def answer(self, call: faults.Call, usual: Any) -> Any:
        if call.name != self.name or (self.first and self.count):
            return usual
        if (
            self.name == "openat2" and call.args[0] & 0xFFFFFFFF == AT_FDCWD
        ):  # of a source: not EAGAIN's
            return usual
        self.count += 1
        return self.number


@pytest.mark.parametrize(
    "call, number, first",
    [
        ("openat2", errno.EAGAIN, True),  # a rename, anywhere: once more
        ("openat2", errno.EAGAIN, False),  # all the time: component by component
        ("openat2", errno.ENOSYS, False),
        ("chroot", errno.EPERM, True),  # who may not has nobody inside who may
        *((call, errno.ENOSYS, False) for call in sorted(NEWER)),
    ],
)
def test_another_way_to_the_same(call: str, number: int, first: bool, at: Places) -> None:
    job = Job(cases(at)["from nothing"])
    with Sweep(job, HELPER_TEXT) as sweep:
        wanted, _ = sweep.run(Answers("new", 0))
        answer = Always("new", 0, call, number, first)
        found, wrong = sweep.run(answer)
        sweep.cases += 1
    assert answer.count and not wrong, wrong
    assert same(found) == same(wanted)


def same(found: Any) -> Any:
    """Without an order of mounts, which none is promised; mount(2) names a source of "none"."""
    assert isinstance(found, dict), found
    return found | {"mounts": sorted(found["mounts"])}
