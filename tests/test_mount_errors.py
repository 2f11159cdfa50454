"""A system call of the mounts that fails is told as it is: not as another error, and not passed over.

Each of these has once been one or the other.  The sweep over all of them is test_mount_faults.py.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import pytest
from helping import HELPER_TEXT

import nsext
from nsext import Bind, Fd, SpawnError, Symlink, Tmpfs

ODD = errno.EXFULL  # no call of ours gives this by itself


def text_of(call: faults.Call, argument: int) -> bytes:
    """A path among the arguments of a call that waits for its answer."""
    with open(f"/proc/{call.pid}/mem", "rb", buffering=0) as memory:
        memory.seek(call.args[argument])
        return memory.read(256).partition(b"\0")[0]


def injected(answer: faults.Answer, **fields: Any) -> Any:
    """The error of a sandbox whose calls in the helper are answered so, or its return code."""
    faults.need(faults.can_inject(), "no seccomp listener (CAP_SYS_ADMIN, Linux 5.5)")
    fields.setdefault("new", "mnt")
    with faults.Injector(HELPER_TEXT) as injector:
        outcome = injector.run(lambda: nsext.run(["true"], **fields).returncode, answer)
    return outcome.error or outcome.value


def fails(condition: Callable[[faults.Call], Any], *, classic: bool = False) -> faults.Answer:
    """ODD for the first call of that kind; classic: and no openat2(2)."""
    done = []

    def answer(call: faults.Call) -> Any:
        if classic and call.name == "openat2":
            return errno.ENOSYS
        if not done and condition(call):
            done.append(call)
            return ODD
        return None

    return answer


def check(error: Any, step: str) -> None:
    assert isinstance(error, SpawnError), error
    assert (error.errno, error.stage, error.step) == (ODD, "setup", step), error


def test_proc_cannot_be_opened() -> None:
    answer = fails(lambda call: call.name == "openat" and text_of(call, 1) == b"/proc")
    check(injected(answer, mounts=[Tmpfs("/mnt")]), "open /proc")
    check(
        injected(fails(lambda call: call.name == "fstatfs"), mounts=[Tmpfs("/mnt")]), "open /proc"
    )


def test_a_proc_that_is_missing_is_none() -> None:
    for number in (errno.ENOENT, errno.ENOTDIR):

        def answer(call: faults.Call, number: int = number) -> Any:
            return number if call.name == "openat" and text_of(call, 1) == b"/proc" else None

        assert injected(answer, mounts=[Tmpfs("/mnt")]) == 0


def test_what_a_path_leads_to_cannot_be_looked_at(tmp_path: Path) -> None:
    """Whether it is a directory, that is; ENOTDIR would have been taken for an optional's."""
    # The directory on the way: each component is looked at once as what it may be, a link, and
    # once as what it is to be.
    seen: list[faults.Call] = []

    def second(call: faults.Call) -> bool:
        if call.name == "statx" and call.args[0] < 1 << 31 and text_of(call, 1) == b"":
            seen.append(call)
        return len(seen) == 2

    (tmp_path / "file").touch()
    source = Bind(tmp_path / "file", "/mnt", optional=True)
    check(injected(fails(second, classic=True), mounts=[source]), f"open {source.source}")


def test_a_link_cannot_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").touch()
    links: list[faults.Call] = []

    def after_link(call: faults.Call) -> bool:
        if call.name == "readlinkat":
            links.append(call)
        return bool(links) and call.name == "fstatfs"

    answer = fails(after_link, classic=True)
    mounts = [Bind(tmp_path / "link", "/mnt")]
    check(injected(answer, mounts=mounts), f"open {tmp_path}/link")


def test_a_link_that_exists_cannot_be_read() -> None:
    mounts = [Tmpfs("/mnt"), Symlink("a", "/mnt/link"), Symlink("a", "/mnt/link")]
    answer = fails(lambda call: call.name == "readlinkat")
    check(injected(answer, mounts=mounts), "make link /mnt/link to a")
    assert injected(faults.pass_all, mounts=mounts) == 0
    other = injected(faults.pass_all, mounts=[*mounts, Symlink("b", "/mnt/link")])
    assert other.errno == errno.EEXIST


def test_a_link_in_the_place_of_a_directory() -> None:
    mounts = [Tmpfs("/mnt"), nsext.Dir("/mnt/x"), Symlink("a", "/mnt/x")]
    error = injected(faults.pass_all, mounts=mounts)
    assert (error.errno, error.step) == (errno.EEXIST, "make link /mnt/x to a"), error


@pytest.mark.parametrize("name", ["geteuid", "getegid"])
def test_the_own_ids_cannot_be_asked_for(name: str) -> None:
    """They cannot fail but by a filter; a child that took that for an id would make nobody's."""
    calls: list[faults.Call] = []

    def after_begin(call: faults.Call) -> bool:
        if call.name == "prlimit64":
            calls.append(call)
        return len(calls) == 2 and call.name == name

    ids = [(0, 200000, 1000)]
    fields = {"new": "user mnt", "uid_map": ids, "gid_map": ids, "user": 0, "group": 0}
    error = injected(fails(after_begin), mounts=[Tmpfs("/mnt")], **fields)
    check(error, "make files as 0:0 where the own ids are not mapped")


def test_a_handed_descriptor_stays_open_in_the_program(tmp_path: Path) -> None:
    """Its flag cannot be set, and it is a way out of the sandbox."""
    held = os.open(tmp_path, os.O_PATH)
    calls: list[faults.Call] = []

    def after_begin(call: faults.Call) -> bool:
        if call.name == "prlimit64":
            calls.append(call)
        return len(calls) == 2 and call.name == "fcntl"

    try:
        error = injected(fails(after_begin), mounts=[Bind(Fd(held), "/mnt")])
        check(error, "open handed descriptor 0")
    finally:
        os.close(held)
