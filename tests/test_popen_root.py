"""Popen.root: the child's root for its parent, from before the program starts until it is closed."""

import errno
import fcntl
import gc
import os
import signal

import pytest
from helping import state_of, wait_for
from support import as_user, open_fds, script, without_kept

import nsext
from nsext import Bind, File, Overlay, Root, Tmpfs, open_in

LINKS = [nsext.Symlink(f"usr/{name}", f"/{name}") for name in ("bin", "lib", "lib64")]
USR = [Bind("/usr"), *LINKS]
FILLED = [*USR, Tmpfs("/out"), Tmpfs("/out/below"), File("/out/below/early", "early\n")]


@pytest.fixture(autouse=True)
def collected(guard):
    """An exception's frames have their Popen, and that what it holds, until they are collected."""
    yield
    gc.collect()


def start(command, **fields):
    fields.setdefault("new", "user pid mnt")
    fields.setdefault("root", Tmpfs())
    fields.setdefault("mounts", FILLED)
    return nsext.Popen(["/bin/sh", "-ec", command], **fields)


def read(where, path):
    with open_in(where, path, "r") as file:
        return file.read()


def namespaces_held():
    """The descriptors of mount namespaces that this process has open."""
    return sorted(fd for fd, what in open_fds().items() if what.startswith("mnt:["))


def place(fd):
    status = os.stat(fd)
    return status.st_dev, status.st_ino


def test_it_is_there_before_the_program():
    with start(
        "cat /out/below/early; echo late >/out/below/late", stdout=-1, paused=True
    ) as process:
        root = process.root
        assert place(root.fileno()) == place(f"/proc/{process.pid}/root")
        assert read(root, "/out/below/early") == "early\n"
        assert not os.path.exists("/out/below")
        with pytest.raises(FileNotFoundError):
            open_in(root, "/out/below/late")
        # What the parent makes there is what the program finds.
        with open_in(root, "/out/below/early", "w") as file:
            file.write("changed\n")
        process.resume()
        assert process.stdout.read() == b"changed\n"
        assert process.wait() == 0
        assert process.root is root and read(root, "/out/below/late") == "late\n"
    root.close()


def test_a_program_that_goes_elsewhere_does_not_take_it_along():
    """It was taken before: chroot(2) of the program's, and its own mount namespace, change nothing."""
    code = "mkdir /out/cage; exec unshare --mount chroot /out/cage /nothing"
    with start(f"({code}) 2>/dev/null || echo done >/out/done; exec sleep 1000") as process:
        root = process.root
        try:
            while not os.path.exists(f"/proc/self/fd/{root.fileno()}/out/done"):
                assert process.poll() is None
            assert read(root, "/out/done") == "done\n"
            with open_in(root, "/") as top:
                names = {"bin", "lib", "lib64", "out", "proc", "usr"}
                assert set(os.listdir(top.fileno())) == names
        finally:
            process.kill()
    root.close()


@pytest.mark.parametrize("end", ["exits", "is killed", "as an init's program", "without a wait"])
def test_it_outlives_the_program(end):
    command = "echo x >/out/below/x; mkdir /out/dir; ln -s /out/below/x /out/link"
    command += "; exec sleep 1000" if end == "is killed" else ""
    process = start(command, init=end == "as an init's program")
    if end == "is killed":
        while not os.path.lexists(f"/proc/self/fd/{process.root.fileno()}/out/link"):
            assert process.poll() is None
        process.kill()
    if end == "without a wait":
        os.waitid(os.P_PIDFD, process.fileno(), os.WEXITED | os.WNOWAIT)
    else:
        assert process.wait(10) == (-9 if end == "is killed" else 0)
    # The mounts below are there, which the namespace holds.
    assert read(process, "/out/below/x") == read(process, "/out/link") == "x\n"
    with open_in(process, "/out") as directory:
        assert sorted(os.listdir(directory.fileno())) == ["below", "dir", "link"]
    with process, process.root as root:
        assert read(root, "/out/below/early") == "early\n"
    assert root.closed and process.root is root


def test_without_the_namespace_the_mounts_below_are_gone():
    """Why it holds more than the directory."""
    with start("echo x >/out/below/x") as process:
        alone = os.open(f"/proc/{process.pid}/root", os.O_PATH) if process.poll() is None else None
        alone = os.dup(process.root.fileno()) if alone is None else alone
        process.wait()
        try:
            assert os.path.exists(f"/proc/self/fd/{alone}/out/below/x")
            process.root.close()
            assert not os.path.exists(f"/proc/self/fd/{alone}/out/below/x")
        finally:
            os.close(alone)


