"""Debian's sid for tools/pytest_all.py: newer Pythons, each in a root directory of its own.

mmdebstrap makes it from the archive that this machine's own packages come from; it is kept, in
build/sid.  nsext enters it, by pivot_root(2): in a chroot(2) nobody can make a user namespace.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from vm_debian import Apt, NotServed, archive

import nsext

ROOTS = Path(__file__).resolve().parent.parent / "build" / "sid"

# .ci/run's, but for what makes containers and other Debians: the tests of those are skipped.
PROGRAMS = (
    *("gcc", "libc6-dev", "make", "procps", "iproute2", "util-linux", "mount", "binutils"),
    *("strace", "bubblewrap", "tmux", "vim-tiny", "uidmap", "libcap2-bin", "fish", "zsh"),
)
LIBRARIES = ("ca-certificates", "libffi-dev", "libseccomp2")  # pip's, cffi's, pyseccomp's
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_INHERITED = ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "TMPDIR", "NSEXT_CACHE")
DEADLINE = 900


def served() -> list[str]:
    """["3.14", "3.15"]: what can be had of sid, with what is kept from before.

    Raises NotServed: nothing, and why.
    """
    if os.geteuid() != 0:
        raise NotServed("a root directory of Debian is made by root")
    kept = {path.name.split("-")[0] for path in ROOTS.glob("3.*-????????")}
    try:
        if not shutil.which("mmdebstrap"):
            raise NotServed("mmdebstrap is missing")
        names = set(Apt("sid", os.uname().machine).search("^python3[.][0-9]+(-venv|-dev)?$"))
    except (KeyError, NotServed) as error:
        if not kept:
            raise NotServed(error) from None
        print(f"sid: {error}; what is kept from before is used", flush=True)
        return sorted(kept)
    found = {name.removeprefix("python") for name in names if name[-1].isdigit()}
    return sorted(kept | {n for n in found if {f"python{n}-venv", f"python{n}-dev"} <= names})


def _made(version: str) -> Path:
    """The root directory with a Python and the programs of the tests."""
    python = f"python{version}"
    packages = (python, f"{python}-venv", f"{python}-dev", *PROGRAMS, *LIBRARIES)
    key = hashlib.sha256(repr(packages).encode()).hexdigest()[:8]
    place = ROOTS / f"{version}-{key}"
    if place.is_dir():
        return place
    new, log = ROOTS / f"{version}.new", ROOTS / f"{version}.log"
    shutil.rmtree(new, ignore_errors=True)
    ROOTS.mkdir(parents=True, exist_ok=True)
    print(f"sid: making a root directory with {python}", flush=True)
    command = [
        *("mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=minbase"),
        *("--dpkgopt=force-unsafe-io", f"--include={','.join(packages)}"),
        *('--aptopt=Acquire::Check-Valid-Until "false"', '--aptopt=Acquire::Retries "3"'),
        *("sid", str(new), f"deb {archive()} sid main"),
    ]
    # In namespaces of its own: the mounts that it makes end with it, however it ends.
    try:
        with log.open("w") as out:
            nsext.run(
                command,
                new="mnt pid",
                stdin=nsext.DEVNULL,
                stdout=out,
                stderr=nsext.STDOUT,
                env={**os.environ, "LC_ALL": "C"},
                timeout=DEADLINE,
                check=True,
            )
    except nsext.SubprocessError:
        told = [line for line in log.read_text().splitlines() if line.startswith("E: ")][:1]
        raise NotServed(f"no root directory with {python}: {' '.join(told)}: see {log}") from None
    (new / Interpreter.seen.name).mkdir()
    new.rename(place)
    return place


def _for_pip() -> list[nsext.Bind]:
    """What pip needs of this machine's: name servers, certificates, and its configuration with the
    files that this names.
    """
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "debug"], capture_output=True, text=True, check=True
    ).stdout
    paths = re.findall(r"(?:(?<=file://)|(?<![\w/:.]))/[^\s',]+", said)
    paths += [os.environ.get(name, "") for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    wanted = {os.path.normpath(path) for path in paths if os.path.exists(path)}
    # The pages of an index lead to files beside it.
    wanted |= {os.path.dirname(path) for path in wanted if path.endswith("/simple")}
    wanted = {"/etc/resolv.conf", "/etc/hosts"} | (wanted - {"/"})
    return [nsext.Bind(os.path.realpath(path), path, optional=True) for path in sorted(wanted)]


class Interpreter:
    """A Python of sid, where home, a directory of this machine's, is /suite."""

    seen = Path("/suite")

    def __init__(self, version: str, home: Path) -> None:
        self.version = version
        self.home = home
        self.python = f"/usr/bin/python{version}"

    def run(self, command: list[str], *, pip: bool = False, **keywords: object) -> int:
        """The exit status of a program in there; with pip=True the network can be used."""
        root = _made(self.version)
        temporary = self.home / "tmp"
        temporary.mkdir(exist_ok=True)
        temporary.chmod(0o1777)
        own = {self.home: str(self.seen), temporary: "/tmp"}
        mounts = [
            nsext.Bind(source, target, readonly=False, nosuid=False, nodev=False)
            for source, target in {"/proc": "/proc", "/sys": "/sys", "/dev": "/dev", **own}.items()
        ]
        # pip runs in a layer in memory, where all mount points can be made.  The tests do not: some
        # have overlays of their own, and the kernel stacks no more than two.
        layer: nsext.MountSpec = nsext.Overlay(lower=root)
        if not pip:
            layer = nsext.Bind(root, readonly=False, nosuid=False, nodev=False)
        # What .ci/run has and this has not is to be skipped.
        env = {n: v for n, v in os.environ.items() if n not in (*NOT_INHERITED, "NSEXT_MUST_WORK")}
        return nsext.run(
            command,
            new="mnt",
            root=layer,
            mounts=[*mounts, *(_for_pip() if pip else ())],
            env={**env, "PATH": f"{self.seen}/venv/bin:{PATH}", "HOME": "/root", "LANG": "C.UTF-8"},
            stdin=nsext.DEVNULL,
            **keywords,
        ).returncode
