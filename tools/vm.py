"""Run tests, or any command, as root of a virtual machine with a Debian kernel.

    tools/vm.py [--kernel 6.12]... [--append WORDS] [--memory MIB] [-- pytest arguments]
    tools/vm.py --kernel 6.1 --command 'uname -a'

The guest is qemu without KVM, a Debian kernel and an initramfs: busybox, the Python that runs this,
its packages, this tree as it stands, and programs of this machine.  cgroup v2 has all controllers
there.  The command's exit status comes over the serial line.

Packages (kernel, busybox) are found and fetched by apt-get, which has to be set up for Debian, and
are kept in build/vm; a kernel of another release comes from the same archive.  qemu has to be
installed: qemu-system-x86.  x86_64 only.
"""

from __future__ import annotations

import argparse
import lzma
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "vm"
PLACE = "/nsext"  # of this tree, in the guest
MARK = "nsext-vm: exit status "
RELEASES = ("bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid")

# Programs of this machine that tests run; busybox stands in for the others.
PROGRAMS = """apparmor_parser sh bash cat chgrp chmod chown cp cut date dd dirname echo env expr
false find findmnt getpcaps grep head hostname id ionice ip kill ln ls lsns mkdir
mknod mktemp mount mountpoint mv nice nohup nproc nsenter printf prlimit ps readlink
rm rmdir secilc sed setpriv setsid sleep sort stat strace tail taskset tee test
timeout touch tr true umount uname unshare wc yes""".split()

# Loaded where there are such, in this order.
MODULES = ("fs/overlayfs/overlay", "fs/fuse/fuse", "drivers/net/dummy", "drivers/net/veth")

INIT = """#!/bin/busybox sh
export PATH=/usr/local/bin:/usr/bin:/bin:/sbin:/usr/sbin HOME=/root LANG=C.UTF-8 TERM=dumb
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mkdir -p /dev/pts /dev/shm /sys/fs/cgroup
busybox mount -t devpts devpts /dev/pts
busybox mount -t tmpfs -o mode=1777 tmpfs /dev/shm
busybox mount -t tmpfs -o mode=1777 tmpfs /tmp
busybox mount -t tmpfs tmpfs /run
busybox mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
busybox mount -t selinuxfs selinuxfs /sys/fs/selinux 2>/dev/null
busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox ip link set lo up
busybox hostname guest
for module in /modules/*.ko; do busybox insmod "$module" 2>/dev/null; done
cd {place}
busybox setsid -c busybox sh -c {command}
echo "{mark}$?"
busybox poweroff -f
"""


def say(*words: object) -> None:
    print("vm:", *words, file=sys.stderr, flush=True)


def output(*command: str | Path, **keywords: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True, **keywords
    )
    return str(done.stdout)


# ---- packages ----------------------------------------------------------------------------------


class Apt:
    """apt-get for this machine's release, or for another one with lists of its own."""

    def __init__(self, release: str | None) -> None:
        self.options = ["-oAPT::Sandbox::User=root"]  # who cannot read below /root
        if release is None:
            return
        place = CACHE / "apt" / release
        for name in ("lists/partial", "archives/partial", "parts"):
            (place / name).mkdir(parents=True, exist_ok=True)
        (place / "status").touch()
        sources = place / "sources.list"
        sources.write_text(f"deb {self._archive()} {release} main\n")
        self.options += [
            f"-oDir::Etc::sourcelist={sources}",
            f"-oDir::Etc::sourceparts={place / 'parts'}",
            f"-oDir::State::lists={place / 'lists'}",
            f"-oDir::State::status={place / 'status'}",
            f"-oDir::Cache={place}",
            "-oAcquire::Check-Valid-Until=false",
            "-oAcquire::Languages=none",
        ]
        if not list((place / "lists").glob("*_Packages*")):
            say(f"reading the list of {release}")
            subprocess.run(
                ["apt-get", *self.options, "-qq", "update"], check=True, stdout=subprocess.DEVNULL
            )

    def _archive(self) -> str:
        """Where this machine's own packages of Debian come from."""
        lines = output("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)").splitlines()
        for line in lines:
            label, _, place = line.partition(" ")
            if label == "Debian":
                return place
        raise SystemExit("apt-get knows no archive of Debian; is this a Debian?")

    def search(self, pattern: str) -> list[str]:
        """Names of packages."""
        lines = output("apt-cache", *self.options, "search", "--names-only", pattern).splitlines()
        return [line.split(" ")[0] for line in lines]

    def unpacked(self, package: str) -> Path:
        """A directory with a package's files, fetched on first use."""
        place = CACHE / "packages" / package
        if not place.is_dir():
            say(f"fetching {package}")
            scratch = CACHE / "fetch"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            subprocess.run(
                ["apt-get", *self.options, "-qq", "download", package], check=True, cwd=scratch
            )
            (archive,) = scratch.glob("*.deb")
            place.parent.mkdir(exist_ok=True)
            subprocess.run(["dpkg-deb", "-x", archive, scratch / "files"], check=True)
            os.rename(scratch / "files", place)
        return place


