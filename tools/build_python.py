"""CPythons that this machine has not, compiled from the source that Debian serves.

    python tools/build_python.py 3.13t

prints the interpreter's path, below build/pythons; a few minutes, once.  3.13t is free-threaded:
it has no GIL.  3.13-musl is compiled against musl, which comes along from Debian, too.  They are
without Debian's patches, which are for an installation in /usr.  What the archive does not serve
ends it with exit status 75 and a line that says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from vm_debian import ROOT, Apt, NotServed

PLACE = ROOT / "build" / "pythons"
RELEASE = "trixie"
NOT_SERVED = 75  # EX_TEMPFAIL of sysexits(3)


def run(log: Path, *command: str | Path, **keywords: object) -> None:
    """With all that it says in a log, whose end is shown where it fails."""
    words = [str(word) for word in command]
    with log.open("a") as out:
        done = subprocess.run(words, stdout=out, stderr=out, check=False, **keywords)
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        sys.exit(f"{tail}\n{' '.join(words)}: exit status {done.returncode}; all of it: {log}")


def unpacked(package: str, place: Path, release: str = RELEASE) -> Path:
    """The directory of a source package's own archive, fetched and unpacked in *place*."""
    apt = Apt(release, os.uname().machine, sources=True)
    archive = apt.source(package)
    with tarfile.open(archive) as file:
        file.extractall(place, filter="tar")
    (tree,) = place.iterdir()
    return tree


def free_threaded(prefix: Path, work: Path) -> None:
    """3.13t."""
    tree = unpacked("python3.13", work / "python")
    log = work.with_suffix(".log")
    run(log, "./configure", "--disable-gil", f"--prefix={prefix}", "CFLAGS=-O2 -g0", cwd=tree)
    run(log, "make", "-s", f"-j{os.cpu_count()}", cwd=tree)
    run(log, "make", "-s", "install", cwd=tree)


def musl_compiler(place: Path, machine: str) -> Path:
    """A directory that has musl in it, and bin/cc, which compiles for it by this machine's gcc."""
    (place / "bin").mkdir(parents=True)
    here = f"{machine}-linux-musl"
    for package in ("musl", "musl-dev"):
        tree = Apt(RELEASE, machine).unpacked(package) / "usr"
        for name in ("lib", "include"):
            if (tree / name / here).is_dir():
                shutil.copytree(tree / name / here, place / name, dirs_exist_ok=True)
    loader = place / "lib" / f"ld-musl-{machine}.so.1"
    loader.symlink_to("libc.so")
    for name in ("linux", "asm", "asm-generic", "mtd"):  # the kernel's own
        found = [Path("/usr/include", f"{machine}-linux-gnu", name), Path("/usr/include", name)]
        for headers in filter(Path.is_dir, found[:1] if name == "asm" else found):
            (place / "include" / name).symlink_to(headers)
    specs = place / "lib" / "musl-gcc.specs"
    text = specs.read_text().replace(f"/lib/{loader.name}", str(loader))
    for name in ("lib", "include"):
        text = text.replace(f"/usr/{name}/{here}", str(place / name))
    specs.write_text(text)
    cc = place / "bin" / "cc"
    asked = f'[ "$1" = --print-multiarch ] && exec echo {here}'
    cc.write_text(f'#!/bin/sh\n{asked}\nexec gcc -specs {specs} "$@"\n')
    cc.chmod(0o755)
    return cc


def against_musl(prefix: Path, work: Path) -> None:
    """3.13-musl, with zlib and libffi in it: what pip and ctypes need."""
    log = work.with_suffix(".log")
    cc = musl_compiler(prefix / "musl", os.uname().machine)
    own = work / "own"
    variables = {**os.environ, "CC": str(cc), "CFLAGS": "-O2 -g0 -fPIC"}
    tree = unpacked("zlib", work / "zlib")
    run(log, "./configure", "--static", f"--prefix={own}", cwd=tree, env=variables)
    run(log, "make", "-s", "install", cwd=tree)
    tree = unpacked("libffi", work / "libffi", "bookworm")  # later ones lack their configure
    words = ["--disable-shared", "--disable-docs", "--disable-multi-os-directory"]
    words += ["--disable-exec-static-tramp"]  # which keeps a descriptor
    run(log, "./configure", f"--prefix={own}", *words, cwd=tree, env=variables)
    run(log, "make", "-s", "install", cwd=tree)

    tree = unpacked("python3.13", work / "python")
    variables |= {
        "PKG_CONFIG": "false",  # which knows of this machine's libraries only
        "ZLIB_CFLAGS": f"-I{own}/include",
        "ZLIB_LIBS": f"-L{own}/lib -lz",
        "LIBFFI_CFLAGS": f"-I{own}/include",
        "LIBFFI_LIBS": f"-L{own}/lib -lffi",
    }
    run(log, "./configure", f"--prefix={prefix}", cwd=tree, env=variables)
    run(log, "make", "-s", f"-j{os.cpu_count()}", cwd=tree)
    run(log, "make", "-s", "install", cwd=tree)


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "3.13t": free_threaded,
    "3.13-musl": against_musl,
}


def interpreter(name: str) -> Path:
    """The path of a CPython, which is compiled on first use.  Raises NotServed."""
    prefix = PLACE / name
    python = prefix / "bin" / f"python{name.partition('-')[0]}"
    if (prefix / ".complete").exists():
        return python
    work = PLACE / f"{name}.work"
    for place in (prefix, work):
        shutil.rmtree(place, ignore_errors=True)
    work.mkdir(parents=True)
    work.with_suffix(".log").unlink(missing_ok=True)
    print(f"compiling {name}", file=sys.stderr, flush=True)
    KINDS[name](prefix, work)
    shutil.rmtree(work)
    (prefix / ".complete").touch()
    return python


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in KINDS:
        sys.exit(f"usage: {sys.argv[0]} {' | '.join(KINDS)}")
    try:
        print(interpreter(sys.argv[1]))
    except NotServed as error:
        print(f"{sys.argv[1]} is not to be had: {error}", file=sys.stderr)
        sys.exit(NOT_SERVED)


if __name__ == "__main__":
    main()
