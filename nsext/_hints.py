"""The likely cause of an error, from what the system says after it happened."""

from __future__ import annotations

import errno
import os
import signal

from . import _causes, _flags
from ._privilege_words import privilege_hint


def clone_hint(number: int, new: int) -> str | None:
    """Why clone(2) with these namespaces failed."""
    return _causes.of_clone(number, new)


def plan_hint(number: int, helper: bool) -> str | None:
    """Why a plan, or the *helper* for it, was not to be had.  See memfd_create(2)."""
    if number in (errno.EMFILE, errno.ENFILE):
        return _causes.no_descriptor(number)
    if number == errno.E2BIG:
        return "the arguments and the environment are more than any exec takes"
    if helper and number != errno.ENOMEM:
        return (
            "vm.memfd_noexec=2 keeps the helper from being run from memory, and its file is not to "
            "be reached: the caller has another root now"
        )
    return None


def killed_hint(signum: int) -> str | None:
    """Why a child was killed."""
    if signum == signal.SIGSYS:
        return _causes.Cause("a seccomp filter kills for it", _causes.SECCOMP_REMEDY)
    return None


def cgroup_hint(number: int) -> str | None:
    """Why a child could not get into its control group: clone(2), cgroups(7)."""
    if number == errno.EBUSY:
        return "the group gives controllers to groups below it, and then has no processes itself"
    if number == errno.EOPNOTSUPP:
        return "the group is threaded or invalid: see its cgroup.type"
    if number in (errno.EACCES, errno.EPERM):
        return (
            "one may move into a group whose cgroup.procs, and that of the nearest common group "
            "above, one may write to: whoever owns these has to delegate them"
        )
    if number == errno.EAGAIN:
        return "pids.max of the group, or of one above, or RLIMIT_NPROC is reached"
    if number in (errno.ENOENT, errno.ENODEV):
        return "the group is removed, or outside of the cgroup namespace"
    return None


def step_hint(name: str, number: int, new: int) -> str | None:
    """Why a step of a child with these new namespaces failed."""
    if number in (errno.EMFILE, errno.ENFILE):
        return _causes.no_descriptor(number)
    if name == "unshare" and number == errno.EPERM:
        cause = _causes.by_filter(_flags.NEWTIME)
        if cause is not None or not new & _flags.NEWUSER:
            return cause or _causes.NO_PRIVILEGE
    if number in (errno.EPERM, errno.EACCES):
        if new & _flags.NEWUSER and (cause := _causes.by_sysctl()):
            return cause
        if name == "mount_proc":
            return _causes.of_fresh_proc(new)
        if name == "propagation":
            return _causes.of_mount()
        if name == "uid_map" and os.geteuid() == 0 and not _causes.may(_causes.CAP_SETFCAP):
            return _causes.NO_SETFCAP
        if name in ("hostname", "domainname"):
            return _causes.of_name(f"set{name}")
        if name == "loopback" and not new & _flags.NEWUSER:
            return _causes.Cause(
                "this needs CAP_NET_ADMIN", "loopback=False leaves it down, or 'user' in new="
            )
        if name == "setgroups":
            return (
                "supplementary groups need CAP_SETGID, and in a user namespace a gid_map of ranges"
            )
        if name in ("setuid", "setgid"):
            return f"changing ids needs CAP_SET{name[3:].upper()}"
        if name == "gate":
            return (
                "a map has ids that the caller's own user namespace has; and one with its id 0 "
                "needs CAP_SETFCAP, since Linux 5.12"
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
            needs = "setting the clocks of a time namespace needs CAP_SYS_TIME in it"
            return _causes.Cause(needs, None if new & _flags.NEWUSER else "'user' in new=")
    if number == errno.ENOENT and name == "helper":
        return (
            "the caller's root directory has neither the helper's file nor /dev/fd, without which "
            "TOMOYO (Debian's kernel 5.10 has it) runs no program from memory"
        )
    if number == errno.ENOENT and name in ("uid_map", "gid_map", "setgroups_deny", "time_offsets"):
        return "/proc is not mounted, or the kernel lacks this namespace"
    if number == errno.ENOENT and name == "oom_score_adj":
        return "/proc is not mounted"
    if name == "join" and number == errno.ESRCH:
        return "the process has ended"
    if name == "join" and (cause := _causes.of_setns()):
        return cause
    if name == "join" and number == errno.EPERM:
        return "joining needs CAP_SYS_ADMIN in the user namespace that owns it; join that, too"
    if number == errno.EINVAL and name in ("propagation", "pivot"):
        return _causes.NO_MOUNT_POINT if name == "propagation" else _causes.BELOW_A_HOST
    if name == "limit_userns":
        if number == errno.EROFS:
            return _causes.PROC_SYS_READONLY
        if number == errno.ENOENT:
            return "/proc is not mounted, or not all of it"
    if name == "no_userns" and number == errno.EOPNOTSUPP:
        return "there is room for one more, in spite of the limit"
    if name == "outer_userns":
        return clone_hint(number, _flags.NEWUSER)
    if name == "relay":
        return clone_hint(number, 0)
    if number == errno.EINVAL and name in ("setuid", "setgid", "setgroups"):
        return "the id is not mapped in the user namespace"
    if number == errno.ENOSYS and name == "gate":
        return "on this architecture only the own id can be mapped"
    if number in (errno.ENOSPC, errno.EUSERS) and name == "unshare":
        return _causes.of_limit(_flags.NEWTIME)
    if number == errno.ERANGE and name == "time_offsets":
        return "the clock would be negative or beyond its range"
    return privilege_hint(name, number)
