"""System calls that a seccomp filter or an old kernel refuses: the same result, or an error.

Trap 29: never less isolation, never a descriptor or a handler of ours left.
"""

import platform

import pytest
from support import needs, script

pytestmark = pytest.mark.usefixtures("root")

REFUSALS = {
    "nothing": {},
    "clone3 ENOSYS": {"clone3": 38},
    "clone3 EPERM": {"clone3": 1},
    "close_range ENOSYS": {"close_range": 38},
    "both ENOSYS": {"clone3": 38, "close_range": 38},
    "all of it": {"clone3": 1, "close_range": 38, "pidfd_open": 38},
}


@pytest.fixture(params=REFUSALS)
def refused(request):
    """Runs a script under the filter."""
    needs(platform.machine() in ("x86_64", "aarch64"), "system call numbers are not known here")
    calls = REFUSALS[request.param]

    def run(code):
        return script(f"refuse(**{calls})\nbefore = state()\n" + code)

    return run


def test_all_namespaces(refused):
    refused("""
for kind in (*KINDS, " ".join(KINDS)):
    for start in (nsext.spawn, nsext.Popen):
        with running(new=kind, start=start) as child:
            ours, its = namespaces(), namespaces(child.pid)
        made = {name for name in KINDS if ours[name] != its[name]}
        assert made == set(kind.split()), (kind, made)
assert not changes(before, state()), changes(before, state())
""")


def test_all_descriptors_are_closed(refused):
    refused("""
fds = [os.open("/", os.O_RDONLY) for _ in range(300)]
for fd in fds:
    os.set_inheritable(fd, True)
memory = os.memfd_create("kept")
os.dup2(memory, 5000)
for keywords, expected in (
    ({}, set()),
    ({"fd_map": {200: memory}}, {200}),
    ({"fd_map": {3: memory, 250: memory}}, {3, 250}),
    ({"pass_fds": [memory]}, {memory}),
):
    with running(**keywords) as child:
        found = open_fds(child.pid)
        assert found.keys() == {0, 1, 2, *expected}, (keywords, found)
        assert all(found[fd] == "/memfd:kept (deleted)" for fd in expected)
error = failure(nsext.spawn, ["true"], cwd=f"/proc/self/fd/{fds[200]}")
assert isinstance(error, FileNotFoundError)
""")


def test_signal_handlers_are_reset(refused):
    refused("""
for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGRTMAX):
    signal.signal(number, lambda *args: None)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
for start in (nsext.spawn, nsext.Popen):
    with running(start=start) as child:
        facts = status(child.pid)
        assert int(facts["SigCgt"], 16) == 0, facts["SigCgt"]
        # 32 and 33 are the C library's, which ignores them in children of its posix_spawn();
        # musl also has 34, and ignores it when it does not use it.
        ignored = int(facts["SigIgn"], 16) & ~((7 if MUSL else 3) << 31)
        assert ignored == 1 << signal.SIGUSR2 - 1, facts["SigIgn"]
        assert int(facts["SigBlk"], 16) == 1 << signal.SIGHUP - 1, facts["SigBlk"]
        child.send_signal(signal.SIGUSR1)
        assert child.wait() == -signal.SIGUSR1
# exec would do it, too; but nobody else does it for an entry, and before exec.
with running(ctypes.CDLL(None).pause, start=nsext.clone) as child:
    facts = status(child.pid)
    assert int(facts["SigCgt"], 16) == 0, facts["SigCgt"]
    assert int(facts["SigBlk"], 16) == 1 << signal.SIGHUP - 1, facts["SigBlk"]
    child.send_signal(signal.SIGUSR1)
    assert child.wait() == -signal.SIGUSR1
""")


def test_errors_are_the_same(refused):
    refused("""
for start in (nsext.spawn, nsext.Popen):
    error = failure(start, ["/no/such"], new="uts")
    assert isinstance(error, FileNotFoundError) and error.stage == "exec"
    error = failure(start, ["true"], affinity=[65535])
    assert (error.errno, error.stage) == (errno.EINVAL, "setup") and is_plain(error)
    error = failure(start, ["true"], new="user mnt", proc=True)
    assert (error.errno, error.step) == (errno.EPERM, "mount proc on /proc")
assert not changes(before, state()), changes(before, state())
""")


