"""Namespace: making, looking into, entering and keeping namespaces."""

import errno
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helping import children_of, running_helper, wait_for
from support import KINDS, as_user, ns_id, output, release, running, script

import nsext
from nsext import Namespace, _nsfs
from nsext._helper import HELPER

MAKEABLE = [kind for kind in KINDS if kind != "pid"]
ENTERABLE = ["uts", "ipc", "net", "cgroup"]


def said(namespace):
    return f"{namespace.kind}:[{namespace.id}]"


# ---- new() -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKEABLE)
def test_new(kind, root):
    with Namespace.new(kind) as new:
        assert new.kind == kind and said(new) != ns_id(kind)
        assert os.readlink(f"/proc/self/fd/{new.fileno()}") == said(new)
        assert not os.get_inheritable(new.fileno())
        assert new.processes() == []
        assert new.owner_uid == 0
        with new.user_namespace() as owner:
            assert said(owner) == ns_id("user")
        # What another's tools make of it, and our own.
        flag = "cgroup" if kind == "cgroup" else kind.replace("mnt", "mount")
        args = ["nsenter", f"--{flag}=/proc/{os.getpid()}/fd/{new.fileno()}"]
        args += ["readlink", f"/proc/self/ns/{kind}"]
        if kind != "mnt":
            assert output(args) == said(new)
        assert output(["readlink", f"/proc/self/ns/{kind}"], join=new) == said(new)
        listed = [info for info in nsext.list_namespaces(kind) if info.id == new.id]
        assert [info.fds for info in listed] == [((os.getpid(), new.fileno()),)]


def test_new_one_for_each_call(root):
    with Namespace.new("uts") as one, Namespace.new("uts") as other:
        assert one != other and len({one, other}) == 2


def test_new_user_namespace(root):
    with Namespace.new("user") as outer, Namespace.new("user", user=outer) as inner:
        with inner.parent() as parent, inner.user_namespace() as owner:
            assert parent == owner == outer
        with outer.parent() as parent:
            assert said(parent) == ns_id("user")
        assert output(["id", "-u"], join=inner) == "0"
        # It is in sight from the outer one, which is not in sight from itself.
        code = "from nsext import Namespace as N; own = N.of('self', 'user'); print(own.parent())"
        env = {**os.environ, "PYTHONPATH": str(Path(nsext.__file__).parent.parent)}
        assert output([sys.executable, "-c", code], join=outer, env=env) == "None"


@pytest.mark.parametrize("kind", MAKEABLE)
def test_new_owned_by_another_user_namespace(kind, root):
    with Namespace.new("user") as user, Namespace.new(kind, user=user) as new:
        with new.user_namespace() as owner:
            assert owner == user


@pytest.mark.parametrize(("loopback", "flags"), [(True, "UP"), (False, "DOWN"), (None, "UP")])
def test_new_loopback(loopback, flags, root):
    fields = {} if loopback is None else {"loopback": loopback}
    with Namespace.new("net", **fields) as net:
        shown = json.loads(output(["ip", "-j", "link", "show", "lo"], join=net))[0]
        assert ("UP" in shown["flags"]) == (flags == "UP"), shown


def test_new_by_an_ordinary_user():
    as_user("""
    N = nsext.Namespace
    error = failure(N.new, "net")
    assert error.errno == errno.EPERM and "user=Namespace.new('user')" in error.hint, error
    with N.new("user") as user:
        assert user.owner_uid == os.getuid() and user.processes() == []
        for kind in ("mnt", "uts", "ipc", "user", "net", "cgroup", "time"):
            with N.new(kind, user=user) as new:
                with new.user_namespace() as owner:
                    assert owner == user
                assert f"{kind}:[{new.id}]" != ns_id(kind)
                if kind != "user":
                    code = ["readlink", f"/proc/self/ns/{kind}"]
                    assert output(code, join={"user": user, kind: new}) == f"{kind}:[{new.id}]"
        with N.new("net", user=user) as net:
            joins = {"user": user, "net": net}
            assert "LOOPBACK,UP" in output(["ip", "link", "show", "lo"], join=joins)
    """)


