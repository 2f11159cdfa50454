"""Joins by every kind of caller: with threads, as PID 1, as nobody; nested owners; waiting."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from helping import children_of, error_of, other_fds, talking
from support import (
    DEADLINE,
    PRELUDE,
    as_user,
    namespaces,
    ns_id,
    output,
    python,
    running,
    script,
    status,
)

import nsext

# ---- trap 13, 14, 15 -------------------------------------------------------------------------


def test_the_caller_is_where_it_was_and_makes_threads(root: None) -> None:
    before, fds = namespaces(), other_fds()
    with running(new="user pid mnt time net") as other:
        nsext.run(["true"], join=other, check=True)
        error_of(nsext.Popen, ["true"], join=other, new="uts", process_group=1)
        script("""
        with running(new="user pid mnt time") as other:
            nsext.run(["true"], join=other, check=True)
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
            if not os.fork():
                os._exit(0)
            assert os.wait()[1] == 0
        """)
    assert (namespaces(), other_fds()) == (before, fds)


def test_the_caller_is_pid_1(root: None) -> None:
    """Trap 14: CLONE_PARENT is EINVAL from an init; the helper, which uses it, is none."""
    code = """
    assert os.getpid() == 1
    with running(new="pid mnt net uts", hostname="below") as other:
        assert output(["hostname"], join=other) == "below"
        done = nsext.run(["sh", "-c", "kill -TERM $$"], join=other, init=True)
        assert done.returncode == -15, done
        assert nsext.run(["true"], join={"net": other.pid}, new="pid").returncode == 0
        with nsext.Popen(["sleep", "1000"], join=other) as p:
            assert status(p.pid)["PPid"] == "1"
            p.kill()
        assert p.returncode == -9
    """
    script(code, new="pid mnt")
    script(code, new="user pid mnt")


@pytest.mark.parametrize("order", [0, 1])
def test_waiting_in_any_order(order: int, root: None) -> None:
    """Trap 15: the init of a namespace is reaped only after those in it: no deadlock."""
    other = nsext.Popen(["sleep", "1000"], new="pid mnt")
    process = nsext.Popen(["sleep", "1000"], join=other)
    other.kill()
    pair = [other, process][:: 1 if order else -1]
    if order:  # as it is the namespace's, it cannot end before the other has been reaped
        with pytest.raises(nsext.TimeoutExpired):
            other.wait(0.2)
        assert process.wait(DEADLINE) == -signal.SIGKILL
    assert [item.wait(DEADLINE) for item in pair] == [-signal.SIGKILL] * 2


# ---- who may ---------------------------------------------------------------------------------


def test_nested_user_namespaces(root: None) -> None:
    """A chain of owners: each outer one joins each inner one, whatever it owns."""
    code = """
    import json
    kinds = "user pid mnt net uts"
    with running(new=kinds) as inner:
        print(inner.pid, flush=True)
        sys.stdin.readline()
    """

    here = str(Path(__file__).parent)
    env = {**os.environ, "PYTHONPATH": f"{Path(nsext.__file__).parent.parent}:{here}"}
    args = [sys.executable, "-c", PRELUDE + "\n".join(line[4:] for line in code.splitlines())]
    for new in ("user", "user pid mnt", "user net"):
        with nsext.Popen(args, stdin=-1, stdout=-1, text=True, new=new, env=env) as outer:
            outer.stdout.readline()
            (inner,) = children_of(outer.pid)
            for target in (outer.pid, inner):
                theirs = namespaces(target)
                with talking(join=target) as process:
                    assert namespaces(process.pid) == theirs
                with talking(join={"user": target}) as process:
                    assert ns_id("user", process.pid) == theirs["user"]
            mixed = {"user": inner, "mnt": inner, "uts net": outer.pid}
            with talking(join=mixed) as process:
                assert ns_id("uts", process.pid) == ns_id("uts", outer.pid)
                assert ns_id("mnt", process.pid) == ns_id("mnt", inner)
            outer.communicate("\n", timeout=DEADLINE)


def test_an_ordinary_user_joins_its_own() -> None:
    """As its owner it may; as what it is mapped to there; and no others'."""
    as_user("""
    for uid_map in ("root", "self", 5):
        fields = dict(new="user pid mnt net uts ipc", uid_map=uid_map, gid_map=uid_map)
        with running(**fields) as other:
            with nsext.Popen(["cat"], stdin=-1, stdout=-1, bufsize=0, join=other) as p:
                p.stdin.write(b"x"); p.stdout.read(1)
                assert namespaces(p.pid) == namespaces(other.pid)
                assert status(p.pid)["Uid"].split() == [str(os.getuid())] * 4
            joins = {"user net": other.pid}
            with nsext.Popen(["cat"], stdin=-1, stdout=-1, bufsize=0, join=joins) as p:
                p.stdin.write(b"x"); p.stdout.read(1)
                assert ns_id("net", p.pid) == ns_id("net", other.pid)
            mixed = dict(join={"user": other.pid}, new="mnt uts", hostname="x")
            nsext.run(["true"], check=True, **mixed)
            # Without its user namespace: not allowed, and the error says what is missing.
            error = failure(nsext.Popen, ["true"], join={"net": other.pid})
            assert (error.errno, error.stage, error.step) == (
                errno.EPERM, "setup", "join net namespace"), error
            assert "join that, too" in error.hint and is_plain(error)
    error = failure(nsext.Popen, ["true"], join=1)
    assert error.errno in (errno.EACCES, errno.EPERM) and error.stage == "setup", error
    """)


