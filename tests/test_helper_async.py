"""asyncio, anyio and trio: streams, errors, cancellation, and a loop that is not held up."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import inspect
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import faults
import pytest
from helping import HELPER_TEXT, gone, is_gone, other_fds, state_of
from support import ns_id, running, script, status

import nsext
from nsext import _popen
from nsext._asyncio import PATIENCE

DEADLINE = 10
BODIES: list[dict[str, Any]] = [
    {},
    {"kill_on_parent_exit": True},
    {"init": True},
    {"new": "user pid mnt", "init": True},
    {"new": "user", "uid_map": "self"},
]
bodies = pytest.mark.parametrize("fields", BODIES, ids=str)


def with_loop(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a coroutine as the test, with a deadline."""

    @functools.wraps(function)
    def test(*args: Any, **keywords: Any) -> None:
        async def main() -> None:
            async with asyncio.timeout(DEADLINE):
                await function(*args, **keywords)

        asyncio.run(main())

    return test


# ---- asyncio ---------------------------------------------------------------------------------


@bodies
@with_loop
async def test_streams(fields: dict[str, Any]) -> None:
    pipes = {"stdin": nsext.PIPE, "stdout": nsext.PIPE, "stderr": nsext.PIPE}
    command = ["sh", "-c", "cat; echo done >&2; exit 3"]
    process = await nsext.create_subprocess_exec(*command, **pipes, **fields)
    assert isinstance(process, asyncio.subprocess.Process)
    assert isinstance(process.stdin, asyncio.StreamWriter)
    assert isinstance(process.stdout, asyncio.StreamReader)
    out, err = await process.communicate(b"x" * 300_000)
    assert (len(out), err, process.returncode) == (300_000, b"done\n", 3)
    assert is_gone(process.pid) and state_of(process.pid) == ""


@bodies
@with_loop
async def test_shell(fields: dict[str, Any]) -> None:
    command = "read line; echo got $line; kill -TERM $$"
    process = await nsext.create_subprocess_shell(
        command, stdin=nsext.PIPE, stdout=nsext.PIPE, **fields
    )
    process.stdin.write(b"this\n")
    await process.stdin.drain()
    assert await process.stdout.readline() == b"got this\n"
    expected = 0 if fields.get("new") == "pid" else -signal.SIGTERM
    assert await process.wait() == expected
    assert await process.wait() == expected
    process.stdin.close()


@with_loop
async def test_namespaces_and_sandboxes(root: None) -> None:
    box = nsext.Sandbox(new="uts net", hostname="async")
    for create in (box.create_subprocess_exec, _by_keyword(box)):
        process = await create("hostname", stdout=nsext.PIPE)
        out, _ = await process.communicate()
        assert out == b"async\n"
    with running(new="user pid mnt uts", hostname="joined") as other:
        process = await nsext.create_subprocess_exec("hostname", stdout=nsext.PIPE, join=other)
        assert (await process.communicate())[0] == b"joined\n"
        process = await nsext.create_subprocess_exec("cat", stdin=nsext.PIPE, join=other)
        assert ns_id("uts", process.pid) == ns_id("uts", other.pid)
        await process.communicate(b"")


def _by_keyword(box: nsext.Sandbox) -> Any:
    return functools.partial(nsext.create_subprocess_exec, sandbox=box)


@with_loop
async def test_a_hundred_at_a_time() -> None:
    async def one(number: int) -> int:
        process = await nsext.create_subprocess_shell(f"exit {number}", init=number % 3 == 0)
        return await process.wait()

    numbers = list(range(100))
    assert await asyncio.gather(*map(one, numbers)) == numbers