def test_new_pid_says_why_not():
    with pytest.raises(ValueError, match=r"PID 1.*hold='pid'"):
        Namespace.new("pid")
    with pytest.raises(ValueError, match="unknown namespace kind 'nett'"):
        Namespace.new("nett")
    with Namespace.of("self", "uts") as uts, pytest.raises(ValueError, match="a uts namespace"):
        Namespace.new("net", user=uts)


def test_a_limit(root):
    """What cannot be made is an error, and nothing is left."""
    script(
        """
    Path("/proc/sys/user/max_uts_namespaces").write_text("0")
    error = failure(nsext.Namespace.new, "uts")
    assert error.errno == errno.ENOSPC and "user.max_uts_namespaces" in error.hint
    assert not children()
    """,
        new="user",
    )


def test_a_limit_in_the_given_user_namespace(root):
    script(
        """
    Path("/proc/sys/user/max_user_namespaces").write_text("1")
    with nsext.Namespace.new("user") as user:
        error = failure(nsext.Namespace.new, "user", user=user)
        assert error.errno == errno.ENOSPC and "in the given one" in error.step, error
    assert not children()
    """,
        new="user",
    )


def test_the_placeholder():
    """What is in a new namespace while it is opened: a cat."""
    data = os.urandom(1000)
    assert nsext.run([HELPER, "-"], input=data, capture_output=True).stdout == data
    with nsext.Popen([HELPER, "-"], stdin=nsext.PIPE) as process:
        with pytest.raises(nsext.TimeoutExpired):
            process.wait(0.05)
        process.stdin.close()
        assert process.wait(10) == 0


def test_without_a_helper(root, monkeypatch):
    monkeypatch.setattr("nsext._make.HELPER", "/nowhere")
    with Namespace.new("uts") as new:
        assert said(new) != ns_id("uts") and new.processes() == []


# ---- what the kernel says --------------------------------------------------------------------


def test_owner_uid():
    as_user("""
    with running(new="user net") as other:
        with nsext.Namespace.of(other, "net") as net, nsext.Namespace.of(other, "user") as user:
            assert net.owner_uid == user.owner_uid == os.getuid()
    with nsext.Namespace.of("self", "uts") as uts:
        assert uts.owner_uid == 0
    """)


def test_out_of_sight():
    """From inside a user namespace those of the outer one are open, but not their owner."""
    script(
        """
    with nsext.Namespace.of("self", "net") as net:
        assert net.user_namespace() is None
        try:
            net.owner_uid
        except PermissionError as error:
            assert "out of sight" in str(error)
        else:
            raise AssertionError
    with nsext.Namespace.of("self", "pid") as pid:
        assert pid.parent() is None and pid.user_namespace() is None
    """,
        new="user",
    )


def test_parents(root):
    args = ["unshare", "-fp", "--kill-child", "sleep", "1000"]
    with running(args, new="pid") as outer:
        inner = wait_for(lambda: children_of(outer.pid), "the inner one")[0]
        with Namespace.of(inner, "pid") as namespace, namespace.parent() as parent:
            assert said(parent) == ns_id("pid", outer.pid)
            with parent.parent() as top:
                assert said(top) == ns_id("pid")
                assert top.parent() is None
    with Namespace.of("self", "net") as net:
        with pytest.raises(ValueError, match="net namespaces have no parents"):
            net.parent()


def test_unique_id(root):
    with Namespace.new("uts") as one:
        number, id = one.unique_id, one.id
    with Namespace.new("uts") as two:
        other = two.unique_id
    if release() >= (6, 18):
        assert number and other and number != other, (id, two.id)
    with Namespace.of("self", "mnt") as mnt:
        assert (mnt.unique_id is not None) == (release() >= (6, 11))


def test_processes(root):
    with running(new="net") as one, running(join={"net": one}) as two, running() as three:
        with Namespace.of(one, "net") as net:
            assert net.processes() == sorted([one.pid, two.pid])
        with Namespace.of("self", "net") as own:
            found = own.processes()
            assert {os.getpid(), three.pid} <= set(found) and one.pid not in found
    with pytest.raises(ValueError, match="closed"):
        net.processes()


