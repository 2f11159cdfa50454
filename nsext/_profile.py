"""seccomp_default(): the profile of _seccomp_table as a program for this machine."""

from __future__ import annotations

import errno
import os

from . import _bpf
from ._bpf import ALLOW, Fragment, argument, assemble, fail, give, if_any_bit, if_equal, load
from ._seccomp_table import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _collections_abc import Iterable

# AUDIT_ARCH_*: linux/audit.h.  The column of the table.
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_X32 = 0x40000000  # __X32_SYSCALL_BIT

_PASS: Fragment = [give(ALLOW)]
_REFUSE: Fragment = [fail(errno.EPERM)]
_UNKNOWN: Fragment = [fail(errno.ENOSYS)]

# CLONE_NEW*; of NEWTIME, whose bit is one of clone(2)'s exit signal, unshare(2) alone knows.
_NEW = 0x7E020000
_NEWTIME = 0x80
# TIOCSTI and TIOCLINUX put words into the mouth of the terminal: CVE-2017-5226.
_TERMINAL = (0x5412, 0x541C)
# PER_LINUX, PER_LINUX32, these with UNAME26, and the question which it is.
_PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
# AF_DECnet, ECONET, ATMSVC, IRDA, WANPIPE (25), ISDN, CAIF, ALG, VSOCK: parts of the kernel that
# nobody needs, and a way out of a virtual machine.
_FAMILIES = (12, 19, 20, 23, 25, 34, 37, 38, 40)
_LAST_FAMILY = 45  # AF_MCTP


def _any_of(values: Iterable[int], yes: Fragment, no: Fragment) -> Fragment:
    for value in values:
        no = if_equal(value, yes, no)
    return no


def _by_arguments(name: str) -> Fragment:
    first = load(argument(0))
    if name == "clone":
        return [first, *if_any_bit(_NEW, _REFUSE, _PASS)]
    if name == "unshare":
        return [first, *if_any_bit(_NEW | _NEWTIME, _REFUSE, _PASS)]
    if name == "personality":
        return [first, *_any_of(_PERSONALITIES, _PASS, _REFUSE)]
    if name == "ioctl":
        return [load(argument(1)), *_any_of(_TERMINAL, _REFUSE, _PASS)]
    if name == "socket":
        known = _any_of(_FAMILIES, _REFUSE, _PASS)
        return [first, *_bpf.switch([(0, known), (_LAST_FAMILY + 1, _REFUSE)])]
    raise AssertionError(name)


def read_table() -> dict[str, tuple[str, int | None, int | None]]:
    """{name: (section, number on x86_64, number on aarch64)}."""
    table: dict[str, tuple[str, int | None, int | None]] = {}
    section = ""
    for line in TABLE.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[0][0] == "[":
            section = words[0].strip("[]")
            continue
        name, *numbers = words
        x86_64, aarch64 = (None if word == "-" else int(word) for word in numbers)
        table[name] = section, x86_64, aarch64
    return table


def profile(machine: str) -> bytes:
    """The program for a machine, as os.uname() names it.  KeyError for others."""
    if machine not in _PROFILES:
        _PROFILES[machine] = _make(machine)
    return _PROFILES[machine]


_PROFILES: dict[str, bytes] = {}


def _make(machine: str) -> bytes:
    arch, column = _MACHINES[machine]
    fragments = {"allow": _PASS, "EPERM": _REFUSE, "ENOSYS": _UNKNOWN}
    calls: dict[int, Fragment] = {}
    for name, (section, *numbers) in read_table().items():
        number = numbers[column]
        if number is not None:
            calls[number] = fragments.get(section) or _by_arguments(name)
    # Runs of numbers with the same fragment; between them and behind, what is unknown.
    cases: list[tuple[int, Fragment]] = []
    for number in range(max(calls) + 2):
        fragment = calls.get(number, _UNKNOWN)
        if not cases or cases[-1][1] is not fragment:
            cases.append((number, fragment))
    cases.append((_X32, _REFUSE))
    program = [load(_bpf.NUMBER), *_bpf.switch(cases)]
    return assemble([load(_bpf.ARCH), *if_equal(arch, program, _REFUSE)])


def seccomp_default() -> bytes:
    """Return a filter for ``seccomp=``, as container engines have it by default.

    Calls that administer the system, make namespaces or mounts, or reach large and rarely used
    parts of the kernel fail with EPERM; clone3 and unknown ones with ENOSYS, upon which the C
    library does without; so does every call of another architecture than the machine's own, with
    EPERM.  The list is nsext/_seccomp_table.py.

    Raises UnsupportedError on other machines than x86_64 and aarch64.  See seccomp(2).
    """
    machine = os.uname().machine
    if machine not in _MACHINES:
        from ._errors import UnsupportedError

        raise UnsupportedError(
            errno.ENOSYS,
            f"there is no profile for {machine}",
            stage="plan",
            step="make the default seccomp filter",
        )
    return profile(machine)