def version_key(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def kernel(version: str) -> tuple[Path, Path]:
    """(vmlinuz, directory of modules) of the newest package of a version such as 6.12."""
    kept = sorted(
        (CACHE / "packages").glob(f"linux-image-{version}.*"), key=lambda p: version_key(p.name)
    )
    place = kept[-1] if kept else None
    if place is None:
        pattern = rf"^linux-image-{re.escape(version)}[.-][^ ]*-cloud-amd64$"
        for release in (None, *RELEASES):
            apt = Apt(release)
            found = sorted(apt.search(pattern), key=version_key)
            # A security archive keeps names of packages that it has no longer.
            for name in reversed(found):
                try:
                    place = apt.unpacked(name)
                    break
                except subprocess.CalledProcessError:
                    say(f"{name} cannot be fetched")
            if place is not None:
                break
        else:
            raise SystemExit(f"no Debian release has a cloud kernel {version}")
    (image,) = place.glob("boot/vmlinuz-*")
    modules = [*place.glob("lib/modules/*"), *place.glob("usr/lib/modules/*")]
    return image, modules[0]


# ---- the initramfs -----------------------------------------------------------------------------


def libraries(files: list[Path]) -> set[Path]:
    """The shared libraries that programs and modules need, by the dynamic loader's own word."""
    found: set[Path] = set()
    for file in files:
        done = subprocess.run(["ldd", file], capture_output=True, text=True)
        for line in done.stdout.splitlines():
            match = re.search(r"(?:=> )?(/\S+) \(0x", line)
            if match:
                found.add(Path(match[1]))
    return found


class Tree:
    """What goes into the guest: {path there: file here}, and texts."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.texts: dict[str, tuple[bytes, int]] = {}
        self.links: dict[str, str] = {}

    def add(self, file: Path, there: str | None = None) -> None:
        """A file, and where it is a symbolic link what that leads to."""
        self.files[there or str(file)] = file.resolve()

    def directory(self, place: Path, there: str, leave: re.Pattern[str] | None = None) -> None:
        for directory, names, files in os.walk(place):
            below = os.path.relpath(directory, place)
            names[:] = [
                name
                for name in names
                if not (leave and leave.search(f"{below}/{name}/".removeprefix("./")))
            ]
            for name in files:
                path = os.path.normpath(f"{there}/{below}/{name}")
                if not (leave and leave.search(f"{below}/{name}".removeprefix("./"))):
                    self.add(Path(directory, name), path)

    def text(self, there: str, text: str | bytes, mode: int = 0o644) -> None:
        self.texts[there] = (text.encode() if isinstance(text, str) else text), mode

    def entries(self) -> Iterator[tuple[str, int, bytes, int]]:
        """(path, mode, content, mtime), directories before what is in them.

        Bytecode is valid for one mtime of its source only.
        """
        seen: set[str] = {"/", ""}

        def parents(path: str) -> Iterator[tuple[str, int, bytes, int]]:
            for parent in reversed(Path(path).parents):
                if str(parent) not in seen:
                    seen.add(str(parent))
                    yield str(parent), stat.S_IFDIR | 0o755, b"", 0

        for name in (
            "/dev",
            "/proc",
            "/sys",
            "/run",
            "/root",
            "/tmp",
            "/mnt",
            "/modules",
            "/var/tmp",
        ):
            yield from parents(f"{name}/x")
        for path, target in self.links.items():
            yield from parents(path)
            yield path, stat.S_IFLNK | 0o777, target.encode(), 0
        for path, file in self.files.items():
            yield from parents(path)
            status = file.stat()
            mode = stat.S_IFREG | status.st_mode & 0o777
            yield path, mode, file.read_bytes(), int(status.st_mtime)
        for path, (text, mode) in self.texts.items():
            yield from parents(path)
            yield path, stat.S_IFREG | mode, text, 0

    def write(self, path: Path) -> None:
        """As a cpio archive of the kind that the kernel unpacks."""
        with open(path, "wb") as out:
            number = 0

            def put(name: str, mode: int, content: bytes, mtime: int) -> None:
                nonlocal number
                number += 1
                raw = name.encode() + b"\0"
                values = (number, mode, 0, 0, 1, mtime, len(content), 0, 0, 0, 0, len(raw), 0)
                head = b"070701" + b"".join(b"%08x" % value for value in values)
                out.write(head + raw + b"\0" * (-(len(head) + len(raw)) % 4))
                out.write(content + b"\0" * (-len(content) % 4))

            for name, mode, content, mtime in self.entries():
                put(name.lstrip("/"), mode, content, mtime)
            put("TRAILER!!!", 0, b"", 0)


NOT_OF_PYTHON = re.compile(
    r"(^|/)(test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|config-3\S*|site-packages)/$"
)
NOT_OF_PACKAGES = re.compile(
    r"^(pip|setuptools|wheel|mypy|mypyc|ruff|clang_format|clang_tidy|cibuildwheel|auditwheel|twine|"
    r"pkg_resources|_distutils_hack|build|abi3audit)(-[^/]*)?/$"
)
NOT_OF_TREE = re.compile(r"^(\.git|\.venv[^/]*|build|wheelhouse|dist|\.[a-z]+_cache)/$")


def guest(modules: Path, command: str) -> Tree:
    """The guest's files."""
    tree = Tree()
    busybox = Apt(None).unpacked("busybox-static") / "bin" / "busybox"
    if not busybox.exists():
        (busybox,) = Apt(None).unpacked("busybox-static").glob("usr/bin/busybox")
    tree.add(busybox, "/bin/busybox")
    for name in output(busybox, "--list").split():
        tree.links[f"/bin/{name}"] = "busybox"
    programs = []
    for name in PROGRAMS:
        if path := shutil.which(name):
            programs.append(Path(path).resolve())
            tree.links.pop(f"/bin/{name}", None)
            tree.add(Path(path), f"/usr/bin/{name}")
            tree.links[f"/bin/{name}"] = f"/usr/bin/{name}"
    base = Path(sys.base_prefix)
    standard = Path(sysconfig.get_path("stdlib", vars={"base": str(base)}))
    tree.directory(standard, str(standard), NOT_OF_PYTHON)
    binary = Path(os.path.realpath(sys.executable))
    tree.add(binary)
    for name in ("python3", "python"):
        tree.links[f"/usr/local/bin/{name}"] = str(binary)
    packages = Path(sysconfig.get_path("platlib"))
    tree.directory(packages, "/packages", NOT_OF_PACKAGES)
    tree.directory(ROOT, PLACE, NOT_OF_TREE)
    shared = [binary, *programs]
    for directory in (standard / "lib-dynload", packages, ROOT / "nsext"):
        shared += directory.rglob("*.so")
    for library in libraries(shared):
        tree.add(library)
    for name in MODULES:
        for file in (modules / "kernel").glob(f"{name}.ko*"):
            content = file.read_bytes()
            if file.suffix == ".xz":
                content = lzma.decompress(content)
            tree.text(f"/modules/{MODULES.index(name)}-{file.name.partition('.')[0]}.ko", content)
    tree.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    tree.text("/etc/group", "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n")
    tree.text("/etc/hosts", "127.0.0.1 localhost\n")
    tree.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\n")
    init = INIT.format(command=shlex.quote(command), mark=MARK, place=PLACE)
    tree.text("/init", init, 0o755)
    return tree


# ---- the machine -------------------------------------------------------------------------------


def boot(image: Path, tree: Tree, memory: int, append: str, timeout: float) -> int:
    """Run the guest, show what it prints, return the command's status."""
    initrd = CACHE / f"root-{os.getpid()}.cpio"
    tree.write(initrd)
    words = f"console=ttyS0 quiet loglevel=3 panic=-1 random.trust_cpu=on {append}"
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", str(memory)]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]
    command += ["-no-reboot", "-kernel", str(image), "-initrd", str(initrd), "-append", words]
    status = None
    try:
        machine = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise SystemExit("qemu-system-x86_64 is missing: apt-get install qemu-system-x86") from None
    try:
        with machine:
            end = time.monotonic() + timeout
            watch = threading.Timer(timeout, machine.kill)
            watch.daemon = True
            watch.start()
            assert machine.stdout is not None
            for line in machine.stdout:
                line = line.rstrip("\r\n")
                if MARK in line:
                    status = int(line.partition(MARK)[2])
                else:
                    print(line, flush=True)
            watch.cancel()
            if status is None:
                late = time.monotonic() >= end
                say(
                    f"not done within {timeout:.0f} s"
                    if late
                    else "the guest ended without a status"
                )
    finally:
        initrd.unlink(missing_ok=True)
    return 1 if status is None else status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", action="append", help="a version, such as 6.12; repeatable")
    parser.add_argument("--append", default="", help="more words for the kernel's command line")
    parser.add_argument("--memory", type=int, default=1024, help="MiB")
    parser.add_argument("--timeout", type=float, default=1500, help="seconds, for each kernel")
    parser.add_argument("--command", help="a shell command, in place of pytest")
    parser.add_argument("--before", default="true", help="a shell command to run before")
    parser.add_argument("arguments", nargs="*", help="of pytest, after --")
    options = parser.parse_args()
    if os.uname().machine != "x86_64":
        raise SystemExit("x86_64 only")
    CACHE.mkdir(parents=True, exist_ok=True)
    command = options.command
    if command is None:
        words = ["-p", "no:cacheprovider", *options.arguments]
        command = (
            f"export PYTHONPATH=/packages:{PLACE}; "
            f"{options.before}; python3 -m pytest {shlex.join(words)}"
        )
    failed = []
    for version in options.kernel or ["6.12"]:
        image, modules = kernel(version)
        say(f"{image.name}: {command}")
        begun = time.monotonic()
        status = boot(
            image, guest(modules, command), options.memory, options.append, options.timeout
        )
        say(f"{image.name}: exit status {status} after {time.monotonic() - begun:.0f} s")
        if status:
            failed.append(version)
    if failed:
        say(f"failed: {' '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
