"""paused=True, resume() and hold=: the checkpoint between set-up and program."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helping import ended, error_of, gone, other_fds, state_of, wait_for
from support import DEADLINE, KINDS, as_user, ns_id, output, running, script, status

import nsext

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "namespaces": {"new": "pid mnt uts net ipc cgroup time", "hostname": "paused"},
    "user": {"new": "user pid mnt"},
    "ids": {"user": 12345, "group": 12345},
    "init": {"init": True},
    "PID 1": {"new": "pid mnt", "init": True},
    "tied": {"kill_on_parent_exit": True},
}
shapes = pytest.mark.parametrize("fields", SHAPES.values(), ids=SHAPES)


@contextmanager
def paused(*args: Any, **keywords: Any) -> Iterator[nsext.Popen]:
    with nsext.Popen(*args, paused=True, **keywords) as process:
        with process.namespaces:
            yield process


# ---- while it is paused ----------------------------------------------------------------------


@shapes
def test_facts(fields: dict[str, Any], root: None) -> None:
    """A process, set up to the last step but those of identity and exec; it sleeps."""
    with paused(["cat"], stdin=-1, cwd="/usr", umask=0o31, **fields) as process:
        program = process.program_pid
        wait_for(lambda: state_of(program) == "S")
        found = status(program)
        assert found["Name"] == "nsext-helper" and found["Umask"] == "0031"
        assert found["Uid"].split()[0] == str(os.getuid())
        assert int(found["NSpid"].split()[-1]) == process.inner_pid
        assert os.readlink(f"/proc/{program}/cwd") == "/usr"
        new = fields.get("new", "").split()
        for kind in KINDS:
            assert (ns_id(kind, program) != ns_id(kind)) == (kind in new)
        assert process.poll() is None and process.returncode is None
        assert not ended(process.fileno(), 0)
        seen = {kind: f"{kind}:[{held.id}]" for kind, held in process.namespaces.items()}
        assert seen == {kind: ns_id(kind, program) for kind in KINDS}
        process.resume()
        wait_for(lambda: status(program)["Name"] == "cat")
        assert process.program_pid == program
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 0


def test_nothing_of_the_program_is_there_before(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with paused(["touch", str(made)]) as process:
        assert not made.exists()
        process.resume()
        assert process.wait(DEADLINE) == 0
    assert made.exists()


def test_the_parent_does_its_part(root: None, tmp_path: Path) -> None:
    """It may name things in the namespaces, set limits, and all is there for the program."""
    code = "hostname; ulimit -n; nice; cat /proc/self/oom_score_adj"
    with paused(["sh", "-c", code], stdout=-1, text=True, new="uts net") as process:
        joined = {"uts": process.namespaces["uts"]}
        nsext.run(["hostname", "by-the-parent"], join=joined, check=True)
        import resource

        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (77, 77))
        os.setpriority(os.PRIO_PROCESS, process.pid, 3)
        Path(f"/proc/{process.pid}/oom_score_adj").write_text("500")
        process.resume()
        told = process.communicate(timeout=DEADLINE)[0].split()
    assert told == ["by-the-parent", "77", "3", "500"]


def test_a_network_is_made_ready(root: None) -> None:
    """p.namespaces["net"].fileno() is what ip(8) and pyroute2 want."""
    command = ["ip", "-o", "link"]
    with paused(command, stdout=-1, text=True, new="net", loopback=False) as process:
        target = nsext.Fd(process.namespaces["net"].fileno())
        assert "state DOWN" in output(command, join=target)
        output(["ip", "link", "set", "lo", "mtu", "1234", "up"], join=target)
        process.resume()
        assert "LOOPBACK,UP" in (told := process.communicate(timeout=DEADLINE)[0])
        assert "mtu 1234" in told


def test_wait_and_communicate_are_errors() -> None:
    with paused(["cat"], stdin=-1, stdout=-1) as process:
        for call in (process.wait, process.communicate):
            for keywords in ({}, {"timeout": 0}):
                with pytest.raises(RuntimeError, match="paused"):
                    call(**keywords)
        assert process.poll() is None
        process.resume()
        assert process.communicate(b"x", timeout=DEADLINE)[0] == b"x"


def test_resume_twice_and_without_pause() -> None:
    with paused(["true"]) as process:
        process.resume()
        with pytest.raises(RuntimeError, match="not paused"):
            process.resume()
    with nsext.Popen(["true"]) as process:
        with pytest.raises(RuntimeError, match="not paused"):
            process.resume()


def test_two_at_a_time_in_any_order() -> None:
    with paused(["sh", "-c", "exit 1"]) as one, paused(["sh", "-c", "exit 2"]) as two:
        assert one.pid != two.pid
        two.resume()
        assert two.wait(DEADLINE) == 2
        one.resume()
        assert one.wait(DEADLINE) == 1


def test_it_costs_no_time_of_the_processor(root: None) -> None:
    """It waits on a futex, and looks after its parent twenty times a second."""
    with paused(["true"]) as process:
        wait_for(lambda: state_of(process.pid) == "S")
        before = _switches(process.pid)
        begin = time.monotonic()
        wait_for(lambda: _switches(process.pid) > before + 4, "it looks at all")
        assert time.monotonic() - begin > 0.1


def _switches(pid: int) -> int:
    return int(status(pid)["voluntary_ctxt_switches"])


# ---- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, stage, step",
    [
        ({"cwd": "/nonexistent"}, "cwd", "chdir to /nonexistent"),
        ({"process_group": 1}, "setup", "setpgid 1"),
        ({"affinity": [5000]}, "setup", None),
        ({"rlimits": {"nofile": (1 << 40, 1 << 40)}, "init": True}, "setup", None),
    ],
)
def test_a_set_up_that_fails_raises_in_the_constructor(
    fields: dict[str, Any], stage: str, step: str | None
) -> None:
    error = error_of(nsext.Popen, ["true"], paused=True, **fields)
    assert error.stage == stage and (step is None or error.step == step)


@pytest.mark.parametrize(
    "program, number, kind",
    [
        ("/nonexistent/program", errno.ENOENT, FileNotFoundError),
        ("/etc/passwd", errno.EACCES, PermissionError),
        ("/etc/passwd/x", errno.ENOTDIR, NotADirectoryError),
    ],
)
@shapes
def test_exec_fails_in_resume(
    fields: dict[str, Any], program: str, number: int, kind: type, root: None
) -> None:
    """And then nothing is left: reaped, with its descriptors closed."""
    with paused([program], **fields) as process:
        pid, program_pid = process.pid, process.program_pid
        with pytest.raises(kind) as caught:
            process.resume()
        error = caught.value
        assert isinstance(error, nsext.SpawnError) and error.stage == "exec"
        assert (error.errno, error.filename) == (number, program)
        assert state_of(pid) == ""
        gone(program_pid)  # it has left its memory, and may take a moment to be a zombie
        assert process.poll() is not None and process.wait() == process.returncode
        with pytest.raises(ValueError):
            process.fileno()
        del caught, error


def test_ids_that_cannot_be_had_raise_in_resume() -> None:
    """They change after the checkpoint."""
    as_user("""
    with nsext.Popen(["true"], user=0, extra_groups=[], paused=True) as p:
        try:
            p.resume()
        except nsext.SpawnError as error:
            assert error.errno == errno.EPERM and "groups" in error.step, error
        else:
            raise AssertionError("resumed")
    """)


def test_an_ordinary_user_in_a_joined_user_namespace() -> None:
    """The kernel lets it not look into that child from outside: the child shows itself."""
    as_user("""
    import asyncio
    def other_fds():
        return without_kept(open_fds())
    joins = "user pid mnt net"
    with running(new=joins, uid_map=[(0, os.getuid(), 1)]) as other:
        theirs = namespaces(other.pid)
        before = other_fds()
        def check(held, *apart):
            for kind, namespace in held.items():
                same = f"{kind}:[{namespace.id}]" == theirs.get(kind)
                assert same == (kind not in apart), kind
                namespace.close()
        with nsext.Popen(["true"], join=other, new="uts", hostname="x", paused=True) as p:
            try:
                os.readlink(f"/proc/{p.pid}/ns/net")
            except PermissionError:
                pass  # the reason for it all
            else:
                raise AssertionError("it may look")
            check(p.namespaces, "uts")
            p.root.close()
            p.resume()
        p = nsext.Popen(["true"], join={"user net": other}, new="mnt", hold="net mnt", init=True)
        p.wait()
        check(p.namespaces, "mnt")
        p.root.close()
        async def main():
            p = await nsext.create_subprocess_exec("true", join=other, hold="net")
            await p.wait()
            check(p.popen.namespaces)
        asyncio.run(main())
        for error in ("cwd='/nowhere'", "user=7"):
            keywords = eval(f"dict({error})")
            try:
                with nsext.Popen(["true"], join=other, hold="net", **keywords):
                    raise AssertionError("started")
            except nsext.SpawnError as failed:
                failed.__traceback__ = None
            except FileNotFoundError:
                pass
        assert other_fds() == before, (before, other_fds())
    """)


def test_spawn_timeout_counts_for_each_part() -> None:
    """Not for the time in between, which is the caller's."""
    with paused(["true"], spawn_timeout=0.3) as process:
        end = time.monotonic() + 0.4
        wait_for(lambda: time.monotonic() > end)
        process.resume()
        assert process.wait(DEADLINE) == 0


