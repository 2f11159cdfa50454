"""translate_pid(): by ioctl_ns(2), and by NSpid where that is absent."""

import errno
import os
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from helping import children_of, wait_for
from support import release, running, script, status

import nsext
from nsext import Namespace, _nsfs, translate_pid


@pytest.fixture(params=["ioctl", "NSpid"], autouse=True)
def way(request, monkeypatch):
    if request.param == "NSpid":
        monkeypatch.setattr(_nsfs, "translated", lambda *args: None)
    else:
        monkeypatch.setattr(Namespace, "parent", None)  # which the other way needs
        if release() < (6, 11):
            pytest.skip("needs Linux 6.11; the other way is tested here")
    return request.param


@contextmanager
def nested():
    """The pids, as seen from here, of three processes, each in a pid namespace of its own, one
    within the other: the PID 1s of the outer and the inner one, and one more in the inner."""
    inner = "sleep 1001 & exec sleep 1002"
    args = ["unshare", "-fp", "--kill-child", "sh", "-c", inner]
    with running(args, new="pid") as outer:
        (first,) = wait_for(lambda: children_of(outer.pid))
        (second,) = wait_for(lambda: children_of(first))
        yield outer.pid, first, second


def ids(pid):
    return [int(number) for number in status(pid)["NSpid"].split()]


def test_down_and_up(root):
    with nested() as processes:
        outer, first, second = processes
        assert len(ids(second)) == 3
        spaces = [os.getpid(), outer, first]  # an int is a pid: its namespace is meant
        for pid in (first, second):
            for start, from_here in zip(spaces, ids(pid)):
                for end, from_there in zip(spaces, ids(pid)):
                    assert translate_pid(from_here, start, end) == from_there
        # The outer PID 1 is not to be seen from the inner namespace.
        assert translate_pid(outer, "self", first) is None
        assert translate_pid(1, outer, first) is None
        assert translate_pid(1, outer, "self") == outer
        assert translate_pid(os.getpid(), "self", outer) is None


def test_by_namespace(root):
    with running(new="pid") as other, Namespace.of(other, "pid") as theirs:
        with Namespace.of("self", "pid") as own:
            assert translate_pid(1, theirs, own) == other.pid == translate_pid(1, other, "self")
            assert translate_pid(other.pid, own, theirs) == other.inner_pid == 1
        with pytest.raises(ValueError, match="closed"):
            translate_pid(other.pid, own, theirs)
        with Namespace.of("self", "net") as net, pytest.raises(ValueError, match="a pid namespace"):
            translate_pid(1, net, theirs)


def test_with_an_init(root):
    with nsext.Popen(["sleep", "1000"], new="pid", init=True) as process:
        assert translate_pid(process.inner_pid, process, "self") == process.program_pid
        assert translate_pid(process.program_pid, "self", process) == process.inner_pid == 2
        process.kill()


def test_side_by_side(root):
    """Namespaces that know nothing of each other."""
    with running(new="pid") as one, running(new="pid") as two:
        assert translate_pid(1, one, two) is None
        assert translate_pid(1, one, one) == 1


def test_a_process_that_is_not_there(root):
    with running(new="pid") as other:
        for pid in (2, 300, 2**31 - 1):
            with pytest.raises(ProcessLookupError) as raised:
                translate_pid(pid, other, "self")
            assert raised.value.errno == errno.ESRCH and str(pid) in str(raised.value)
        gone = nsext.Popen(["true"])
        gone.wait()
        with pytest.raises(ProcessLookupError):
            translate_pid(gone.pid, "self", other)
        with pytest.raises(ProcessLookupError):
            translate_pid(1, gone.pid, "self")


def test_a_thread(root):
    """Threads have ids in every namespace, too."""
    seen, stop = [], threading.Event()

    def work():
        seen.append(threading.get_native_id())
        stop.wait()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        tid = wait_for(lambda: seen)[0]
        assert translate_pid(tid, "self", "self") == tid != os.getpid()
    finally:
        stop.set()
        thread.join()


def test_what_is_no_pid(root):
    for wrong in (True, "1", 1.0, None):
        with pytest.raises(TypeError, match="a pid is an int"):
            translate_pid(wrong, "self", "self")
    for wrong in (0, -1, 1 << 31):
        with pytest.raises(ValueError, match="is no process id"):
            translate_pid(wrong, "self", "self")


def test_a_namespace_above(root, way):
    """The ioctl knows what it sees itself; by /proc nothing above the own namespace is known."""
    with Namespace.of("self", "pid") as above:
        code = f"""
        import nsext
        from nsext import Namespace, _nsfs, translate_pid
        if "{way}" == "NSpid":
            _nsfs.translated = lambda *args: None
        assert os.getpid() == 1
        above = Namespace.from_fd(nsext.Fd({above.fileno()}))
        try:
            print(translate_pid(1, "self", above))
        except OSError as error:
            assert error.errno == errno.EOPNOTSUPP, error
            print("not known")
        above.close()
        """
        found = script(code, new="pid mnt", pass_fds=[above.fileno()])
        assert found == "not known" if way == "NSpid" else found.isdigit()


def test_another_proc(root, way):
    """By NSpid the /proc has to be that of the caller's namespace."""
    if way == "ioctl":
        return
    code = """
    from nsext import _nsfs, translate_pid
    _nsfs.translated = lambda *args: None
    try:
        translate_pid(1, "self", "self")
    except OSError as error:
        assert error.errno == errno.EOPNOTSUPP and "/proc" in str(error), error
    else:
        raise AssertionError
    """
    # The interpreter reads the /proc of the pid namespace above it.
    script(code, new="pid mnt", proc=False)


def test_inner_pid_is_the_same(root):
    with running(new="pid user") as process:
        assert process.inner_pid == translate_pid(process.pid, "self", process)
        assert Path(f"/proc/{process.pid}/status").exists()
