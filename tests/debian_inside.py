"""What programs of a Debian say, in it: for the tests, and for an ordinary user's script of theirs."""

import json

import nsext

ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
}

PYTHON = """
import ctypes, json, multiprocessing as m, os, queue
def square(n): return n * n
def main():
    told = {"pid": os.getpid(), "root": os.listdir("/proc/1/root")}
    for method in ("fork", "spawn"):
        context = m.get_context(method)
        with context.Pool(2) as pool:
            told[method] = pool.map(square, range(50))
        lock, box = context.Lock(), context.Queue()
        with lock:
            worker = context.Process(target=box.put, args=("sent",))
            worker.start()
            told[method + " queue"] = box.get(timeout=60)
            worker.join()
    print(json.dumps(told))
if __name__ == "__main__":
    main()
"""

# What the project itself is made of, by the compiler in there: a test in C, and the helper.
BUILD = """
set -e
cd /tmp
gcc -std=c11 -O2 -Wall -Wextra -Werror -I /src/csrc -o plan_check \
    /src/tests/plan_check.c /src/csrc/plan.c
./plan_check
gcc -std=c11 -Os -DNSX_HELPER -ffreestanding -fno-builtin -fno-stack-protector -fno-pic -fno-pie \
    -nostdlib -static -no-pie -Wl,-Ttext-segment=0x5a000000 -o helper \
    /src/csrc/plan.c /src/csrc/child/*.c /src/csrc/helper/*.c
status=0; ./helper || status=$?
echo "without a plan: $status"
"""


def everything(tree, project, new):
    """{what: what it says} of python3, ps and gcc in a Debian; also an ordinary user's script."""
    box = nsext.Sandbox(new=new, root=str(tree), mounts=[nsext.Dev(), nsext.Tmpfs("/tmp")])
    own = nsext.Bind(project, "/src")
    upon = box.replace(root=nsext.Overlay(lower=str(tree)), mounts=[*box.mounts, own])
    script = nsext.File("/tmp/main.py", PYTHON)
    python = box.replace(mounts=[*box.mounts, script])

    def say(args, sandbox):
        return nsext.check_output(args, sandbox=sandbox, env=ENV, text=True, timeout=300)

    return {
        "python": json.loads(say(["python3", "/tmp/main.py"], python)),
        "ps": say(["ps", "-e", "-o", "pid=,comm="], box),
        "shell": say(["sh", "-c", "true; ps -e -o pid=,comm="], box),
        "gcc": say(["sh", "-c", BUILD], upon),
        "namespaces": say(["readlink", "/proc/self/ns/mnt"], box),
    }
