"""The check of plans by itself, in C: tests/plan_check.c."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from support import DEADLINE, MUSL, needs

# gcc's runtimes of the sanitizers are of glibc.
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"] if not MUSL else []
HERE = Path(__file__).resolve().parent
CSRC = HERE.parent / "csrc"


def test_what_is_no_blob_is_refused(tmp_path):
    program = tmp_path / "plan_check"
    sources = [HERE / "plan_check.c", CSRC / "plan.c"]
    flags = ["-std=c11", "-O1", "-g", *SANITIZE]
    subprocess.run(["cc", *flags, "-I", CSRC, "-o", program, *sources], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done
    assert "refused" in done.stdout


def test_the_fuzzers_seeds(tmp_path):
    """What the fuzzer starts from, blobs and plans, is read to its end and no byte further."""
    needs(importlib.util.find_spec("cffi"), "needs cffi, which is not for every Python")
    seeds, program = tmp_path / "seeds", tmp_path / "replay"
    subprocess.run([sys.executable, HERE / "fuzz" / "seeds.py", seeds], check=True)
    sources = [HERE / "fuzz" / "plan.c", HERE / "fuzz" / "replay.c", CSRC / "plan.c"]
    flags = ["-std=c11", "-O1", "-g", *SANITIZE]
    subprocess.run(["cc", *flags, "-o", program, *sources], check=True)
    files = sorted(seeds.iterdir())
    assert len(files) > 6
    command = [program, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stdout) == (0, f"{len(files)} files\n"), done