def test_many_hold_the_loop_no_longer_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a turn of the loop may be held for is for all set-ups in it."""
    patiences: list[float] = []
    launch = _popen.launch

    def slow(*args: Any) -> Any:
        patiences.append(inspect.signature(launch).bind(*args).arguments["patience"])
        plan = launch(*args)
        end = time.perf_counter() + PATIENCE / 2  # as if the set-up had taken so long
        while time.perf_counter() < end:
            pass
        return plan

    async def main() -> None:
        for _ in range(2):
            created = (nsext.create_subprocess_exec("true") for _ in range(5))
            for process in await asyncio.gather(*created):
                assert await process.wait() == 0

    monkeypatch.setattr(_popen, "launch", slow)
    asyncio.run(main())
    for turn in patiences[:5], patiences[5:]:
        assert turn[0] == PATIENCE and turn[1] <= PATIENCE / 2 and turn[2:] == [0.0] * 3


@bodies
@with_loop
async def test_signals(fields: dict[str, Any]) -> None:
    for name in ("kill", "terminate"):
        process = await nsext.create_subprocess_exec("sleep", "1000", **fields)
        getattr(process, name)()
        assert await process.wait() == -signal.Signals[f"SIG{name[:4].upper()}"]
        with pytest.raises(ProcessLookupError):
            process.send_signal(0)


@bodies
@with_loop
async def test_leaving_the_block_kills_and_reaps(fields: dict[str, Any]) -> None:
    before = other_fds()
    pipes = {"stdin": nsext.PIPE, "stdout": nsext.PIPE}
    with pytest.raises(ZeroDivisionError):
        async with await nsext.create_subprocess_exec("cat", **pipes, **fields) as process:
            pids = process.pid, process.popen.program_pid
            1 / 0  # noqa: B018
    assert process.returncode == -signal.SIGKILL
    assert state_of(pids[0]) == ""
    gone(pids[1])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert other_fds() == before


@pytest.mark.parametrize(
    "args, kind",
    [
        (["/nonexistent"], FileNotFoundError),
        (["/etc/passwd"], PermissionError),
        (["/etc/passwd/x"], NotADirectoryError),
    ],
)
@bodies
@with_loop
async def test_errors(fields: dict[str, Any], args: list[str], kind: type) -> None:
    before = other_fds()
    with pytest.raises(kind) as caught:
        await nsext.create_subprocess_exec(*args, stdin=nsext.PIPE, stdout=nsext.PIPE, **fields)
    assert isinstance(caught.value, nsext.SpawnError) and caught.value.filename == args[0]
    del caught
    assert other_fds() == before


@with_loop
async def test_errors_of_arguments() -> None:
    for keywords in (
        {"text": True},
        {"universal_newlines": True},
        {"encoding": "utf-8"},
        {"errors": "strict"},
        {"bufsize": 1},
        {"new": "nonsense"},
    ):
        with pytest.raises(ValueError):
            await nsext.create_subprocess_exec("true", **keywords)
    for keywords in ({"preexec_fn": int}, {"nonsense": 1}):
        with pytest.raises(TypeError):
            await nsext.create_subprocess_exec("true", **keywords)
    with pytest.raises(ValueError):
        await nsext.create_subprocess_shell(["true"])  # type: ignore[arg-type]


@with_loop
async def test_a_set_up_that_fails() -> None:
    with pytest.raises(nsext.SpawnError) as caught:
        await nsext.create_subprocess_exec("true", process_group=1, init=True)
    assert (caught.value.errno, caught.value.stage) == (errno.EPERM, "setup")


@with_loop
async def test_wait_async_of_a_popen() -> None:
    """By anybody, as often as they like; cancelled, it can be done again."""
    with nsext.Popen(["sh", "-c", "read x; exit 9"], stdin=nsext.PIPE) as process:
        waiting = [asyncio.ensure_future(process.wait_async()) for _ in range(5)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait_async(), 0.02)
        assert not any(task.done() for task in waiting)
        process.stdin.close()
        assert await asyncio.gather(*waiting) == [9] * 5
        assert await process.wait_async() == 9
    with nsext.spawn(["true"]) as small:
        assert await small.wait_async() == 0
    with nsext.Popen(["true"], paused=True) as paused:
        paused.namespaces.close()
        with pytest.raises(RuntimeError):
            await paused.wait_async()


@with_loop
async def test_a_wait_that_is_cancelled() -> None:
    async with await nsext.create_subprocess_exec("sleep", "1000") as process:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.02)
        assert process.returncode is None and status(process.pid)["State"][0] == "S"


def test_the_loop_is_closed_before_the_child_ends() -> None:
    """asyncio.run() ends with a child that runs: no error, and the child is another's matter."""

    async def main() -> Any:
        return await nsext.create_subprocess_exec("sleep", "1000")

    process = asyncio.run(main())
    process.popen.kill()
    assert process.popen.wait() == -signal.SIGKILL
    process._transport._unwatch() if process._transport._watched >= 0 else None