def test_killed_while_paused() -> None:
    with paused(["true"]) as process:
        os.kill(process.pid, signal.SIGKILL)
        assert ended(process.fileno())
        with pytest.raises(nsext.SpawnError, match="SIGKILL"):
            process.resume()
        assert state_of(process.pid) == ""


def test_a_signal_is_kept_for_the_program() -> None:
    """All are blocked until exec: none can end a child half set up, and none is lost."""
    with paused(["sleep", "1000"]) as process:
        process.send_signal(signal.SIGTERM)
        assert not ended(process.fileno(), 0.1)
        process.resume()
        assert process.wait(DEADLINE) == -signal.SIGTERM


# ---- nothing is left -------------------------------------------------------------------------


@shapes
def test_leaving_the_block(fields: dict[str, Any], root: None) -> None:
    before = other_fds()
    with paused(["true"], **fields) as process:
        pids = process.pid, process.program_pid
    assert state_of(pids[0]) == "" and process.returncode == -signal.SIGKILL
    gone(pids[1])
    assert other_fds() == before


def test_leaving_the_block_by_an_exception() -> None:
    with pytest.raises(ZeroDivisionError):
        with nsext.Popen(["cat"], stdin=-1, stdout=-1, paused=True) as process:
            1 / 0  # noqa: B018
    assert state_of(process.pid) == "" and process.stdin.closed
    process.namespaces.close()