def test_of_an_overlay_and_of_a_directory(tmp_path):
    lower = tmp_path / "lower"
    for name in ("usr", "proc", "out"):
        (lower / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (lower / name).symlink_to(f"usr/{name}")
    for root in (Overlay(lower=lower), Bind(lower, readonly=False)):
        with start("echo x >/out/x", root=root, mounts=[Bind("/usr")]) as process:
            assert process.wait() == 0
            assert read(process, "/out/x") == "x\n"
            process.root.close()
        assert (lower / "out/x").exists() == isinstance(root, Bind)


def test_none_without_a_root():
    for fields in (
        {},
        {"new": "user"},
        {"new": "user mnt", "mounts": [Tmpfs("/mnt")]},
        {"new": "user net", "hold": "net"},
        {"new": "user pid mnt", "init": True},
    ):
        with nsext.Popen(["true"], **fields) as process:
            assert process.root is None
            process.wait()
            assert process.root is None
            with pytest.raises(ValueError, match="was not kept"):
                open_in(process, "/etc")
    with nsext.spawn(["true"]) as process:
        assert not hasattr(process, "root")


def test_with_hold_and_where_it_was_asked_for_while_paused():
    for fields, asks in (
        ({"hold": "mnt"}, False),
        ({"paused": True}, True),
        ({"paused": True}, False),
    ):
        with nsext.Popen(["true"], new="user mnt", mounts=[Tmpfs("/mnt")], **fields) as process:
            if "paused" in fields:
                if asks:
                    assert isinstance(process.root, Root)
                process.resume()
            process.wait()
            assert (process.root is None) == ("paused" in fields and not asks)
            if process.root is not None:
                with open_in(process, "/mnt") as empty:
                    assert os.listdir(empty.fileno()) == []
                process.root.close()


def test_run_keeps_none():
    before = without_kept(open_fds())
    done = nsext.run(["/bin/true"], new="user pid mnt", root=Tmpfs(), mounts=USR)
    assert done.returncode == 0 and not hasattr(done, "root")
    assert without_kept(open_fds()) == before


def test_its_descriptor():
    with start("exec sleep 1000", paused=True) as process:
        fd = process.root.fileno()
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        assert os.readlink(f"/proc/self/fd/{fd}") == "/"
        assert str(fd) in repr(process.root) and not process.root.closed
        with pytest.raises(TypeError, match="pickled"):
            __import__("pickle").dumps(process.root)
        process.kill()
    process.root.close()
    assert "closed" in repr(process.root)


def test_it_is_closed_once():
    before = without_kept(open_fds())
    process = start("exec true")
    root = process.root
    fd, held = root.fileno(), namespaces_held()
    assert held
    process.wait()
    root.close()
    assert root.closed and namespaces_held() == []
    # Whoever has the number now keeps it.
    other = os.open("/", os.O_PATH)
    assert os.dup2(other, fd) == fd
    try:
        root.close()
        root.__exit__(None, None, None)
        process.__exit__(None, None, None)
        del root, process
        gc.collect()
        assert place(fd) == place("/")
    finally:
        os.close(fd)
        if other != fd:
            os.close(other)
    assert without_kept(open_fds()) == before


def test_a_closed_one_stays_closed():
    with start("exec true") as process:
        process.root.close()
        process.wait()
        assert process.root.closed
        for use in (
            process.root.fileno,
            lambda: open_in(process, "/"),
            lambda: open_in(process.root, "/"),
        ):
            with pytest.raises(ValueError, match="closed"):
                use()


def test_it_goes_with_its_popen():
    before = without_kept(open_fds())
    process = start("exec true")
    process.wait()
    assert len(without_kept(open_fds())) > len(before)
    del process
    gc.collect()
    assert without_kept(open_fds()) == before


@pytest.mark.parametrize("paused", [True, False])
def test_nothing_is_left_where_the_program_is_missing(paused):
    before = without_kept(open_fds())
    fields = {"new": "user pid mnt", "root": Tmpfs(), "mounts": USR, "paused": paused}
    with pytest.raises(FileNotFoundError) as caught:
        process = nsext.Popen(["/nothing"], **fields)
        assert paused
        try:
            process.resume()
        finally:
            root = process.root
            process.wait()
    assert caught.value.filename == "/nothing"
    del caught
    if paused:
        root.close()
        del root, process
    gc.collect()
    assert without_kept(open_fds()) == before


BY_SCRIPT = """
from nsext import *
links = [Symlink(f"usr/{name}", f"/{name}") for name in ("bin", "lib", "lib64")]
mounts = [Bind("/usr"), *links, Tmpfs("/out")]
for fd in (0, 1):
    os.close(fd)
for fields in ({}, {"paused": True}, {"init": True}):
    with Popen(["/bin/sh", "-c", "echo x >/out/x"], new="user pid mnt", root=Tmpfs(),
               mounts=mounts, stdin=DEVNULL, stdout=DEVNULL, **fields) as process:
        assert process.root.fileno() > 2, process.root
        if "paused" in fields:
            process.resume()
        assert process.wait() == 0
        with open_in(process, "/out/x") as file:
            assert file.read() == b"x\\n"
        process.root.close()
        for fd in (0, 1):
            try:
                raise AssertionError(os.fstat(fd))
            except OSError as error:
                assert error.errno == errno.EBADF
"""


@pytest.mark.parametrize("dead", ["Z", "killed"])
@pytest.mark.parametrize("hold", ["", "mnt"])
def test_killed_while_it_is_opened(monkeypatch, hold, dead):
    """That is what there is to say, and not what /proc lacks."""
    from nsext import _checkpoint

    real, before = _checkpoint.Root._of, without_kept(open_fds())

    def killed(pid, namespace):
        os.kill(pid, signal.SIGKILL)
        if dead == "Z":
            wait_for(lambda: state_of(pid) == "Z")
        return real(pid, namespace)

    monkeypatch.setattr(_checkpoint.Root, "_of", killed)
    with pytest.raises(nsext.SpawnError, match="SIGKILL") as caught:
        nsext.Popen(["true"], new="mnt", root=Tmpfs(), mounts=USR, hold=hold)
    assert caught.value.errno == errno.ECHILD
    assert without_kept(open_fds()) == before


def test_standard_descriptors_are_not_taken():
    script(BY_SCRIPT)


def test_of_an_ordinary_user():
    """Who may not look at a process that has joined a user namespace is shown it."""
    as_user(BY_SCRIPT)
