"""list_namespaces() and namespace_tree(): against lsns(8), and what lsns does not show."""

import os
import subprocess
import sys

import pytest
from helping import prepared
from support import (
    KINDS,
    as_user,
    ns_id,
    running,
    script,
)

import nsext
from nsext import NamespaceInfo, _listing, _nsfs


def number(kind, pid="self"):
    return int(ns_id(kind, pid).split("[")[1][:-1])


def find(infos, kind, id):
    (info,) = [info for info in infos if (info.kind, info.id) == (kind, id)]
    return info


# ---- lsns as oracle --------------------------------------------------------------------------

# In a pid namespace of its own with its own /proc: nobody else's processes come and go there.
LSNS = """
def lsns():
    columns = "NS,TYPE,NPROCS,PID,COMMAND,UID,PNS,ONS"
    text = subprocess.run(["lsns", "-J", "-o", columns], check=True, capture_output=True).stdout
    rows = {}
    for row in json.loads(text)["namespaces"]:
        rows[row["type"], row["ns"]] = row
    return rows

def compared():
    own = set(namespaces().values())
    infos = nsext.list_namespaces()
    rows = lsns()
    assert len(rows) == len(infos), (rows, infos)
    for info in infos:
        row = rows[info.kind, info.id]
        # lsns counts itself.
        here = f"{info.kind}:[{info.id}]" in own
        assert row["nprocs"] - here == info.nprocs, (row, info)
        if info.nprocs:
            assert (row["pid"], row["uid"]) == (info.pid, info.uid), (row, info)
            assert row["command"] == info.command, (row, info)
        assert row["pns"] == (info.parent or 0) and row["ons"] == (info.owner or 0), (row, info)
    return infos
"""


def test_agrees_with_lsns(root):
    script(
        LSNS
        + """
    assert os.getpid() == 1
    assert len(compared()) == 8
    with running(new="user pid net mnt uts ipc cgroup time") as one:
        assert len(compared()) == 16
        with running(["sleep", "999", "a  b", "ü"], join=one, new="uts") as two:
            infos = compared()
            assert len(infos) == 17
            (uts,) = [info for info in infos if info.pid == two.pid]
            assert (uts.kind, uts.nprocs, uts.command) == ("uts", 1, "sleep 999 a  b ü")
            (user,) = [info for info in infos if info.kind == "user" and info.pid == one.pid]
            assert uts.owner == user.id and user.nprocs == 2
    assert len(compared()) == 8
    """,
        new="pid mnt",
    )


def test_agrees_with_lsns_on_parents_without_a_process(root):
    """A program that has gone on into a second user namespace: the first has nobody in it."""
    script(
        LSNS
        + """
    args = ["unshare", "-Ur", "unshare", "-Ur", "sleep", "1000"]
    with running(args) as other:
        while status(other.pid)["Name"] != "sleep":
            os.sched_yield()
        infos = compared()
        assert len(infos) == 10
        (inner,) = [info for info in infos if info.pid == other.pid and info.kind == "user"]
        (between,) = [info for info in infos if info.id == inner.parent]
        assert between.nprocs == 0 and between.pid is None and between.command == ""
        assert f"user:[{between.parent}]" == ns_id("user")
    """,
        new="pid mnt",
    )


def test_an_ordinary_user_sees_his_own():
    as_user(
        LSNS
        + """
    before = {(info.kind, info.id) for info in nsext.list_namespaces()}
    with running(new="user net") as other:
        infos = nsext.list_namespaces()
        new = [info for info in infos if (info.kind, info.id) not in before]
        mine = [info for info in new if info.uid == os.getuid()]
        assert {(info.kind, info.id) for info in mine} >= {
            (kind, os.stat(f"/proc/{other.pid}/ns/{kind}").st_ino) for kind in ("user", "net")}
        for info in mine:
            assert info.owner_uid == os.getuid() and info.pid == other.pid, info
        rows = lsns()
        for info in mine:
            assert rows[info.kind, info.id]["pid"] == other.pid
    """
    )


# ---- what keeps a namespace ------------------------------------------------------------------


def test_held_by_a_path(root, tmp_path):
    place = tmp_path / "with a blank\tand more"
    place.touch()
    with running(new="uts") as other:
        id = number("uts", other.pid)
        subprocess.run(["mount", "--bind", f"/proc/{other.pid}/ns/uts", str(place)], check=True)
    try:
        info = find(nsext.list_namespaces("uts"), "uts", id)
        assert (info.nprocs, info.pid, info.paths, info.fds) == (0, None, (str(place),), ())
        assert info.owner == number("user") and info.owner_uid == 0
        with nsext.Namespace.open(info.paths[0]) as namespace:
            assert (namespace.kind, namespace.id) == ("uts", id)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert not [info for info in nsext.list_namespaces("uts") if info.id == id]


def test_held_by_a_path_in_another_mount_namespace(root, tmp_path):
    place = tmp_path / "bound"
    place.touch()
    with prepared(f"unshare --uts='{place}' true", new="mnt") as other:
        infos = nsext.list_namespaces("uts")
        path = f"/proc/{other.pid}/root{place}"
        (info,) = [info for info in infos if path in info.paths]
        assert info.nprocs == 0 and info.id == os.stat(path).st_ino
    assert not [one for one in nsext.list_namespaces("uts") if one.id == info.id]


def test_held_by_a_descriptor(root):
    with nsext.Popen(["true"], new="net", hold="net") as other:
        pass
    with other.namespaces["net"] as net:
        info = find(nsext.list_namespaces("net"), "net", net.id)
        assert (info.nprocs, info.paths) == (0, ())
        assert info.fds == ((os.getpid(), net.fileno()),)
        assert info.owner == number("user")
    assert not [info for info in nsext.list_namespaces("net") if info.id == net.id]


