"""The kinds of spawns, and of failures, that tests/soak.py mixes.

Each is a function of a source of random numbers.  It asserts how its spawn ends, and leaves nothing
behind: what does is the library's leak.  Many threads run them at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import functools
import importlib.util
import os
import random
import select
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import faults

import nsext

DEADLINE = 30.0  # seconds, for what takes milliseconds
PATIENCE = 0.004  # within this a child is killed at random
LIBC = ctypes.CDLL(None)
SLEEP = ["/bin/sleep", "1000"]

Job = Callable[[random.Random], Any]


class Kind(NamedTuple):
    job: Job
    needs: str


KINDS: dict[str, Kind] = {}


def kind(name: str, needs: str = "") -> Callable[[Job], Job]:
    """Register a job; *needs* is a key of what_is_here()."""

    def register(job: Job) -> Job:
        KINDS[name] = Kind(job, needs)
        return job

    return register


# ---- what there is ---------------------------------------------------------------------------

GROUP = os.environ.get("NSEXT_SOAK_CGROUP", "")


def mapped_ids() -> int:
    """How many ids the user namespace has."""
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    return sum(int(line.split()[2]) for line in lines)


def what_is_here() -> dict[str, bool]:
    """What kinds may need, and whether it is to be had."""
    report = nsext.check(())
    return {
        "": True,
        "a cgroup of version 2 to write to": bool(GROUP),
        "more than one id": mapped_ids() > 1000,
        "Landlock": report["landlock"].ok,
        "seccomp": report["seccomp"].ok,
        "anyio and trio": all(map(importlib.util.find_spec, ("anyio", "trio"))),
        "a built-in profile": os.uname().machine in ("x86_64", "aarch64"),
    }


RANGES = [(0, 0, min(mapped_ids(), 1000))]
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
INIT = nsext.Sandbox(new="pid mnt", init=True)
TIED = nsext.Sandbox(kill_on_parent_exit=True)
NESTED = nsext.Sandbox(new="user pid mnt uts net", hostname="target")
ROOTED = nsext.Sandbox(new="pid mnt", root=nsext.Tmpfs(), mounts=nsext.hostlike())
LOCKED = nsext.Sandbox(new="user", disable_userns=True)
HELPED = nsext.Sandbox(oom_score_adj=1000)


def is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def noop(box: nsext.Sandbox, **keywords: Any) -> None:
    """A program that succeeds."""
    program = "/bin/true" if box.root else faults.noop()  # that is not in there
    code = box.spawn([program], **keywords).wait(timeout=DEADLINE)
    assert code == 0, code


def fails(number: int, job: Callable[[], Any]) -> None:
    try:
        job()
    except OSError as error:
        assert error.errno == number, repr(error)
    else:
        raise AssertionError("no error")


# ---- in the caller's memory ------------------------------------------------------------------

kind("plain")(lambda rng: noop(PLAIN))
kind("four namespaces")(lambda rng: noop(FOUR))
kind("all namespaces")(lambda rng: noop(ALL))
kind("ranged maps")(lambda rng: noop(RANGED))


@kind("many arguments")
def _many_arguments(rng: random.Random) -> None:
    """A plan that outgrows its first memory, and one beyond what is kept."""
    for size in (100_000, 1_500_000):
        text = "x" * 1000
        argv = [faults.noop(), *[text] * (size // 1000)]
        assert nsext.spawn(argv).wait(timeout=DEADLINE) == 0


@kind("fd_map")
def _fd_map(rng: random.Random) -> None:
    first, second = os.pipe()
    try:
        noop(PLAIN, fd_map={first: second, second: first}, pass_fds=[2])
    finally:
        os.close(first)
        os.close(second)


@kind("clone")
def _clone(rng: random.Random) -> None:
    assert nsext.clone(LIBC.abs, 0, new="uts").wait(timeout=DEADLINE) == 0


@kind("output")
def _output(rng: random.Random) -> None:
    assert PLAIN.check_output(["/bin/echo", "soak"], text=True) == "soak\n"


@kind("pipes")
def _pipes(rng: random.Random) -> None:
    """More than a pipe holds, there and back."""
    data = rng.randbytes(150_000)
    pipes = {"stdin": nsext.PIPE, "stdout": nsext.PIPE, "stderr": nsext.STDOUT}
    with FOUR.popen(["/bin/cat"], **pipes) as process:
        out, _ = process.communicate(data, timeout=DEADLINE)
    assert out == data and process.returncode == 0


@kind("seccomp and no capabilities", "seccomp")
def _seccomp(rng: random.Random) -> None:
    profile = b"\x06\x00\x00\x00\x00\x00\xff\x7f"  # BPF: allow
    noop(PLAIN, seccomp=profile, capabilities=(), rlimits={"nofile": 64})


@kind("landlock", "Landlock")
def _landlock(rng: random.Random) -> None:
    noop(PLAIN, landlock=nsext.Landlock(read=["/"], execute=["/"]))
    nothing = nsext.Landlock(read=["/"], execute=["/proc"])
    fails(errno.EACCES, lambda: noop(PLAIN, landlock=nothing))


# ---- in the helper ---------------------------------------------------------------------------

kind("helper")(lambda rng: noop(HELPED))
kind("tied to the parent")(lambda rng: noop(TIED))
kind("no user namespaces")(lambda rng: noop(LOCKED))
kind("other ids", "more than one id")(lambda rng: noop(PLAIN, user=12, group=34))


@kind("init")
def _init(rng: random.Random) -> None:
    """One that reaps orphans, and reports its program's status."""
    done = INIT.run(["/bin/sh", "-c", "(true & true &) ; exit 3"], timeout=DEADLINE)
    assert done.returncode == 3


