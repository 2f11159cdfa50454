"""The attacks of the traps that the helper body is for: each is tried, and none may succeed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faults
import pytest
from helping import error_of, kept_fds, prepared, wait_for
from support import (
    DEADLINE,
    dumpable,
    namespaces,
    needs,
    output,
    release,
    running,
    script,
    stat_field,
    status,
)

import nsext
from nsext._helper import HELPER

HERE = Path(__file__).parent

# ---- trap 1: the container's root and the children that join it -------------------------------


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> str:
    needs(shutil.which("cc"), "needs a C compiler")
    place = tmp_path_factory.mktemp("attacker") / "attacker"
    subprocess.run(["cc", "-O2", "-o", place, HERE / "attacker.c"], check=True)
    return str(place)


@contextmanager
def attacked(attacker: str, new: str) -> Iterator[tuple[Any, list[Any], Callable[[], None]]]:
    """(a container in which the attacker is root, what it has got in the end, something that
    gives it 50 ms of a processor)."""
    result: list[Any] = []

    def spent(pid: int) -> int:
        return int(stat_field(14, pid)) + int(stat_field(15, pid))

    def let_it_run() -> None:
        until = spent(process.pid) + os.sysconf("SC_CLK_TCK") // 20
        wait_for(lambda: spent(process.pid) > until)

    with running(new=new) as container:
        streams: dict[str, Any] = {"stdin": -1, "stdout": -1, "text": True}
        with nsext.Popen([attacker], join=container, **streams) as process:
            assert process.stdout.readline() == "ready\n"
            yield container, result, let_it_run
            words = process.communicate("\n", timeout=DEADLINE)[0].split(maxsplit=4)
            result += [*map(int, words[:4]), *words[4:]]


@pytest.mark.timeout(120)
def test_a_thousand_joins_under_attack(attacker: str, root: None) -> None:
    """Root in there reads nobody's memory and takes nobody's descriptors before exec."""
    program = faults.noop()
    before = namespaces(), dumpable(), Path("/proc/self/oom_score_adj").read_text()
    denied = seen = 0
    for _ in range(10):  # the more others want of the machine, the less the attacker sees
        with attacked(attacker, "user pid mnt") as (container, result, _):
            for _ in range(1000):
                nsext.spawn([program], join=container).wait()
        hits, refused, _, found, *how = result
        assert (hits, how) == (0, []), result
        denied, seen = denied + refused, seen + found
        if seen > 300 and denied > 100:
            break
    else:
        raise AssertionError(f"the attacker was hardly there: {seen}, {denied}")
    after = namespaces(), dumpable(), Path("/proc/self/oom_score_adj").read_text()
    assert before == after


@pytest.mark.parametrize(
    "fields",
    [{}, {"init": True}, {"new": "net uts"}, {"user": 0}, {"kill_on_parent_exit": True}],
)
def test_a_child_that_waits_under_attack(fields: dict[str, Any], attacker: str, root: None) -> None:
    """A checkpoint in the container lasts: all the time there is."""
    with attacked(attacker, "user pid mnt") as (container, result, let_it_run):
        with nsext.Popen(["sleep", "1000"], join=container, paused=True, **fields) as process:
            process.namespaces.close()
            pid = process.program_pid
            ticks = int(status(pid)["voluntary_ctxt_switches"])
            wait_for(lambda: int(status(pid)["voluntary_ctxt_switches"]) > ticks + 2)
            let_it_run()
    assert result[0] == 0, result
    assert result[1] > 100, "the attacker was hardly there"


def test_the_attacker_can_attack(attacker: str, root: None) -> None:
    """The control: it gets at the container's own processes."""
    with attacked(attacker, "user pid mnt") as (container, result, let_it_run):
        with running(join=container) as process:
            wait_for(lambda: status(process.pid)["Name"] == "sleep")
            let_it_run()
    assert result[2] > 0, result


# ---- traps 35 and 36: #!/proc/self/exe -------------------------------------------------------

EVIL = "#!/proc/self/exe\nimport sys; print('python', sys.version)\n"


