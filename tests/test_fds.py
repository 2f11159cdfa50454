"""The child's table of descriptors: exactly what was named, and nothing else."""

import contextlib
import errno
import json
import os
import resource
import subprocess

import bodies
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import is_plain, open_fds, python, script

import nsext

REPORT = 99  # where the child writes what it has
TABLE = f"""
import json, os
table = {{}}
for name in os.listdir("/proc/self/fd"):
    try:
        table[name] = os.readlink("/proc/self/fd/" + name)
    except OSError:
        pass
os.write({REPORT}, json.dumps(table).encode())
"""


def memory(name, at=None, inheritable=False):
    """A file that can be recognised by its link, at a number of one's choice."""
    fd = os.memfd_create(name)
    if at is not None:
        assert at not in map(int, os.listdir("/proc/self/fd")), f"descriptor {at} is in use"
        os.dup2(fd, at, inheritable)
        os.close(fd)
        fd = at
    os.set_inheritable(fd, inheritable)
    return fd


def link(name):
    return f"/memfd:{name} (deleted)"


@contextlib.contextmanager
def memories(*names, **keywords):
    fds = [memory(name, **keywords) for name in names]
    try:
        yield fds
    finally:
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)


def table(start=nsext.spawn, fd_map=None, **keywords):
    """The descriptors of a child, but its report and standard streams that are ours."""
    reader, writer = os.pipe()
    with open(reader) as report:
        try:
            fd_map = {REPORT: writer, **(fd_map or {})}
            process = start(python(TABLE), fd_map=fd_map, **keywords)
        finally:
            os.close(writer)
        with process:
            found = {int(fd): name for fd, name in json.load(report).items()}
    assert process.returncode == 0
    del found[REPORT]
    return found


def ours(*fds):
    return {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in fds}


def inherited():
    """What a child has without close_fds: ours without FD_CLOEXEC."""
    return {fd: name for fd, name in open_fds().items() if os.get_inheritable(fd)}


# ---- standard streams


@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen])
def test_streams_are_inherited(start):
    assert table(start) == ours(0, 1, 2)


@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen])
def test_streams_may_be_files_numbers_and_devnull(start):
    with memories("in", "out") as (one, two), open(two, "wb", closefd=False) as file:
        found = table(start, stdin=one, stdout=file, stderr=nsext.DEVNULL)
    assert found == {0: link("in"), 1: link("out"), 2: "/dev/null"}


@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen])
def test_stderr_to_stdout(start):
    with memories("out") as (out,):
        found = table(start, stdout=out, stderr=nsext.STDOUT)
        assert {1: link("out"), 2: link("out")}.items() <= found.items()
    assert table(start, stderr=nsext.STDOUT)[2] == ours(1)[1]


def test_pipes_of_popen():
    done = nsext.run(["cat"], input=b"x" * 200_000, capture_output=True, new="pid")
    assert done.stdout == b"x" * 200_000 and done.stderr == b""


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_spawn_makes_no_pipes(name):
    with pytest.raises(ValueError, match="pipes"):
        nsext.spawn(["true"], stdout=nsext.DEVNULL, stdin=nsext.DEVNULL, stderr=-1)
    with pytest.raises(ValueError, match="pipes"):
        nsext.spawn(["true"], **{name: nsext.PIPE})


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_spawn_stdout_is_for_stderr_only(name):
    with pytest.raises(ValueError, match="STDOUT"):
        nsext.spawn(["true"], **{name: nsext.STDOUT})


# ---- pass_fds and fd_map


def test_pass_fds_arrive_whatever_their_cloexec():
    with memories("a", "b") as (a, b):
        assert table(pass_fds=[a, b]) == {**ours(0, 1, 2), a: link("a"), b: link("b")}
        assert not os.get_inheritable(a)


def test_fd_map_moves():
    with memories("a", "b") as (a, b):
        found = table(fd_map={7: a, 50: b, 51: b})
    assert found == {**ours(0, 1, 2), 7: link("a"), 50: link("b"), 51: link("b")}


def test_fd_map_takes_objects_with_fileno():
    with memories("a") as (a,), open(a, closefd=False) as file:
        assert table(fd_map={9: file})[9] == link("a")


def test_fd_map_may_be_a_stream():
    with memories("a", "b") as (a, b):
        found = table(fd_map={0: a, 2: b})
    assert found == {0: link("a"), 1: ours(1)[1], 2: link("b")}


def test_fd_map_cycles():
    assert table(fd_map={0: 1, 1: 0}) == {0: ours(1)[1], 1: ours(0)[0], 2: ours(2)[2]}
    with memories("a", at=60) as (a,), memories("b", at=61) as (b,), memories("c", at=62) as (c,):
        found = table(fd_map={a: b, b: c, c: a})
        assert found == {**ours(0, 1, 2), a: link("b"), b: link("c"), c: link("a")}
        found = table(fd_map={a: b, b: a, c: c})
        assert found == {**ours(0, 1, 2), a: link("b"), b: link("a"), c: link("c")}


