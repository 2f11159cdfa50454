"""The steps of _privileges in words, and why they fail."""

from __future__ import annotations

import errno
import os

from ._capabilities import name_of, words
from ._landlock import path_words, port_words
from ._privileges import CAPS_ALL, CAPS_EXACT, CAPS_SECUREBITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._privileges import Step

_PLAIN = {
    "landlock_restrict": "enforce Landlock",
    "keyring": "join a new session keyring",
    "keep_capabilities": "keep capabilities over the change of ids",
    "no_new_privs": "set no_new_privs",
}


def _capabilities(wanted: int, ambient: int, flags: int, securebits: int) -> str:
    parts = []
    if flags & CAPS_EXACT:
        parts.append(f"capabilities to {'all' if flags & CAPS_ALL else words(wanted)}")
    if ambient:
        parts.append(f"ambient capabilities to {words(ambient)}")
    if flags & CAPS_SECUREBITS:
        parts.append(f"securebits to {securebits:#x}")
    return f"set {', '.join(parts)}"


# Parts of step capabilities, by aux / 64: csrc/child/steps_privs.c.  0: read or write the sets.
_PARTS = {
    1: "keep capability {}, which is not there",
    2: "drop capability {} from the bounding set",
    3: "raise capability {} in the ambient set",
    4: "verify the capabilities: {} is not as it was set",
    5: "set securebits",
}


def describe_privilege(step: Step) -> str | None:
    """What *step* does, where it is one of these."""
    name, args = step[0], step[1:]
    if name == "capabilities":
        return _capabilities(*args)
    match name, args:
        case "exec_label", (path, text):
            return f"write {os.fsdecode(text)!r} to {os.fsdecode(path)}"
        case "landlock", (files, ports, _):
            limits = " and ".join(word for word, on in (("files", files), ("ports", ports)) if on)
            return f"make a Landlock ruleset for {limits}"
        case "landlock_path", (path, access):
            return f"allow {path_words(access)} below {os.fsdecode(path)} by Landlock"
        case "landlock_port", (port, access):
            return f"allow {port_words(access)} of port {port} by Landlock"
    if name == "seccomp":
        return f"load a seccomp filter of {len(args[0]) // 8} instructions"
    return _PLAIN.get(name)


def describe_privilege_failure(step: Step, aux: int) -> str | None:
    """Which part of *step* failed."""
    if step[0] == "exec_label" and aux == 1:
        return f"open {os.fsdecode(step[1])}"
    if step[0] == "capabilities" and aux // 64 in _PARTS:
        return _PARTS[aux // 64].format(name_of(aux % 64))
    return None


def privilege_hint(name: str, number: int) -> str | None:
    """Why such a step failed."""
    if name == "landlock_restrict" and number == errno.EPERM:
        return "Landlock needs no_new_privs, or CAP_SYS_ADMIN"
    if name == "seccomp":
        if number in (errno.EACCES, errno.EPERM):
            return "a filter needs no_new_privs, or CAP_SYS_ADMIN"
        return "the kernel's check has refused the program" if number == errno.EINVAL else None
    if name == "exec_label":
        if number in (errno.EACCES, errno.EPERM):
            return "the security module's policy does not let the caller set this label"
        if number in (errno.EINVAL, errno.ENOENT):
            return "the security module's policy has no such label"
    if name == "keyring":
        if number == errno.EDQUOT:
            return (
                "the caller's quota of keys is used up: sysctl kernel.keys.maxkeys and maxbytes, "
                "or keyring='inherit'"
            )
        return "a seccomp filter may refuse keyctl(2)" if number == errno.EPERM else None
    if name == "capabilities" and number == errno.EPERM:
        return (
            "a program has no more than the child has in its permitted and bounding sets, and "
            "dropping needs CAP_SETPCAP; with 'user' in new= it has them all"
        )
    return None


# Linux that the Landlock ABI came with.
_ABIS = {1: "5.13", 2: "5.19", 3: "6.2", 4: "6.7"}


def unsupported(step: Step, number: int, aux: int) -> str | None:
    """Why this machine cannot do *step*, where that is what failed."""
    if step[0] != "landlock" or number != errno.EOPNOTSUPP or aux < 0:
        return None
    wanted = 4 if step[2] else 3
    here = f"has Landlock ABI {aux}" if aux else "has no Landlock, or it is not enabled at boot"
    return (
        f"this kernel ({os.uname().release}) {here}; ABI {wanted}, of Linux {_ABIS[wanted]}, is "
        "needed; landlock_strict=False takes what there is"
    )
