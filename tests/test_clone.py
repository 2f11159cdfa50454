"""clone(): a C function, compiled here by cffi, as the child's whole life."""

import ctypes
import errno
import mmap
import os
import resource
import select
import signal
import time

import pytest
from support import (
    DEADLINE,
    KINDS,
    as_user,
    changes,
    compiled,
    is_plain,
    namespaces,
    open_fds,
    script,
    state,
)

import nsext

CDEF = """
struct report { long pid; long values[8]; char text[256]; };
int give(void *status);
int report(void *arg);
int sleeping(void *arg);
int write_memory(void *arg);
int overflow(void *depth);
int crash(void *arg);
int stack_bytes(void *arg);
int forking(void *arg);
extern int counter;
"""

SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct report { long pid; long values[8]; char text[256]; };

int counter = 1;
int give(void *status) { return (int)(long)status; }

int report(void *arg)
{
    struct report *report = arg;
    struct timespec now;
    sigset_t mask;
    struct sigaction action;
    report->pid = getpid();
    report->values[0] = getuid();
    gethostname(report->text, sizeof report->text);
    clock_gettime(CLOCK_BOOTTIME, &now);
    report->values[1] = now.tv_sec;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    report->values[2] = sigismember(&mask, SIGUSR1) + 2 * sigismember(&mask, SIGUSR2);
    sigaction(SIGUSR2, NULL, &action);
    report->values[3] = action.sa_handler == SIG_DFL;
    report->values[4] = fcntl((int)report->values[4], F_GETFD);
    sigaction(SIGINT, NULL, &action);
    report->values[5] = action.sa_handler == SIG_DFL;
    return 0;
}

int sleeping(void *arg) { (void)arg; for (;;) pause(); }

int write_memory(void *arg) { *(int *)arg = 99; counter = 99; return *(int *)arg + counter; }

int overflow(void *depth)
{
    volatile char page[4096];
    memset((char *)page, 1, sizeof page);
    if ((long)depth <= 0)
        return page[17];
    return overflow((void *)((long)depth - 1)) + page[0];
}

int crash(void *arg) { return *(volatile int *)arg; }

int stack_bytes(void *arg)
{
    volatile char bytes[1];
    return ((unsigned long)__builtin_frame_address(0) % 16 != 0) + (arg ? bytes[0] * 0 : 0);
}

int forking(void *arg)
{
    int status;
    (void)arg;
    pid_t pid = fork();
    if (pid == 0)
        _exit(7);
    waitpid(pid, &status, 0);
    return WEXITSTATUS(status) + 1;
}

"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    place = tmp_path_factory.mktemp("cffi")
    return compiled(place, "_nsext_clone", CDEF, SOURCE, extra_compile_args=["-O0"])


@pytest.fixture
def ffi(module):
    return module[0]


@pytest.fixture
def lib(module):
    return module[1]


@pytest.fixture
def entry(ffi, lib):
    return lambda name: ffi.addressof(lib, name)


@pytest.fixture
def shared(ffi, memory=mmap.mmap(-1, mmap.PAGESIZE)):  # noqa: B008 - one for all tests
    """A struct report in memory that the child's copy shares with us."""
    memory[:] = bytes(mmap.PAGESIZE)
    return ffi.cast("struct report *", ffi.from_buffer(memory))


# ---- memory


def test_argument_may_be_a_cffi_pointer(ffi, lib, entry):
    number = ffi.new("int *", 5)
    assert nsext.clone(entry("write_memory"), number).wait() == 198
    assert (number[0], lib.counter) == (5, 1)


def test_memory_is_a_copy(ffi, lib, entry):
    block = ctypes.c_int(5)
    assert nsext.clone(entry("write_memory"), ctypes.addressof(block)).wait() == 198
    assert block.value == 5 and lib.counter == 1


# ---- the stack


def test_stack_sizes(entry):
    for size in (16 << 10, 64 << 10, 100_001, 1 << 20, 64 << 20):
        assert nsext.clone(entry("give"), 5, stack_size=size).wait() == 5
        assert nsext.clone(entry("stack_bytes"), stack_size=size).wait() == 0
    assert nsext.clone(entry("overflow"), 200).wait() == 201  # 0.8 of the default MiB
    assert nsext.clone(entry("overflow"), 2000, stack_size=16 << 20).wait() == 2001 & 0xFF


def test_trap_11_overflow_hits_the_guard_page(entry):
    for size in (16 << 10, 1 << 20):
        before = state()
        assert nsext.clone(entry("overflow"), 1 << 20, stack_size=size).wait() == -signal.SIGSEGV
        assert not changes(before, state())
    assert nsext.run(["true"]).returncode == 0


def test_trap_11_the_guard_is_under_the_stack(entry):
    """Whatever else lies near: the first page below the stack cannot be written."""
    with nsext.clone(entry("sleeping"), stack_size=64 << 10) as process:
        lines = open(f"/proc/{process.pid}/maps").read().splitlines()
        process.kill()
    maps = [line.split()[:2] for line in lines]
    spans = [(*(int(part, 16) for part in span.split("-")), mode) for span, mode in maps]
    stacks = [
        (low, high)
        for (_, end, guard), (low, high, mode) in zip(spans, spans[1:])
        if guard.startswith("---") and end == low and high - low == 64 << 10 and "rw" in mode
    ]
    assert stacks


@pytest.mark.parametrize("size", [0, -1, 16383, 1 << 40])
def test_stack_sizes_refused(entry, size):
    with pytest.raises(ValueError, match="stack_size"):
        nsext.clone(entry("give"), stack_size=size)


