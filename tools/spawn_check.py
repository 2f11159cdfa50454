"""Spawns with the installed package, in new namespaces, and asserts what it got.

Needs nothing but the package: `make wheel` and cibuildwheel run it with the wheel just built.
"""

import os
import sys
from pathlib import Path

import nsext

KINDS = ["pid", "uts", "ipc", "mnt"]
SCRIPT = 'echo $$; uname -n; for kind in "$@"; do readlink /proc/self/ns/$kind; done'


def capable():
    """CAP_SYS_ADMIN, in the effective set."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16) >> 21 & 1


def main():
    package = Path(nsext.__file__).parent
    assert package.parent != Path(__file__).resolve().parent.parent, "this is the source tree"
    for name in ("py.typed", "_native.pyi", "_popen.pyi"):
        assert (package / name).exists(), f"{name} is not in the wheel"

    kinds = KINDS if capable() else ["user", *KINDS]
    box = nsext.Sandbox(new=kinds, hostname="wheel")
    args = ["sh", "-c", SCRIPT, "sh", *kinds]
    pid, hostname, *inside = box.check_output(args, text=True, timeout=60).split()
    here = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    assert pid == "1", pid
    assert hostname == "wheel" != os.uname().nodename, hostname
    assert not set(here) & set(inside), (here, inside)

    assert box.spawn(["sh", "-c", "exit 7"]).wait(timeout=60) == 7
    try:
        nsext.run(["/nowhere/to/be/found"])
    except FileNotFoundError as error:
        assert isinstance(error, nsext.SpawnError)
    else:
        raise AssertionError("a missing program ran")

    native = Path(sys.modules["nsext._native"].__file__).name
    print(f"spawned in new {' '.join(kinds)} with {native}, {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
