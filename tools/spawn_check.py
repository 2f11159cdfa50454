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
    assert os.access(package / "nsext-helper", os.X_OK), "nsext-helper is missing, or no program"

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

    # By the helper.
    with nsext.Popen(["cat"], sandbox=box, stdin=nsext.PIPE, stdout=nsext.PIPE, paused=True) as cat:
        assert cat.body == "helper", cat.body
        namespaces = {kind: cat.namespaces[kind].id for kind in kinds}
        cat.resume()
        assert cat.communicate(b"meow", timeout=60)[0] == b"meow"
    assert not {f"{kind}:[{number}]" for kind, number in namespaces.items()} & set(here), here
    script = "(exit 3 & ) ; echo $$; exit 5"
    done = box.run(["sh", "-c", script], init=True, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (5, "2\n"), done
    if os.geteuid() == 0:
        done = nsext.run(["id", "-u"], user=65534, capture_output=True, text=True, timeout=60)
        assert done.stdout == "65534\n", done

    native = Path(sys.modules["nsext._native"].__file__).name
    print(f"spawned in new {' '.join(kinds)} with {native}, {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