@pytest.mark.parametrize("size", [True, "1m", 1e6, None])
def test_stack_size_types_refused(entry, size):
    with pytest.raises(TypeError, match="stack_size"):
        nsext.clone(entry("give"), stack_size=size)


def test_no_memory_for_the_stack(entry):
    with pytest.raises(MemoryError):
        limit = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 33, limit[1]))
        try:
            nsext.clone(entry("give"), stack_size=(1 << 40) - 1)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limit)


def test_stacks_do_not_pile_up(entry):
    def mapped():
        return int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE

    nsext.clone(entry("give")).wait()
    before = mapped()
    for _ in range(50):
        nsext.clone(entry("give"), stack_size=8 << 20).wait()
    assert mapped() - before < 8 << 20


# ---- the child


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("kind", KINDS)
def test_each_namespace(entry, kind):
    with nsext.clone(entry("sleeping"), new=kind) as process:
        ours, its = namespaces(), namespaces(process.pid)
        process.kill()
    assert {name for name in KINDS if ours[name] != its[name]} == {kind}


@pytest.mark.usefixtures("root")
def test_all_namespaces_and_their_set_up(ffi, entry, shared):
    offsets = {"boottime": 10**6}
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    process = nsext.clone(
        entry("report"), shared, new="all", uid_map=77, hostname="in-c", time_offsets=offsets
    )
    assert process.wait() == 0
    assert shared.pid == 1 and shared.values[0] == 77
    assert int(before) + 10**6 <= shared.values[1] <= before + 10**6 + 60
    assert ffi.string(shared.text) == b"in-c"


def test_as_user():
    as_user("""
    entry = ctypes.CDLL(None).abs
    assert nsext.clone(entry, 5, new="user pid mnt uts time", hostname="x").wait() == 5
    error = failure(nsext.clone, entry, 5, new="uts")
    assert (error.errno, error.stage) == (errno.EPERM, "clone") and is_plain(error)
    """)


def test_descriptors_are_inherited(entry, shared):
    with open("/dev/null") as file:
        assert not os.get_inheritable(file.fileno())
        shared.values[4] = file.fileno()
        assert nsext.clone(entry("report"), shared).wait() == 0
    assert shared.values[4] == 1  # there, with FD_CLOEXEC


def test_signals_of_the_child(entry, shared):
    """Handlers of Python are gone, and the mask is the caller's."""
    handler = signal.signal(signal.SIGUSR2, lambda *args: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        assert nsext.clone(entry("report"), shared).wait() == 0
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGUSR2, handler)
    assert [shared.values[n] for n in (2, 3, 5)] == [1, 1, 1]


def test_a_child_that_forks(entry):
    assert nsext.clone(entry("forking")).wait() == 8
    assert nsext.clone(entry("forking"), new="pid").wait() == 8


def test_crash(entry):
    assert nsext.clone(entry("crash"), 0).wait() == -signal.SIGSEGV


def test_a_crash_at_once_is_the_entrys_own(entry):
    """The set-up was over: it is no SpawnError, however soon the entry dies."""
    for _ in range(200):
        assert nsext.clone(entry("crash"), 0).wait() == -signal.SIGSEGV


def test_process_that_it_returns(entry):
    process = nsext.clone(entry("sleeping"))
    assert isinstance(process, nsext.Process) and process.poll() is None
    assert process.fileno() == process.pidfd in open_fds()
    assert select.select([process], [], [], 0)[0] == []
    process.terminate()
    assert process.wait(DEADLINE) == -signal.SIGTERM
    with nsext.clone(entry("give"), 3) as process:
        pass
    assert process.returncode == 3


def test_fields_of_the_process(entry):
    keywords = {"nice": 4, "rlimits": {"nofile": (50, 60)}, "cwd": "/tmp", "umask": 0o31}
    with nsext.clone(entry("sleeping"), start_new_session=True, **keywords) as process:
        pid = process.pid
        assert os.getsid(pid) == pid and os.getpriority(os.PRIO_PROCESS, pid) == 4
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (50, 60)
        assert os.readlink(f"/proc/{pid}/cwd") == "/tmp"
        assert "Umask:\t0031" in open(f"/proc/{pid}/status").read()
        process.kill()


def test_sandbox(entry):
    box = nsext.Sandbox(nice=4)
    with nsext.clone(entry("sleeping"), sandbox=box, umask=0) as process:
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 4
        process.kill()


def test_failed_set_up(entry):
    with pytest.raises(nsext.SpawnError) as caught:
        nsext.clone(entry("give"), affinity=[65535])
    assert (caught.value.errno, caught.value.stage) == (errno.EINVAL, "setup")
    assert is_plain(caught.value)
    with pytest.raises(FileNotFoundError) as caught:
        nsext.clone(entry("give"), cwd="/no/such")
    assert (caught.value.stage, caught.value.filename) == ("cwd", "/no/such")


def test_what_is_for_programs_is_refused(entry):
    with pytest.raises(ValueError, match="env"):
        nsext.clone(entry("give"), env={})
    for name in ("executable", "stdin", "pass_fds", "close_fds"):
        with pytest.raises(TypeError, match=name):
            nsext.clone(entry("give"), **{name: None})


def test_without_cffi_and_ctypes():
    """cffi is an optional extra: never imported by nsext."""
    script("""
    for name in ("cffi", "_cffi_backend"):
        assert name not in sys.modules
        sys.modules[name] = None
    assert nsext.clone(ctypes.CDLL(None).abs, 4).wait() == 4
    """)
