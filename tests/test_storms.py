"""Many threads, signals, mallocs and forks beside spawns."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import faults
import pytest

import nsext

QUICK = os.environ.get("NSEXT_FULL") != "1"
BOXES = [
    nsext.Sandbox(),
    nsext.Sandbox(new="uts ipc", hostname="storm"),
    nsext.Sandbox(new="user pid", umask=0o22),
    nsext.Sandbox(new="user uts", uid_map=[(0, 0, 10)], gid_map=[(0, 0, 10)]),
]


LIBC = ctypes.CDLL(None)


def one(index: int) -> None:
    """A spawn, or one that fails, and the exact outcome of each."""
    box = BOXES[index % len(BOXES)]
    match index % 8:
        case 2:
            code = nsext.clone(LIBC.abs, 0, new="uts").wait()
            assert code == 0, code
        case 3:
            expect_failure(box, ["/nonexistent/program"], errno.ENOENT, "exec")
        case 5:
            bad = box.replace(rlimits={"nofile": (1 << 40, 1 << 40)})
            expect_failure(bad, [faults.noop()], errno.EPERM, "setup")
        case 6:
            expect_failure(box.replace(cwd="/nonexistent"), [faults.noop()], errno.ENOENT, "cwd")
        case _:
            code = box.spawn([faults.noop()]).wait()
            assert code == 0, code


def expect_failure(box: Any, argv: list[str], number: int, stage: str) -> None:
    try:
        box.spawn(argv).wait()
    except nsext.SpawnError as error:
        assert (error.errno, error.stage) == (number, stage), repr(error)
    else:
        raise AssertionError(f"{argv} in {box} started")


def in_threads(count: int, job: Callable[[int], None]) -> None:
    """job(0) ... job(count - 1), each in a thread; their first error is raised here."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            job(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        faults.join(thread)
    if errors:
        raise errors[0]


# ---- threads ---------------------------------------------------------------------------------


def inner_threads(threads: int, spawns: int) -> None:
    one(0)

    def job(number: int) -> None:
        for index in range(spawns):
            one(number + index)

    with faults.unchanged():
        in_threads(threads, job)


def test_threads() -> None:
    """8 × 500."""
    faults.in_subprocess(inner_threads, 8, 500, timeout=60)


# ---- signals ---------------------------------------------------------------------------------

# Where a handler runs is written by the handler itself: memory is shared with the child, so that
# one that ran there is seen here.  The pid is asked of the kernel: in a child it is another.
HANDLER = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile long ours, theirs;
static long parent;

static void handler(int number)
{
    (void)number;
    __atomic_add_fetch(syscall(SYS_getpid) == parent ? &ours : &theirs, 1, __ATOMIC_RELAXED);
}

void watch(int number)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    parent = syscall(SYS_getpid);
    sigaction(number, &action, NULL);
}

long ran(int in_child) { return in_child ? theirs : ours; }
"""


@contextmanager
def background(*jobs: Callable[[], None]) -> Iterator[None]:
    """Each job again and again, in a thread of its own."""
    stop = threading.Event()
    sys.setswitchinterval(0.0002)  # a busy thread would keep the lock for 5 ms at each spawn

    def work(job: Callable[[], None]) -> None:
        while not stop.is_set():
            job()

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            faults.join(thread)


def inner_signals(spawns: int) -> None:
    """Handlers in Python for SIGALRM, SIGCHLD and SIGUSR1; in C for SIGURG and SIGWINCH.

    What the whole process group gets, the children get: these two are ignored by default, so
    that a child lives.
    """
    library = faults.compile_library(HANDLER)
    library.ran.restype = ctypes.c_long
    counts = {signal.SIGALRM: 0, signal.SIGCHLD: 0, signal.SIGUSR1: 0}

    def handler(number: int, frame: Any) -> None:
        counts[signal.Signals(number)] += 1

    for number in counts:
        signal.signal(number, handler)
    for watched in (signal.SIGURG, signal.SIGWINCH):
        library.watch(int(watched))
    main = threading.get_ident()
    signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)

    def to_the_group() -> None:
        for _ in range(20):
            os.kill(0, signal.SIGURG)
            os.kill(0, signal.SIGWINCH)

    with background(to_the_group, lambda: signal.pthread_kill(main, signal.SIGUSR1)):
        before = faults.state()
        for index in range(spawns):
            one(index)
        after = faults.state()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert faults.changes(before, after) == []
    assert library.ran(1) == 0, f"{library.ran(1)} handlers ran in a child"
    assert library.ran(0) > 100 and min(counts.values()) > 5, (library.ran(0), counts)


def test_signals() -> None:
    """The signals come to threads that wait, and to children, and run handlers in neither."""
    faults.in_subprocess(inner_signals, 300 if QUICK else 3000, timeout=60)


# ---- malloc ----------------------------------------------------------------------------------

MALLOC = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static volatile int stop;
static long rounds;

static void *work(void *unused)
{
    void *kept[64] = {0};
    unsigned int seed = (unsigned int)gettid();
    (void)unused;
    setpriority(PRIO_PROCESS, (id_t)gettid(), 19); /* preempted, locks held, and not in the way */
    while (!stop) {
        int at = rand_r(&seed) % 64;
        size_t size = (size_t)(rand_r(&seed) % 40000) + 1;
        free(kept[at]);
        kept[at] = malloc(size);
        if (kept[at])
            memset(kept[at], at, size < 64 ? size : 64);
        __atomic_add_fetch(&rounds, 1, __ATOMIC_RELAXED);
    }
    for (int at = 0; at < 64; at++)
        free(kept[at]);
    return NULL;
}

static pthread_t thread[64];

void begin(int count)
{
    for (int i = 0; i < count; i++)
        pthread_create(&thread[i], NULL, work, NULL);
}

long end(int count)
{
    stop = 1;
    for (int i = 0; i < count; i++)
        pthread_join(thread[i], NULL);
    return rounds;
}
"""


