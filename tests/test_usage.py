"""Usage: what the kernel has counted for a process that has ended."""

import asyncio
import gc
import os
import resource
import subprocess
import sys
import time

import pytest
from support import DEADLINE, compiled, needs, python, running

import nsext

MIB = 1 << 20
START = {"popen": nsext.Popen, "spawn": nsext.spawn}
# What a program says of itself just before it ends.
BURN = """
import resource, time
while time.process_time() < 0.2:
    pass
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime, used.ru_stime, flush=True)
"""


@pytest.mark.parametrize("start", START)
def test_times_are_those_of_the_program(start):
    before = time.monotonic()
    out, into = os.pipe()
    process = START[start](python(BURN), stdout=into)
    os.close(into)
    with open(out) as file:
        user, system = (float(word) for word in file.read().split())
    assert process.usage is None
    assert process.wait(timeout=DEADLINE) == 0
    wall = time.monotonic() - before
    usage = process.usage
    assert user <= usage.user < user + 0.2
    assert system <= usage.system < system + 0.2
    assert user + system <= usage.wall <= wall
    assert isinstance(usage.rusage, resource.struct_rusage)
    assert (usage.user, usage.system) == (usage.rusage.ru_utime, usage.rusage.ru_stime)
    assert process.usage == usage


def test_it_is_what_wait4_tells():
    """All sixteen numbers are in their places: as in the sum that the kernel keeps for us."""
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = nsext.Popen(python(BURN), stdout=subprocess.DEVNULL)
    process.wait(timeout=DEADLINE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    usage = process.usage.rusage
    for name in ("ru_minflt", "ru_majflt", "ru_inblock", "ru_oublock", "ru_nvcsw", "ru_nivcsw"):
        assert getattr(usage, name) == getattr(after, name) - getattr(before, name), name
    assert usage.ru_minflt > 100
    assert usage.ru_utime == pytest.approx(after.ru_utime - before.ru_utime, abs=1e-5)


@pytest.mark.parametrize("start", START)
def test_peak_memory_is_in_bytes(start):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = peak + 64 * MIB
    process = START[start](python("import sys; bytearray(b'x') * int(sys.argv[1])", str(size)))
    process.wait(timeout=DEADLINE)
    assert size <= process.usage.peak_memory < size + 64 * MIB


def test_descendants_count_when_they_are_waited_for():
    code = """
    import os, sys, time
    if os.fork() == 0:
        while time.process_time() < 0.2:
            pass
        os._exit(0)
    if sys.argv[1] == "wait":
        os.wait()
    """
    waited = nsext.run(python(code, "wait"), new="user pid", init=True, timeout=DEADLINE)
    assert waited.usage.user + waited.usage.system >= 0.2
    process = nsext.Popen(python(code, "leave"))
    process.wait(timeout=DEADLINE)
    assert process.usage.user + process.usage.system < 0.2


def test_an_init_counts_its_program():
    done = nsext.run(python(BURN), new="user pid", init=True, capture_output=True, timeout=DEADLINE)
    user, system = (float(word) for word in done.stdout.split())
    assert user + system <= done.usage.user + done.usage.system < user + system + 0.4


def test_none_where_somebody_else_has_waited():
    for start in (nsext.Popen, nsext.spawn):
        process = start(["true"])
        os.waitpid(process.pid, 0)
        process.wait(timeout=DEADLINE)
        assert process.usage is None


def test_of_a_killed_one():
    with running() as process:
        process.kill()
        process.wait(timeout=DEADLINE)
        assert process.usage.wall > 0


def test_of_a_c_function(tmp_path):
    needs(sys.version_info < (3, 13) or sys._is_gil_enabled(), "cffi is not for free threads")
    source = """
    #include <time.h>
    static int burn(void *arg)
    {
        (void)arg;
        while (clock() < CLOCKS_PER_SEC / 10)
            ;
        return 0;
    }
    """
    ffi, lib = compiled(tmp_path, "burner", "int burn(void *);", source)
    process = nsext.clone(ffi.addressof(lib, "burn"))
    assert process.wait(timeout=DEADLINE) == 0
    assert 0.09 < process.usage.user + process.usage.system < 1
    assert process.usage.wall > 0.09


def test_under_asyncio():
    async def main():
        process = await nsext.create_subprocess_exec("true")
        assert process.popen.usage is None or process.returncode is not None
        await process.wait()
        return process.popen.usage

    assert asyncio.run(main()).wall > 0


class Refusing(nsext.Popen):
    def __setattr__(self, name, value):
        if name == "_ended":
            raise ZeroDivisionError
        super().__setattr__(name, value)


def test_a_wait_survives_an_owner_that_takes_no_usage():
    """The process is reaped by then: an error would lose its return code."""
    process = Refusing(["sh", "-c", "exit 3"])
    assert process.wait(timeout=DEADLINE) == 3
    assert process.usage is None


def test_usage_is_frozen():
    usage = nsext.run(["true"]).usage
    with pytest.raises(AttributeError):
        usage.user = 1.0
