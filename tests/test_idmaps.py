"""The maps of user namespaces: what the kernel has, who may write what, what is refused."""

import os

import pytest
from support import (
    as_user,
    dumpable,
    id_map,
    running,
    script,
    sh,
    status,
)

import nsext

pytestmark = pytest.mark.usefixtures("root")

OVERFLOW = 65534  # /proc/sys/kernel/overflowuid


def maps(**keywords):
    """uid_map, gid_map and setgroups of a child."""
    with running(**keywords) as child:
        setgroups = open(f"/proc/{child.pid}/setgroups").read().strip()
        return id_map("uid_map", child.pid), id_map("gid_map", child.pid), setgroups


# ---- one's own id


def test_default_is_root():
    own = [(0, 0, 1)]
    assert maps(new="user") == (own, own, "deny")
    assert maps(new="user", uid_map="root", gid_map="root") == (own, own, "deny")
    assert sh("id -u; id -g", new="user").split() == ["0", "0"]


def test_int_is_the_own_id_inside():
    assert maps(new="user", uid_map=1000, gid_map=100) == ([(1000, 0, 1)], [(100, 0, 1)], "deny")
    assert sh("id -u; id -g", new="user", uid_map=1000, gid_map=100).split() == ["1000", "100"]


def test_largest_id():
    largest = 2**32 - 2
    assert maps(new="user", uid_map=largest)[0] == [(largest, 0, 1)]
    assert sh("id -u", new="user", uid_map=largest) == str(largest)


def test_as_user_own_id_in_each_way():
    as_user("""
    uid, gid = os.getuid(), os.getgid()
    for word, inside in (("root", (0, 0)), ("self", (uid, gid)), (7, (7, 7)), (None, (0, 0))):
        with running(new="user", uid_map=word, gid_map=word) as child:
            assert id_map("uid_map", child.pid) == [(inside[0], uid, 1)]
            assert id_map("gid_map", child.pid) == [(inside[1], gid, 1)]
            assert Path(f"/proc/{child.pid}/setgroups").read_text() == "deny\\n"
        shown = sh("id -u; id -g", new="user", uid_map=word, gid_map=word).split()
        assert shown == [str(number) for number in inside], (word, shown)
    """)


def test_self_of_root():
    assert maps(new="user", uid_map="self", gid_map="self")[0] == [(0, 0, 1)]


def test_effective_ids_are_mapped():
    """A map is written by its euid: the real one may be somebody else's."""
    script("""
    os.setresgid(1111, 2222, 1111)
    os.setresuid(3333, 4444, 0)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is ours again
    with running(new="user") as child:
        assert id_map("uid_map", child.pid) == [(0, 4444, 1)]
        assert id_map("gid_map", child.pid) == [(0, 2222, 1)]
        os.setresuid(-1, 0, -1)
    """)


# ---- ranges


def test_ranges_of_root():
    uids, gids = [(0, 100000, 65536)], [(0, 200000, 1000)]
    assert maps(new="user", uid_map=uids, gid_map=gids) == (uids, gids, "allow")


def test_ranges_with_gaps():
    uids = [(0, 0, 1), (10, 100000, 5), (1000, 200000, 1)]
    assert maps(new="user", uid_map=uids, gid_map=uids)[:2] == (uids, uids)
    assert sh("id -u", new="user", uid_map=uids, gid_map=uids) == "0"


def test_ranges_without_the_own_id():
    """The program keeps the kernel's id that it has, which no line shows: the overflow id."""
    ranges = [(0, 100000, 10)]
    assert sh("id -u; id -g", new="user", uid_map=ranges, gid_map=ranges).split() == ["65534"] * 2


@pytest.mark.parametrize("uid_map, gid_map", [([(0, 0, 2)], "root"), ("self", [(0, 0, 2)])])
def test_ranges_on_one_side(uid_map, gid_map):
    uids, gids, setgroups = maps(new="user", uid_map=uid_map, gid_map=gid_map)
    assert uids == ([(0, 0, 1)] if uid_map == "self" else uid_map)
    assert gids == ([(0, 0, 1)] if gid_map == "root" else gid_map)
    assert setgroups == ("deny" if gid_map == "root" else "allow")


def test_340_lines():
    lines = [(n, n, 1) for n in range(340)]
    assert maps(new="user", uid_map=lines, gid_map=lines)[:2] == (lines, lines)


def test_more_bytes_than_a_page():
    """The kernel takes less than a page in one write: user_namespaces(7)."""
    count = os.sysconf("SC_PAGESIZE") // 32 + 1
    if count > 340:
        pytest.skip("340 lines always fit into a page of this size")
    lines = [(10**9 + 10 * n, 10**9 + 10 * n, 5) for n in range(count)]
    lines += [(2 * 10**9 + 10 * n, 2 * 10**9 + 10 * n, 5) for n in range(count)]
    with pytest.raises((ValueError, nsext.SpawnError), match="page"):
        nsext.run(["true"], new="user", uid_map=lines)


def test_ranges_may_come_from_any_iterable():
    line = [0, 100000, 10]
    assert maps(new="user", uid_map=iter([line]), gid_map=(line,))[0] == [tuple(line)]


def test_adjacent_ranges_do_not_overlap():
    lines = [(0, 100000, 10), (10, 100010, 10)]
    assert maps(new="user", uid_map=lines)[0] == lines