@shapes
def test_dropping_it(fields: dict[str, Any], root: None) -> None:
    """It warns as subprocess does, and is killed: nobody is left who could resume it."""
    before = other_fds()
    process = nsext.Popen(["true"], paused=True, **fields)
    pids = process.pid, process.program_pid
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del process
        gc.collect()
    assert [item.category for item in caught] == [ResourceWarning]
    caught.clear()  # they hold their source
    assert state_of(pids[0]) == ""
    gone(pids[1])
    assert other_fds() == before


@pytest.mark.parametrize("method", ["kill", "terminate"])
@shapes
def test_ending_it(fields: dict[str, Any], method: str, root: None) -> None:
    with paused(["sleep", "1000"], **fields) as process:
        if method == "terminate" and "pid" not in fields.get("new", ""):
            process.terminate()  # for the program, when there is one
            process.resume()
            assert process.wait(DEADLINE) == -signal.SIGTERM
        else:
            process.kill()
            assert process.wait(DEADLINE) == -signal.SIGKILL
            with pytest.raises(RuntimeError):
                process.resume()


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)", "sys.exit(0)"])
def test_its_parent_dies(end: str) -> None:
    code = f"""
    import warnings
    warnings.simplefilter("ignore")
    pid = os.fork()
    if not pid:
        p = nsext.Popen(["sleep", "1000"], paused=True)
        q = nsext.Popen(["sleep", "1000"], paused=True, init=True, new="user pid mnt")
        print(p.pid, q.pid, q.program_pid, flush=True)
        {end}
    os.waitpid(pid, 0)
    """
    for word in script(code).split():
        gone(int(word), 1)