def test_of_a_process_by_its_pidfd(root, monkeypatch):
    """PIDFD_GET_*_NAMESPACE (Linux 6.11) and /proc lead to the same."""
    with running(new="all", uid_map="root") as other:
        pidfd = os.pidfd_open(other.pid)
        found = {}
        for kind in KINDS:
            if release() >= (6, 11):
                fd = _nsfs._of_pidfd(pidfd, kind)
                found[kind] = os.readlink(f"/proc/self/fd/{fd}")
                os.close(fd)
                assert found[kind] == ns_id(kind, other.pid)
        monkeypatch.setattr(_nsfs, "_of_pidfd", lambda *args: None)
        for kind in KINDS:
            with Namespace.of(other.pid, kind) as namespace:
                assert said(namespace) == ns_id(kind, other.pid) == found.get(kind, said(namespace))
        assert output(["hostname"], join=nsext.Fd(pidfd)) == os.uname().nodename
        os.close(pidfd)


def test_of_a_process_that_has_ended(root, monkeypatch):
    for patch in (False, True):
        if patch:
            monkeypatch.setattr(_nsfs, "_of_pidfd", lambda *args: None)
        other = nsext.Popen(["true"])
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        for target in (other, other.pid):
            with pytest.raises(ProcessLookupError):
                Namespace.of(target, "net")
        other.wait()
        with pytest.raises(ProcessLookupError):
            Namespace.of(other, "net")


def test_an_ordinary_user_has_no_business_there():
    as_user("""
    try:
        nsext.Namespace.of(1, "net")
    except PermissionError as error:
        assert error.filename == "/proc/1/ns/net", error
    else:
        raise AssertionError
    """)


# ---- the object ------------------------------------------------------------------------------


def test_equality_and_closing():
    with Namespace.of("self", "net") as one, Namespace.of(os.getpid(), "net") as other:
        assert one == other and hash(one) == hash(other) and one != "net"
        assert one.fileno() != other.fileno()
        assert (one.device, one.id) == (other.device, os.stat("/proc/self/ns/net").st_ino)
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(one)
    assert one.closed and "closed" in repr(one)
    one.close()
    with pytest.raises(ValueError, match="closed"):
        one.fileno()
    assert one == other  # and it is still that namespace


def test_from_fd():
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    with Namespace.from_fd(fd) as copy:
        assert copy.fileno() != fd and not os.get_inheritable(copy.fileno())
    with Namespace.from_fd(nsext.Fd(fd), dup=False) as taken:
        assert taken.fileno() == fd
    with pytest.raises(OSError):
        os.fstat(fd)
    with open(os.devnull) as file, pytest.raises(ValueError, match="no namespace"):
        Namespace.from_fd(file)
    for wrong in ("3", True, None):
        with pytest.raises(TypeError, match=f"fileno.*{type(wrong).__name__}"):
            Namespace.from_fd(wrong)


