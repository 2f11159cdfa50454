"""Run a tool on files, without a network and without a directory of yours: files in, files out.

    python examples/tool_runner.py [--in FILE ...] [--out NAME ...] [--to DIRECTORY] COMMAND ...

COMMAND runs in a directory that is in memory, with copies of FILEs.  When it has ended, the files
NAME in there are copied to DIRECTORY.  Nothing of the host can be written, and nothing but its
programs be read.  Without a COMMAND, sort(1) is the tool.
"""

import argparse
import sys
from pathlib import Path

import nsext

LIMIT = 64 << 20


def run_tool(command, inputs, wanted=(), timeout=60):
    """Return (exit status, output, {name: content}) of a tool.

    inputs: {name: content}.  wanted: the files that it is to leave; what it did not leave, or is
    no regular file, is left out, as is whatever is longer than LIMIT.
    """
    found = {}
    with nsext.Popen(
        command,
        new="user pid mnt net ipc uts",
        root=nsext.Tmpfs(size="16m"),
        mounts=[
            *nsext.hostlike(),
            nsext.Tmpfs("/job", size="256m"),
            *(nsext.File(f"/job/{name}", content) for name, content in inputs.items()),
        ],
        cwd="/job",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/job", "LANG": "C.UTF-8"},
        capabilities=(),
        init=True,
        kill_on_parent_exit=True,
        stdin=nsext.DEVNULL,
        stdout=nsext.PIPE,
        stderr=nsext.STDOUT,
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except nsext.TimeoutExpired:
            process.kill()  # and with PID 1 everything in there
            output, _ = process.communicate()
        # The tool's files, by its own root: a link there leads nowhere else.
        with process.root as root:
            for name in wanted:
                try:
                    with nsext.open_in(root, f"/job/{name}") as file:
                        content = file.read(LIMIT + 1)
                except OSError:
                    continue
                if len(content) <= LIMIT:
                    found[name] = content
        return process.returncode, output, found


def demonstrate():
    given = {"words": b"pear\napple\nfig\n"}
    status, output, found = run_tool(["sort", "-o", "sorted", "words"], given, ["sorted"])
    assert (status, output) == (0, b""), output
    assert found == {"sorted": b"apple\nfig\npear\n"}
    print("sort:", found["sorted"].decode().split())

    # A tool that would rather have something else.
    hostile = "ln -s /etc/shadow sorted; mkfifo pipe; cat /proc/net/route; exec sleep 1000"
    tried = run_tool(["sh", "-c", hostile], given, ["sorted", "pipe", "words"], timeout=2)
    status, output, found = tried
    assert found == {"words": given["words"]}
    assert status == -9 and len(output.splitlines()) <= 1, output
    print("a hostile one: ended by SIGKILL, no route, and of its files:", *found)


def main():
    parser = argparse.ArgumentParser(description="Run a tool without a network.")
    parser.add_argument("--in", dest="inputs", action="append", default=[], type=Path)
    parser.add_argument("--out", dest="wanted", action="append", default=[])
    parser.add_argument("--to", default=Path(), type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.command:
        demonstrate()
        return
    inputs = {path.name: path.read_bytes() for path in options.inputs}
    status, output, found = run_tool(options.command, inputs, options.wanted)
    sys.stdout.buffer.write(output)
    for name, content in found.items():
        (options.to / Path(name).name).write_bytes(content)
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
