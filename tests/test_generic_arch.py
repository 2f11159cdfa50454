"""The build for architectures without a trampoline: the C library's clone() and syscall()."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import needs, script

import nsext

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The parent of a copy of the package that was built with NSX_FORCE_GENERIC."""
    setuptools = subprocess.run([sys.executable, "-c", "import setuptools"], capture_output=True)
    needs(setuptools.returncode == 0, "needs setuptools")
    place = tmp_path_factory.mktemp("generic")
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    for source in (ROOT / "csrc", Path(nsext.__file__).parent):
        shutil.copytree(source, place / source.name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    flags = os.environ.get("CFLAGS", "") + " -DNSX_FORCE_GENERIC"
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "-i"],
        cwd=place,
        env={**os.environ, "CFLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert list((place / "nsext").glob("_native*.so"))
    return place


def check(package, code):
    script(f"assert nsext.__file__.startswith({str(package)!r})\n" + code, package=package)


def test_it_uses_no_trampoline(package):
    (file,) = (package / "nsext").glob("_native*.so")
    shown = subprocess.run(["nm", "-D", str(file)], capture_output=True, text=True).stdout
    assert " U clone" in shown and " U syscall" in shown


def test_every_namespace(package):
    check(
        package,
        """
for kind in (*KINDS, " ".join(KINDS)):
    for start in (nsext.spawn, nsext.Popen):
        with running(new=kind, start=start) as child:
            ours, its = namespaces(), namespaces(child.pid)
        made = {name for name in KINDS if ours[name] != its[name]}
        assert made == set(kind.split()), (kind, made)
""",
    )


def test_set_up(package):
    check(
        package,
        """
before = state()
shown = sh("id -u; uname -n; echo $$; echo /proc/[0-9]*", new="all", uid_map=5, hostname="generic")
assert shown.split() == ["5", "generic", "1", "/proc/1"], shown
reader, writer = os.pipe()
nsext.spawn(["sh", "-c", "echo x >&9"], fd_map={9: writer, 0: 1, 1: 0}).wait()
os.close(writer)
assert os.read(reader, 9) == b"x\\n"
os.close(reader)
with running() as child:
    assert int(status(child.pid)["SigIgn"], 16) & 0x1001000 == 0
    assert len(os.listdir(f"/proc/{child.pid}/fd")) == 3
assert not changes(before, state()), changes(before, state())
""",
    )


def test_signal_handlers_are_reset(package):
    check(
        package,
        """
signal.signal(signal.SIGUSR1, lambda *args: None)
with running() as child:
    assert int(status(child.pid)["SigCgt"], 16) == 0
    child.send_signal(signal.SIGUSR1)
    assert child.wait() == -signal.SIGUSR1
""",
    )


def test_errors(package):
    check(
        package,
        """
before = state()
for start in (nsext.spawn, nsext.Popen):
    error = failure(start, ["/no/such"])
    assert isinstance(error, FileNotFoundError) and error.stage == "exec"
    error = failure(start, ["true"], fd_map={9: 4000})
    assert (error.errno, error.stage) == (errno.EBADF, "setup") and is_plain(error)
assert not changes(before, state())
""",
    )


def test_ranges_are_refused_clearly(package):
    check(
        package,
        """
before = state()
for start in (nsext.spawn, nsext.Popen):
    error = failure(start, ["true"], new="user", uid_map=[(0, 0, 9)])
    assert isinstance(error, nsext.SpawnError) and error.errno == errno.ENOSYS, error
    assert error.stage == "idmap" and "architecture" in error.hint
assert not changes(before, state())
""",
    )


def test_clone(package):
    check(
        package,
        """
entry = ctypes.CDLL(None).abs
assert nsext.clone(entry, 42).wait() == 42
assert nsext.clone(entry, 42, new="pid uts time", hostname="x").wait() == 42
assert nsext.clone(1 << 12).wait() == -signal.SIGSEGV
""",
    )


def test_from_many_threads(package):
    check(
        package,
        """
wrong = []
def body(number):
    for turn in range(30):
        if nsext.spawn(["sh", "-c", f"exit {number}"]).wait() != number:
            wrong.append(number)
        error = failure(nsext.spawn, [f"/no/{number}"])
        if error.filename != f"/no/{number}" or error.errno != errno.ENOENT:
            wrong.append(error)
threads = [threading.Thread(target=body, args=(number,)) for number in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not wrong, wrong
""",
    )