def test_what_is_no_namespace_is_not_opened(tmp_path):
    """It is named, and a FIFO's writer not waited for."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    script(
        """
    place = sys.argv[1]
    for path in (f"{place}/file", f"{place}/fifo", place, "/dev/null"):
        try:
            nsext.Namespace.open(path)
        except ValueError as error:
            assert str(error) == f"{path!r} is no namespace", error
        else:
            assert False, path
        error = failure(nsext.spawn, ["true"], join=path)
        assert (error.errno, error.step) == (errno.EINVAL, f"join {path}"), error
        assert error.hint == "it is neither a namespace nor a pidfd"
    """,
        str(tmp_path),
    )


def test_what_is_no_process():
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"{wrong} is no process id"):
            Namespace.of(wrong, "net")
    for wrong in (True, None, os):
        with pytest.raises(TypeError, match="a process is a pid, a Popen of nsext, or 'self', not"):
            nsext.namespaces(wrong)
    with subprocess.Popen(["true"]) as other, pytest.raises(TypeError, match="give its pid"):
        nsext.translate_pid(1, other, "self")
    with pytest.raises(TypeError, match="user: a Namespace, not int"):
        Namespace.new("uts", user=3)


def test_dropping_it_closes_it():
    namespace = Namespace.of("self", "net")
    fd = namespace.fileno()
    del namespace
    with pytest.raises(OSError):
        os.fstat(fd)


# ---- enter() ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ENTERABLE)
def test_enter(kind, root):
    own = ns_id(kind)
    with Namespace.new(kind) as new:
        with new.enter():
            assert os.readlink(f"/proc/thread-self/ns/{kind}") == said(new)
            assert output(["readlink", f"/proc/self/ns/{kind}"]) == said(new)
            with Namespace.of("self", kind) as here:
                assert here == new
        assert ns_id(kind) == own
        with pytest.raises(KeyError), new.enter():
            raise KeyError
        assert ns_id(kind) == own


def test_enter_is_for_one_thread(root):
    seen, entered, leave = [], threading.Event(), threading.Event()

    def other():
        entered.wait()
        seen.append(os.readlink("/proc/thread-self/ns/uts"))
        leave.set()

    thread = threading.Thread(target=other)
    thread.start()
    with Namespace.new("uts") as new, new.enter():
        entered.set()
        leave.wait()
    thread.join()
    assert seen == [ns_id("uts")]


def test_enter_one_within_another(root):
    own = ns_id("uts")
    with Namespace.new("uts") as one, Namespace.new("uts") as two, Namespace.new("net") as net:
        with one.enter(), net.enter():
            with two.enter():
                assert os.readlink("/proc/thread-self/ns/uts") == said(two)
            assert os.readlink("/proc/thread-self/ns/uts") == said(one)
            assert os.readlink("/proc/thread-self/ns/net") == said(net)
    assert ns_id("uts") == own


@pytest.mark.parametrize(
    ("kind", "why"),
    [("mnt", "working directory"), ("user", "threads"), ("pid", "children"), ("time", "EUSERS")],
)
def test_enter_says_why_not(kind, why):
    with Namespace.of("self", kind) as own, pytest.raises(ValueError, match=rf"{why}.*join="):
        own.enter()


def test_enter_as_an_ordinary_user():
    as_user("""
    before = namespaces()
    with nsext.Namespace.of("self", "uts") as own:
        try:
            with own.enter():
                raise AssertionError
        except PermissionError:
            pass
    assert namespaces() == before
    """)


def test_enter_where_there_is_no_way_back():
    """The caller's user namespace does not own where it is: so it stays there."""
    script(
        """
        before = namespaces()
        with nsext.Namespace.new("uts") as new:
            try:
                with new.enter():
                    raise AssertionError
            except PermissionError:
                pass
        assert namespaces("thread-self") == before
        """,
        new="user",
    )


def test_enter_and_leave_by_different_threads(root):
    with Namespace.new("uts") as new:
        entered = new.enter()
        entered.__enter__()
        failed = []

        def other():
            try:
                entered.__exit__(None, None, None)
            except RuntimeError as error:
                failed.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match="entered already"):
            entered.__enter__()
        entered.__exit__(None, None, None)
        assert failed == ["another thread has entered, and only that one can come back"]
        with entered:  # and once more
            assert os.readlink("/proc/thread-self/ns/uts") == said(new)
    with pytest.raises(ValueError, match="closed"), new.enter():
        pass


def test_a_thread_elsewhere_is_the_caller(root):
    """join= of a bare process: what differs from the calling thread's, not the main one's."""
    script("""
    import threading
    with running() as plain, nsext.Namespace.new("uts") as new:
        found = []
        def elsewhere():
            with new.enter():
                found.append(output(["readlink", "/proc/self/ns/uts"]))
                found.append(output(["readlink", "/proc/self/ns/uts"], join=plain))
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert found == [f"uts:[{new.id}]", ns_id("uts")], found
    """)


# ---- persist() -------------------------------------------------------------------------------

