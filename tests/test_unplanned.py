"""Nothing was cloned: a plan, or the helper for it, is not to be had.  And where it is after all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support import needs, script

import nsext
from nsext._helper import HELPER

TIED = "kill_on_parent_exit=True"
PRELUDE = """
def refused(number, step, hint, **fields):
    "The error of a spawn that comes to no clone."
    before = state()
    error = failure(nsext.spawn, ["true"], **fields)
    assert (error.stage, error.step, error.errno) == ("plan", step, number), repr(error)
    assert is_plain(error) and (hint or "") in (error.hint or ""), error.hint
    assert changes(before, state()) == {}
    return error
def images():
    return [fd for fd, what in open_fds().items() if "nsext-helper" in what]
"""


@pytest.mark.parametrize("fields", [TIED, "init=True", "oom_score_adj=0", "extra_groups=None"])
def test_descriptors_run_out(fields: str) -> None:
    """From none left: the plan's, the helper's, then pidfds, each with its name; nothing leaks."""
    body = "inline" if "None" in fields else "helper"
    script(
        PRELUDE
        + f"""
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    seen = []
    for limit in range(lowest, lowest + 9):
        before = state()
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            seen.append(nsext.spawn(["true"], {fields}).wait())
        except nsext.SpawnError as error:
            assert error.errno == errno.EMFILE and is_plain(error), repr(error)
            assert error.hint == "no file descriptor is left: raise RLIMIT_NOFILE", error.hint
            seen.append((error.stage, error.step))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert changes(before, state()) == {{}}
    plans = [("plan", "make the plan"), ("plan", "start the helper")]
    wanted = plans * ({body!r} == "helper") + [("clone", "clone"), 0]
    assert [one for i, one in enumerate(seen) if one not in seen[:i]] == wanted, seen
    """
    )


@pytest.mark.parametrize(
    "number, hint",
    [(24, "raise RLIMIT_NOFILE"), (23, "fs.file-max"), (12, None)],
    ids=["EMFILE", "ENFILE", "ENOMEM"],
)
def test_no_memfd(number: int, hint: str | None) -> None:
    """For the plan; for the image; and for a plan that has to grow."""
    script(
        PRELUDE
        + f"""
    assert nsext.spawn(["true"], {TIED}).wait() == 0
    os.close(*images())  # by somebody who closes all that he does not know
    refuse(memfd_create={number})
    refused({number}, "start the helper", {hint!r}, {TIED})
    assert images() == []
    large = {{str(n): "x" * 1000 for n in range(100)}}
    refused({number}, "make the plan", {hint!r}, env=large, {TIED})
    for fd in [fd for fd, what in open_fds().items() if "nsext-plan" in what]:
        os.close(fd)
    refused({number}, "make the plan", {hint!r}, {TIED})
    error = failure(nsext.Popen, ["true"], paused=True, stdin=nsext.PIPE)
    assert (error.stage, error.errno) == ("plan", {number})
    assert nsext.spawn(["true"], env=large).wait() == 0  # inline needs none
    """
    )


def test_the_image_is_never_the_file_for_want_of_a_descriptor() -> None:
    """Its file can be written to: a memfd it is, when there is room for one."""
    script(
        PRELUDE
        + f"""
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert nsext.spawn(["true"], {TIED}).wait() == 0
    os.close(*images())
    lowest = os.dup(0)
    os.close(lowest)
    for room in range(4):
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + room, hard))
        try:
            nsext.spawn(["true"], {TIED}).wait()
        except nsext.SpawnError:
            pass
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert all(open_fds()[fd].startswith("/memfd:") for fd in images()), open_fds()
    assert len(images()) == 1
    """
    )


# ---- another root ----------------------------------------------------------------------------


@pytest.fixture
def other_root(public: Path) -> str:
    """A directory with nothing in it but a static program that does as cat(1)."""
    shutil.copy(HELPER, public / "cat")
    return str(public)


IN_ANOTHER_ROOT = """
own_mounts()
os.chroot(sys.argv[1])
os.chdir("/")
def says(start=nsext.Popen, **fields):
    with start(["/cat", "-"], stdin=nsext.PIPE, stdout=nsext.PIPE, **fields) as p:
        if fields.get("paused"):
            p.resume()
        return p.body, p.communicate(b"x", timeout=DEADLINE)[0], p.returncode
"""


@pytest.mark.parametrize("first", ["", "nsext.spawn(['true'], kill_on_parent_exit=True).wait()"])
def test_a_caller_that_has_entered_another_root(first: str, other_root: str, root: None) -> None:
    """The helper was read with the package, whether it has been used by then or not."""
    script(
        first
        + IN_ANOTHER_ROOT
        + """
for fields in ({"kill_on_parent_exit": True}, {"init": True}, {"user": 5}, {"extra_groups": []},
               {"init": True, "new": "pid uts", "hostname": "x"}):
    assert says(**fields) == ("helper", b"x", 0), fields
assert says() == ("inline", b"x", 0)
error = failure(says, paused=True)  # whose namespaces are to be shown
assert is_plain(error) and error.hint == "/proc is not mounted", (error, error.hint)
with open(nsext.pidfd_open(os.getpid())) as pidfd:
    error = failure(says, join={"uts net": pidfd, "user": pidfd})
    assert is_plain(error) and error.hint == "/proc is not mounted", (error, error.hint)
os.mkdir("/proc")
mount("proc", "/proc", "proc")
assert says(paused=True) == ("helper", b"x", 0)
""",
        other_root,
    )


def test_another_root_where_memfds_are_not_executed(other_root: str, root: None) -> None:
    """vm.memfd_noexec=2: the file would do, and is not to be reached.  The error says so."""
    needs(Path("/proc/sys/vm/memfd_noexec").exists(), "needs Linux 6.3: vm.memfd_noexec")
    script(
        """
from pathlib import Path
Path("/proc/sys/vm/memfd_noexec").write_text("2")
"""
        + IN_ANOTHER_ROOT
        + """
error = failure(says, kill_on_parent_exit=True)
assert is_plain(error), repr(error)
assert (error.stage, error.step, error.errno) == ("plan", "start the helper", errno.ENOENT)
assert "vm.memfd_noexec=2" in error.hint and "another root" in error.hint, error.hint
assert says() == ("inline", b"x", 0)
""",
        other_root,
        new="pid mnt",
    )


def test_a_package_that_was_upgraded_or_removed(tmp_path: Path) -> None:
    """The helper is the one of this package's plans, not what lies in its place by now."""
    shutil.copytree(Path(nsext.__file__).parent, tmp_path / "nsext")
    code = """
    from pathlib import Path
    file = Path(nsext.__file__).parent / "nsext-helper"
    file.unlink()
    file.write_text("#!/bin/sh\\nexit 77\\n")
    file.chmod(0o755)
    assert nsext.run(["true"], init=True).returncode == 0
    assert nsext.run(["sh", "-c", "exit 5"], kill_on_parent_exit=True).returncode == 5
    """
    script(code, package=tmp_path)
