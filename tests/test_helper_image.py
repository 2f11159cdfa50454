"""The helper program: sealed, useless without a plan, and hard to break with a wrong one."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import signal
import struct
from pathlib import Path
from typing import Any

import pytest
import record
from helping import error_of, kept_fds, talking
from support import needs, output, script

import nsext
from nsext import _native
from nsext._helper import HELPER, helper


def test_the_image_is_sealed_and_kept_once() -> None:
    for _ in range(3):
        with talking(kill_on_parent_exit=True):
            pass
    images = [fd for fd, what in kept_fds().items() if "helper" in what]
    plans = [fd for fd, what in kept_fds().items() if "plan" in what]
    assert len(images) == 1 and 1 <= len(plans) <= 8
    assert fcntl.fcntl(images[0], fcntl.F_GET_SEALS) & 0xF == 0xF  # SEAL, SHRINK, GROW, WRITE
    assert os.pread(images[0], 1 << 20, 0) == Path(HELPER).read_bytes()
    for fd in images + plans:
        assert not os.get_inheritable(fd) and fd > 2
    with pytest.raises(PermissionError):
        os.pwrite(images[0], b"x", 0)


def test_a_paused_child_is_the_sealed_image() -> None:
    with nsext.Popen(["true"], paused=True) as process:
        with open(f"/proc/{process.pid}/exe", "rb") as exe:
            assert fcntl.fcntl(exe, fcntl.F_GET_SEALS) & 0xF == 0xF
        # Nobody writes to it through /proc/PID/exe, neither now nor later (CVE-2019-5736).
        with pytest.raises(OSError):
            os.open(f"/proc/{process.pid}/exe", os.O_WRONLY)


@pytest.mark.parametrize("args", [[], ["3"], ["x"], ["-1"], ["3", "4"], [""], ["99999999999"]])
def test_it_does_nothing_without_a_plan(args: list[str]) -> None:
    assert nsext.run([HELPER, *args]).returncode == 125


# After the record come flags, blob, argv, envp, argc, envc, execs, nexecs.


def _plan() -> bytes:
    """A plan that is being run, made fit to run again: its pointers are offsets again."""
    with nsext.Popen(["/bin/true"], paused=True) as process:
        for fd, what in kept_fds().items():
            data = bytearray(os.pread(fd, 1 << 16, 0))
            if "plan" in what and b"/bin/true" in data:
                break
        else:
            raise AssertionError("no plan")
    process.namespaces.close()
    data[: record.SIZE] = bytes(record.SIZE)
    struct.pack_into("=I", data, record.offset("ctid"), 1)
    _, _, argv, envp, argc, envc, execs, nexecs = struct.unpack_from("=8I", data, record.SIZE)
    (pointer,) = struct.unpack_from("=Q", data, argv)
    at = data.index(b"/bin/true\0")
    while (pointer - at) % 4096:
        at = data.index(b"/bin/true\0", at + 1)
    for array, count in ((argv, argc), (envp, envc), (execs, nexecs)):
        for offset in range(array, array + 8 * count, 8):
            (value,) = struct.unpack_from("=Q", data, offset)
            struct.pack_into("=Q", data, offset, value - (pointer - at))
    return bytes(data)


def _run_plan(data: bytes) -> int:
    """The helper over these bytes, in namespaces of its own and as nobody."""
    fd = os.memfd_create("plan", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        limits = {"core": 0, "cpu": 2}
        args = ["timeout", "-s", "KILL", "1", HELPER, str(fd)]
        new = "user pid mnt net ipc uts"
        # An init, since timeout as PID 1 takes its child for an orphan (coreutils 9.10).
        return nsext.run(
            args, new=new, init=True, uid_map="self", pass_fds=[fd], rlimits=limits
        ).returncode
    finally:
        os.close(fd)


FAULTS = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, 128 + 11, 128 + 7, 128 + 4}


def test_hostile_plans_are_refused(root: None) -> None:
    """Each word of the plan's head and of its steps, made wrong: an error, never a crash."""
    data = _plan()
    assert _run_plan(data) == 127  # the parent's pidfd is not there: as if it were dead
    size = len(data.rstrip(b"\0")) + 64
    generator = random.Random(7)
    results = []
    head = range(record.SIZE, 400, 4)
    for offset in head:
        for value in (0xFFFFFFFF, generator.randrange(1 << 32)):
            wrong = bytearray(data)
            struct.pack_into("=I", wrong, offset, value)
            results.append(_run_plan(bytes(wrong)))
    for _ in range(100):
        wrong = bytearray(data)
        for _ in range(generator.randrange(1, 6)):
            struct.pack_into("=I", wrong, generator.randrange(0, size, 4) & ~3, 1 << 31)
        results.append(_run_plan(bytes(wrong)))
    results += [_run_plan(data[:length]) for length in (0, 1, record.SIZE - 1, 100, 200, 300)]
    assert FAULTS.isdisjoint(results), results
    assert results.count(125) > 30


