"""make freethreaded, make musltest: the suite on a CPython that build_python.py compiles.

    python tools/pytest_built.py 3.13t

As tools/pytest_all.py has it: with the wheel, in an environment of its own.  Other arguments go to
pytest.  It is compiled from Debian's sources: where they are not served there is a line that says
so, and the exit status is 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import build_python
from pytest_all import Here
from pytest_run import BUILD, ROOT, Failed, Run
from vm_debian import NotServed


class FreeThreaded(Here):
    """Its packages are those that have wheels for it, or need none."""

    without = ("cffi",)  # which is not for 3.13t

    def run(self, command: list[str], *, pip: bool = False, **keywords: object) -> int:
        if pip:  # of some packages the last one that needs no compiler
            command = [*command, "--only-binary=:all:"]
        return super().run(command, pip=pip, **keywords)


class Musl(Here):
    """Its pip has no TLS: the one of this Python fetches what it is to install."""

    without = ("anyio", "trio")  # which import ssl

    def run(self, command: list[str], *, pip: bool = False, **keywords: object) -> int:
        if pip:
            place = self.home / "wheels"
            platform = f"musllinux_1_2_{os.uname().machine}"
            words = ["--platform", platform, "--python-version", "3.13", "--only-binary=:all:"]
            words += ["--dest", str(place), "-r", str(self.home / "needs.txt")]
            fetch = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download"]
            if subprocess.run([*fetch, *words], check=False, **keywords).returncode:
                return 1
            command = [*command, "--no-index", "--find-links", str(place)]
        return super().run(command, pip=pip, **keywords)


KINDS = {"3.13t": FreeThreaded, "3.13-musl": Musl}


def wheel(version: str, python: Path) -> None:
    """The one that it can have, by `make wheels`."""
    machine = os.uname().machine
    which = f"cp313t-glibc-{machine}" if version == "3.13t" else f"cp312-musl-{machine}"
    environment = {**os.environ, "NSEXT_CP313T": str(python)}
    command = [sys.executable, str(ROOT / "tools" / "wheels.py"), "--once", "--only", which]
    subprocess.run(command, env=environment, check=True)


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in KINDS:
        sys.exit(f"usage: {sys.argv[0]} {' | '.join(KINDS)} [argument of pytest ...]")
    version, arguments = sys.argv[1], sys.argv[2:]
    os.environ.pop("NSEXT_MUST_WORK", None)  # cffi, libseccomp, anyio are not to be had for all
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        python = build_python.interpreter(version)
    except NotServed as error:
        print(f"{version}: left out: {error}")
        return
    if version == "3.13-musl":  # what the tests compile is for musl, too
        os.environ["PATH"] = f"{python.parent.parent / 'musl' / 'bin'}:{os.environ['PATH']}"
    wheel(version, python)
    run = Run(KINDS[version](version, BUILD / version, str(python)))
    try:
        run.first(arguments)
        run.again(arguments)
    except Failed as error:
        run.trouble = str(error)
    print(f"{version}: {run.extension}")
    print(f"{version}: {run.summary()}")
    print(f"| {' | '.join(run.row())} |")
    sys.exit(not run.passed)


if __name__ == "__main__":
    main()
