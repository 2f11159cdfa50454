"""Build somebody's sources: they are read-only, there is no network, and one directory comes out.

    python examples/build_chroot.py [SOURCES OUTPUT COMMAND ...] [--root TREE]

COMMAND runs in /build, an empty directory, with the sources in /src; what it puts into /out is in
OUTPUT afterwards.  The compiler is the running system's, or that of --root, a Debian of
debootstrap's for example.  Without arguments a small program in C is built, and run.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nsext

MAKEFILE = """\
/out/hello: /src/hello.c
	cc -O2 -o $@ $<
"""
HELLO = """\
#include <stdio.h>
int main(void) { puts("built in " __FILE__); return 0; }
"""


def build_sandbox(sources, output, root=None):
    """Where a build runs.  Needs no privileges."""
    places = [
        nsext.Bind(sources, "/src"),
        nsext.Bind(output, "/out", readonly=False),
        nsext.Tmpfs("/build", size="1g"),
    ]
    if root is None:
        layout = {"root": nsext.Tmpfs(), "mounts": [*nsext.hostlike(), *places]}
    else:
        own = [nsext.Dev(), nsext.Tmpfs("/tmp", mode=0o1777)]
        layout = {"root": nsext.Overlay(lower=root), "mounts": [*own, *places]}
    return nsext.Sandbox(
        new="user pid mnt net ipc uts",
        hostname="build",
        cwd="/build",
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/build", "LC_ALL": "C.UTF-8"},
        init=True,  # a build leaves processes behind
        **layout,
    )


def demonstrate():
    if not shutil.which("cc"):
        sys.exit("there is no C compiler here")
    with tempfile.TemporaryDirectory() as name:
        sources, output = Path(name, "sources"), Path(name, "output")
        sources.mkdir()
        output.mkdir()
        (sources / "hello.c").write_text(HELLO)
        (sources / "Makefile").write_text(MAKEFILE)
        box = build_sandbox(sources, output)
        command = ["make", "-f", "/src/Makefile"] if shutil.which("make") else None
        box.check_call(command or ["cc", "-O2", "-o", "/out/hello", "/src/hello.c"])
        made = subprocess.run([output / "hello"], capture_output=True, text=True, check=True)
        print(made.stdout, end="")
        assert made.stdout == "built in /src/hello.c\n"

        # A build that would change its sources, or fetch something, fails.
        refused = box.run(["sh", "-c", "echo >>/src/hello.c"], stderr=nsext.PIPE, text=True)
        assert "Read-only file system" in refused.stderr
        interfaces = box.check_output(["cat", "/proc/net/dev"], text=True)
        assert [line.split(":")[0].strip() for line in interfaces.splitlines()[2:]] == ["lo"]
        print("the sources are read-only, and there is no network")


def main():
    parser = argparse.ArgumentParser(description="Build in a sandbox.")
    parser.add_argument("--root", help="a directory with the compiler; else the running system's")
    parser.add_argument("sources", nargs="?", type=Path)
    parser.add_argument("output", nargs="?", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if options.sources is None:
        demonstrate()
        return
    if not options.command:
        parser.error("OUTPUT and COMMAND are missing")
    box = build_sandbox(options.sources, options.output, options.root)
    sys.exit(box.call(options.command))


if __name__ == "__main__":
    main()