# In a mount namespace of the script's own: nothing stays, and nothing of the system's is touched.
RUN = """
own_mounts()
mount("tmpfs", "/run", "tmpfs")
N = nsext.Namespace
def run(*args):
    return subprocess.run(args, check=True, capture_output=True, text=True).stdout
def error_of(kind, call, *args):
    try:
        call(*args)
    except kind as error:
        return error
    raise AssertionError("no error")
"""


def test_ip_netns_reads_what_persist_makes(root):
    script(
        RUN
        + """
    with N.new("net") as net:
        net.persist("/run/netns/blue")  # makes the directory, as ip does
        inode = net.id
    assert "blue" in run("ip", "netns", "list").split()
    shown = run("ip", "netns", "exec", "blue", "readlink", "/proc/self/ns/net").strip()
    assert shown == f"net:[{inode}]"
    assert "LOOPBACK,UP" in run("ip", "-n", "blue", "link", "show", "lo")
    (info,) = [info for info in nsext.list_namespaces("net") if info.id == inode]
    assert "/run/netns/blue" in info.paths and info.nprocs == 0
    with N.open("/run/netns/blue") as again:
        assert again.id == inode
        assert output(["readlink", "/proc/self/ns/net"], join="/run/netns/blue") == shown
    nsext.unpersist("/run/netns/blue")
    assert run("ip", "netns", "list") == "" and os.listdir("/run/netns") == []
    assert not [info for info in nsext.list_namespaces("net") if info.id == inode]
    """
    )


def test_ip_netns_deletes_what_persist_makes_and_the_other_way_round(root):
    script(
        RUN
        + """
    with N.new("net") as net:
        net.persist("/run/netns/ours")
    run("ip", "netns", "add", "theirs")
    run("ip", "netns", "delete", "ours")
    with N.open("/run/netns/theirs") as net:
        assert net.kind == "net"
    nsext.unpersist("/run/netns/theirs")
    assert os.listdir("/run/netns") == []
    assert run("ip", "netns", "list") == ""
    """
    )


@pytest.mark.parametrize("kind", MAKEABLE)
def test_persist(kind, root):
    script(
        RUN
        + """
    kind = sys.argv[1]
    flag = "mount" if kind == "mnt" else kind
    with N.new(kind) as new:
        new.persist("/run/kept")
        assert os.stat("/run/kept").st_ino == new.id
        id = new.id
    args = ["nsenter", f"--{flag}=/run/kept", "readlink", f"/proc/self/ns/{kind}"]
    if kind != "mnt":
        assert run(*args).strip() == f"{kind}:[{id}]"
    nsext.unpersist("/run/kept")
    assert not os.path.lexists("/run/kept")
    """,
        kind,
    )


def test_unpersist_of_what_unshare_has_bound(root):
    script(
        RUN
        + """
    Path("/run/uts").touch()
    run("unshare", "--uts=/run/uts", "hostname", "kept")
    assert output(["hostname"], join="/run/uts") == "kept"
    nsext.unpersist("/run/uts")
    assert not os.path.exists("/run/uts")
    """
    )


def test_persist_where_something_is(root):
    script(
        RUN
        + """
    with N.new("uts") as new:
        for path in ("/run/file", "/run/directory", "/run/link", "/run/dangling"):
            {"/run/file": lambda: Path(path).write_text("x"),
             "/run/directory": lambda: os.mkdir(path),
             "/run/link": lambda: os.symlink("/run/file", path),
             "/run/dangling": lambda: os.symlink("/run/none", path)}[path]()
            error = error_of(FileExistsError, new.persist, path)
            assert error.filename == path
        new.persist("/run/kept")
        error_of(FileExistsError, new.persist, "/run/kept")
        error_of(FileNotFoundError, new.persist, "/run/no/such/place")
        error_of(NotADirectoryError, new.persist, "/run/file/x")
    assert Path("/run/file").read_text() == "x" and not os.path.exists("/run/none")
    with open("/proc/self/mountinfo") as mounts:
        assert sum(" - nsfs " in line for line in mounts) == 1
    """
    )


