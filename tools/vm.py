"""Run tests, or any command, as root of a virtual machine with a Debian kernel.

    tools/vm.py [--kernel 6.12]... [--append WORDS] [--memory MIB] [-- pytest arguments]
    tools/vm.py --kernel 6.1 --command 'uname -a'

A kernel is a version, or "newest"; "6.12-aarch64" is of that machine.  The guest is qemu without
KVM, a Debian kernel and an initramfs, whose files are copied to a tmpfs: Python, the wheel that is
built of this tree, the tests and programs.  cgroup v2 has all controllers there.  The command's
exit status comes over the serial line.

Without arguments for pytest it runs what tests/vm/selection.py names, and compares what is skipped
there, and what the kernel has, with the tables of docs/kernels.md: a difference is a failure.
`--update` writes them.

Packages are found and fetched by apt-get, which has to be set up for Debian, and are kept in
build/vm.  A kernel that the archive does not serve is left out, with a line.  qemu has to be
installed: qemu-system-x86, qemu-system-arm.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vm_debian import CACHE, ROOT, Kernel, NotServed, kernel, say
from vm_guest import MARK, PLACE, guest_tree, make_wheel
from vm_table import Tables
from vm_tree import Tree

sys.path.insert(0, str(ROOT / "tests" / "vm"))
from selection import SELECTION

TOLD = "nsext-vm: told "  # before JSON: what tests/vm/told.py and features.py print

MACHINES = {
    "x86_64": "qemu-system-x86_64 -cpu max -serial stdio".split(),
    "aarch64": "qemu-system-aarch64 -M virt -cpu max,pauth-impdef=on -serial stdio".split(),
}
CONSOLES = {"x86_64": "ttyS0", "aarch64": "ttyAMA0"}
PACKAGE = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm"}


@dataclass
class Guest:
    """A machine to run, and what it has said."""

    name: str
    kernel: Kernel
    tree: Tree
    status: int = 1
    told: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    seconds: float = 0.0


def boot(guest: Guest, options: argparse.Namespace) -> None:
    """Run it; show what it prints, if it is the only one, and keep it, if not."""
    begun = time.monotonic()
    machine = guest.kernel.machine
    initrd = CACHE / f"root-{os.getpid()}-{guest.name}.cpio"
    guest.tree.write(initrd)
    words = "quiet loglevel=3 panic=-1 random.trust_cpu=on mitigations=off"
    # A second processor would make each of them half as fast.
    command = [*MACHINES[machine], "-accel", "tcg", "-smp", "1", "-m", str(options.memory)]
    command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    command += ["-kernel", str(guest.kernel.image), "-initrd", str(initrd)]
    command += ["-append", f"console={CONSOLES[machine]} {words} {options.append}"]
    done = False
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
        )
        with process:
            watch = threading.Timer(options.timeout, process.kill)
            watch.daemon = True
            watch.start()
            assert process.stdout is not None
            for line in process.stdout:
                line = line.rstrip("\r\n")
                if MARK in line:
                    done = True
                    guest.status = int(line.partition(MARK)[2])
                elif TOLD in line and not options.command:
                    guest.told |= json.loads(line.partition(TOLD)[2])
                elif options.jobs == 1:
                    print(line, flush=True)
                else:
                    guest.lines.append(line)
            watch.cancel()
    finally:
        initrd.unlink(missing_ok=True)
    guest.seconds = time.monotonic() - begun
    if not done:
        late = guest.seconds >= options.timeout
        what = f"not done within {options.timeout:.0f} s" if late else "it ended without a status"
        guest.lines.append(f"{guest.name}: {what}")


def test_command(arguments: list[str], before: str) -> str:
    """What runs in the guest: the probes, and pytest with a plug-in that tells what it skips."""
    words = ["-P", "-m", "pytest", "-p", "no:cacheprovider", "-p", "told", *arguments]
    return (
        f"export PYTHONPATH=$PYTHONPATH:{PLACE}/tests/vm; {before}; "
        f"python3 {PLACE}/tests/vm/features.py; python3 {shlex.join(words)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", action="append", help="6.12, 6.12-aarch64, newest; repeatable")
    parser.add_argument("--append", default="", help="more words for the kernel's command line")
    parser.add_argument("--memory", type=int, default=2048, help="MiB")
    parser.add_argument("--timeout", type=float, help="seconds, for each kernel")
    parser.add_argument("--command", help="a shell command, in place of pytest")
    parser.add_argument("--before", default="true", help="a shell command to run before")
    parser.add_argument("--jobs", type=int, default=1, help="guests at a time")
    parser.add_argument("--update", action="store_true", help="write docs/kernels.md")
    parser.add_argument("arguments", nargs="*", help="of pytest, after --")
    options = parser.parse_args()
    if os.environ.get("NSEXT_VM") == "full":
        options.arguments = options.arguments or ["tests", "tests/vm"]
    checked = not options.command and not options.arguments
    command = options.command or test_command(
        options.arguments or ["-q", "-rs", "--durations=15", *SELECTION], options.before
    )
    options.timeout = options.timeout or (1200 if checked else 3 * 3600)
    CACHE.mkdir(parents=True, exist_ok=True)
    rows = []
    guests = []
    wheels: dict[str, Path] = {}
    for name in options.kernel or ["6.12"]:
        version, _, machine = name.partition("-")
        machine = machine or "x86_64"
        if not shutil.which(MACHINES[machine][0]):
            raise SystemExit(f"{MACHINES[machine][0]}: apt-get install {PACKAGE[machine]}")
        try:
            found = kernel(version, machine)
            if machine not in wheels:
                wheels[machine] = make_wheel(machine)
            guests.append(Guest(name, found, guest_tree(found, wheels[machine], command)))
        except NotServed as error:
            say(f"{name} is left out: {error}")
            rows.append((name, "left out"))
    say(f"{len(SELECTION)} tests, some of several forms" if checked else command)
    failed = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for guest, _ in zip(guests, pool.map(lambda guest: boot(guest, options), guests)):
            for line in guest.lines:
                print(line)
            said = [f"exit status {guest.status}"]
            if checked and guest.status == 0:
                tables = Tables()
                differences = tables.update(guest.name, guest.told)
                if options.update:
                    tables.write()
                elif differences:
                    say("docs/kernels.md is to be changed; tools/vm.py --update does it:")
                    print("\n".join(differences))
                    said = ["differs from docs/kernels.md"]
                    guest.status = 1
            said += filter(None, [guest.told.get("summary"), f"{guest.seconds:.0f} s"])
            rows.append((guest.name, f"{guest.kernel.release}: {', '.join(said)}"))
            say(rows[-1][1])
            if guest.status:
                failed.append(guest.name)
    for row in rows:
        print(f"{row[0]:14} {row[1]}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
