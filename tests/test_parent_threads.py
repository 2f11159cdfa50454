"""The parent's side in C, from many threads at once: tests/parent_threads.c, parent_forks.c and
environ_threads.c.

NSEXT_THREAD_ROUNDS: of each thread; `make sanitize` has more of them.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import DEADLINE, MUSL, needs

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent / "csrc"
FLAGS = ["-std=c11", "-g", "-I", str(CSRC), "-pthread"]
# As in setup.py: no sanitizer in what runs in the child.
CHILD = ["-O2", "-ffreestanding", "-fno-builtin", "-fno-stack-protector", "-fno-sanitize=all"]
ROUNDS = os.environ.get("NSEXT_THREAD_ROUNDS", "200")


def cc(*args):
    subprocess.run(["cc", *FLAGS, *map(str, args)], check=True, timeout=DEADLINE)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    place = tmp_path_factory.mktemp("threads")
    for source in sorted(CSRC.glob("child/*.c")):
        cc("-c", *CHILD, source, "-o", place / f"{source.stem}.o")

    def build(name, *flags):
        program = place / f"{name}{''.join(flags)}"
        sources = [HERE / f"{name}.c", CSRC / "plan.c", *sorted(CSRC.glob("parent/*.c"))]
        cc("-O1", *flags, *sources, *sorted(place.glob("*.o")), "-o", program)
        return str(program)

    return build


def test_threads(build):
    done = subprocess.run(
        [build("parent_threads"), "16", ROUNDS], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr


def test_no_race(build):
    """By ThreadSanitizer, which wants its addresses as they are without randomisation."""
    needs(shutil.which("setarch"), "needs setarch")
    needs(not MUSL, "gcc's runtime of ThreadSanitizer is of glibc")
    command = ["setarch", "-R", build("parent_threads", "-fsanitize=thread"), "8", ROUNDS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[:5000]


def test_threads_of_a_fork(build):
    done = subprocess.run(
        [build("parent_forks"), "8", ROUNDS], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr


def test_environment_that_changes(build):
    done = subprocess.run(
        [build("environ_threads"), "3000"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