def test_persist_by_many_at_once(root):
    """One of them has it; the others are told, and have changed nothing."""
    script(
        RUN
        + """
    makers = [N.new("uts") for _ in range(16)]
    start = threading.Barrier(len(makers))
    won, lost = [], []
    def persist(namespace):
        start.wait()
        try:
            namespace.persist("/run/one")
            won.append(namespace.id)
        except FileExistsError:
            lost.append(namespace.id)
    threads = [threading.Thread(target=persist, args=(maker,)) for maker in makers]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(won) == 1 and len(lost) == 15
    assert os.stat("/run/one").st_ino == won[0]
    nsext.unpersist("/run/one")
    assert not os.path.exists("/run/one")
    for maker in makers: maker.close()
    """
    )


def test_persist_that_fails_leaves_no_file(root, tmp_path):
    """A mount namespace cannot be bound inside itself; and an ordinary user binds nothing."""
    script(
        RUN
        + """
    with N.of("self", "mnt") as own:
        error = error_of(OSError, own.persist, "/run/own")
        assert error.errno == errno.EINVAL and "older" in str(error), error
        assert error.filename == "/run/own" and not os.path.lexists("/run/own")
    """
    )
    as_user("""
    import tempfile
    with tempfile.TemporaryDirectory() as place:
        with nsext.Namespace.of("self", "uts") as own:
            try:
                own.persist(f"{place}/uts")
            except PermissionError as error:
                assert "CAP_SYS_ADMIN" in str(error) and error.filename == f"{place}/uts", error
            else:
                raise AssertionError
        assert os.listdir(place) == []
    """)


def test_unpersist_touches_nothing_else(root):
    script(
        RUN
        + """
    Path("/run/file").write_text("x")
    os.mkdir("/run/directory")
    for path in ("/run/file", "/run/directory", "/proc/version"):
        error = error_of(OSError, nsext.unpersist, path)
        assert error.errno == errno.EINVAL and error.filename == path
    error_of(FileNotFoundError, nsext.unpersist, "/run/none")
    # Through a link: neither the mount nor the link.
    with N.new("uts") as new:
        new.persist("/run/kept")
        os.symlink("/run/kept", "/run/link")
        error_of(OSError, nsext.unpersist, "/run/link")
        assert os.stat("/run/kept").st_ino == new.id and os.path.islink("/run/link")
        # Somebody has bound one over a file of his: that stays.
        mount(f"/proc/self/fd/{new.fileno()}", "/run/file", None, 0x1000)
        nsext.unpersist("/run/file")
    assert Path("/run/file").read_text() == "x"
    """
    )


# ---- all of a process ------------------------------------------------------------------------


def test_namespaces_may_be_joined_as_they_are(root):
    with running(new="uts net", hostname="there") as other:
        with nsext.namespaces(other, "uts net") as both:
            assert list(both) == ["uts", "net"]
        with nsext.namespaces(other.pid) as everything:
            assert set(everything) == set(KINDS)
            assert output(["hostname"], join=everything) == "there"
            assert {said(namespace) for namespace in everything.values()} == {
                ns_id(kind, other.pid) for kind in KINDS
            }
    with pytest.raises(ProcessLookupError):
        nsext.namespaces(other)
    with nsext.namespaces() as own:
        assert {said(namespace) for namespace in own.values()} == {ns_id(kind) for kind in KINDS}


def test_held_namespaces_are_objects(root):
    process = running_helper(["true"], new="net uts")
    process.wait()
    with process.namespaces as held:
        assert held["net"].processes() == [] and held["net"].owner_uid == 0
    with pytest.raises(OSError) as raised:
        Namespace.of(process.pid, "net")
    assert raised.value.errno == errno.ESRCH


def test_lsns_agrees_on_what_we_hold(root):
    with Namespace.new("uts") as new, running(join=new) as other:
        shown = subprocess.run(
            ["lsns", "-J", "-t", "uts", "-o", "NS,NPROCS,PID"], capture_output=True, check=True
        )
        rows = {row["ns"]: row for row in json.loads(shown.stdout)["namespaces"]}
        assert rows[new.id] == {"ns": new.id, "nprocs": 1, "pid": other.pid}
        assert new.processes() == [other.pid]