class _Owner:
    """Whose attributes the native spawn() sets."""

    pid, _pidfd, _handle = 0, -1, None


def _spawn(blob: bytes) -> Any:
    """The failure of a spawn of these steps."""
    arguments = (["true"], "true", None, (), True, None, helper(), (), None)
    return _native.spawn(blob, *arguments, _Owner())  # type: ignore[call-arg]


@pytest.mark.parametrize("step", [("setuid", 2**32 - 1), ("setgid", 2**32 - 1), ("setuid", 2**32)])
def test_ids_are_checked_in_c_too(step: Any, root: None) -> None:
    """-1 would be "unchanged" to setresuid(2), and 2**32 root."""
    steps = (("helper",), ("fds",), step, ("exec",))
    blob = _native.pack(0, steps, None, None)
    failure = _spawn(blob)
    assert failure is not None and failure[:3] == ("step", 2, errno.EINVAL)


@pytest.mark.parametrize(
    "steps",
    [
        (("setuid", 5), ("exec",)),  # inline: not there
        (("checkpoint",), ("exec",)),
        (("init", 0), ("exec",)),
        (("relay", 0, 0), ("exec",)),
    ],
)
def test_the_helpers_steps_do_not_run_inline(steps: Any, root: None) -> None:
    """A change of ids in the parent's memory would make the parent non-dumpable."""
    with pytest.raises(ValueError):
        _native.pack(0, steps, None, None)


@pytest.mark.parametrize("steps", [(("helper",), ("helper",), ("exec",)), (("exec",), ("fds",))])
def test_plans_that_are_none(steps: Any) -> None:
    with pytest.raises(ValueError):
        _spawn(_native.pack(0, steps, None, None))


def test_the_helper_is_missing(tmp_path: Path) -> None:
    """An error, and no other body in its place."""
    place = Path(nsext.__file__).parent
    shutil.copytree(place, tmp_path / "nsext", ignore=shutil.ignore_patterns("nsext-helper"))
    code = """
    error = failure(nsext.Popen, ["true"], kill_on_parent_exit=True)
    assert isinstance(error, nsext.UnsupportedError), repr(error)
    print(error.stage, nsext.run(["true"]).returncode)
    """
    assert script(code, package=tmp_path) == "plan 0"


def test_as_a_file_where_memfds_are_not_executed(root: None) -> None:
    """vm.memfd_noexec=2 in a pid namespace of its own: the file itself has to do."""
    needs(os.path.exists("/proc/sys/vm/memfd_noexec"), "needs Linux 6.3: vm.memfd_noexec")
    code = """
    from pathlib import Path
    Path("/proc/sys/vm/memfd_noexec").write_text("2")
    with nsext.Popen(["true"], paused=True) as p:
        print(os.readlink(f"/proc/{p.pid}/exe"))
    """
    assert script(code, new="pid mnt") == HELPER


def test_errors_leave_no_plan_behind() -> None:
    """64 failures and 64 starts: as many kept descriptors as before."""
    for _ in range(2):
        for _ in range(32):
            error_of(nsext.Popen, ["/nonexistent"], extra_groups=None, init=True)
            assert output(["echo", "x"], kill_on_parent_exit=True) == "x"
        assert len(kept_fds()) <= 9
