"""What is in a guest of tools/vm.py: a system with Python, the wheel, the tests, and the init.

On this machine's own architecture the system is made of busybox, this Python and its packages, and
programs of this machine; on another one of Debian's packages, and the tests' from PyPI.
"""

from __future__ import annotations

import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from vm_debian import CACHE, ROOT, Apt, Kernel, NotServed, output, say
from vm_tree import Tree

PLACE = "/nsext"  # of the tests, in the guest
PACKAGES = "/packages"  # of Python's
MARK = "nsext-vm: exit status "
RELEASE = "trixie"  # whose programs are in the guest, and Python of another architecture
DEBIAN_PYTHON = "3.13"

# Programs of this machine that tests run; busybox stands in for the others.
PROGRAMS = """apparmor_parser sh bash cat chgrp chmod chown cp cut date dd dirname echo env expr
false find findmnt getpcaps grep head hostname id ionice ip kill ln ls lsns mkdir
mknod mktemp mount mountpoint mv nice nohup nproc nsenter printf prlimit ps readlink
rm rmdir secilc sed setcap setpriv setsid sleep sort stat strace tail taskset tee test
timeout touch tr true umount uname unshare wc yes""".split()

# The packages that have them.
DEBIAN = """python3 apparmor bash coreutils dash findutils grep hostname iproute2 libcap2-bin
mount procps sed strace util-linux""".split()

# Loaded where there are such, in this order.
MODULES = ("fs/overlayfs/overlay", "fs/fuse/fuse", "drivers/net/dummy", "drivers/net/veth")

# The kernel's first root directory, in which no pivot_root(2) is possible, is left for a tmpfs.
FIRST = """#!/bin/busybox sh
cd /
busybox mount -t tmpfs -o mode=755,size=80% root /newroot
for name in *; do [ "$name" = newroot ] || busybox cp -a "$name" /newroot; done
exec busybox switch_root /newroot /second
"""
SECOND = """#!/bin/busybox sh
export PATH=/usr/local/bin:/usr/bin:/bin:/sbin:/usr/sbin HOME=/root LANG=C.UTF-8 TERM=dumb
export PYTHONPATH={packages}
ulimit -n 65536
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mkdir -p /dev/pts /dev/shm /sys/fs/cgroup
busybox ln -s /proc/self/fd /dev/fd
for n in 0:stdin 1:stdout 2:stderr; do busybox ln -s /proc/self/fd/${{n%:*}} /dev/${{n#*:}}; done
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

NOT_OF_PYTHON = re.compile(
    r"(^|/)(test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|config-3\S*|site-packages)/$"
    r"|(^|/)pydoc_data/$|\.opt-\d\.pyc$"
)
NOT_OF_PACKAGES = re.compile(
    r"^(pip|setuptools|wheel|mypy|mypyc|ruff|clang_format|clang_tidy|cibuildwheel|auditwheel|twine|"
    r"pkg_resources|_distutils_hack|build|abi3audit|nsext|__editable__.*)(-[^/]*)?/?$"
    r"|^trio/_tests/$"
)
NOT_OF_TREE = re.compile(
    r"^(\.git|\.venv[^/]*|build|wheelhouse|dist|nsext|benchmarks|\.[a-z]+_cache|\.hypothesis)/$"
)
NOT_OF_DEBIAN = re.compile(
    r"^usr/share/(doc|man|locale|lintian|bug|info|perl|bash-completion|zoneinfo|i18n)/$"
    r"|^usr/lib/(python3\.\d+/(test|idlelib|lib2to3|ensurepip)|[^/]*/(gconv|perl[^/]*))/$"
)


# ---- the wheel ---------------------------------------------------------------------------------


def make_wheel(machine: str) -> Path:
    """The wheel of this tree for the guest's Python."""
    place = CACHE / f"wheel-{machine}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if machine == os.uname().machine:
        words = ["-q", "build", "--build-base", CACHE / "build", "bdist_wheel", "--dist-dir", place]
        shutil.rmtree(CACHE / "build", ignore_errors=True)
        command = [sys.executable, ROOT / "setup.py", *words]
    else:
        words = ["--once", "--only", f"cp312-glibc-{machine}", "--out", place]
        command = [sys.executable, ROOT / "tools" / "wheels.py", *words]
    say(f"building the wheel for {machine}")
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}no wheel for {machine}")
    (wheel,) = place.glob("*.whl")
    return wheel


