"""What other threads do to arguments and environment while a spawn reads them: traps 5 and 48."""

import os
import sys
import threading

import pytest
from support import DEADLINE, children, python, script

import nsext


class Busy:
    """Threads that go on with something until the block ends."""

    def __init__(self, *bodies):
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.repeat, args=(body,)) for body in bodies]

    def repeat(self, body):
        while not self.over.is_set():
            body()

    def __enter__(self):
        self.interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)  # more turns, in less time
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join(DEADLINE)
        sys.setswitchinterval(self.interval)


@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen])
def test_trap_5_arguments_changed_meanwhile(start):
    """Each child has a list as it was at some moment: all items of one generation, never a mix."""
    args = ["/bin/sh", "-c", "test $# = 3 || test $# = 0", "sh", "a", "b", "c"]

    def shorten():
        del args[4:]
        args.extend(["a", "b", "c"])

    def turn():
        args[4:] = ["c", "b", "a"]

    with Busy(shorten, turn):
        for _ in range(100):
            process = start(args)
            assert process.wait() in (0, 1)  # a list in between is a list, too
    assert args[:4] == ["/bin/sh", "-c", "test $# = 3 || test $# = 0", "sh"]


@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen])
def test_trap_5_objects_die_meanwhile(start):
    """The strings of a list are copied before they can be freed."""
    args = ["/bin/sh", "-c", 'case "$1" in x*x) exit 0;; esac; exit 1', "sh", "x" * 1000 + "x"]

    def renew():
        args[4] = "x" + os.urandom(500).hex() + "x"

    with Busy(renew, renew):
        for _ in range(100):
            assert start(args).wait() == 0


def test_trap_48_environ_changed_by_another_thread():
    stays = {"NSEXT_A": "1" * 500, "NSEXT_Z": "2" * 500}
    before = set(os.environ)
    os.environ.update(stays)
    count = [0]

    def change():
        count[0] += 1
        os.environ[f"NSEXT_{count[0] % 50}"] = "v" * (count[0] % 900)
        os.environ.pop(f"NSEXT_{(count[0] + 25) % 50}", None)

    command = 'test "$NSEXT_A" = ' + "1" * 500 + ' && test "$NSEXT_Z" = ' + "2" * 500
    try:
        with Busy(change):
            for _ in range(100):
                assert nsext.spawn(["/bin/sh", "-c", command]).wait() == 0
                assert nsext.Popen(["/bin/sh", "-c", command]).wait() == 0
    finally:
        for name in set(os.environ) - before:
            del os.environ[name]


def test_trap_48_dictionary_changed_by_another_thread():
    env = {"A": "1"}

    def change():
        for number in range(50):
            env[f"V{number}"] = "x" * number
        for number in range(50):
            env.pop(f"V{number}", None)

    with Busy(change):
        for _ in range(100):
            try:
                assert nsext.spawn(["/bin/sh", "-c", "test $A = 1"], env=env).wait() == 0
            except RuntimeError as error:  # as any dict that is changed while it is read
                assert "changed" in str(error)


@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen])
def test_trap_48_changed_between_spawns(start):
    """No cache may know a dictionary by its identity."""
    env = {"A": "0"}
    for number in range(20):
        env["A"] = str(number)
        assert start(["/bin/sh", "-c", f"test $A = {number}"], env=env).wait() == 0
        os.environ["NSEXT_TEST"] = str(number)
        try:
            command = f"test $NSEXT_TEST = {number}"
            assert start(["/bin/sh", "-c", command]).wait() == 0
            assert start(["/bin/sh", "-c", command], env=None).wait() == 0
            assert start(["/bin/sh", "-c", command], env=os.environ).wait() == 0
        finally:
            del os.environ["NSEXT_TEST"]


def test_fields_changed_between_spawns():
    """Nor any other argument that can change."""
    limits, cpus = {"nofile": 100}, [min(os.sched_getaffinity(0))]
    for number in range(100, 110):
        limits["nofile"] = number
        code = "import resource, sys; sys.exit(resource.getrlimit(7)[0] != int(sys.argv[1]))"
        assert nsext.spawn(python(code, str(number)), rlimits=limits, affinity=cpus).wait() == 0


def test_env_none_is_the_c_librarys():
    """As subprocess: what putenv() did, and unsetenv(), is seen, though os.environ does not know."""
    os.putenv("NSEXT_C", "seen")
    try:
        assert nsext.check_output(["sh", "-c", "echo $NSEXT_C"]) == b"seen\n"
        assert nsext.check_output(["sh", "-c", "echo $NSEXT_C"], env=os.environ) == b"\n"
    finally:
        os.unsetenv("NSEXT_C")


def test_env_keeps_its_order_and_all_of_it():
    env = {f"V{number}": str(number) for number in range(100)}
    shown = nsext.check_output(["/usr/bin/env"], env=env, text=True).splitlines()
    assert shown == [f"{name}={value}" for name, value in env.items()]


def test_spawning_from_many_threads():
    """Each has its own child, its own status and its own error."""
    wrong = []

    def body(number):
        for turn in range(40):
            code = (number * 7 + turn) % 256
            if nsext.spawn(["/bin/sh", "-c", f"exit {code}"]).wait() != code:
                wrong.append(("status", number, turn))
            try:
                nsext.spawn([f"/no/such/{number}/{turn}"])
            except FileNotFoundError as error:
                if error.filename != f"/no/such/{number}/{turn}":
                    wrong.append((error.filename, number, turn))
            else:
                wrong.append(("no error", number, turn))

    threads = [threading.Thread(target=body, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not wrong and not children()


def test_trap_31_threads_that_allocate_and_a_fork_storm():
    """Traps 10 and 31 in small (test_storms.py has them in large)."""
    script("""
    sys.setswitchinterval(1e-5)
    over = threading.Event()
    def allocate():
        while not over.is_set():
            [bytes(n) for n in range(0, 5000, 7)]
    def fork():
        while not over.is_set():
            pid = os.posix_spawn("/bin/true", ["true"], {})
            os.waitpid(pid, 0)
    threads = [threading.Thread(target=body) for body in (allocate, allocate, fork, fork)]
    for thread in threads:
        thread.start()
    for _ in range(60):
        assert nsext.spawn(["true"], nice=5).wait() == 0
        try:
            nsext.spawn(["/no/such"])
        except FileNotFoundError:
            pass
    over.set()
    for thread in threads:
        thread.join()
    """)