def test_nobody_there_becomes_root_there(root: None) -> None:
    """Whose id is not mapped in the joined user namespace, as nsenter(1) does."""
    ranges = [(0, 100000, 65536)]
    fields: dict[str, Any] = {"new": "user mnt pid", "uid_map": ranges, "gid_map": ranges}
    with running(user=0, group=0, **fields) as other, talking(join=other) as process:
        found = status(process.pid)
        assert found["Uid"].split() == found["Gid"].split() == ["100000"] * 4
        assert found["Groups"] == "" and int(found["CapEff"], 16) != 0
    with running(**fields, user=7) as other, talking(join=other, user=9, group=8) as process:
        assert status(process.pid)["Uid"].split() == ["100009"] * 4


@pytest.mark.parametrize("how", ["pid", "pidfd", "namespace"])
def test_the_same_user_namespace(how: str, root: None) -> None:
    """setns(2) says EINVAL; nothing is to be done, and nothing is said."""
    with nsext.Namespace.of("self", "user") as own:
        pidfd = os.pidfd_open(os.getpid())
        target = {"pid": os.getpid(), "pidfd": nsext.Fd(pidfd), "namespace": own}[how]
        try:
            assert nsext.run(["true"], join={"user": target}).returncode == 0
            assert nsext.run(["true"], join=target).returncode == 0
        finally:
            os.close(pidfd)


def test_a_caller_with_threads(root: None) -> None:
    """setns(CLONE_NEWUSER) is EINVAL in one; the helper has none."""
    script("""
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    with running(new="user pid mnt time") as other:
        for _ in range(20):
            nsext.run(["true"], join=other, check=True)
    stop.set()
    """)


def test_it_works_from_a_program_without_stdio(root: None) -> None:
    """Trap 43: descriptors 0, 1 and 2 are closed, and stay so."""
    code = """
    for fd in (0, 1, 2):
        os.close(fd)
    with running(new="user pid mnt") as other:
        p = nsext.Popen(["sleep", "1000"], join=other)
        while status(p.pid)["State"][0] != "S":
            os.sched_yield()
        fds = open_fds(p.pid)
        p.kill(); p.wait()
    os._exit(0 if fds == {} else 3)
    """
    script(code)
    assert output(python("print('x')"), join=os.getpid()) == "x"