def install(tree: Tree, wheel: Path) -> None:
    """A wheel's files, as pip would place them."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            mode = entry.external_attr >> 16 & 0o777 or 0o644
            content = archive.read(entry)
            script = re.fullmatch(r"[^/]*\.data/scripts/([^/]+)", entry.filename)
            if script:
                content = re.sub(rb"^#!python.*", b"#!/usr/local/bin/python3", content)
                tree.text(f"/usr/local/bin/{script[1]}", content, 0o755)
            elif not entry.is_dir():
                tree.text(f"{PACKAGES}/{entry.filename}", content, mode)


# ---- the system --------------------------------------------------------------------------------


def libraries(files: list[Path]) -> set[Path]:
    """The shared libraries that programs and modules need, by the dynamic loader's own word."""
    done = subprocess.run(["ldd", *files], capture_output=True, text=True)
    return {Path(found) for found in re.findall(r"(?:=> )?(/\S+) \(0x", done.stdout)}


def from_here(tree: Tree) -> None:
    """This machine's Python, with its packages, and programs."""
    programs = []
    for name in PROGRAMS:
        if path := shutil.which(name):
            programs.append(Path(path).resolve())
            tree.add(Path(path), f"/usr/bin/{name}")
    base = Path(sys.base_prefix)
    standard = Path(sysconfig.get_path("stdlib", vars={"base": str(base)}))
    tree.directory(standard, str(standard), NOT_OF_PYTHON)
    binary = Path(os.path.realpath(sys.executable))
    tree.add(binary)
    for name in ("python3", "python"):
        tree.link(f"/usr/local/bin/{name}", str(binary))
    packages = Path(sysconfig.get_path("platlib"))
    tree.directory(packages, PACKAGES, NOT_OF_PACKAGES)
    shared = [binary, *programs]
    for directory in (standard / "lib-dynload", packages):
        shared += directory.rglob("*.so")
    for library in libraries(shared):
        tree.add(library)


def from_debian(tree: Tree, machine: str) -> None:
    """The same of Debian's packages, where this machine's do not run."""
    apt = Apt(RELEASE, machine)
    names = apt.with_dependencies(*DEBIAN)
    if not names:
        raise NotServed(f"no {' '.join(DEBIAN)} for {machine}")
    for name in names:
        tree.system(apt.unpacked(name), NOT_OF_DEBIAN)
    tree.link("/usr/bin/sh", "dash")
    for name in ("python3", "python"):
        tree.link(f"/usr/local/bin/{name}", f"/usr/bin/python{DEBIAN_PYTHON}")
    place = CACHE / f"python-{machine}"
    stamp, needs = place / ".needs", output(sys.executable, ROOT / "tools/requirements.py", "test")
    if not stamp.exists() or stamp.read_text() != needs:
        shutil.rmtree(place, ignore_errors=True)
        say(f"fetching the tests' packages for {machine}")
        platforms = [f"--platform=manylinux_2_{n}_{machine}" for n in (17, 28, 34)]
        words = ["install", "-q", "--target", place, *platforms, "--only-binary=:all:"]
        words += [f"--python-version={DEBIAN_PYTHON}", "--disable-pip-version-check"]
        words += [word for word in needs.split() if not word.startswith("pyseccomp")]
        done = subprocess.run([sys.executable, "-m", "pip", *map(str, words)], check=False)
        if done.returncode:
            raise NotServed(f"pip has no packages for {machine}")
        stamp.write_text(needs)
    tree.directory(place, PACKAGES, NOT_OF_PACKAGES)


def guest_tree(kernel: Kernel, wheel: Path, command: str) -> Tree:
    """The guest's files."""
    tree = Tree()
    unpacked = Apt(RELEASE, kernel.machine).unpacked("busybox-static")
    (busybox,) = [*unpacked.glob("bin/busybox"), *unpacked.glob("usr/bin/busybox")]
    tree.add(busybox, "/usr/bin/busybox")
    if kernel.machine == os.uname().machine:
        for name in output(busybox, "--list").split():
            tree.link(f"/usr/bin/{name}", "busybox")
        from_here(tree)
    else:
        from_debian(tree, kernel.machine)
    install(tree, wheel)
    tree.directory(ROOT, PLACE, NOT_OF_TREE)
    for number, name in enumerate(MODULES):
        for file in kernel.modules.glob(f"{name}.ko*"):
            content = file.read_bytes()
            if file.suffix == ".xz":
                content = lzma.decompress(content)
            tree.text(f"/modules/{number}-{file.name.partition('.')[0]}.ko", content)
    tree.text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    tree.text("/etc/group", "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n")
    tree.text("/etc/hosts", "127.0.0.1 localhost\n")
    tree.text("/etc/hostname", "guest\n")
    tree.text("/usr/share/misc/README", "What a directory of a system has in it.\n")
    tree.text("/etc/nsswitch.conf", "passwd: files\ngroup: files\n")
    tree.text("/init", FIRST, 0o755)
    second = SECOND.format(command=shlex.quote(command), mark=MARK, place=PLACE, packages=PACKAGES)
    tree.text("/second", second, 0o755)
    return tree
