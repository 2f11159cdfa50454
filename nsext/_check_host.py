"""What an administrator has to have set up: ranges of ids, a delegated cgroup."""

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


def own_cgroup() -> str | Cause:
    """The directory of the caller's own cgroup, of version 2."""
    try:
        lines = read("/proc/thread-self/cgroup").splitlines()
        mounts = [line.split(" ") for line in read("/proc/thread-self/mountinfo").splitlines()]
    except OSError:
        return Cause("/proc is not mounted")
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if own is None:
        return Cause(
            "there is no cgroup v2 hierarchy", "boot with systemd.unified_cgroup_hierarchy=1"
        )
    for words in mounts:
        if words[words.index("-") + 1] != "cgroup2":
            continue
        root, point = words[3], words[4].replace("\\040", " ")
        if root == "/" or own == root or own.startswith(root + "/"):
            below = own if root == "/" else own.removeprefix(root)
            return os.path.normpath(point + "/" + below)
    return Cause("cgroup2 is not mounted here", "mount -t cgroup2 none /sys/fs/cgroup")


def try_cgroup(place: str) -> Cause | None:
    """Make a cgroup below the caller's own, and remove it: None where that works."""
    name = os.path.join(place, f"nsext-check-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        os.mkdir(name)
    except FileNotFoundError:
        return Cause(f"the own cgroup {place} is not to be seen here", "a cgroup namespace")
    except OSError as error:
        return Cause(
            f"the own cgroup {place} is not delegated: {error.strerror}",
            "systemd-run --user --scope -p Delegate=yes PROGRAM; in a container a cgroup2 mount "
            "that is writable",
        )
    os.rmdir(name)
    return None


def controllers(place: str) -> str:
    """The controllers that a cgroup may use: "cpu memory pids"; "" where there are none."""
    try:
        return read(os.path.join(place, "cgroup.controllers")).strip()
    except OSError:
        return ""