def test_with_ranges_under_a_deadline():
    """Trap 3: a parent that sleeps until exec would never open the gate."""
    done = nsext.run(["true"], new="user pid", uid_map=[(0, 0, 10)], spawn_timeout=5, timeout=10)
    assert done.returncode == 0


def test_as_user_one_line_with_the_own_id():
    as_user("""
    uid, gid = os.getuid(), os.getgid()
    lines = {"uid_map": [(5, uid, 1)], "gid_map": [(6, gid, 1)]}
    with running(new="user", **lines) as child:
        assert id_map("uid_map", child.pid) == [(5, uid, 1)]
        assert id_map("gid_map", child.pid) == [(6, gid, 1)]
        assert Path(f"/proc/{child.pid}/setgroups").read_text() == "deny\\n"
    assert sh("id -u; id -g", new="user", **lines).split() == ["5", "6"]
    """)


@pytest.mark.parametrize("ranges", ["[(0, 100000, 2)]", "[(0, uid, 2)]", "[(0, uid + 1, 1)]"])
def test_as_user_other_ids_are_refused(ranges):
    as_user(f"""
    uid = os.getuid()
    before = state()
    for which in ("uid", "gid"):
        error = failure(nsext.run, ["true"], new="user", **{{f"{{which}}_map": {ranges}}})
        assert is_plain(error) and error.errno == errno.EPERM, repr(error)
        assert error.stage == "idmap" and f"{{which}}s by new{{which}}map" in error.step, error
        assert f"range of uid {{uid}} in /etc/sub{{which}}" in error.hint
    assert not changes(before, state())
    """)


def test_ids_that_the_caller_does_not_have():
    """In a user namespace of one id, root may map no other, though it has every capability."""
    inside = """
    error = failure(nsext.run, ["true"], new="user", uid_map=[(0, 5, 1)])
    assert is_plain(error) and (error.errno, error.stage) == (errno.EPERM, "idmap"), error
    print(sh("id -u; cat /proc/self/uid_map", new="user").split())
    """
    assert script(inside, new="user pid mnt") == "['0', '0', '0', '1']"


# ---- what the program may do


def test_capabilities_of_the_program():
    """exec by a nonzero id drops them: user_namespaces(7)."""

    def effective(**keywords):
        with running(new="user", **keywords) as child:
            return int(status(child.pid)["CapEff"], 16)

    last = int(open("/proc/sys/kernel/cap_last_cap").read())
    assert effective() == (1 << last + 1) - 1
    assert effective(uid_map=1000) == 0


def test_setgroups_works_where_it_is_allowed():
    command = "exec setpriv --groups 1,2 id -G"
    assert sh(command, new="user", uid_map=[(0, 0, 9)], gid_map=[(0, 0, 9)]) == "0 1 2"
    done = nsext.run(["sh", "-c", command], new="user", capture_output=True)
    assert done.returncode != 0 and b"setgroups" in done.stderr


def test_nested_as_user():
    """An unprivileged root in its namespace makes another, and another."""
    as_user("""
    code = ["print(id_map('uid_map'), os.getuid())"]
    for _ in range(3):
        inner = "from support import *; " + code[-1]
        code.append(f"print(output([sys.executable, '-c', {inner!r}], new='user pid mnt'))")
    exec(code[-1])
    """)


# ---- traps


@pytest.mark.parametrize("which", ["uid_map", "gid_map"])
def test_trap_2_dumpable_stays(which):
    """Id changes make an mm non-dumpable, and a child's mm is ours: so none happen inline."""
    before = dumpable()
    for value in ("root", 1000, [(0, 100000, 65536)], [(0, 0, 1), (1, 100000, 10)]):
        assert sh("echo in", new="user mnt", **{which: value}) == "in"
        assert dumpable() == before


# ---- refused before any clone


@pytest.mark.parametrize("which", ["uid_map", "gid_map"])
@pytest.mark.parametrize(
    "value, words",
    [
        ("own", "none of 'root', 'self', 'auto'"),
        ("", "none of"),
        (-1, "no id"),
        (2**32 - 1, "no id"),
        (2**32, "no id"),
        ([], "0 ranges"),
        ([(0, 0, 0)], "range"),
        ([(0, 0, -1)], "range"),
        ([(-1, 0, 1)], "range"),
        ([(0, 0, 2**32)], "range"),
        ([(0, 0, 2**32 - 1), (2**32 - 1, 2**32 - 1, 1)], "range"),
        ([(2**32 - 1, 0, 1)], "range"),
        ([(0, 100, 10), (9, 200, 10)], "inside ranges overlap at 9"),
        ([(0, 100, 10), (50, 109, 10)], "outside ranges overlap at 109"),
        ([(0, 100, 10), (0, 100, 10)], "overlap"),
        ([(0, 0)], "inside, outside, count"),
        ([5], "inside, outside, count"),
        (["root"], "inside, outside, count"),
        ([(n, n, 1) for n in range(341)], "341"),
    ],
)
def test_values_refused(which, value, words):
    with pytest.raises(ValueError, match=words) as caught:
        nsext.run(["true"], new="user", **{which: value})
    assert which in str(caught.value)


@pytest.mark.parametrize("value", [True, 1.0, b"root", object(), [(0, 0, 1.0)], [(0, True, 1)]])
def test_types_refused(value):
    with pytest.raises((TypeError, ValueError)) as caught:
        nsext.run(["true"], new="user", uid_map=value)
    assert not isinstance(caught.value, nsext.SpawnError)