@kind("subreaper")
def _subreaper(rng: random.Random) -> None:
    """An init that is no PID 1 and ends what is left of its program's group."""
    script = ["/bin/sh", "-c", "sleep 1000 & exit 4"]
    done = PLAIN.run(script, init=True, start_new_session=True, timeout=DEADLINE)
    assert done.returncode == 4


@kind("join a process")
def _join_process(rng: random.Random) -> None:
    """By its pid and by its Popen; it may be killed before who has joined it."""
    with NESTED.popen(SLEEP) as target:
        try:
            noop(PLAIN, join=target.pid)
            noop(PLAIN, join=target, new="ipc time")
            with nsext.Popen(SLEEP, join=target) as joined:
                # The PID 1 has not ended before who has joined it has been waited for.
                rng.choice([target, joined]).kill()
                if rng.random() < 0.5:
                    joined.kill()
                    target.kill()
        finally:
            target.kill()


@kind("join namespaces")
def _join_namespaces(rng: random.Random) -> None:
    """That nobody is in, as their own and with the thread inside of one."""
    with nsext.Namespace.new("net") as net, nsext.Namespace.new("uts") as uts:
        noop(PLAIN, join={"net": net, "uts": uts})
        noop(FOUR.replace(new="pid mnt"), join=net)
        with uts.enter():
            noop(FOUR)


@kind("hold")
def _hold(rng: random.Random) -> None:
    """Namespaces that outlive their program, and one that is joined then."""
    with nsext.Popen([faults.noop()], new="user uts net", hold="user uts net") as process:
        pass
    with process.namespaces as held:
        noop(PLAIN, join=held)


@kind("paused")
def _paused(rng: random.Random) -> None:
    with NESTED.popen([faults.noop()], paused=True) as process:
        with process.namespaces as namespaces:
            assert namespaces["net"].id != nsext.Namespace.of("self", "net").id
            process.resume()
        assert process.wait(timeout=DEADLINE) == 0


@kind("paused and left")
def _paused_and_left(rng: random.Random) -> None:
    """Killed at the checkpoint, by hand or by the end of its block."""
    with NESTED.popen(SLEEP, paused=True, init=rng.random() < 0.5) as process:
        if rng.random() < 0.5:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    if process.namespaces:
        process.namespaces.close()


@kind("pty")
def _pty(rng: random.Random) -> None:
    box = ROOTED if rng.random() < 0.5 else PLAIN
    done = box.run(["/bin/echo", "soak"], pty=True, capture_output=False, timeout=DEADLINE)
    assert done.stdout == b"soak\r\n", done


@kind("root")
def _root(rng: random.Random) -> None:
    script = ["/bin/sh", "-c", "echo soak >/tmp/file; cat >/dev/null"]
    with ROOTED.popen(script, stdin=nsext.PIPE) as process:
        process.communicate(timeout=DEADLINE)
        assert process.root is not None
        with process.root:
            with nsext.open_in(process, "/etc/passwd") as file:
                assert file.read(4) == b"root"
    assert process.returncode == 0


@kind("mounts")
def _mounts(rng: random.Random) -> None:
    noop(
        FOUR,
        mounts=[
            nsext.Tmpfs("/mnt"),
            nsext.Bind("/usr", "/mnt/usr"),
            nsext.Overlay("/mnt/etc", lower=["/etc", "/usr"]),
            nsext.File("/mnt/file", b"soak"),
            nsext.Mask("/mnt/usr/share"),
            nsext.ReadOnly("/mnt"),
        ],
    )


