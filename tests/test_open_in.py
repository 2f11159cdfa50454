"""open_in() and Root: collecting what a sandbox has made, which is nobody's friend."""

import errno
import os
import pickle

import pytest

import nsext
from nsext import File, Root, Symlink, Tmpfs, _native, _root, open_in

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


class Meanwhile:
    """The core, but somebody does something as soon as a file has been found missing."""

    def __init__(self, *acts):
        self.acts = list(acts)

    def resolve(self, *args):
        try:
            return _native.resolve(*args)
        except FileNotFoundError:
            if self.acts:
                self.acts.pop(0)()
            raise


@pytest.fixture
def held(tmp_path):
    """A directory of the host's, as a root; a file beside it that is nobody's business."""
    (tmp_path / "root").mkdir()
    (tmp_path / "victim").write_text("untouched")
    with Root(os.open(tmp_path / "root", os.O_PATH)) as root:
        yield root, tmp_path
    assert (tmp_path / "victim").read_text() == "untouched"


@pytest.mark.parametrize("mode", ["wb", "w+b", "ab", "a+b"])
def test_a_fifo_that_appears_meanwhile(held, mode, monkeypatch):
    root, place = held
    fifo = place / "root" / "result"
    monkeypatch.setattr(_root, "_native", Meanwhile(lambda: os.mkfifo(fifo)))
    with pytest.raises(OSError, match="neither a regular file nor a directory") as caught:
        open_in(root, "/result", mode)
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, "/result")


def test_a_file_that_appears_meanwhile(held, monkeypatch):
    root, place = held
    file = place / "root" / "result"
    monkeypatch.setattr(_root, "_native", Meanwhile(lambda: file.write_text("longer than ours")))
    with open_in(root, "/result", "w") as result:
        result.write("ours")
    assert file.read_text() == "ours"
    file.unlink()
    monkeypatch.setattr(_root, "_native", Meanwhile(lambda: file.write_text("theirs")))
    with pytest.raises(FileExistsError):
        open_in(root, "/result", "x")
    assert file.read_text() == "theirs"


def test_a_link_that_appears_meanwhile(held, monkeypatch):
    root, place = held
    link = place / "root" / "result"
    monkeypatch.setattr(_root, "_native", Meanwhile(lambda: link.symlink_to("../victim")))
    with open_in(root, "/result", "w") as result:
        result.write("ours")
    assert (place / "root" / "victim").read_text() == "ours"  # where it leads to inside


def test_a_fifo_at_the_end_of_a_link(held, monkeypatch):
    """It comes after the second look, so that what was opened has to be looked at."""
    root, place = held
    (place / "root" / "result").symlink_to("/end")
    acts = Meanwhile(int, lambda: os.mkfifo(place / "root" / "end"))
    monkeypatch.setattr(_root, "_native", acts)
    with pytest.raises(OSError, match="neither a regular file nor a directory") as caught:
        open_in(root, "/result", "w+b", buffering=0)
    assert not acts.acts and caught.value.filename == "/result"
    (place / "root" / "end").unlink()
    monkeypatch.setattr(_root, "_native", Meanwhile())
    with open_in(root, "/result", "w") as result:
        result.write("made")
    assert (place / "root" / "end").read_text() == "made"
    with open_in(root, "/result", "w") as result:
        result.write("x")
    assert (place / "root" / "end").read_text() == "x"


def test_a_file_that_comes_and_goes(held, monkeypatch):
    """Whoever makes and removes it all the time keeps nobody here, and gets nothing truncated."""
    root, place = held
    file = place / "root" / "result"

    class Flickering(Meanwhile):
        def resolve(self, root, path, flags):
            if flags & os.O_EXCL:
                file.write_text("theirs")
            try:
                return _native.resolve(root, path, flags)
            finally:
                if flags & os.O_EXCL:
                    file.unlink()

    monkeypatch.setattr(_root, "_native", Flickering())
    with open_in(root, "/result", "w") as result:
        result.write("ours")
    assert file.read_text() == "ours"