def test_ctrl_c_in_resume() -> None:
    """The child hangs in exec: KeyboardInterrupt, and it is gone."""
    script("""
    import faults
    from helping import HELPER_TEXT
    pids = []
    def answer(call):
        if call.name == "execve":
            pids.append(call.pid)
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            return faults.HANG
    # The filter is the main thread's: there the signal is handled.
    listener = faults.install(HELPER_TEXT)
    def supervise():
        while (call := faults.receive(listener)) is not None:
            if answer(call) != faults.HANG:
                faults.reply(listener, call)
    threading.Thread(target=supervise, daemon=True).start()
    p = nsext.Popen(["true"], paused=True)
    try:
        p.resume()
    except KeyboardInterrupt:
        assert pids == [p.pid] and not os.path.exists(f"/proc/{p.pid}")
        assert p.poll() is not None
        os._exit(0)
    os._exit(1)
    """)


# ---- hold= -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"init": True}, {"paused": True}])
def test_held_after_the_end(how: dict[str, Any], root: None) -> None:
    """/proc/PID/ns is gone with a zombie; what is held is not."""
    process = nsext.Popen(["hostname", "held"], new="uts net mnt", hold="uts net", **how)
    with process:
        if "paused" in how:
            process.resume()
    assert process.returncode == 0
    with process.namespaces as held:
        assert list(held) == ["uts", "net"]
        assert output(["hostname"], join={"uts": held["uts"]}) == "held"
        assert output(["hostname"], join=held) == "held"
        assert held["net"].kind == "net" and not held["net"].closed
    assert all(namespace.closed for namespace in held.values())


def test_without_hold_they_are_gone(root: None) -> None:
    with nsext.Popen(["true"], new="uts") as process:
        assert ended(process.fileno())
        with pytest.raises(ProcessLookupError):
            _ = process.namespaces
    with pytest.raises(ProcessLookupError):
        _ = process.namespaces


def test_opened_on_first_use() -> None:
    with running(new="user uts") as process:
        with process.namespaces as found:
            assert {kind: f"{kind}:[{held.id}]" for kind, held in found.items()} == {
                kind: ns_id(kind, process.pid) for kind in KINDS
            }
            assert process.namespaces is found


def test_hold_and_a_missing_program() -> None:
    before = other_fds()
    with pytest.raises(FileNotFoundError) as caught:
        nsext.Popen(["/nonexistent"], hold="net mnt", new="user")
    del caught
    gc.collect()
    assert other_fds() == before


@pytest.mark.parametrize("kinds", ["nonsense", "net nonsense"])
def test_hold_what(kinds: str) -> None:
    with pytest.raises(ValueError):
        nsext.Popen(["true"], hold=kinds)
    with pytest.raises(TypeError):
        nsext.Popen(["true"], hold=True)


def test_hold_takes_flags_too(root: None) -> None:
    with nsext.Popen(["true"], new="uts", hold=nsext.CloneFlags.NEWUTS) as process:
        with process.namespaces as found:
            assert list(found) == ["uts"]


def test_namespaces_keep_a_network_alive(root: None) -> None:
    """What its last process left is there as long as it is held."""
    command = ["ip", "link", "set", "lo", "mtu", "1234"]
    with nsext.Popen(command, new="net", hold="net") as process:
        pass
    with process.namespaces as held:
        assert "mtu 1234" in output(["ip", "-o", "link"], join=held)
        fd = held["net"].fileno()
        assert fcntl.ioctl(fd, 0xB703) == int(nsext.CloneFlags.NEWNET)  # NS_GET_NSTYPE
        assert not os.get_inheritable(fd)