def test_for_children_only(root):
    """After unshare(CLONE_NEWTIME) the new namespace has nobody in it yet."""
    code = "import nsext, sys; nsext.unshare('time'); print(flush=True); sys.stdin.read()"
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(nsext.__file__))}
    args = [sys.executable, "-c", code]
    with nsext.Popen(args, stdin=nsext.PIPE, stdout=nsext.PIPE, env=env) as other:
        other.stdout.readline()
        id = os.stat(f"/proc/{other.pid}/ns/time_for_children").st_ino
        info = find(nsext.list_namespaces("time"), "time", id)
        assert info.nprocs == 0 and info.id != number("time", other.pid)
        other.communicate(b"")
    assert not [info for info in nsext.list_namespaces("time") if info.id == id]


def test_by_the_kernels_own_list(root):
    """listns(2), Linux 6.19: of a thread, which is no process, too."""
    try:
        nsext._native.listns(0)
        has_listns = True
    except OSError as error:
        assert error.errno in (38, 1), error  # ENOSYS
        has_listns = False
    found = script("""
    entered, leave = threading.Event(), threading.Event()
    ids = []
    def elsewhere():
        nsext.unshare("uts")
        ids.append(os.stat("/proc/thread-self/ns/uts").st_ino)
        entered.set()
        leave.wait()
    thread = threading.Thread(target=elsewhere)
    thread.start()
    entered.wait()
    infos = nsext.list_namespaces("uts")
    leave.set()
    thread.join()
    print([info.nprocs for info in infos if info.id == ids[0]])
    """)
    assert found == ("[0]" if has_listns else "[]")


def test_what_is_no_namespace_is_not_opened(tmp_path):
    """A path in somebody else's mount namespace may have become a pipe or a device by now."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert _nsfs.open_checked(str(fifo), fifo.stat().st_ino) is None  # and does not block
    assert _nsfs.open_checked("/proc/self/ns/uts", 1) is None
    assert _nsfs.open_checked(str(tmp_path / "none"), 1) is None
    fd = _nsfs.open_checked("/proc/self/ns/uts", number("uts"))
    assert os.fstat(fd).st_ino == number("uts")
    os.close(fd)


# ---- the rest --------------------------------------------------------------------------------


def test_kinds():
    assert {info.kind for info in nsext.list_namespaces("net uts")} == {"net", "uts"}
    assert nsext.list_namespaces(()) == []
    assert {info.kind for info in nsext.list_namespaces(nsext.CloneFlags.NEWUTS)} == {"uts"}
    for wrong in (None, 1.5):
        with pytest.raises(TypeError, match=f"are names or CLONE_NEW. flags, not {wrong}"):
            nsext.list_namespaces(wrong)
    with pytest.raises(ValueError, match="unknown namespace kind"):
        nsext.list_namespaces("nett")
    infos = nsext.list_namespaces()
    assert [info.id for info in infos] == sorted(info.id for info in infos)
    for kind in KINDS:
        find(infos, kind, number(kind))


def test_unique_ids():
    infos = nsext.list_namespaces()
    known = [info.unique_id for info in infos if info.unique_id is not None]
    assert len(set(known)) == len(known)
    with nsext.Namespace.of("self", "mnt") as mnt:
        unique_id = _nsfs.unique_id(mnt.fileno())
    assert find(infos, "mnt", mnt.id).unique_id == unique_id


def test_mountinfo():
    line = "41 29 0:4 net:[4026532181] /run/netns/a\\040b\\134c rw shared:7 - nsfs nsfs rw"
    other = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw"
    odd = "42 29 0:4 pidfd:[5] /x rw - nsfs nsfs rw"
    found = list(_listing.bound("\n".join([other, line, odd])))
    assert found == [("net", 4026532181, "/run/netns/a b\\c")]


def info(kind, id, parent=None, owner=None):
    return NamespaceInfo(kind=kind, id=id, parent=parent, owner=owner)


def test_tree():
    infos = [
        info("user", 1),
        info("net", 2, owner=1),
        info("pid", 3, owner=1),
        info("user", 4, parent=1, owner=1),
        info("pid", 5, parent=3, owner=4),
        info("uts", 6, owner=99),
    ]
    by_owner = [(depth, one.id) for depth, one in nsext.namespace_tree(infos)]
    assert by_owner == [(0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (0, 6)]
    by_parent = [(depth, one.id) for depth, one in nsext.namespace_tree(infos, by="parent")]
    assert by_parent == [(0, 1), (1, 4), (0, 2), (0, 3), (1, 5), (0, 6)]
    assert nsext.namespace_tree([]) == []
    with pytest.raises(ValueError, match="neither 'owner' nor 'parent'"):
        nsext.namespace_tree(infos, by="process")


def test_tree_of_the_system(root):
    with running(new="user net") as other:
        tree = nsext.namespace_tree()
        depths = {(one.kind, one.id): depth for depth, one in tree}
        user = depths["user", number("user", other.pid)]
        assert user == depths["user", number("user")] + 1
        assert depths["net", number("net", other.pid)] == user + 1
        assert len(depths) == len(tree)


def test_without_proc(root):
    """An error, and no empty list."""
    script("""
    own_mounts()
    mount("tmpfs", "/proc", "tmpfs")
    try:
        nsext.list_namespaces()
    except FileNotFoundError as error:
        assert error.filename == "/proc" and "not mounted" in str(error)
    else:
        raise AssertionError("no error")
    """)
