"""What a user's type checker must make of nsext.  Checked by `make lint`, never run."""

import asyncio.subprocess
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, assert_type

import anyio.abc

import nsext

command = ["/bin/echo", "hello"]
limits: dict[str, int] = {"nofile": 64}
Kind = Literal["mnt", "uts", "ipc", "user", "pid", "net", "cgroup", "time"]

# ---- text or bytes, as typeshed has it for subprocess

assert_type(nsext.Popen(command), nsext.Popen[bytes])
assert_type(nsext.Popen(command, text=True), nsext.Popen[str])
assert_type(nsext.Popen(command, universal_newlines=True), nsext.Popen[str])
assert_type(nsext.Popen(command, encoding="utf-8", new="pid mnt"), nsext.Popen[str])
assert_type(nsext.run(command), nsext.CompletedProcess[bytes])
assert_type(nsext.run(command, text=True, capture_output=True), nsext.CompletedProcess[str])
assert_type(nsext.run(command, errors="replace").stdout, str)
assert_type(nsext.run(command, cpu_time_limit=1, output_limit="1m").usage, nsext.Usage | None)
assert_type(nsext.check_output(command), bytes)
assert_type(nsext.check_output(command, text=True, input="x"), str)
assert_type(nsext.call(command, new="uts", hostname="box"), int)
assert_type(nsext.check_call("exit 3", shell=True), int)
assert_type(nsext.getoutput("id", new="user"), str)
assert_type(nsext.getstatusoutput("id"), tuple[int, str])


def undecided(text: bool) -> None:
    assert_type(nsext.Popen(command, text=text), nsext.Popen[Any])
    assert_type(nsext.check_output(command, text=text), Any)


# ---- Popen is subprocess's, and more

with nsext.Popen(command, stdout=nsext.PIPE, text=True, new=["pid", "mnt"]) as process:
    assert_type(process.communicate(timeout=1), tuple[str, str])
    assert_type(process.pid, int)
    assert_type(process.fileno(), int)
    assert_type(process.poll(), int | None)
    code: int = process.returncode
    as_theirs: subprocess.Popen[str] = process
nsext.Popen(command, -1, None, None, nsext.PIPE, sys.stderr, None, True, pass_fds=(3,))
nsext.run(command, stdin=process, fd_map={3: sys.stdout, 4: 1}, preexec_fn=None, spawn_timeout=2.5)

# ---- every field of a Sandbox is a keyword

box = nsext.Sandbox(
    new="all",
    uid_map="root",
    gid_map=[(0, 1000, 1)],
    hostname="box",
    domainname="example",
    time_offsets={"boottime": 86400, "monotonic": 1.5},
    loopback=False,
    propagation="slave",
    proc=True,
    cwd="/",
    env={"PATH": "/bin"},
    umask=0o077,
    start_new_session=True,
    rlimits=limits,
    affinity={0},
    nice=5,
    ionice=("best-effort", 7),
    scheduler="batch",
    oom_score_adj=100,
    personality=0,
    timer_slack=1,
    capabilities=["net_raw"],
    ambient=(),
    securebits=0,
    no_new_privs=True,
    keyring="new",
    landlock=nsext.Landlock(read=["/usr"], write=[Path("/tmp")], tcp_connect=(443,)),
    landlock_strict=False,
    seccomp=[nsext.seccomp_default(), b"12345678"],
    user=1000,
    group=1000,
    extra_groups=[],
    init=True,
    kill_on_parent_exit=True,
)
assert_type(box.replace(hostname="other", rlimits={"core": (0, "unlimited")}), nsext.Sandbox)
assert_type(box.run(command), nsext.CompletedProcess[bytes])
assert_type(box.run(command, text=True, timeout=3).stdout, str)
assert_type(box.check_output(command, encoding="utf-8"), str)
assert_type(box.popen(command, stdout=nsext.DEVNULL), nsext.Popen[bytes])
assert_type(box.call(command), int)
assert_type(box.check_call(command), int)
assert_type(box.spawn(command), nsext.Process)
nsext.run(command, sandbox=box, hostname=None, rlimits={"RLIMIT_NOFILE": "1k"}, affinity=range(2))
nsext.run(command, new="user", uid_map="auto", disable_userns=True, exec_label="a:b:c")
nsext.Popen(command, sandbox=box, uid_map=0, gid_map="self", time_offsets={}, nice=-5)

# ---- joining, holding, pausing

with nsext.Popen(command, text=True, paused=True, hold="net mnt", init=True) as held:
    assert_type(held, nsext.Popen[str])
    assert_type(held.body, Literal["inline", "helper"])
    assert_type(held.inner_pid, int)
    assert_type(held.program_pid, int)
    assert_type(held.namespaces, nsext.Namespaces)
    assert_type(held.namespaces["net"], nsext.Namespace)
    held.resume()
nsext.run(command, join=held)
nsext.run(command, join=held.namespaces)
nsext.run(command, join=1, kill_on_parent_exit=True, user="nobody", extra_groups=("audio", 5))
nsext.spawn(command, join={"net": "/run/netns/blue", "mnt uts": nsext.Fd(3)}, init=True)
nsext.clone(0x1234, join=Path("/run/netns/blue"))
box.popen(command, paused=True, hold=["pid"]).resume()
box.spawn(command, join=held.namespaces["net"])

