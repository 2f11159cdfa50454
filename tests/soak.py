"""make soak: many spawns and failures of all kinds, and counts that have to stay flat.

    python tests/soak.py --spawns 20000
    python tests/soak.py --seconds 600

Prints a table of the counts, before and after; exit status 1 where one has grown.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import faults  # noqa: E402

import nsext  # noqa: E402

RANGES = [(0, 0, 1000)]
PLAIN = nsext.Sandbox()
ALL = nsext.Sandbox(
    new="all",
    hostname="soak",
    domainname="example",
    time_offsets={"boottime": 3},
    rlimits={"core": 0},
    umask=0o77,
    nice=faults.NICE,
    start_new_session=True,
)
RANGED = nsext.Sandbox(new="user pid mnt", uid_map=RANGES, gid_map=RANGES, process_group=0)
FOUR = nsext.Sandbox(new="pid uts ipc mnt")


def _fails(number: int, job: Callable[[], Any]) -> None:
    try:
        job()
    except OSError as error:
        assert error.errno == number, repr(error)
    else:
        raise AssertionError("no error")


def _many_arguments() -> None:
    """A plan that outgrows its first memory, and one beyond what is kept."""
    for size in (100_000, 1_500_000):
        text = "x" * 1000
        assert nsext.spawn([faults.noop(), *[text] * (size // 1000)]).wait() == 0


def _fd_map() -> None:
    first, second = os.pipe()
    try:
        cycle = {first: second, second: first}
        assert nsext.spawn([faults.noop()], fd_map=cycle, pass_fds=[2]).wait() == 0
    finally:
        os.close(first)
        os.close(second)


def _killed() -> None:
    process = nsext.Popen(["/bin/sleep", "1000"], sandbox=FOUR)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def _timeout() -> None:
    try:
        FOUR.run(["/bin/sleep", "1000"], timeout=0.001)
    except nsext.TimeoutExpired:
        return
    raise AssertionError("no timeout")


def _output() -> None:
    assert PLAIN.check_output(["/bin/echo", "soak"], text=True) == "soak\n"


def _clone() -> None:
    import ctypes

    assert nsext.clone(ctypes.CDLL(None).abs, 0, new="uts").wait() == 0


def _unfinished() -> None:
    """Dropped while it may run: reaped by a later spawn."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        nsext.spawn([faults.noop()])


KINDS: dict[str, Callable[[], Any]] = {
    "plain": lambda: PLAIN.spawn([faults.noop()]).wait(),
    "four namespaces": lambda: FOUR.spawn([faults.noop()]).wait(),
    "all namespaces": lambda: ALL.spawn([faults.noop()]).wait(),
    "ranged maps": lambda: RANGED.spawn([faults.noop()]).wait(),
    "output": _output,
    "fd_map": _fd_map,
    "clone": _clone,
    "many arguments": _many_arguments,
    "killed": _killed,
    "timeout": _timeout,
    "unfinished": _unfinished,
    "no program": lambda: _fails(2, lambda: ALL.spawn(["/nonexistent"])),
    "not executable": lambda: _fails(13, lambda: RANGED.spawn(["/etc/passwd"])),
    "no directory": lambda: _fails(2, lambda: FOUR.run(["true"], cwd="/nonexistent")),
    "refused limit": lambda: _fails(
        1, lambda: ALL.spawn(["true"], rlimits={"nofile": (1 << 40, 1 << 40)})
    ),
    "bad descriptor": lambda: _fails(9, lambda: RANGED.spawn(["true"], pass_fds=[60_000])),
}


# ---- counts ----------------------------------------------------------------------------------


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise AssertionError(field)


def _namespaces() -> int:
    """Of all processes that can be seen, of bind mounts, and of descriptors here."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found |= {os.readlink(entry) for entry in os.scandir(f"/proc/{name}/ns")}
            except OSError:
                pass  # it has ended
    found |= {
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " nsfs " in line
    }
    return len(found)


def counts() -> dict[str, int]:
    return {
        "fds": len(faults.open_fds()),
        "threads": len(os.listdir("/proc/self/task")),
        "children": 0 if faults.children() is None else 1,
        "mappings": len(Path("/proc/self/maps").read_text().splitlines()),
        "RSS KiB": _status("VmRSS"),
        "namespaces": _namespaces(),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
    }


# What may come on top, once, whatever the number of spawns: the allocator's arenas, and (seen from
# here) namespaces that other programs of the machine make meanwhile.
SLACK = {"mappings": 6, "RSS KiB": 2048, "namespaces": 24}


def _rounds(options: argparse.Namespace) -> Iterator[int]:
    end = time.monotonic() + options.seconds if options.seconds else None
    for number in itertools.count():
        if number >= options.spawns if end is None else time.monotonic() > end:
            return
        yield number


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    show = sys.stderr.isatty()

    def tell(number: int) -> None:
        if show and number % 500 == 0:
            print(f"\r{number}" + (f" of {total}" if total else ""), end="", file=sys.stderr)

    yield tell
    if show:
        print(file=sys.stderr)


def main(arguments: list[str] | None = None, more: Mapping[str, Any] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spawns", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=0.0, help="instead of a number of spawns")
    options = parser.parse_args(arguments)
    kinds = {**KINDS, **(more or {})}
    if os.geteuid() != 0:
        for name in ("ranged maps", "all namespaces", "four namespaces"):
            del kinds[name]  # root's
    cycle = itertools.cycle(kinds.values())
    for _ in range(12 * len(KINDS)):  # pools, caches and arenas fill
        next(cycle)()
    before = counts()
    begin = time.monotonic()
    done = 0
    with _progress(0 if options.seconds else options.spawns) as tell:
        for done in _rounds(options):
            next(cycle)()
            tell(done)
    seconds = time.monotonic() - begin
    for _ in range(2 * len(kinds)):  # what was dropped unfinished is reaped
        PLAIN.spawn([faults.noop()]).wait()
    after = counts()
    grown = False
    print(f"{done + 1} rounds over {len(kinds)} kinds in {seconds:.1f} s")
    print(f"{'':12} {'before':>10} {'after':>10}")
    for name, value in after.items():
        grows = value > before[name] + SLACK.get(name, 0)
        grown |= grows
        print(f"{name:12} {before[name]:10} {value:10} {'GROWS' if grows else ''}".rstrip())
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
