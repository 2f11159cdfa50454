"""A new root where the old one cannot be pivoted: on an initramfs, and in a chroot."""

import os

import pytest
from support import TOMOYO, needs, release, script

pytestmark = pytest.mark.usefixtures("root")

# The kernel's own rootfs is below every root directory: a mount namespace whose root directory is
# taken away shows it.  What is made in there, everybody's as it is, goes again.
ON_ROOTFS = """
own_mounts()
libc = ctypes.CDLL(None, use_errno=True)
def check(value):
    assert value >= 0, os.strerror(ctypes.get_errno())
    return value
assert nsext.run(["true"], new="mnt", root="/").returncode == 0  # all that this needs is loaded
namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
proc = os.open("/proc", os.O_PATH)
old = os.open("/", os.O_PATH)
clone = lambda fd: check(libc.syscall(428, fd, b"", 0x1000 | 0x8000 | 1))  # open_tree(2)
tree, proc = clone(old), clone(proc)
os.close(old)
check(libc.umount2(b"/", 2))
nsext.setns(namespace, "mnt")
place, made = f"/nsext-test-{os.getpid()}", []
points = {place: tree, "/proc": proc}
try:
    for name, fd in points.items():
        if not os.path.isdir(name):
            os.mkdir(name)
            made.append(name)
        check(libc.syscall(429, fd, b"", -100, name.encode(), 4))  # move_mount(2)
    with open("/proc/self/mountinfo") as file:
        mounts = {line.split()[0]: line.split()[1] for line in file}
    def run(command, **fields):
        fields.setdefault("root", nsext.Bind(place, readonly=False))
        fields.setdefault("new", "pid mnt")
        return nsext.check_output(["/bin/sh", "-c", command], text=True, **fields)
    body()
except nsext.SpawnError as error:
    if error.step != "start the helper" or "TOMOYO" not in error.hint:
        raise
    print("TOMOYO")
finally:
    for name in points:
        libc.umount2(name.encode(), 2)
    for name in made:
        os.rmdir(name)
"""


def on_rootfs(body: str) -> str:
    code = "def body():\n" + "".join(f"    {line}\n" for line in body.strip().splitlines())
    told = script(code + ON_ROOTFS)
    needs(told != "TOMOYO", TOMOYO)
    return told


def has_rootfs() -> bool:
    told = script(
        """
        own_mounts()
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        inside = os.open("/proc", os.O_PATH)
        assert ctypes.CDLL(None).umount2(b"/", 2) == 0
        nsext.setns(namespace, "mnt")
        try:
            os.mkdir("/nsext-test")
            os.rmdir("/nsext-test")
            print("writable")
        except OSError as error:
            print(error)
        """
    )
    return told == "writable"


def needs_rootfs() -> None:
    if release() >= (7, 0) and not has_rootfs():
        pytest.skip("the mount below the root directory is nobody's any more")
    needs(has_rootfs(), "needs an initramfs below the root directory that can be written")


def test_a_root_on_an_initramfs() -> None:
    needs_rootfs()
    told = on_rootfs(
        """
# Below it is nothing, or since Linux 7.0 what nobody sees.
assert release() >= (7, 0) or any(mount == parent for mount, parent in mounts.items()), mounts
# Its root directory is what was asked for, and one ".." too many leads nowhere else.
print(run("ls -d /usr /nsext-test-* 2>&1 | grep -v ls:; cd ..; ls -d usr; pwd"))
escape = "import os; fd = os.open('/', 0); os.chroot('/usr'); os.fchdir(fd);" \
    "[os.chdir('..') for _ in range(9)]; print(os.listdir('.'))"
python = [sys.executable, "-I", "-S", "-c", escape]
said = nsext.check_output(python, text=True, new="pid mnt", root=nsext.Bind(place))
assert "usr" in said and "nsext-test" not in said, said
# Nothing of it is seen outside.
assert os.path.isdir(place + "/usr"), place
"""
    )
    assert told.split() == ["/usr", "usr", "/"]


def test_without_proc_nobody_knows() -> None:
    """Whether it is one is read there; the error of pivot_root(2) stands."""
    needs_rootfs()
    on_rootfs(
        """
libc.umount2(b"/proc", 2)
error = failure(run, "true", new="mnt")
assert (error.errno, error.step) == (errno.EINVAL, "change to the new root"), error
assert "no /proc" in error.hint, error.hint
"""
    )


@pytest.mark.parametrize("shared", [True, False])
def test_a_chroot_is_no_initramfs(shared: bool) -> None:
    """On a mount point.  Below a shared mount pivot_root(2) is EINVAL there, too, and below any
    other it works; but there is a host, one ".." away for who may chroot(2).
    """
    script(
        f"""
        own_mounts()
        mount("tmpfs", "/mnt", "tmpfs")
        mount("none", "/mnt", None, {1 << (20 if shared else 18)})  # MS_SHARED, MS_PRIVATE
        os.mkdir("/mnt/here")
        mount("/", "/mnt/here", None, 0x5000)
        os.chroot("/mnt/here")
        os.chdir("/")
        before = state()
        error = failure(nsext.run, ["true"], new="mnt", root=nsext.Bind("/"))
        assert is_plain(error), error
        wanted = errno.EINVAL, "change to the new root"
        assert (error.errno, error.step) == wanted, error
        assert "in a chroot, whose host" in error.hint, error.hint
        assert nsext.run(["true"], new="mnt", mounts=[nsext.Tmpfs("/media")]).returncode == 0
        assert not changes(before, state()), changes(before, state())
        """
    )


def test_the_error_of_pivot_root_stands(tmp_path: os.PathLike[str]) -> None:
    """Whatever refuses it, a filter here: nothing else is tried on an ordinary root."""
    script(
        """
        refuse(pivot_root=errno.EINVAL)
        error = failure(nsext.run, ["true"], new="mnt", root=nsext.Tmpfs())
        assert (error.errno, error.step) == (errno.EINVAL, "change to the new root"), error
        """
    )
