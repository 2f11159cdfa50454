"""A run of the suite for tools/pytest_all.py: its environment, pytest, and what came of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "pytest-all"
WHEELS = ROOT / "wheelhouse"
WORSE = ("passed", "skipped", "failed")

# Which extension is it that was installed?
INSTALLED = """\
import hashlib, nsext._native as native, pathlib
file = pathlib.Path(native.__file__)
print(file.name, "sha256", hashlib.sha256(file.read_bytes()).hexdigest()[:16])
"""


class Failed(Exception):
    """It did not come as far as running tests."""


def wheel_for(version: str) -> Path | None:
    """The wheel of this machine that *version* can have."""
    tag = "cp311-cp311" if version == "3.11" else "cp312-abi3"
    version, _, libc = version.partition("-")
    if version.endswith("t"):
        tag = f"cp{version.replace('.', '')[:-1]}-cp{version.replace('.', '')}"
    machine = os.uname().machine
    found = sorted(WHEELS.glob(f"nsext-*-{tag}-{libc or 'many'}linux*_{machine}.whl"))
    return found[-1] if found else None


def copy_tree(place: Path) -> None:
    """This tree without the package, so that nothing finds it there instead of the wheel's."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    for name in files.splitlines():
        if not name.startswith("nsext/") and (ROOT / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)


def outcomes(file: Path) -> dict[str, str]:
    """{test: "passed", "skipped" or "failed"} of what pytest's --junitxml has written."""
    found: dict[str, str] = {}
    for case in ElementTree.parse(file).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        said = {child.tag for child in case}
        word = "skipped" if "skipped" in said else "passed"
        word = "failed" if said & {"failure", "error"} else word
        found[name] = max(word, found.get(name, word), key=WORSE.index)  # a fixture's is one more
    return found


class Run:
    """An interpreter has a version, a home here that it sees as `seen`, and run()."""

    def __init__(self, interpreter: Any) -> None:
        self.interpreter = interpreter
        self.version: str = interpreter.version
        self.home: Path = interpreter.home
        self.seen: Path = interpreter.seen
        self.log = BUILD / f"{self.version}.log"
        self.wheel: Path | None = None
        self.extension = ""
        self.outcomes: dict[str, str] = {}
        self.again_passed: list[str] = []
        self.seconds = 0.0
        self.status = 1
        self.trouble = ""

    def first(self, arguments: list[str]) -> None:
        """Prepare its home, and run all tests.  Raises Failed."""
        self.wheel = wheel_for(self.version)
        if self.wheel is None:
            raise Failed("no wheel: make wheels")
        shutil.rmtree(self.home, ignore_errors=True)
        (self.home / "tree").mkdir(parents=True)
        copy_tree(self.home / "tree")
        with self.log.open("w") as out:
            self._install(out)
        self._pytest(arguments)

    def _install(self, out: Any) -> None:
        """A virtual environment with the wheel and what the tests need."""
        assert self.wheel is not None
        shutil.copy(self.wheel, self.home)
        command = [sys.executable, ROOT / "tools" / "requirements.py", "test"]
        needs = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        without = getattr(self.interpreter, "without", ())  # tests that need it are skipped
        kept = [line for line in needs.splitlines() if not line.startswith(without or "#")]
        (self.home / "needs.txt").write_text("\n".join(kept) + "\n")
        python = self.seen / "venv" / "bin" / "python"
        said = {"stdout": out, "stderr": out}
        run = self.interpreter.run
        if run([self.interpreter.python, "-m", "venv", str(self.seen / "venv")], **said):
            raise Failed(f"no virtual environment: see {self.log}")
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
        pip += [str(self.seen / self.wheel.name), "-r", str(self.seen / "needs.txt")]
        for attempt in range(3):
            if run(pip, pip=True, **said) == 0:
                break
            time.sleep(3 * attempt + 3)
        else:
            raise Failed(f"pip failed: see {self.log}")
        told = self.home / "installed"
        with told.open("w") as file:
            if run([str(python), "-Ic", INSTALLED], stdout=file, stderr=out):
                raise Failed(f"the wheel cannot be imported: see {self.log}")
        self.extension = told.read_text().strip()

    def _pytest(self, arguments: list[str]) -> None:
        report = self.home / "junit.xml"
        report.unlink(missing_ok=True)
        command = [str(self.seen / "venv" / "bin" / "python"), "-m", "pytest", "-q"]
        command += [f"--junitxml={self.seen / report.name}", *arguments]
        start = time.monotonic()
        with self.log.open("a") as out:
            self.status = self.interpreter.run(
                command, cwd=str(self.seen / "tree"), stdout=out, stderr=out
            )
        self.seconds += time.monotonic() - start
        if not report.exists():
            raise Failed(f"pytest: exit status {self.status}: see {self.log}")
        self.outcomes |= outcomes(report)

    def _failed(self) -> list[str]:
        return [name for name, word in self.outcomes.items() if word == "failed"]

    def first_told(self) -> str:
        if self.trouble:
            return self.trouble
        some = len(self._failed())
        return f"ended; {some} are to be run once more" if some else "ended"

    def again(self, arguments: list[str]) -> None:
        """Once more what has failed.  Machines are shared: what fails twice in a row is broken."""
        before = self._failed()
        if self.trouble or not before:
            return
        try:
            self._pytest([*arguments, "--last-failed"])
        except Failed as error:
            self.trouble = str(error)
        self.again_passed = [name for name in before if self.outcomes[name] == "passed"]

    @property
    def passed(self) -> bool:
        return self.status == 0 and not self.trouble and not self._failed()

    def _counts(self) -> list[int]:
        count = Counter(self.outcomes.values())
        return [count["passed"], count["failed"], count["skipped"]]

    def _remark(self) -> str:
        if self.trouble:
            return self.trouble
        if not self.passed:
            return f"see {self.log}"
        some = len(self.again_passed)
        return f"{some} at the second try" if some else ""

    def summary(self) -> str:
        """As pytest has it, for release_check.py to count; and what it was."""
        if not self.outcomes:
            return self._remark()
        pairs = zip(self._counts(), ("passed", "failed", "skipped"), strict=True)
        counts = ", ".join(f"{number} {what}" for number, what in pairs if number)
        return f"{counts} in {self.seconds:.2f}s  {self._remark()}".rstrip()

    def row(self) -> list[str]:
        wheel = self.wheel.name if self.wheel else ""
        numbers = [f"{number:,}" for number in self._counts()]
        return [self.version, wheel, *numbers, f"{self.seconds:,.0f}", self._remark()]
