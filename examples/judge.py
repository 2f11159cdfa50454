"""A judge: run submissions that nobody has read against tests, with limits, and say a verdict.

    python examples/judge.py [SUBMISSION.py INPUT EXPECTED]

Sandbox.untrusted() is what the program may see and do; the limits are those of run().  Without
arguments eight submissions are judged, most of which mean no good.
"""

import sys
from pathlib import Path

import nsext

SECONDS = 1  # of CPU time; of wall time three times as much
OUTPUT = "64k"
MEMORY = "512m"

# To read two numbers, and to print their sum.
TESTS = [("2 3\n", "5\n"), ("40 2\n", "42\n")]
SUBMISSIONS = {
    "right": "print(sum(map(int, input().split())))",
    "wrong": "print(5)",
    "raises": "1 / 0",
    "never ends": "while True: pass",
    "sleeps": "import time; time.sleep(1000)",
    "talks": "while True: print('spam' * 1000)",
    "eats": "print(len(bytearray(4 << 30)))",
    "spies": """
import os, socket
def tried(what, call, *args):
    try:
        call(*args)
    except OSError:
        return
    raise SystemExit(f"got through: {what}")
tried("shadow", open, "/etc/shadow")
tried("network", socket.create_connection, ("192.0.2.1", 80), 1)
tried("root", open, "/usr/x", "w")
tried("kill", os.kill, os.getppid() + 1000, 9)
print(sum(map(int, input().split())))
""",
}
EXPECTED = {
    "right": "accepted",
    "wrong": "wrong answer",
    "raises": "error",
    "never ends": "time limit",
    "sleeps": "time limit",
    "talks": "output limit",
    "eats": "error",
    "spies": "accepted",
}

# CompletedProcess.verdict
WORDS = {
    "nonzero": "error",
    "signal": "error",
    "cpu": "time limit",
    "timeout": "time limit",
    "memory": "memory limit",
    "output": "output limit",
}


def interpreter():
    """The running system's Python, which is in /usr; another one would have to be bound."""
    for path in (sys._base_executable, "/usr/bin/python3"):
        if path.startswith("/usr/") and Path(path).exists():
            return path
    return None


def judge(source, tests, python):
    """Return "accepted", or what is the matter with *source*."""
    box = nsext.Sandbox.untrusted()
    box = box.replace(
        # /tmp is the one place where there is still something to be made.
        mounts=[*box.mounts, nsext.File("/tmp/submission.py", source)],
        rlimits={**box.rlimits, "as": MEMORY},
    )
    for given, wanted in tests:
        done = box.run(
            [python, "-I", "/tmp/submission.py"],
            input=given,
            capture_output=True,
            text=True,
            cpu_time_limit=SECONDS,
            wall_time_limit=3 * SECONDS,
            output_limit=OUTPUT,
        )
        if done.verdict != "ok":
            return WORDS[done.verdict]
        if done.stdout.split() != wanted.split():
            return "wrong answer"
    return "accepted"


def main():
    python = interpreter()
    if python is None:
        sys.exit("there is no Python in /usr")
    if len(sys.argv) > 1:
        source, given, wanted = (Path(name).read_text() for name in sys.argv[1:])
        print(judge(source, [(given, wanted)], python))
        return
    for name, source in SUBMISSIONS.items():
        verdict = judge(source, TESTS, python)
        print(f"{name:<12}{verdict}")
        assert verdict == EXPECTED[name]


if __name__ == "__main__":
    main()
