"""One object in the hands of several threads: what each may see, and that none acts twice."""

import threading

import pytest
from support import DEADLINE, children, script
from test_threads_env import Busy

import nsext


def at_once(count, job):
    """What job() returned, or raised, in threads that start together."""
    barrier = threading.Barrier(count)
    results = []

    def body():
        barrier.wait(DEADLINE)
        try:
            results.append(job())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(results) == count
    return results


@pytest.mark.parametrize("init", [False, True])
def test_inner_pid_while_it_is_resumed(init):
    """What tells it is used up by resume() and by wait()."""
    for _ in range(20):
        process = nsext.Popen(["true"], new="user pid", init=init, paused=True)
        wrong = []

        def look(process=process, wrong=wrong):
            try:
                if process.inner_pid not in (1, 2):
                    wrong.append(process.inner_pid)
            except Exception as error:
                wrong.append(error)

        with Busy(look, look):
            process.resume()
            assert process.wait(timeout=DEADLINE) == 0
        process.namespaces.close()
        assert wrong == []


def test_resumed_by_several_threads():
    """One does it; the others are told, and do no harm to the program."""
    for _ in range(20):
        process = nsext.Popen(["true"], paused=True)
        results = at_once(4, process.resume)
        assert process.wait(timeout=DEADLINE) == 0, results
        process.namespaces.close()
        assert results.count(None) == 1
        assert sum(isinstance(result, RuntimeError) for result in results) == 3, results


def test_waited_for_by_several_threads():
    for start in (nsext.Popen, nsext.spawn):
        for code in range(20):
            process = start(["sh", "-c", f"exit {code}"])
            assert at_once(4, process.wait) == [code] * 4
            assert at_once(2, process.kill) == [None] * 2
    assert not children()


def test_first_use_by_several_threads():
    """What is looked up once is there as a whole or not at all."""
    script("""
    sys.setswitchinterval(1e-6)
    barrier = threading.Barrier(8)
    errors = []
    def body():
        barrier.wait()
        try:
            box = nsext.Sandbox(rlimits={"nofile": 100, "stack": 1 << 20, "cpu": 10}, seccomp="default")
            assert box.spawn(["true"]).wait() == 0
        except BaseException as error:
            errors.append(repr(error))
    threads = [threading.Thread(target=body) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    """)


def test_one_sandbox_for_all():
    box = nsext.Sandbox(new="user uts", hostname="shared")

    def job():
        return [box.check_output(["uname", "-n"]) for _ in range(10)]

    assert at_once(8, job) == [[b"shared\n"] * 10] * 8