@pytest.mark.parametrize("streams", [{}, {"stdin": nsext.PIPE, "stdout": nsext.PIPE}])
def test_dropped_with_its_loop(streams: dict[str, Any]) -> None:
    """Nobody is left who could wait for it: it is killed, and reaped, with a warning."""
    script(
        f"""
        import asyncio, gc, warnings
        from helping import other_fds
        async def main():
            process = await nsext.create_subprocess_exec("sleep", "1000", **{streams!r})
            print(process.pid)
        before = other_fds()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asyncio.run(main())
            gc.collect()
        texts = [str(item.message) for item in caught if item.category is ResourceWarning]
        assert sum("_Transport" in text for text in texts) == 1, texts
        assert not any("still running" in text for text in texts), texts
        assert not children() and other_fds() == before, (before, other_fds())
        """
    )


@with_loop
async def test_dropped_while_the_loop_lives() -> None:
    """As with asyncio it goes on, and the loop sees it end."""
    reader, writer = os.pipe()
    pid = (await nsext.create_subprocess_shell("sleep 0.05; echo done", stdout=writer)).pid
    os.close(writer)
    gc.collect()
    while os.path.exists(f"/proc/{pid}"):  # to be reaped
        await asyncio.sleep(0.001)
    with open(reader) as output:
        assert output.read() == "done\n"


# ---- a set-up that hangs: each call of the helper's waits for our answer ------------------------

HANGING = """
import asyncio, faults
from helping import HELPER_TEXT, other_fds, state_of
listener = faults.install(HELPER_TEXT)
held = []
def supervise():
    while True:
        call = faults.receive(listener)
        if call is None:
            continue
        if call.name == WHERE and not held:
            held.append(call)
        else:
            faults.reply(listener, call)
threading.Thread(target=supervise, daemon=True).start()
async def is_held():
    while not held:
        await asyncio.sleep(0.001)
    return held[0].pid
class Stall:
    # The longest that the loop was held up.
    def __enter__(self):
        self.worst, self.last = 0.0, time.perf_counter()
        self.task = asyncio.ensure_future(self.watch())
        return self
    async def watch(self):
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.worst, self.last = max(self.worst, now - self.last), now
    def __exit__(self, *exception):
        self.task.cancel()
"""


def _hanging(where: str, code: str) -> str:
    faults.need(faults.can_inject(), "no seccomp listener (CAP_SYS_ADMIN, Linux 5.5)")
    text = f"WHERE = {where!r}\n" + HANGING + code + "\nasyncio.run(asyncio.wait_for(main(), 20))\n"
    return script(text + "sys.stdout.flush()\nos._exit(0)\n")


# With hold= there is a checkpoint on the way.
SLOW = ["kill_on_parent_exit=True", "new='user pid mnt', init=True", "new='net', hold='net'"]


@pytest.mark.parametrize("where", ["set_robust_list", "execve"])
@pytest.mark.parametrize("fields", SLOW)
def test_the_loop_goes_on_while_a_child_hangs(where: str, fields: str) -> None:
    told = _hanging(
        where,
        f"""
async def main():
    with Stall() as stall:
        task = asyncio.ensure_future(nsext.create_subprocess_exec("true", {fields}))
        await is_held()
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert not task.done()
        faults.reply(listener, held[0])
        process = await task
        assert await process.wait() == 0
    print(stall.worst)
""",
    )
    assert float(told) < 1  # a moment at a time: the benchmark has the numbers


@pytest.mark.parametrize("where", ["set_robust_list", "execve"])
@pytest.mark.parametrize("fields", SLOW)
def test_cancelled_during_the_set_up(where: str, fields: str) -> None:
    """The child is killed and reaped, and its pipes are closed."""
    _hanging(
        where,
        f"""
async def main():
    await asyncio.sleep(0)
    before = other_fds()
    task = asyncio.ensure_future(nsext.create_subprocess_exec(
        "cat", stdin=nsext.PIPE, stdout=nsext.PIPE, {fields}))
    pid = await is_held()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    else:
        raise AssertionError("not cancelled")
    assert not children(), "a child is left"
    assert state_of(pid) == ""
    del task
    assert other_fds() == before, (before, other_fds())
""",
    )