@functools.cache
def untrusted() -> nsext.Sandbox:
    """Made when it is asked for: it is not to be had everywhere."""
    fields: dict[str, Any] = {}
    if os.geteuid() == 0 and mapped_ids() <= 1000:  # there is no "nobody"
        fields = {"uid_map": "root", "gid_map": "root"}
        fields |= {"user": None, "group": None, "extra_groups": None}
    return nsext.Sandbox.untrusted(**fields)


@kind("untrusted", "a built-in profile")
def _untrusted(rng: random.Random) -> None:
    done = untrusted().run(["/bin/echo", "soak"], capture_output=True, timeout=DEADLINE)
    assert done.stdout == b"soak\n", done


# ---- with limits, in time --------------------------------------------------------------------


@kind("limits")
def _limits(rng: random.Random) -> None:
    """run() with limits: what passes none, and what passes one of them."""
    done = FOUR.run([faults.noop()], cpu_time_limit=10, wall_time_limit=DEADLINE)
    assert done.verdict == "ok", done
    done = FOUR.run(SLEEP, wall_time_limit=0.005, spawn_timeout=DEADLINE)
    assert done.verdict == "timeout", done
    done = FOUR.run(
        ["/bin/cat", "/dev/zero"],
        capture_output=True,
        output_limit="10k",
        wall_time_limit=DEADLINE,
    )
    assert (done.verdict, len(done.stdout)) == ("output", 10 << 10), done.verdict


@kind("timeout")
def _timeout(rng: random.Random) -> None:
    try:
        FOUR.run(SLEEP, timeout=0.001)
    except nsext.TimeoutExpired:
        return
    raise AssertionError("no timeout")


@kind("timeout of the set-up")
def _spawn_timeout(rng: random.Random) -> None:
    """Wherever it hits: any of the set-ups may be in time, too."""
    try:
        noop(any_box(rng), spawn_timeout=rng.uniform(0, 0.003))
    except nsext.SpawnTimeout:
        pass


@kind("asyncio")
def _asyncio(rng: random.Random) -> None:
    async def main() -> None:
        pipes = {"stdin": nsext.PIPE, "stdout": nsext.PIPE}
        async with asyncio.timeout(DEADLINE):
            process = await nsext.create_subprocess_exec("/bin/cat", sandbox=FOUR, **pipes)
            async with process:
                out, _ = await process.communicate(b"soak")
            assert (out, process.returncode) == (b"soak", 0)

    asyncio.run(main())


@kind("asyncio, cancelled")
def _cancelled(rng: random.Random) -> None:
    """At a random moment: in the set-up, or when it runs."""

    async def child() -> None:
        async with await nsext.create_subprocess_exec(*SLEEP, sandbox=any_box(rng)) as process:
            await process.wait()

    async def main() -> None:
        task = asyncio.create_task(child())
        await asyncio.wait([task], timeout=rng.uniform(0, PATIENCE))
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE)
        assert task.cancelled(), task

    asyncio.run(main())


@kind("anyio", "anyio and trio")
def _anyio(rng: random.Random) -> None:
    import anyio

    async def main() -> None:
        with anyio.fail_after(DEADLINE):
            async with await nsext.open_process(["/bin/echo", "soak"], sandbox=FOUR) as process:
                assert await process.stdout.receive() == b"soak\n"
            assert process.returncode == 0

    # In the main thread trio has signals write to a socket, which one that comes to another thread
    # may do when it is closed, and its number somebody else's.
    backends = ["asyncio"] if is_main() else ["asyncio", "trio"]
    anyio.run(main, backend=rng.choice(backends))


# ---- control groups --------------------------------------------------------------------------

CGROUP = "a cgroup of version 2 to write to"


@kind("cgroup", CGROUP)
def _cgroup(rng: random.Random) -> None:
    """One of its own, and one that is there."""
    noop(any_box(rng), cgroup=nsext.Cgroup(parent=GROUP))
    noop(any_box(rng), cgroup=f"{GROUP}/shared")
    with FOUR.popen(SLEEP, cgroup=nsext.Cgroup(parent=GROUP)) as process:
        process.cgroup.kill()
        assert process.wait(timeout=DEADLINE) == -signal.SIGKILL


# ---- killed ----------------------------------------------------------------------------------


def any_box(rng: random.Random) -> nsext.Sandbox:
    return rng.choice([PLAIN, FOUR, ALL, RANGED, INIT, TIED, LOCKED, ROOTED, HELPED])


@kind("killed")
def _killed(rng: random.Random) -> None:
    process = FOUR.popen(SLEEP)
    process.kill()
    assert process.wait(timeout=DEADLINE) == -signal.SIGKILL


@kind("killed at a random moment")
def _killed_later(rng: random.Random) -> None:
    """The program, or the init that it has."""
    with any_box(rng).popen(SLEEP) as process:
        select.select([process.fileno()], [], [], rng.uniform(0, PATIENCE))
        process.kill()
        assert process.wait(timeout=DEADLINE) == -signal.SIGKILL


