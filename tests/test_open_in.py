"""open_in() and Root: collecting what a sandbox has made, which is nobody's friend."""

import errno
import os
import pickle

import pytest

import nsext
from nsext import File, Root, Symlink, Tmpfs, open_in

HOSTILE = """
mkdir /out/dir /out/closed
echo x >/out/dir/file
echo result >/out/result
ln -s /etc/secret /out/absolute
ln -s ../../../../../etc/secret /out/relative
ln -s /proc/self/root/etc/secret /out/magic
ln -s loop /out/loop
mkfifo /out/fifo
chmod 0 /out/closed
"""


@pytest.fixture(scope="module")
def box():
    """A program that has ended, and left this."""
    mounts = [*nsext.hostlike(etc=False), Tmpfs("/out"), File("/etc/secret", "inside\n")]
    process = nsext.Popen(["sh", "-ec", HOSTILE], new="user pid mnt", root=Tmpfs(), mounts=mounts)
    assert process.wait() == 0
    with process.root:
        yield process


def read(where, path, **keywords):
    with open_in(where, path, **keywords) as file:
        return file.read()


def test_files(box):
    assert read(box, "/out/result") == read(box, "out/result") == b"result\n"
    assert read(box.root, b"/out/result", mode="r") == "result\n"
    assert read(box.root.fileno(), "/out/dir/../result", mode="r", encoding="ascii") == "result\n"


def test_links_lead_to_what_they_are_inside(box):
    assert read(box, "/out/absolute") == read(box, "/out/relative") == b"inside\n"
    with pytest.raises(OSError) as caught:
        open_in(box, "/out/magic")
    assert caught.value.errno in (errno.ENOENT, errno.ELOOP)
    with pytest.raises(OSError) as caught:
        open_in(box, "/out/loop")
    assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, "/out/loop")


def test_a_directory_is_a_root_to_list_and_to_open_in(box):
    with open_in(box, "/out/dir") as directory:
        assert isinstance(directory, Root)
        assert os.listdir(directory.fileno()) == ["file"]
        assert not os.get_inheritable(directory.fileno())
        assert read(directory, "file") == read(directory, "/../../file") == b"x\n"
    assert directory.closed
    with pytest.raises(ValueError, match="closed"):
        open_in(directory, "file")
    for mode in ("w", "r+", "a", "x"):
        with pytest.raises((IsADirectoryError, FileExistsError)):
            open_in(box, "/out/dir", mode)


def test_nothing_blocks_and_no_device_is_opened(box):
    for path in ("/out/fifo", "/dev/null", "/dev/ptmx"):
        with pytest.raises(OSError, match="neither a regular file nor a directory") as caught:
            open_in(box, path)
        assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, path)
    assert read(box, "/out/fifo", any_type=True) == b""  # nobody writes
    with pytest.raises(OSError) as caught:
        open_in(box, "/out/fifo", "wb", any_type=True)
    assert (caught.value.errno, caught.value.filename) == (errno.ENXIO, "/out/fifo")


def test_files_are_made_and_changed_inside(box):
    with open_in(box, "/out/new", "x") as file:
        file.write("one")
    with pytest.raises(FileExistsError):
        open_in(box, "/out/new", "x")
    with open_in(box, "/out/new", "a") as file:
        file.write(" two")
    assert read(box, "/out/new", mode="r") == "one two"
    with pytest.raises(OSError) as caught:
        open_in(box, "/usr/new", "w")
    assert (caught.value.errno, caught.value.filename) == (errno.EROFS, "/usr/new")
    assert not os.path.exists("/usr/new")


def test_what_is_no_path_or_no_root(box):
    for path in ("/nowhere", ""):
        with pytest.raises(FileNotFoundError) as caught:
            open_in(box, path)
        assert caught.value.filename == path
    with pytest.raises(ValueError, match="null"):
        open_in(box, "a\0b")
    with pytest.raises(TypeError, match="not str"):
        open_in("/tmp", "x")
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(box.root)
    with nsext.Popen(["true"], new="user mnt") as process:
        process.wait()
        with pytest.raises(ValueError, match="hold='mnt'"):
            open_in(process, "/etc")


def test_the_mounts_are_held_too():
    """Without the mount namespace the tmpfs would be gone with the program."""
    mounts = [Tmpfs("/mnt"), File("/mnt/file", "kept"), Symlink("/mnt/file", "/mnt/link")]
    with nsext.Popen(["true"], new="user mnt", mounts=mounts, hold="mnt") as process:
        process.wait()
        with process.root:
            assert read(process, "/mnt/link") == b"kept"
    assert not os.path.exists("/mnt/file")