@pytest.mark.parametrize("fields", ["kill_on_parent_exit=True", "hold='net'"])
def test_spawn_timeout_under_asyncio(fields: str) -> None:
    _hanging(
        "execve",
        f"""
async def main():
    begin = time.monotonic()
    try:
        await nsext.create_subprocess_exec("true", {fields}, spawn_timeout=0.2)
    except nsext.SpawnTimeout as error:
        assert 0.15 < time.monotonic() - begin < 2 and error.timeout == 0.2, error
        assert error.stage == "exec" and not children()
    else:
        raise AssertionError("started")
""",
    )


# ---- anyio and trio --------------------------------------------------------------------------

BACKENDS = ["asyncio", "trio"]


def _anyio(backend: str, main: Callable[[], Awaitable[None]]) -> None:
    anyio = pytest.importorskip("anyio")
    if backend == "trio":
        pytest.importorskip("trio")

    async def limited() -> None:
        with anyio.fail_after(DEADLINE):
            await main()

    anyio.run(limited, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@bodies
def test_open_process(fields: dict[str, Any], backend: str) -> None:
    anyio: Any = pytest.importorskip("anyio")

    async def main() -> None:
        async with await nsext.open_process(["cat"], **fields) as process:
            assert isinstance(process, anyio.abc.Process)
            await process.stdin.send(b"hello")
            assert await process.stdout.receive() == b"hello"
            await process.stdin.aclose()
            with pytest.raises(anyio.EndOfStream):
                await process.stdout.receive()
            assert await process.wait() == 0
        process = await nsext.open_process("echo shell; exit 4", **fields)
        assert await process.stdout.receive() == b"shell\n"
        assert await process.wait() == process.returncode == 4
        await process.aclose()
        with pytest.raises(FileNotFoundError):
            await nsext.open_process(["/nonexistent"], **fields)

    _anyio(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_much_through_the_pipes(backend: str) -> None:
    anyio: Any = pytest.importorskip("anyio")

    async def main() -> None:
        async with await nsext.open_process(["cat"]) as process:
            got = []

            async def receive() -> None:
                async for chunk in process.stdout:
                    got.append(chunk)

            async with anyio.create_task_group() as group:
                group.start_soon(receive)
                await process.stdin.send(b"x" * 3_000_000)
                await process.stdin.aclose()
            assert sum(map(len, got)) == 3_000_000

    _anyio(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cancelled_waits(backend: str) -> None:
    """A cancelled aclose() kills and reaps."""
    anyio: Any = pytest.importorskip("anyio")

    async def main() -> None:
        process = await nsext.open_process(["sleep", "1000"], kill_on_parent_exit=True)
        with anyio.move_on_after(0.02) as scope:
            await process.wait()
        assert scope.cancelled_caught and process.returncode is None
        with anyio.move_on_after(0.02) as scope:
            async with process:
                await anyio.sleep(1000)
        assert scope.cancelled_caught and process.returncode == -signal.SIGKILL
        assert state_of(process.pid) == ""

    _anyio(backend, main)


@pytest.mark.parametrize("backend", BACKENDS)
def test_wait_async(backend: str) -> None:
    anyio: Any = pytest.importorskip("anyio")

    async def main() -> None:
        with nsext.Popen(["sh", "-c", "read x; exit 6"], stdin=nsext.PIPE) as process:
            found = []

            async def wait() -> None:
                found.append(await process.wait_async())

            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(wait)
                await anyio.sleep(0.01)
                assert found == []
                process.stdin.close()
            assert found == [6] * 3

    _anyio(backend, main)


def test_time_is_nobodys() -> None:
    """A hundred waits by pidfd take no processor: no polling."""

    async def main() -> float:
        with nsext.Popen(["sleep", "0.3"]) as process:
            begin = time.process_time()
            await asyncio.gather(*(process.wait_async() for _ in range(100)))
            return time.process_time() - begin

    assert asyncio.run(main()) < 0.1


def test_the_filter_hits_the_helper_only() -> None:
    """What the tests above rest on: an inline child makes no call from there."""
    faults.need(faults.can_inject(), "no seccomp listener (CAP_SYS_ADMIN, Linux 5.5)")
    with faults.Injector(HELPER_TEXT) as injector:
        outcome = injector.run(lambda: nsext.run(["true"]).returncode)
        assert (outcome.value, outcome.calls) == (0, [])
        outcome = injector.run(lambda: nsext.run(["true"], init=True).returncode)
        assert outcome.value == 0 and "execve" in {call.name for call in outcome.calls}
    assert os.getpid() > 0
