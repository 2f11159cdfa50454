"""What an administrator has to have set up: ranges of ids for ordinary users."""

from __future__ import annotations

import os
import pwd
import shutil
import stat

from ._causes import Cause
from ._proc import field, read


def _user() -> str:
    """The caller's name, or his uid where he has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _has_privileges(path: str) -> bool:
    """Does a program run as root, or with capabilities of its file?"""
    status = os.stat(path)
    if status.st_mode & stat.S_ISUID and status.st_uid == 0:
        return True
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def _has_range(path: str, user: str) -> bool:
    """Has a user a range in /etc/subuid or /etc/subgid: subuid(5)?"""
    try:
        lines = read(path).splitlines()
    except OSError:
        return False
    for line in lines:
        who, _, rest = line.partition(":")
        _, _, count = rest.partition(":")
        if who in (user, str(os.getuid())) and count.isdigit() and int(count):
            return True
    return False


def subids() -> Cause | None:
    """What keeps an ordinary user from maps with ranges of ids: newuidmap(1), subuid(5)."""
    user = _user()
    for tool, path in (("newuidmap", "/etc/subuid"), ("newgidmap", "/etc/subgid")):
        found = shutil.which(tool)
        if found is None:
            return Cause(
                f"{tool} is not installed", "Debian: apt install uidmap; Fedora: shadow-utils"
            )
        if not _has_privileges(found):
            return Cause(
                f"{found} is neither setuid root nor has capabilities", f"chmod u+s {found}"
            )
        if not _has_range(path, user):
            return Cause(
                f"{user} has no range in {path}",
                f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )
    if field("/proc/thread-self/status", "NoNewPrivs") == "1":
        return Cause("no_new_privs is set, and newuidmap gets no privileges", "start without it")
    return None
