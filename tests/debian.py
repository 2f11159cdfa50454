"""A real Debian, or Ubuntu, for the tests: made once with what this machine's apt is configured
to use, and kept as an archive in a cache outside of the tree ($NSEXT_CACHE, or ~/.cache/nsext).
"""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

from support import needs

import nsext

PACKAGES = ("gcc", "libc6-dev", "procps", "python3")
DEADLINE = 900


def _os_release():
    return platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}


def _mirror(uri):
    """The first one of a list: apt's mirror+file."""
    if uri.startswith("mirror+file:"):
        listed = Path(uri.removeprefix("mirror+file:").rstrip("/")).read_text().split("\n")
        lines = [line.split()[0] for line in listed if line.strip() and not line.startswith("#")]
        return _mirror(lines[0]) if lines else ""
    return uri.rstrip("/")


def source():
    """(mirror, suite, components) of the running system, from apt's own configuration."""
    suite = _os_release().get("VERSION_CODENAME", "")
    found = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"]
        + ["Created-By: Packages"],
        capture_output=True,
        text=True,
        check=True,
    )
    targets = [line.split() for line in found.stdout.splitlines()]
    own = [(uri, component) for uri, release, component in targets if release == suite]
    needs(own, f"apt has no source for {suite or 'this system'}")
    mirror = _mirror(own[0][0])
    components = list(dict.fromkeys(component for uri, component in own if uri == own[0][0]))
    needs(mirror.startswith(("http:", "https:")), "apt's source is none of http")
    return mirror, suite, [name for name in components if name in ("main", "universe")]


def proxies():
    """Variables for what is said to apt only."""
    said = subprocess.run(
        ["apt-config", "shell", "http_proxy", "Acquire::http::Proxy"],
        capture_output=True,
        text=True,
    ).stdout
    name, _, value = said.strip().partition("=")
    return {name: value.strip("'")} if value.strip("'") else {}


WORK = "work"  # beside the archive


def _command(mirror, suite, components, archive):
    """mmdebstrap is debootstrap with apt for the work, in half of the time."""
    if shutil.which("mmdebstrap"):
        return [
            *("mmdebstrap", "--quiet", "--mode=root", "--format=tar", "--variant=minbase"),
            *(f"--include={','.join(PACKAGES)}", "--dpkgopt=force-unsafe-io"),
            *(suite, str(archive), f"deb {mirror} {suite} {' '.join(components)}"),
        ]
    script = 'debootstrap "$@" && tar -C "$TMPDIR/root" -cf "$0" .'
    return [
        *("sh", "-ec", script, str(archive), "--variant=minbase"),
        *(f"--include={','.join(PACKAGES)}", f"--components={','.join(components)}"),
        *(suite, str(archive.parent / WORK / "root"), mirror),
    ]


def _make(source_, archive):
    """On a tmpfs, which this process does not see: packages are unpacked file by file."""
    new, work = archive.with_suffix(".new"), archive.parent / WORK
    work.mkdir(exist_ok=True)
    done = nsext.run(
        _command(*source_, new),
        new="mnt pid",
        mounts=[nsext.Mount("tmpfs", "tmpfs", work, data="mode=1777")],
        env={**os.environ, "TMPDIR": str(work), "LC_ALL": "C", **proxies()},
        stdin=nsext.DEVNULL,
        stdout=nsext.PIPE,
        stderr=nsext.STDOUT,
        text=True,
        timeout=DEADLINE,
    )
    needs(done.returncode == 0, f"no Debian from {source_[0]}:\n{done.stdout[-2000:]}")
    new.rename(archive)


def archive():
    """The path of a tar of it.  Skips where it cannot be had."""
    needs(os.geteuid() == 0, "needs root, to make a Debian")
    needs(shutil.which("apt-get"), "needs apt, for a Debian")
    tool = shutil.which("mmdebstrap") or shutil.which("debootstrap")
    needs(tool, "needs mmdebstrap or debootstrap")
    found = source()
    cache = Path(os.environ.get("NSEXT_CACHE") or Path.home() / ".cache/nsext")
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(repr((found, PACKAGES)).encode()).hexdigest()[:12]
    path = cache / f"{found[1]}-{platform.machine()}-{key}.tar"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _make(found, path)
    return path


def unpack(path, directory, **keywords):
    """Its files, but those in /dev, in a directory.  keywords: nsext.run's."""
    command = ["tar", "-xpf", "-", "--numeric-owner", "--exclude=./dev/*", "-C", str(directory)]
    with open(path) as file:
        nsext.run(command, stdin=file, check=True, timeout=DEADLINE, **keywords)