with nsext.Namespace.open("/run/netns/blue") as blue, nsext.namespaces(held, "net uts") as some:
    assert_type(blue, nsext.Namespace)
    assert_type(blue.fileno(), int)
    assert_type(blue.id, int)
    assert_type(some, nsext.Namespaces)
    assert_type(blue == some["net"], bool)
    nsext.run(command, join={"net": blue, "uts": some["uts"]})
    nsext.setns(blue)
assert_type(nsext.Namespace.of("self", "pid"), nsext.Namespace)
assert_type(nsext.Namespace.from_fd(3, dup=False).kind, Kind)
with nsext.Namespace.new("user") as user, nsext.Namespace.new("net", user=user) as net:
    assert_type(net.user_namespace(), nsext.Namespace | None)
    assert_type(net.processes(), list[int])
    assert_type(net.unique_id, int | None)
    with net.enter() as nothing:
        assert_type(nothing, None)
    net.persist("/run/netns/blue")
nsext.unpersist("/run/netns/blue")
assert_type(nsext.translate_pid(1, held.namespaces["pid"], "self"), int | None)
assert_type(nsext.list_namespaces("net")[0].paths, tuple[str, ...])
assert_type(nsext.namespace_tree(by="parent"), list[tuple[int, nsext.NamespaceInfo]])
assert_type(nsext.check("net")["net"], nsext.Finding)
assert_type(nsext.check()["net"].remedy, str | None)


# ---- asyncio and anyio


def for_asyncio(process: asyncio.subprocess.Process) -> None: ...


def for_anyio(process: anyio.abc.Process) -> None: ...


async def asynchronous() -> None:
    first = await nsext.create_subprocess_exec(
        "/bin/cat", "-", stdin=nsext.PIPE, sandbox=box, paused=True, limit=1 << 20, init=True
    )
    for_asyncio(first)
    assert_type(first.popen, nsext.Popen[Any])
    assert_type(first.fileno(), int)
    async with first:
        assert_type(await first.communicate(b"x"), tuple[bytes, bytes])
    await nsext.create_subprocess_shell("exit 3", new="pid", cwd="/", spawn_timeout=1)
    await box.create_subprocess_exec("/bin/true", stdout=nsext.DEVNULL, hold="net")
    await box.create_subprocess_shell("true", env={}, join=1)

    async with await nsext.open_process(command, stdin=nsext.DEVNULL, new="pid") as second:
        for_anyio(second)
        assert_type(second.popen, nsext.Popen[Any])
        assert_type(await second.wait(), int)
    await nsext.open_process("exit 3", sandbox=box, user=65534)
    await box.open_process(command, stderr=nsext.STDOUT, paused=True)

    assert_type(await held.wait_async(), int)
    assert_type(await nsext.spawn(command).wait_async(), int)


# ---- the light ones

with nsext.spawn("/bin/true", new=nsext.CloneFlags.NEWPID | nsext.CloneFlags.NEWNS) as child:
    assert_type(child.wait(timeout=1), int)
    assert_type(child.pidfd, int)
assert_type(nsext.clone(0x1234, 0, new="pid", stack_size=1 << 16), nsext.Process)
assert_type(nsext.pidfd_open(1), int)
nsext.setns(sys.stdin, "mnt")
nsext.unshare({"uts", "ipc"})

try:
    nsext.run(command, check=True)
except nsext.SpawnTimeout as late:
    assert_type(late.timeout, float)
    a_timeout: subprocess.TimeoutExpired = late
except nsext.SpawnError as error:
    Stage = Literal["plan", "clone", "idmap", "setup", "cwd", "exec"]
    assert_type(error.stage, Stage)
    assert_type(error.hint, str | None)
except nsext.CalledProcessError as failed:
    same: subprocess.CalledProcessError = failed


def wrong(arguments: Sequence[str]) -> None:
    """Every line here is a mistake that a type checker must see."""
    nsext.run(arguments, hostnam="box")  # type: ignore[call-overload]
    nsext.Popen(arguments, preexec_fn=print)  # type: ignore[call-overload]
    nsext.spawn(arguments, capture_output=True)  # type: ignore[call-arg]
    nsext.Sandbox(propagation="privat")  # type: ignore[arg-type]
    nsext.Sandbox("pid")  # type: ignore[call-arg]
    box.run(arguments, nice="low")  # type: ignore[call-overload]
    box.replace(colour="red")  # type: ignore[call-arg]
    nsext.run(arguments, paused=True)  # type: ignore[call-overload]
    nsext.Popen(arguments, cpu_time_limit=1)  # type: ignore[call-overload]
    nsext.spawn(arguments, hold="net")  # type: ignore[call-arg]
    nsext.run(arguments, join=1.5)  # type: ignore[call-overload]
    nsext.Popen(arguments).program_pid = 1  # type: ignore[misc]
    some["network"]  # type: ignore[index]


async def wrong_asynchronous(arguments: Sequence[str]) -> None:
    await nsext.create_subprocess_exec("true", text=True)  # type: ignore[call-arg]
    await nsext.create_subprocess_exec(arguments)  # type: ignore[arg-type]
    await nsext.open_process(arguments, limit=5)  # type: ignore[call-arg]
    await box.open_process(arguments, sandbox=box)  # type: ignore[call-arg]