def inner_malloc(threads: int, spawns: int) -> None:
    library = faults.compile_library(MALLOC)
    library.end.restype = ctypes.c_long
    one(0)
    with faults.unchanged():
        library.begin(threads)
        for index in range(spawns):
            one(index)
        rounds = library.end(threads)
    assert rounds > 10_000, rounds


@pytest.mark.inline("in the caller's memory the helper body does no more than its exec")
def test_malloc_in_other_threads() -> None:
    """A child that took a lock of malloc's would wait for a thread that it does not have."""
    faults.in_subprocess(inner_malloc, 20, 1000, timeout=60)


# ---- fork ------------------------------------------------------------------------------------


def inner_forks(spawns: int) -> None:
    """Forks of other threads hold copies of all that is open during a spawn, for as long as the
    storm: whoever waits for a pipe to be closed waits for them."""
    warnings.simplefilter("ignore", DeprecationWarning)
    release, hold = os.pipe()
    forked: list[int] = []
    wanted = threading.Semaphore(0)

    def fork() -> None:
        if not wanted.acquire(timeout=0.05) or len(forked) >= 60:
            return
        pid = os.fork()
        if pid == 0:
            os.close(hold)
            os.read(release, 1)
            os._exit(0)
        forked.append(pid)

    slowest = 0.0
    one(0)
    before = faults.open_fds()
    with background(fork, fork):
        for index in range(spawns):
            wanted.release()
            begin = time.perf_counter()
            one(index)
            slowest = max(slowest, time.perf_counter() - begin)
    assert len(forked) > 20
    assert slowest < 2, slowest
    os.close(hold)
    for pid in forked:
        assert os.waitpid(pid, 0) == (pid, 0)
    assert faults.children() is None
    assert faults.open_fds() == {fd: what for fd, what in before.items() if fd != hold}


def test_forks_in_other_threads() -> None:
    faults.in_subprocess(inner_forks, 400, timeout=60)


def inner_spawn_after_fork(rounds: int) -> None:
    """The forked child has a copy of the memory that a spawn of its parent has in hand."""
    warnings.simplefilter("ignore", DeprecationWarning)
    index = 0

    def spawn() -> None:
        nonlocal index
        index += 1
        one(index)

    spawn()
    with background(spawn, spawn, spawn):
        for _ in range(rounds):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    assert faults.children() is None
                    fds = faults.open_fds().keys()
                    for number in range(14):
                        one(number)
                    in_threads(3, lambda number: [one(number + i) for i in range(7)] and None)
                    assert faults.children() is None
                    assert faults.open_fds().keys() == fds
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0) == (pid, 0)


def test_spawn_after_fork() -> None:
    faults.in_subprocess(inner_spawn_after_fork, 20, timeout=60)


# ---- memory ----------------------------------------------------------------------------------


def _median(count: int, **fields: Any) -> float:
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        nsext.spawn([faults.noop()], **fields).wait()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def inner_speed() -> None:
    """Against gross slowness and against a fork that copies page tables; benchmarks/ measures."""
    four = {"new": "pid uts ipc mnt"}
    _median(20, **four)
    assert _median(60, **four) < 0.050
    size = 512 << 20
    without, beside = [], []
    for _ in range(3):
        without.append(_median(60))
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as ballast:
            ballast.madvise(mmap.MADV_NOHUGEPAGE)
            for at in range(0, size, mmap.PAGESIZE):
                ballast[at] = 1
            beside.append(_median(60))
    assert min(beside) < 2 * min(without), (without, beside)


def test_cost_is_flat_over_memory() -> None:
    faults.in_subprocess(inner_speed, timeout=60)
