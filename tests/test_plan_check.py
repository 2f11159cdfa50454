"""The check of plans by itself, in C: tests/plan_check.c."""

import subprocess
from pathlib import Path

from support import DEADLINE

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent / "csrc"


def test_what_is_no_blob_is_refused(tmp_path):
    program = tmp_path / "plan_check"
    sources = [HERE / "plan_check.c", CSRC / "plan.c"]
    flags = ["-std=c11", "-O1", "-g", "-fsanitize=undefined", "-fno-sanitize-recover=undefined"]
    subprocess.run(["cc", *flags, "-I", CSRC, "-o", program, *sources], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done
    assert "refused" in done.stdout
