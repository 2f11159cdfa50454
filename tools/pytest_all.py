"""make pytest-all: the suite on every CPython of this machine, with the wheel for it.

The tests run against the installed wheel (those of `make wheels`), not against this tree; 3.12 and
later get one and the same file.  Arguments go to pytest; PYTHONS="3.12 3.13" in the environment
says which, all by default.  Prints a table; exit status 1 where one has failed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "pytest-all"
WHEELS = ROOT / "wheelhouse"


def version_of(python: str) -> tuple[int, int, str] | None:
    """(3, 12, ""): the version, and "t" for a free-threaded build; None: it does not run."""
    code = (
        "import sys, sysconfig as s;"
        "print(*sys.version_info[:2], 't' if s.get_config_var('Py_GIL_DISABLED') else '')"
    )
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return None
    words = done.stdout.split()
    if done.returncode or len(words) < 2:
        return None
    return int(words[0]), int(words[1]), words[2] if len(words) > 2 else ""


def interpreters() -> dict[str, str]:
    """{"3.12": path} of what is on PATH and under pyenv, 3.11 and later."""
    candidates = [sys.executable]
    candidates += [
        path for n in range(11, 20) for s in ("", "t") if (path := shutil.which(f"python3.{n}{s}"))
    ]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True)
        candidates += map(str, sorted(Path(root.stdout.strip(), "versions").glob("3.*/bin/python")))
    found: dict[str, str] = {}
    for python in candidates:
        version = version_of(python)
        if version and version >= (3, 11, ""):
            found.setdefault(f"{version[0]}.{version[1]}{version[2]}", python)
    return dict(
        sorted(found.items(), key=lambda item: [int(n) for n in re.findall(r"\d+", item[0])])
    )


def wheel_for(version: str) -> Path | None:
    """The wheel of this machine that *version* can have."""
    tag = "cp311-cp311" if version == "3.11" else "cp312-abi3"
    if version.endswith("t"):
        tag = f"cp{version.replace('.', '')[:-1]}-cp{version.replace('.', '')}"
    machine = os.uname().machine
    found = sorted(WHEELS.glob(f"nsext-*-{tag}-manylinux*_{machine}.whl"))
    return found[-1] if found else None


def prepare(version: str, python: str, wheel: Path) -> Path:
    """The Python of an environment with the wheel and what the tests need."""
    place = BUILD / version
    subprocess.run([python, "-m", "venv", "--clear", str(place)], check=True)
    inside = place / "bin" / "python"
    needs = subprocess.run(
        [sys.executable, ROOT / "tools" / "requirements.py", "test"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.split("\n")
    pip = [str(inside), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    for attempt in range(3):
        if subprocess.run([*pip, str(wheel), *filter(None, needs)], check=False).returncode == 0:
            return inside
        time.sleep(3 * attempt + 3)
    sys.exit(f"{version}: pip failed")


def copy_tree() -> Path:
    """This tree without the package, so that nothing finds it there instead of the wheel's."""
    place = BUILD / "tree"
    shutil.rmtree(place, ignore_errors=True)
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    for name in files.splitlines():
        if not name.startswith("nsext/") and (ROOT / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    return place


def main() -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    tree = copy_tree()
    rows = []
    failed = False
    wanted = os.environ.get("PYTHONS", "").split()
    for version, python in interpreters().items():
        if wanted and version not in wanted:
            continue
        wheel = wheel_for(version)
        if wheel is None:
            rows.append((version, "no wheel: make wheels", "", ""))
            failed = True
            continue
        inside = prepare(version, python, wheel)
        start = time.monotonic()
        command = [str(inside), "-m", "pytest", "-q", *sys.argv[1:]]
        log = BUILD / f"{version}.log"
        with log.open("w") as out:
            done = subprocess.run(command, cwd=tree, stdout=out, stderr=out, check=False)
        last = log.read_text().splitlines()[-1:]
        told = last[0].strip("= ") if last else ""
        failed = failed or done.returncode != 0
        rows.append((version, wheel.name, told, f"{time.monotonic() - start:.0f} s"))
        print("  ".join(rows[-1]), f"see {log}" if done.returncode else "", flush=True)
    print()
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.exit(failed)


if __name__ == "__main__":
    main()