def _sum(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize("new", ["mnt", "pid mnt", "user pid mnt"])
@pytest.mark.parametrize("fields", [{}, {"init": True}, {"new": "uts"}, {"paused": True}])
def test_a_program_that_is_the_spawners_own(
    new: str, fields: dict[str, Any], root: None, tmp_path: Path
) -> None:
    """CVE-2019-5736: it would be python, to run and then to overwrite.  It is the helper, which
    does nothing without its plan."""
    python_before, helper_before = _sum(os.path.realpath(sys.executable)), _sum(HELPER)
    command = f"mount -t tmpfs none {tmp_path}; cat >{tmp_path}/evil <<'END'\n{EVIL}END\n"
    with prepared(command + f"chmod 755 {tmp_path}/evil", new=new) as other:
        joins: list[Any] = [other.pid, {"mnt": other.pid}] if new != "user pid mnt" else [other]
        for join in joins:
            keywords = {"stdout": -1, "stderr": -1, "join": join, **fields}
            if isinstance(join, dict) and new == "pid mnt":
                # Its /proc is of a pid namespace that the program is not in.
                with pytest.raises(FileNotFoundError):
                    with nsext.Popen([f"{tmp_path}/evil"], **keywords) as process:
                        process.namespaces.close()
                        process.resume()
                continue
            with nsext.Popen([f"{tmp_path}/evil"], **keywords) as process:
                assert process.body == "helper"
                if "paused" in fields:
                    process.namespaces.close()
                    process.resume()
                told = process.communicate(timeout=DEADLINE)
            assert (process.returncode, *told) == (125, b"", b"")
    assert _sum(os.path.realpath(sys.executable)) == python_before
    assert _sum(HELPER) == helper_before


def test_the_image_survives_who_writes_to_it(root: None) -> None:
    """Through /proc/PID/exe, while it runs and when it is over."""
    (image,) = (fd for fd, what in kept_fds().items() if "helper" in what) or (None,)
    with nsext.Popen(["sleep", "1000"], paused=True) as process:
        held = os.open(f"/proc/{process.pid}/exe", os.O_RDONLY)
        process.namespaces.close()
        for path in (f"/proc/{process.pid}/exe", f"/proc/self/fd/{held}"):
            with pytest.raises(OSError):
                os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    for flags in (os.O_WRONLY, os.O_RDWR):
        try:
            fd = os.open(f"/proc/self/fd/{held}", flags)
        except OSError as error:
            assert error.errno in (errno.EPERM, errno.ETXTBSY, errno.EACCES)
            continue
        with pytest.raises(PermissionError):
            os.write(fd, b"evil")
        with pytest.raises(PermissionError):
            os.truncate(fd, 0)
        os.close(fd)
    assert os.pread(held, 1 << 20, 0) == Path(HELPER).read_bytes()
    os.close(held)
    assert image is None or os.fstat(image).st_size == os.stat(HELPER).st_size


def test_the_helper_does_not_run_itself(root: None, tmp_path: Path) -> None:
    """ "#!/proc/self/exe" of a helper that has just started: no loop."""
    program = tmp_path / "loop"
    program.write_text("#!/proc/self/exe 5\n")
    program.chmod(0o755)
    for fields in ({"kill_on_parent_exit": True}, {"init": True}, {"extra_groups": []}):
        assert nsext.run([str(program)], timeout=DEADLINE, **fields).returncode == 125


# ---- trap 43: low descriptors ------------------------------------------------------------------

BODIES = ["", "extra_groups=[]", "init=True", "kill_on_parent_exit=True", "paused=True"]


@pytest.mark.parametrize("fields", BODIES)
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_standard_descriptors_that_are_closed(fields: str, closed: Any) -> None:
    """No descriptor of ours takes their place: Go CVE-2021-44717."""
    code = f"""
    for fd in {closed!r}:
        os.close(fd)
    def table(**keywords):
        p = nsext.Popen(["sleep", "1000"], **keywords)
        if keywords.get("paused"):
            p.namespaces.close()
            p.resume()
        while status(p.program_pid)["State"][0] != "S" or status(p.program_pid)["Name"] != "sleep":
            os.sched_yield()
        found = open_fds(p.program_pid)
        p.kill(); p.wait()
        return found
    fields = dict({fields})
    try:
        assert set(table(**fields)) == {{0, 1, 2}} - set({closed!r}), table(**fields)
        found = table(stdin=nsext.DEVNULL, stderr=nsext.DEVNULL, **fields)
        assert set(found) == {{0, 2}} | ({{1}} - set({closed!r})), found
        assert found[0] == found[2] == "/dev/null", found
        for fd in range(3):  # and none here
            assert (fd in open_fds()) == (fd not in {closed!r}), open_fds()
    except BaseException as error:
        with open(sys.argv[1], "w") as file:
            file.write(repr(error))
        os._exit(1)
    os._exit(0)
    """
    import tempfile

    with tempfile.NamedTemporaryFile("r") as report:
        try:
            script(code, report.name)
        except AssertionError as error:
            raise AssertionError(report.read()) from error


@pytest.mark.parametrize("fields", BODIES)
def test_descriptors_run_out(fields: str, root: None) -> None:
    """RLIMIT_NOFILE from what is used: EMFILE or success, nothing else, and nothing stays open."""
    script(f"""
    import resource
    def job():
        p = nsext.Popen(["true"], stdout=nsext.PIPE, **dict({fields}))
        with p:
            if p._paused:
                p.resume()
        if p._namespaces:
            p._namespaces.close()
        return p.returncode
    assert job() == 0
    import gc
    gc.collect()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    used = max(open_fds()) + 1
    free = os.dup(0); os.close(free)
    before = len(open_fds())
    results = []
    for limit in range(free, used + 24):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            results.append(job())
        except OSError as error:
            results.append(error.errno)
            error.__traceback__ = None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        gc.collect()
        now = [what for what in open_fds().values() if "nsext-plan" not in what]
        assert len(now) <= before, now
    failures = [number for number in results if number]
    assert set(failures) <= {{errno.EMFILE}} and failures, results
    assert results == failures + [0] * (len(results) - len(failures)), results
    """)


# ---- trap 44: process ids are used again -------------------------------------------------------


def test_a_pid_that_is_somebody_elses(root: None) -> None:
    """pid_max=310 in a pid namespace: poll, wait and send_signal reach nobody's process."""
    needs(release() >= (6, 14), "needs Linux 6.14: pid_max of a pid namespace")
    script(
        """
    import select
    from pathlib import Path
    Path("/proc/sys/kernel/pid_max").write_text("310")
    def reuse(pid):
        while True:
            stranger = os.fork()
            if not stranger:
                signal.pause() if os.getpid() == pid else os._exit(0)
            if stranger == pid:
                return
            os.waitpid(stranger, 0)
    for _ in range(310):  # from now on in ten forks: those below 300 are not given again
        if not os.fork():
            os._exit(0)
        os.wait()
    for fields in ({}, {"init": True}, {"kill_on_parent_exit": True}):
        for spawn in (nsext.Popen, nsext.spawn):
            p = spawn(["sh", "-c", "exit 5"], **fields)
            assert select.select([p.fileno()], [], [], 10)[0]
            os.waitpid(p.pid, 0)  # somebody else has reaped it
            reuse(p.pid)
            p.send_signal(signal.SIGTERM); p.terminate(); p.kill()
            assert p.wait(5) in (0, 5) and p.poll() in (0, 5)
            assert os.waitpid(p.pid, os.WNOHANG) == (0, 0), "the stranger was hit"
            os.kill(p.pid, 9)
            assert os.waitpid(p.pid, 0)[1] == 9
    """,
        new="pid mnt",
    )


# ---- trap 45: core dumps -----------------------------------------------------------------------


@pytest.mark.parametrize("body", ["inline", "helper"])
@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGQUIT])
def test_a_core_has_nothing_of_the_parents(body: str, number: int, tmp_path: Path) -> None:
    """A signal sent during the set-up arrives before exec: with the parent's memory mapped."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    needs("/" not in pattern and not pattern.startswith("|"), f"core_pattern is {pattern}")
    faults.need(faults.can_inject(), "no seccomp listener (CAP_SYS_ADMIN, Linux 5.5)")
    code = f"""
    import resource, faults
    from helping import HELPER_TEXT
    secret = ("SECRET" + "-of-the-parent").encode() * 3
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    text = faults.CHILD_TEXT if {body!r} == "inline" else HELPER_TEXT
    def job():
        fields = dict(kill_on_parent_exit=True) if {body!r} == "helper" else dict()
        try:
            with nsext.Popen(["true"], cwd=sys.argv[1], process_group=0, **fields) as p:
                assert p.body == {body!r}
            return p.returncode
        except nsext.SpawnError as error:
            return str(error)
    def answer(call):
        if call.name == "chdir":
            os.kill(call.pid, {int(number)})
    with faults.Injector(text) as injector:
        print(injector.run(job, answer).value, len(secret))
    """
    script(code, str(tmp_path))
    for core in tmp_path.iterdir():
        assert b"SECRET-of-the-parent" not in core.read_bytes(), f"{core.stat().st_size} bytes"


# ---- joined or not, the caller stays what it was -----------------------------------------------


def test_oom_score_and_memory_of_the_caller(root: None) -> None:
    """A child that changes what belongs to a memory changes its own."""
    with running(new="user pid mnt") as other:
        before = Path("/proc/self/oom_score_adj").read_text(), dumpable()
        with nsext.Popen(["true"], join=other, paused=True) as process:
            process.namespaces.close()
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("999")
            assert (Path("/proc/self/oom_score_adj").read_text(), dumpable()) == before
            process.resume()
        assert output(["cat", "/proc/self/oom_score_adj"], join=other) == before[0].strip()
        error = error_of(nsext.Popen, ["true"], join=other, cwd="/nonexistent")
        assert error.stage == "cwd" and dumpable() == before[1]
