"""unshare, setns, pidfd_open: of the calling thread, like os.*."""

import errno
import os
import select
import socket
import threading

import pytest
from support import DEADLINE, namespaces, ns_id, running, script

import nsext
from nsext import CloneFlags

pytestmark = pytest.mark.usefixtures("root")


def in_a_thread(call):
    """The result of *call* in a thread that is thrown away, and so are its namespaces."""
    found = []

    def body():
        try:
            found.append(call())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(DEADLINE)
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def own():
    return namespaces("thread-self")


@pytest.mark.parametrize("kind", ["uts", "ipc", "net", "cgroup"])
@pytest.mark.parametrize("form", [str, lambda kind: [kind], nsext._flags.BY_KIND.get])
def test_unshare(kind, form):
    before = own()

    def body():
        assert nsext.unshare(form(kind)) is None
        return own()

    after = in_a_thread(body)
    assert {name for name in before if before[name] != after[name]} == {kind}
    assert own() == before


def test_unshare_many():
    before = own()
    after = in_a_thread(lambda: (nsext.unshare("uts ipc net"), own())[1])
    assert {name for name in before if before[name] != after[name]} == {"uts", "ipc", "net"}


def test_unshare_user_in_a_threaded_process_is_einval():
    with pytest.raises(OSError) as caught:
        in_a_thread(lambda: nsext.unshare("user"))
    assert caught.value.errno == errno.EINVAL


def test_unshare_mnt_and_pid_in_a_script():
    script("""
    mnt = ns_id("mnt")
    nsext.unshare("mnt pid")
    assert ns_id("mnt") != mnt
    pid = os.fork()
    if pid == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    """)


def test_trap_13_spawning_goes_on_after_unshare_pid():
    """The namespace for one's children has lost its init: nothing more starts there, and it says."""
    script("""
    nsext.unshare("pid")
    assert nsext.run(["sh", "-c", "test $$ = 1"]).returncode == 0  # that was the init
    error = failure(nsext.run, ["true"])
    assert error.errno == errno.ENOMEM and error.stage == "clone" and is_plain(error), error
    assert error.hint and "init" in error.hint, error.hint
    """)


@pytest.mark.parametrize("kind", ["uts", "ipc", "net", "cgroup"])
@pytest.mark.parametrize("way", ["int", "file", "pidfd"])
def test_setns(kind, way):
    with running(new=kind) as child:
        theirs = ns_id(kind, child.pid)

        def body():
            with open(f"/proc/{child.pid}/ns/{kind}") as file:
                fd = {"int": file.fileno(), "file": file, "pidfd": child}[way]
                assert nsext.setns(fd, kind) is None
            return own()

        after = in_a_thread(body)
        assert after[kind] == theirs != own()[kind]


def test_setns_any_kind():
    with running(new="uts") as child, open(f"/proc/{child.pid}/ns/uts") as file:
        after = in_a_thread(lambda: (nsext.setns(file), own())[1])
        assert after["uts"] == ns_id("uts", child.pid)


def test_setns_many_by_pidfd():
    with running(new="uts ipc net") as child:
        after = in_a_thread(lambda: (nsext.setns(child, "uts net"), own())[1])
        assert after["uts"] == ns_id("uts", child.pid) and after["net"] == ns_id("net", child.pid)
        assert after["ipc"] == ns_id("ipc")


def test_setns_of_the_wrong_kind():
    with running(new="uts") as child, open(f"/proc/{child.pid}/ns/uts") as file:
        with pytest.raises(OSError) as caught:
            in_a_thread(lambda: nsext.setns(file, "net"))
        assert caught.value.errno == errno.EINVAL
    with socket.socket() as sock, pytest.raises(OSError) as caught:
        in_a_thread(lambda: nsext.setns(sock, "net"))
    assert caught.value.errno == errno.EINVAL


def test_setns_takes_clone_flags():
    with running(new="uts") as child, open(f"/proc/{child.pid}/ns/uts") as file:
        after = in_a_thread(lambda: (nsext.setns(file.fileno(), CloneFlags.NEWUTS), own())[1])
        assert after["uts"] == ns_id("uts", child.pid)


@pytest.mark.parametrize(
    "call, kind",
    [
        (lambda: nsext.unshare("nothing"), ValueError),
        (lambda: nsext.unshare(True), TypeError),
        (lambda: nsext.unshare(1), ValueError),
        (lambda: nsext.setns(0, "nothing"), ValueError),
        (lambda: nsext.setns(-1), ValueError),
        (lambda: nsext.setns("0"), (TypeError, AttributeError)),
        (lambda: nsext.pidfd_open("1"), TypeError),
        (lambda: nsext.pidfd_open(1 << 40), OverflowError),
    ],
)
def test_wrong_arguments(call, kind):
    with pytest.raises(kind) as caught:
        call()
    assert not isinstance(caught.value, OSError)


def test_pidfd_open():
    with running() as child:
        fd = nsext.pidfd_open(child.pid)
        assert not os.get_inheritable(fd)
        assert select.select([fd], [], [], 0)[0] == []
        child.kill()
        assert select.select([fd], [], [], DEADLINE)[0] == [fd]
        os.close(fd)
    fd = nsext.pidfd_open(os.getpid(), 0)
    os.close(fd)


@pytest.mark.parametrize(
    "pid, number", [(0, errno.EINVAL), (-1, errno.EINVAL), (2**31 - 1, errno.ESRCH)]
)
def test_pidfd_open_errors(pid, number):
    with pytest.raises(OSError) as caught:
        nsext.pidfd_open(pid)
    assert caught.value.errno == number
    with pytest.raises(OSError):
        nsext.pidfd_open(os.getpid(), 1)
