"""Debian's packages for tools/vm.py: kernels, and what a guest has of programs.

They are found and fetched by apt-get, from the archive that this machine's own come from, and kept
unpacked in build/vm.
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
CACHE = ROOT / "build" / "vm"
NEWEST = "newest"
ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
RELEASES = ("trixie-backports", "sid", "trixie", "bookworm", "bookworm-backports", "bullseye")
RELEASE_OF = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie"}  # looked at first
DAY = 24 * 3600


class NotServed(Exception):
    """The archive does not have it, or does not answer."""


def say(*words: object) -> None:
    print("vm:", *words, file=sys.stderr, flush=True)


def output(*command: str | Path, **keywords: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True, **keywords
    )
    return str(done.stdout)


def archive() -> str:
    """Where this machine's own packages of Debian come from."""
    try:
        lines = output("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)").splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotServed(f"apt-get: {error}") from None
    for line in lines:
        label, _, place = line.partition(" ")
        if label == "Debian":
            return place
    raise NotServed("apt-get knows no archive of Debian")


class Apt:
    """apt-get for a release of Debian and a machine, with lists and a cache of its own."""

    def __init__(self, release: str, machine: str, sources: bool = False) -> None:
        """sources: of packages' sources, for source(), in place of the packages themselves."""
        self.arch = ARCHES[machine]
        self.release = release
        kind, index = ("deb-src", "Sources") if sources else ("deb", "Packages")
        place = CACHE / "apt" / f"{release}-{'source' if sources else self.arch}"
        for name in ("lists/partial", "archives/partial", "parts"):
            (place / name).mkdir(parents=True, exist_ok=True)
        (place / "status").touch()
        listed = place / "sources.list"
        self.options = [
            "-oAPT::Sandbox::User=root",  # who cannot read below /root
            f"-oAPT::Architecture={self.arch}",
            f"-oAPT::Architectures={self.arch}",
            f"-oDir::Etc::sourcelist={listed}",
            f"-oDir::Etc::sourceparts={place / 'parts'}",
            f"-oDir::State::lists={place / 'lists'}",
            f"-oDir::State::status={place / 'status'}",
            f"-oDir::Cache={place}",
            "-oAcquire::Check-Valid-Until=false",
            "-oAcquire::Languages=none",
            "-oAcquire::Retries=3",
        ]
        lists = list((place / "lists").glob(f"*_{index}*"))
        if not lists or time.time() - (place / "lists").stat().st_mtime > DAY:
            listed.write_text(f"{kind} {archive()} {release} main\n")
            say(f"reading the list of {release}, {index} for {self.arch}")
            command = ["apt-get", *self.options, "-qq", "update"]
            done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
            if done.returncode or not list((place / "lists").glob(f"*_{index}*")):
                if not lists:
                    raise NotServed(f"no list of {release} for {self.arch}")
                say("that failed; the one from before is used")
            os.utime(place / "lists")

    def search(self, pattern: str) -> list[str]:
        """Names of packages, in the order of their versions."""
        lines = output("apt-cache", *self.options, "search", "--names-only", pattern).splitlines()
        return sorted((line.split(" ")[0] for line in lines), key=version_key)

    def kept(self, package: str) -> Path:
        return CACHE / "packages" / f"{self.arch}-{self.release}" / package

    def unpacked(self, package: str) -> Path:
        """A directory with a package's files, fetched on first use."""
        place = self.kept(package)
        if not place.is_dir():
            say(f"fetching {package} of {self.release}")
            scratch = CACHE / f"fetch-{os.getpid()}"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            try:
                subprocess.run(
                    ["apt-get", *self.options, "-qq", "download", package], check=True, cwd=scratch
                )
                (file,) = scratch.glob("*.deb")
                subprocess.run(["dpkg-deb", "-x", file, scratch / "files"], check=True)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.rename(scratch / "files", place)
            except (OSError, subprocess.CalledProcessError) as error:
                raise NotServed(f"{package} of {self.release}: {error}") from None
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return place

    def source(self, package: str) -> Path:
        """The archive of a package's source as its authors made it, fetched on first use."""
        place = CACHE / "sources" / self.release / package
        if not place.is_dir():
            say(f"fetching the source of {package}, {self.release}")
            scratch = CACHE / f"fetch-{os.getpid()}"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            try:
                words = ["-qq", "--tar-only", "--download-only", "source", package]
                subprocess.run(
                    ["apt-get", *self.options, *words],
                    check=True,
                    cwd=scratch,
                    stdout=subprocess.DEVNULL,
                )
                place.parent.mkdir(parents=True, exist_ok=True)
                os.rename(scratch, place)
            except (OSError, subprocess.CalledProcessError) as error:
                raise NotServed(f"the source of {package}, {self.release}: {error}") from None
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        (file,) = (file for file in place.glob("*.orig.tar.*") if file.suffix != ".asc")
        return file

    def with_dependencies(self, *packages: str) -> list[str]:
        """Names of packages, and of all that they depend on."""
        words = ["-qq", "-s", "--no-install-recommends", "install", *packages]
        lines = output("apt-get", *self.options, *words).splitlines()
        return [line.split(" ")[1] for line in lines if line.startswith("Inst ")]


def version_key(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


class Kernel:
    """A kernel's image and its modules."""

    def __init__(self, places: list[Path], machine: str) -> None:
        def one(*patterns: str) -> Path:
            found = [file for place in places for name in patterns for file in place.glob(name)]
            if len(found) != 1:
                raise NotServed(f"{places[0].name}: {' or '.join(patterns)}: {found}")
            return found[0]

        self.image = one("boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz")
        self.modules = one("lib/modules/*/kernel", "usr/lib/modules/*/kernel")
        self.machine = machine
        self.release = self.modules.parent.name


def _names(apt: Apt, version: str) -> list[str]:
    """What follows "linux-image-" in the names of a version's packages, the newest first."""
    number = "[0-9]+[.][0-9]+" if version == NEWEST else re.escape(version)
    found = apt.search(rf"^linux-image-{number}[.-][^ ]*-cloud-{apt.arch}$")
    return [name.removeprefix("linux-image-") for name in reversed(found)]


def _unpacked(apt: Apt, name: str) -> list[Path]:
    """The packages of a kernel: of late its image and its modules are in others of their own."""
    served = apt.search(f"^linux-(image|binary|modules)-{re.escape(name)}$")
    return [apt.unpacked(package) for package in served]


def kernel(version: str, machine: str = "x86_64") -> Kernel:
    """The newest kernel of a version, such as 6.12, or of all for "newest"."""
    first = RELEASE_OF.get(version)
    order = [first] if first else []
    order += [release for release in RELEASES if release != first]
    if version == NEWEST:
        order = order[:2]
    candidates: list[tuple[str, Apt]] = []
    trouble = ""
    for release in order:
        try:
            apt = Apt(release, machine)
        except NotServed as error:
            trouble = f": {error}"
            continue
        candidates += [(name, apt) for name in _names(apt, version)]
        if candidates and version != NEWEST:
            break
    if version == NEWEST:
        candidates.sort(key=lambda item: version_key(item[0]), reverse=True)
    # An archive may list what it has no longer.
    for name, apt in candidates[:5]:
        try:
            return Kernel(_unpacked(apt, name), machine)
        except NotServed as error:
            say(error)
    raise NotServed(f"no Debian release has a cloud kernel {version} for {machine}{trouble}")
