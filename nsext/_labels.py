"""Labels that a security module gives a program at exec: SELinux, AppArmor."""

from __future__ import annotations

import errno
import os

from ._errors import UnsupportedError
from ._proc import read


def label(value: object) -> str:
    """A context of SELinux or the name of an AppArmor profile."""
    if not isinstance(value, str):
        raise TypeError(f"exec_label must be a str, not {type(value).__name__}")
    if not value.strip() or not value.isprintable():
        raise ValueError(f"exec_label: {value!r} is no label")
    if len(os.fsencode(value)) > 4000:  # with its word it is less than a page
        raise ValueError(f"exec_label has {len(os.fsencode(value))} bytes; at most 4000")
    return value


def is_context(value: str) -> bool:
    """Is it SELinux's: "user:role:type" and more?  A profile's name with a colon begins so."""
    parts = value.split(":")
    return len(parts) >= 3 and all(parts[:3])


def place_and_text(value: str) -> tuple[bytes, bytes]:
    """Which file sets it for the next exec, and what is written there."""
    if is_context(value):
        return b"/proc/self/attr/exec", os.fsencode(value)
    return b"/proc/self/attr/apparmor/exec", b"exec " + os.fsencode(value)


def _text(path: str) -> str:
    try:
        return read(path)
    except OSError:
        return ""


def _is_active(module: str) -> bool:
    if listed := _text("/sys/kernel/security/lsm"):
        return module in listed.strip().split(",")
    if module == "apparmor":  # where securityfs is not mounted, as in containers
        return _text("/sys/module/apparmor/parameters/enabled").startswith("Y")
    return "selinuxfs" in _text("/proc/filesystems").split()


def require(value: str) -> None:
    """Raise UnsupportedError where the module of this label is not active."""
    module, name = ("selinux", "SELinux") if is_context(value) else ("apparmor", "AppArmor")
    if _is_active(module):
        return
    raise UnsupportedError(
        errno.EOPNOTSUPP,
        f"{name} is not active on this machine (kernel {os.uname().release}), so that a program "
        "cannot have a label of its",
        stage="plan",
        step=f"set the label {value!r} for exec",
    )
