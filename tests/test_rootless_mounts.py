"""What the kernel does not let a user namespace mount: refused before, or told with its reason."""

import errno
import subprocess
from pathlib import Path

import pytest
from support import as_user, failure, needs

import nsext
from nsext import Bind, Mount, Mqueue, Proc, Sandbox, Sysfs, Tmpfs, _mounts


@pytest.mark.parametrize(
    "spec, words",
    [
        (Bind("/usr", "/mnt", idmap=[(0, 1000, 1)]), "idmap needs CAP_SYS_ADMIN"),
        (Mount("ext4", "/dev/sda1", "/mnt"), "no user namespace mount ext4"),
        (Mount("proc", "proc", "/mnt"), "add 'pid' to new="),
        (Mount("mqueue", "mqueue", "/mnt"), "add 'ipc' to new="),
        (Mount("cgroup2", "none", "/mnt"), "add 'cgroup' to new="),
        (Proc(), "add 'pid' to new="),
        (Sysfs(), "add 'net' to new="),
        (Mqueue(), "add 'ipc' to new="),
    ],
)
def test_refused_when_it_is_described(spec, words):
    with pytest.raises(ValueError, match=words):
        Sandbox(new="user mnt", mounts=[spec])
    Sandbox(new="mnt", mounts=[spec])


def test_as_a_root_too():
    with pytest.raises(ValueError, match="no user namespace mount xfs"):
        Sandbox(new="user mnt", root=Mount("xfs", "/dev/sda1", "/"))
    with pytest.raises(ValueError, match="idmap needs CAP_SYS_ADMIN"):
        Sandbox(new="user mnt", root=Bind("/srv", idmap=[(0, 1000, 1)]))


def test_what_is_refused_the_kernel_refuses(monkeypatch):
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    refused = _mounts._NOT_IN_USER & known
    assert refused
    monkeypatch.setattr(_mounts, "_NOT_IN_USER", frozenset())
    monkeypatch.setattr(_mounts, "_BESIDE", {})
    for fstype in sorted(refused | ({"proc", "sysfs", "mqueue", "cgroup2"} & known)):
        spec = Mount(fstype, "none", "/mnt")
        error = failure(nsext.run, ["true"], new="user mnt", mounts=[spec], proc=False, cwd="/")
        assert error.errno == errno.EPERM, (fstype, error)


def test_reasons_for_an_ordinary_user():
    as_user(
        """
        import tempfile
        from nsext import *

        def fails(number, words, *mounts, **fields):
            error = failure(
                nsext.run, ["true"], new="user pid mnt", cwd="/", mounts=mounts, **fields
            )
            assert error.errno == number and words in (error.hint or ""), error
            return error

        place = tempfile.mkdtemp()
        for name in ("lower", "lower/closed", "upper", "work"):
            os.mkdir(f"{place}/{name}")
        # Nothing may be made below what is somebody else's.
        fails(errno.EACCES, "does not know", Overlay("/mnt", lower="/usr"), Dir("/mnt/bin/x"))
        fails(errno.EACCES, "does not know", Overlay("/mnt", lower="/usr"), Tmpfs("/mnt/bin/x"))
        # The kernel would have made these read-only without a word.
        error = fails(errno.EROFS, "cannot be written",
                      Overlay("/mnt", lower=place, upper="/usr/share", work="/usr/bin"))
        assert error.step.startswith(f"overlay {place} on /mnt"), error.step
        fails(errno.EROFS, "make it before", Tmpfs("/mnt"), ReadOnly("/mnt"), Dir("/mnt/x"))
        fails(errno.EINVAL, "mounted below", Bind("/dev", "/mnt", recursive=False))
        fails(errno.EINVAL, "may not look", root=Overlay(lower="/", recursive=True))
        fails(errno.EBUSY, "none of it", Overlay("/mnt", lower="/dev"))
        fails(errno.ENOENT, "optional=True", ReadOnly("/nowhere"))
        fails(errno.ENOENT, "optional=True", Mask("/nowhere"))
        fails(errno.ENOENT, "root=Tmpfs()", Bind(place, "/nowhere"))
        if not os.access("/root", os.X_OK):
            fails(errno.EACCES, "by the caller", Bind("/root/x", "/mnt"))
        """
    )


def test_a_writable_overlay_is_still_one():
    overlay = "mount -t overlay -o lowerdir=/usr/share:/usr/lib none /mnt"
    mounted = subprocess.run(["unshare", "-Urm", "sh", "-c", overlay], stderr=subprocess.DEVNULL)
    needs(mounted.returncode == 0, "needs overlayfs in user namespaces, Linux 5.11")
    done = nsext.run(
        ["sh", "-c", "touch /mnt/x"],
        new="user mnt",
        mounts=[nsext.Overlay("/mnt", lower="/usr/share"), Tmpfs("/srv")],
        cwd="/",
    )
    assert done.returncode == 0