def test_fd_map_chain_and_shift():
    """What one entry overwrites is another's source, in every direction."""
    with memories("a", at=60), memories("b", at=61), memories("c", at=62):
        up = table(fd_map={61: 60, 62: 61, 63: 62})
        down = table(fd_map={59: 60, 60: 61, 61: 62})
    assert up == {**ours(0, 1, 2), 61: link("a"), 62: link("b"), 63: link("c")}
    assert down == {**ours(0, 1, 2), 59: link("a"), 60: link("b"), 61: link("c")}


def test_big_numbers():
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with memories("a") as (a,):
        big = min(limit, 1 << 20) - 1
        assert table(fd_map={big - 1: a})[big - 1] == link("a")
        for child in (limit, 2**31 - 2):
            with pytest.raises(nsext.SpawnError) as caught:
                table(fd_map={child: a})
            error = caught.value
            assert is_plain(error) and (error.errno, error.stage) == (errno.EBADF, "setup")
            assert str(child) in error.step


@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen])
def test_closed_descriptor_is_an_error_that_names_it(start):
    with memories("a") as (a,):
        pass
    for keywords in ({"pass_fds": [a]}, {"fd_map": {77: a}}, {"fd_map": {a: 0, 77: a}}):
        with pytest.raises(nsext.SpawnError) as caught:
            start(["true"], **keywords)
        error = caught.value
        assert is_plain(error) and (error.errno, error.stage) == (errno.EBADF, "setup")
        assert "pass file descriptor" in error.step


@pytest.mark.parametrize(
    "keywords, kind",
    [
        ({"stdin": 0, "fd_map": {0: 1}}, ValueError),
        ({"stdin": nsext.DEVNULL, "fd_map": {0: 1}}, ValueError),
        ({"pass_fds": [1], "fd_map": {1: 2}}, ValueError),
        ({"pass_fds": [1], "stdout": 2}, ValueError),
        ({"fd_map": {-1: 0}}, ValueError),
        ({"fd_map": {5: -1}}, ValueError),
        ({"fd_map": {"5": 0}}, TypeError),
        ({"fd_map": {True: 0}}, TypeError),
        ({"fd_map": {5: "0"}}, (TypeError, AttributeError)),
        ({"fd_map": {2**31: 0}}, (ValueError, OverflowError)),
        ({"fd_map": {5: 2**31}}, (ValueError, OverflowError)),
        ({"pass_fds": [-1]}, ValueError),
    ],
    ids=str,
)
@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen])
def test_refused_before_any_clone(start, keywords, kind):
    with pytest.raises(kind) as caught:
        start(["true"], **keywords)
    assert not isinstance(caught.value, OSError)


# ---- what is not named is closed


@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen])
def test_close_fds(start):
    with memories("a", inheritable=True) as (a,), memories("b") as (b,):
        assert table(start) == ours(0, 1, 2)
        found = table(start, close_fds=False)
        assert found == inherited() and found[a] == link("a") and b not in found
        named = {**ours(0, 1, 2), b: link("b")}
        assert table(start, pass_fds=[b]) == named
        if start is nsext.spawn:  # Popen, as subprocess, closes them with pass_fds
            assert table(start, close_fds=False, pass_fds=[b]) == inherited() | named


@contextlib.contextmanager
def leaked_directories(count=200):
    fds = [os.open("/", os.O_RDONLY | os.O_DIRECTORY) for _ in range(count)]
    try:
        for fd in fds:
            os.set_inheritable(fd, True)
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def test_trap_26_leaked_directories_are_closed():
    """CVE-2024-21626: one directory descriptor is the way out of any root."""
    with leaked_directories() as fds, memories("a") as (a,):
        assert table() == ours(0, 1, 2)
        kept = table(fd_map={fds[100]: a})
    assert kept == {**ours(0, 1, 2), fds[100]: link("a")}


def test_trap_39_closed_before_chdir():
    with leaked_directories() as fds:
        for fd in fds[::20]:
            with pytest.raises(FileNotFoundError) as caught:
                nsext.spawn(["true"], cwd=f"/proc/self/fd/{fd}")
            assert caught.value.stage == "cwd"


def test_trap_39_closed_before_exec():
    with leaked_directories() as fds:
        for fd in fds[::20]:
            with pytest.raises(FileNotFoundError) as caught:
                nsext.spawn([f"/proc/self/fd/{fd}/bin/sh", "-c", "true"])
            assert caught.value.stage == "exec"
        assert nsext.run([f"/proc/self/fd/{fds[0]}/bin/true"], pass_fds=fds[:1]).returncode == 0


