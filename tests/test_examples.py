"""The programs in examples/: each runs as it stands, as root and as an ordinary user."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import as_user, needs

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SAYS = {
    "build_chroot.py": "built in /src/hello.c",
    "demo.py": "All of them are new",
    "judge.py": "never ends  time limit",
    "throwaway_root.py": "changed: etc/app.conf new",
    "tool_runner.py": "sort: ['apple', 'fig', 'pear']",
}
OWN = sys._base_executable  # judge.py takes it where it is in /usr
PYTHON = OWN if OWN.startswith("/usr/") else "/usr/bin/python3"
NEEDS = {"build_chroot.py": "cc", "judge.py": PYTHON}
DEADLINE = 120


def test_every_example_is_known():
    assert {path.name for path in EXAMPLES} == set(SAYS)


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_example(example, tmp_path):
    needs(shutil.which(NEEDS.get(example.name, "sh")), f"needs {NEEDS.get(example.name)}")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert SAYS[example.name] in done.stdout
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("example", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_example_of_an_ordinary_user(example):
    needs(shutil.which(NEEDS.get(example.name, "sh")), f"needs {NEEDS.get(example.name)}")
    run = """
        import runpy, sys, tempfile
        assert os.geteuid() != 0
        with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
            file.write(sys.argv.pop(1))
            file.flush()
            runpy.run_path(file.name, run_name="__main__")
    """
    said = as_user(run, example.read_text(), deadline=DEADLINE)
    assert SAYS[example.name] in said
