"""The likely cause of an error, from what the system says after it happened."""

from __future__ import annotations

import errno
import os

from . import _flags
from ._flags import BY_KIND
from ._privilege_words import privilege_hint
from ._proc import field, read


def _read(path: str) -> str | None:
    try:
        return read(path).strip()
    except OSError:
        return None


def _capabilities() -> int:
    try:
        return int(field("/proc/thread-self/status", "CapEff") or "0", 16)
    except OSError:
        return 0


CAP_SETFCAP, CAP_SYS_ADMIN = 31, 21


def _in_chroot() -> bool:
    """A mount namespace's root is the root of some mount; a chroot's need not be."""
    mounts = _read("/proc/self/mountinfo")
    return mounts is not None and not any(
        line.split()[4] == "/" for line in mounts.splitlines() if len(line.split()) > 4
    )


def _user_namespace_refused() -> str | None:
    if _read("/proc/sys/kernel/unprivileged_userns_clone") == "0" and os.geteuid() != 0:
        return (
            "ordinary users may not make user namespaces here: "
            "sysctl kernel.unprivileged_userns_clone=1 allows it"
        )
    if _in_chroot():
        return "a process in a chroot may not make a user namespace; enter the root by pivot_root"
    return (
        "the system refuses new user namespaces: a seccomp filter (a container's default profile), "
        "or a security module"
    )


def _limits(new: int) -> str:
    zero = [
        kind
        for kind, flag in BY_KIND.items()
        if new & flag and _read(f"/proc/sys/user/max_{kind}_namespaces") == "0"
    ]
    if zero:
        names = ", ".join(f"user.max_{kind}_namespaces" for kind in zero)
        return f"the limit is 0: raise sysctl {names}"
    return "a limit on namespaces is reached: sysctl user.max_*_namespaces, or 32 levels of nesting"


def clone_hint(number: int, new: int) -> str | None:
    """Why clone(2) with these namespaces failed."""
    if number == errno.EPERM:
        if new & _flags.NEWUSER:
            return _user_namespace_refused()
        if new and not _capabilities() >> CAP_SYS_ADMIN & 1:
            return _NO_PRIVILEGE
        return "a seccomp filter may refuse it"
    if number in (errno.ENOSPC, errno.EUSERS):
        return _limits(new)
    if number == errno.EAGAIN:
        return "a limit on processes is reached: RLIMIT_NPROC, or pids.max of the cgroup"
    if number in (errno.EMFILE, errno.ENFILE):
        return "no file descriptor is left for the pidfd: raise RLIMIT_NOFILE"
    if number == errno.EINVAL and new:
        return "this kernel was built without one of these namespaces"
    if number == errno.ENOMEM:
        return "no memory, or the caller's pid namespace for its children has lost its init"
    return None


_NO_PRIVILEGE = "this needs CAP_SYS_ADMIN; with 'user' in new= an ordinary user may do it"


def step_hint(name: str, number: int, new: int) -> str | None:
    """Why a step of a child with these new namespaces failed."""
    if number in (errno.EMFILE, errno.ENFILE):
        return "no file descriptor is left: raise RLIMIT_NOFILE"
    if name == "unshare" and number == errno.EPERM and not new & _flags.NEWUSER:
        return _NO_PRIVILEGE
    if number in (errno.EPERM, errno.EACCES):
        restricted = _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
        if restricted == "1" and os.geteuid() != 0:
            return (
                "AppArmor takes the capabilities away in new user namespaces: "
                "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile"
            )
        if name == "mount_proc":
            return (
                "a fresh proc needs a new pid namespace and, in a user namespace, a /proc that "
                "nothing is mounted over; proc=False leaves it"
            )
        if name == "setgroups":
            return (
                "supplementary groups need CAP_SETGID, and in a user namespace a gid_map of ranges"
            )
        if name in ("setuid", "setgid"):
            return f"changing ids needs CAP_SET{name[3:].upper()}"
        if name == "gate":
            return (
                "ranges of ids need CAP_SETUID and CAP_SETGID; without them a map is one line "
                "with the own id"
            )
        if name == "setpgid":
            return "the group must be in the caller's session"
        if name == "rlimit":
            return "raising a hard limit needs CAP_SYS_RESOURCE"
        if name == "nice":
            return "a lower nice value needs CAP_SYS_NICE or RLIMIT_NICE"
        if name == "ionice":
            return "the realtime class needs CAP_SYS_NICE (before Linux 5.14 CAP_SYS_ADMIN)"
        if name == "scheduler":
            return (
                "a realtime policy needs CAP_SYS_NICE or RLIMIT_RTPRIO, and in a cgroup with "
                "CONFIG_RT_GROUP_SCHED a share of realtime"
            )
        if name == "oom_score_adj":
            return "a score below the caller's needs CAP_SYS_RESOURCE"
        if name == "time_offsets":
            return "setting the clocks of a time namespace needs CAP_SYS_TIME in it"
    if number == errno.ENOENT and name in ("uid_map", "gid_map", "setgroups_deny", "time_offsets"):
        return "/proc is not mounted, or the kernel lacks this namespace"
    if number == errno.ENOENT and name == "oom_score_adj":
        return "/proc is not mounted"
    if name == "join" and number == errno.EPERM:
        return "joining needs CAP_SYS_ADMIN in the user namespace that owns it; join that, too"
    if name == "relay":
        return clone_hint(number, 0)
    if number == errno.EINVAL and name in ("setuid", "setgid", "setgroups"):
        return "the id is not mapped in the user namespace"
    if number == errno.ENOSYS and name == "gate":
        return "on this architecture only the own id can be mapped"
    if number in (errno.ENOSPC, errno.EUSERS) and name == "unshare":
        return _limits(_flags.NEWTIME)
    if number == errno.ERANGE and name == "time_offsets":
        return "the clock would be negative or beyond its range"
    return privilege_hint(name, number)