# ---- few descriptors


def test_trap_43_streams_that_are_closed():
    """The kernel hands out the lowest number: no internal descriptor may be taken for a stream."""
    script("""
    import itertools
    for closed in itertools.chain.from_iterable(itertools.combinations((0, 1, 2), n) for n in (1, 2, 3)):
        pid = os.fork()
        if pid:
            assert os.waitpid(pid, 0)[1] == 0, closed
            continue
        log = os.dup(2)
        os.set_inheritable(log, False)
        try:
            for fd in closed:
                os.close(fd)
            for uid_map in (None, [(0, 0, 9)]):  # ranges need one more descriptor
                for start in (nsext.spawn, nsext.Popen):
                    new = "" if uid_map is None else "user"
                    with running(start=start, new=new, uid_map=uid_map) as child:
                        for fd in (0, 1, 2):
                            has = os.path.exists(f"/proc/{child.pid}/fd/{fd}")
                            assert has == (fd not in closed), (closed, fd)
                        assert child.fileno() > 2
            reader, writer = os.pipe()
            nsext.spawn(["echo", "here"], stdout=writer).wait()
            assert os.read(reader, 100) == b"here\\n"
            os.close(reader)
            os.close(writer)
            assert nsext.check_output(["sh", "-c", "cat; echo x >&2"], input=b"y", stderr=-2) == b"yx\\n"
            assert not set(closed) & set(open_fds())
            os._exit(0)
        except BaseException:
            import traceback
            os.write(log, traceback.format_exc().encode())
            os._exit(1)
    """)


@pytest.mark.parametrize("ranges", [False, True])
def test_trap_43_descriptors_nearly_used_up(ranges):
    """From none left to enough: EMFILE of the clone, or success; and nothing stays.

    The helper body has a plan that is a descriptor, and before it a program.
    """
    outcomes = json.loads(
        script(
            """
        import resource
        ranges = json.loads(sys.argv[1])
        new = {"new": "user", "uid_map": [(0, 0, 9)]} if ranges else {}
        while max(open_fds()) > len(open_fds()) - 1:  # fill the gaps
            os.dup(0)
        before = state()
        used = len(open_fds())
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        outcomes = []
        for spare in range(9):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
            try:
                process = nsext.spawn(["true"], **new)
            except nsext.SpawnError as error:
                assert error.errno == errno.EMFILE and is_plain(error), repr(error)
                assert error.hint, error.stage
                outcomes.append(error.stage)
            else:
                process.wait()
                outcomes.append("ok")
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert not changes(before, state()), changes(before, state())
        print(json.dumps(outcomes))
        """,
            json.dumps(ranges),
        )
    )
    stages = ["plan"] * (bodies.forced() == "helper") + ["clone", "idmap", "ok"]
    assert outcomes[0] == stages[0] and outcomes[-1] == "ok"
    assert outcomes == sorted(outcomes, key=stages.index)


# ---- against a model

NUMBERS = [0, 1, 2, *range(60, 68), 70]
SOURCES = range(60, 66)


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    moves=st.dictionaries(st.sampled_from(NUMBERS), st.sampled_from(SOURCES), max_size=9),
    passed=st.sets(st.sampled_from(SOURCES), max_size=3),
    inheritable=st.sets(st.sampled_from(SOURCES), max_size=3),
    close_fds=st.booleans(),
)
def test_any_remap_against_a_model(moves, passed, inheritable, close_fds):
    passed -= moves.keys()
    with contextlib.ExitStack() as stack:
        for fd in SOURCES:
            keywords = {"at": fd, "inheritable": fd in inheritable}
            stack.enter_context(memories(f"m{fd}", **keywords))
        model = ours(0, 1, 2) if close_fds else inherited()
        found = table(fd_map=moves, pass_fds=passed, close_fds=close_fds)
    model |= {fd: link(f"m{fd}") for fd in passed}
    model |= {child: link(f"m{parent}") for child, parent in moves.items()}
    assert found == model


def test_same_as_subprocess():
    """One and the same table by both, for what both can say."""
    with memories("a", inheritable=True), memories("b") as (b,):
        shown = []
        for module in (subprocess, nsext):
            reader, writer = os.pipe()
            with open(reader) as report:
                code = TABLE.replace(f"os.write({REPORT}", f"os.write({writer}")
                module.run(python(code), pass_fds=[writer, b], stdin=nsext.DEVNULL, check=True)
                os.close(writer)
                shown.append(json.load(report))
    assert shown[0].keys() - {str(writer)} == {"0", "1", "2", str(b)}
    assert shown[0].keys() == shown[1].keys()