def test_ranges_work_or_say_why_not(refused):
    """Both sides must be awake for them: a parent that sleeps in clone() would hang."""
    refused("""
done = None
try:
    done = nsext.run(["cat", "/proc/self/uid_map"], new="user", uid_map=[(0, 0, 5)],
                     capture_output=True, timeout=20)
except nsext.SpawnError as error:
    assert error.errno == errno.ENOSYS and is_plain(error), error
else:
    assert done.stdout.split() == [b"0", b"0", b"5"], done
assert not changes(before, state()), changes(before, state())
""")


def test_clone_of_an_entry(refused):
    refused("""
entry = ctypes.CDLL(None).abs
assert nsext.clone(entry, 42).wait() == 42
assert nsext.clone(entry, 42, new="all", hostname="x").wait() == 42
assert not changes(before, state()), changes(before, state())
""")


def test_a_true_eperm_of_clone3_stays_one():
    """Where clone(2) says the same, that is the answer: it is not hidden by the second try."""
    script("""
    refuse(clone3=1, clone=1)
    error = failure(nsext.spawn, ["true"], new="uts")
    assert (error.errno, error.stage) == (errno.EPERM, "clone") and is_plain(error)
    assert "seccomp" in error.hint
    """)


def test_refused_for_good_is_an_error():
    script("""
    refuse(clone3=38, clone=38)
    error = failure(nsext.spawn, ["true"])
    assert (error.errno, error.stage) == (errno.ENOSYS, "clone") and is_plain(error)
    """)


def test_close_range_refused_and_no_proc():
    """Descriptors that stay open would be a way out: so it is an error, not a shrug."""
    script("""
    refuse(close_range=38)
    own_mounts()
    mount("tmpfs", "/proc", "tmpfs")
    for start in (nsext.spawn, nsext.Popen):
        error = failure(start, ["true"])
        assert (error.errno, error.stage) == (errno.ENOENT, "setup") and is_plain(error), error
        assert error.step == "close file descriptors"
    nsext.run(["true"], close_fds=False, check=True)
    """)


def test_close_range_eperm_is_an_error():
    script("""
    refuse(close_range=1)
    error = failure(nsext.spawn, ["true"])
    assert (error.errno, error.stage) == (errno.EPERM, "setup") and is_plain(error)
    assert error.step == "close file descriptors"
    """)


def test_signalling_refused_says_so():
    """No fallback to kill(2): the pid may be a stranger's."""
    script("""
    process = nsext.Popen(["sleep", "1000"])
    refuse(pidfd_send_signal=38)
    for send in (process.kill, process.terminate, lambda: process.send_signal(signal.SIGTERM)):
        try:
            send()
        except OSError as error:
            assert error.errno == errno.ENOSYS
        else:
            raise AssertionError("it said nothing")
    assert process.poll() is None
    os.kill(process.pid, 9)
    assert process.wait() == -9
    """)


@pytest.mark.parametrize("calls", [{}, {"mount_setattr": 38}], ids=["nothing", "mount_setattr"])
def test_the_root_directory_is_bound_without_the_workshop(calls):
    """Where mounts are made by mount(2): the tmpfs for that lies on the root directory."""
    script(f"""
refuse(**{calls})
here = sorted(os.listdir("/"))
def names(place, mounts=(), root=None):
    return ask("print(json.dumps(sorted(os.listdir(sys.argv[1]))))", place, mounts=mounts, root=root, new="mnt")
bound = nsext.Bind("/", "/mnt")
assert names("/", root="/") == here
assert names("/", root=nsext.Bind("/", readonly=False)) == here
assert names("/mnt", [bound]) == here
assert names("/mnt/mnt", [nsext.Tmpfs("/srv"), bound, nsext.Bind("/", "/mnt/mnt")]) == here
own = [nsext.Bind("/proc", "/mnt"), nsext.Bind("/", "/srv")]  # nor what else is kept in there
text = sh("cat /proc/self/mountinfo", mounts=own, new="mnt")
points = [line.split()[4] for line in text.splitlines()]
assert not [point for point in points if point.startswith("/srv/") and point[5:].isdigit()], points
""")