@kind("the program of an init killed")
def _program_killed(rng: random.Random) -> None:
    with INIT.popen(SLEEP) as process:
        os.kill(process.program_pid, signal.SIGKILL)
        assert process.wait(timeout=DEADLINE) == -signal.SIGKILL


def _children_of(thread: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/self/task/{thread}/children").read_text().split()}


@kind("killed in its set-up")
def _killed_in_set_up(rng: random.Random) -> None:
    """By another thread that finds it in /proc: in any step, or later."""
    worker = threading.get_native_id()
    before, delay, over = _children_of(worker), rng.uniform(0, PATIENCE), threading.Event()

    def kill() -> None:
        over.wait(delay)
        for pid in _children_of(worker) - before:
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue  # it has been waited for
            try:
                if pid in _children_of(worker):  # so it is no other one's pid by now
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            finally:
                os.close(pidfd)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        keywords: dict[str, Any] = rng.choice([{}, {"hold": "uts pid"}, {"stdout": nsext.PIPE}])
        if GROUP and rng.random() < 0.3:
            keywords["cgroup"] = nsext.Cgroup(parent=GROUP)
        with any_box(rng).popen(SLEEP, **keywords) as process:
            over.wait(delay)
            process.kill()
        assert process.wait() == -signal.SIGKILL, process
        if "hold" in keywords:
            process.namespaces.close()
    except nsext.SpawnError as error:
        # Who is in a pid namespace that ends may still say why he cannot go on.
        inside = errno.ESRCH, errno.ENOMEM
        known = error.errno == errno.ECHILD or ("init" in str(error) and error.errno in inside)
        assert known, repr(error)
    finally:
        faults.join(killer)


@kind("dropped while it runs")
def _unfinished(rng: random.Random) -> None:
    """Reaped by a later spawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        nsext.spawn([faults.noop()])


class Interrupted(BaseException):
    """What a handler of a signal raises, as that of Ctrl-C does."""


class Interruption:
    """SIGUSR2, sent by another thread, raises Interrupted in the main one: once, while it is armed."""

    armed = False

    def __call__(self, number: int, frame: Any) -> None:
        if self.armed:
            self.armed = False
            raise Interrupted


INTERRUPTION = Interruption()


@kind("interrupted")
def _interrupted(rng: random.Random) -> None:
    """At a random moment of its start or its wait.  In other threads than the main one nobody is."""
    if not is_main():
        return noop(any_box(rng))
    signal.signal(signal.SIGUSR2, INTERRUPTION)
    delay, over = rng.uniform(0, PATIENCE), threading.Event()
    main = threading.get_ident()

    def interrupt() -> None:
        over.wait(delay)
        signal.pthread_kill(main, signal.SIGUSR2)

    thread = threading.Thread(target=interrupt)
    thread.start()
    box = rng.choice([PLAIN, FOUR, ALL, RANGED, INIT, TIED, LOCKED, HELPED])
    try:
        INTERRUPTION.armed = True
        noop(box)
        INTERRUPTION.armed = False
    except Interrupted:
        pass
    finally:
        faults.join(thread)


# ---- failures --------------------------------------------------------------------------------

TOO_MUCH = {"nofile": (1 << 40, 1 << 40)}

kind("no program")(lambda rng: fails(errno.ENOENT, lambda: ALL.spawn(["/nonexistent"])))
kind("no program in the helper")(
    lambda rng: fails(errno.ENOENT, lambda: INIT.spawn(["/nonexistent"]))
)
kind("not executable")(lambda rng: fails(errno.EACCES, lambda: RANGED.spawn(["/etc/passwd"])))
kind("no directory")(
    lambda rng: fails(errno.ENOENT, lambda: FOUR.run(["true"], cwd="/nonexistent"))
)
kind("refused limit")(
    lambda rng: fails(errno.EPERM, lambda: any_box(rng).spawn(["true"], rlimits=TOO_MUCH))
)
kind("bad descriptor")(
    lambda rng: fails(errno.EBADF, lambda: RANGED.spawn(["true"], pass_fds=[60_000]))
)
kind("no source of a mount")(
    lambda rng: fails(
        errno.ENOENT,
        lambda: FOUR.run(["true"], mounts=[nsext.Bind("/nonexistent", "/mnt")]),
    )
)
kind("nobody to join")(
    lambda rng: fails(errno.ESRCH, lambda: PLAIN.run(["true"], join={"net": 4_000_000}))
)
kind("no such cgroup")(
    lambda rng: fails(errno.ENOENT, lambda: PLAIN.run(["true"], cgroup="/nonexistent"))
)
