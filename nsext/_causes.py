"""What stops a namespace: found out after it was refused, for hints and for check()."""

from __future__ import annotations

import errno
import os
from typing import Any, Self

from . import _probe
from ._flags import BY_KIND, NEWUSER, kind_names
from ._proc import field, read

CAP_SYS_ADMIN = 21
CAP_SETFCAP = 31
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # its inode, of old: PROC_USER_INIT_INO


class Cause(str):
    """A likely cause and its remedy; as a str "reason: remedy", which a hint is."""

    __slots__ = ("reason", "remedy")

    reason: str
    remedy: str | None

    def __new__(cls, reason: str, remedy: str | None = None) -> Self:
        self = super().__new__(cls, f"{reason}: {remedy}" if remedy else reason)
        self.reason, self.remedy = reason, remedy
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.remedy)


def _read(path: str) -> str | None:
    try:
        return read(path).strip()
    except OSError:
        return None


def may(capability: int) -> bool:
    """Has the calling thread this capability, in its own user namespace?"""
    try:
        return bool(int(field("/proc/thread-self/status", "CapEff") or "0", 16) >> capability & 1)
    except OSError:
        return False


def _is_ordinary() -> bool:
    """Is the caller no administrator of the whole system?  A container's root is none."""
    try:
        initial = os.stat("/proc/thread-self/ns/user").st_ino == _INITIAL_USER_NAMESPACE
    except OSError:
        initial = True
    return not (initial and may(CAP_SYS_ADMIN))


def is_filtered() -> bool:
    """Is a seccomp filter on the calling thread?  True where /proc does not tell."""
    try:
        return field("/proc/thread-self/status", "Seccomp") in ("2", None)
    except OSError:
        return True


def _in_chroot() -> bool:
    """A mount namespace's root is the root of some mount; a chroot's need not be.

    Where it is, one who is privileged can go and see.
    """
    mounts = _read("/proc/thread-self/mountinfo")
    if mounts is not None and not any(
        line.split()[4] == "/" for line in mounts.splitlines() if len(line.split()) > 4
    ):
        return True
    return may(CAP_SYS_ADMIN) and _probe.chroot_stops_userns()


def _has_security_module() -> bool:
    """Has one of those that may refuse a user namespace?  True where that is not to be seen."""
    try:
        read("/proc/thread-self/attr/current")
    except OSError as error:
        return error.errno != errno.EINVAL
    return True


def _is_mapped() -> bool:
    """Have the caller's ids an id in his own user namespace?"""
    for name, own in (("uid_map", os.geteuid()), ("gid_map", os.getegid())):
        lines = _read(f"/proc/thread-self/{name}")
        if lines is None:
            continue
        ranges = [tuple(map(int, line.split())) for line in lines.splitlines()]
        if not any(low <= own < low + count for low, _, count in ranges):
            return False
    return True


NO_SETFCAP = Cause(
    "mapping the caller's id 0 needs CAP_SETFCAP, since Linux 5.12",
    "docker and podman: --cap-add SETFCAP, or --user 1000: an ordinary user's own id needs nothing",
)

SECCOMP_REMEDY = (
    "docker and podman: --security-opt seccomp=unconfined, or a profile that allows it; "
    "systemd: RestrictNamespaces=no"
)


def filtered(call: str, kinds: int = 0) -> Cause:
    """A seccomp filter refuses a system call."""
    names = ("NEWNS" if kind == "mnt" else f"NEW{kind.upper()}" for kind in BY_KIND)
    flags = " | ".join(
        f"CLONE_{name}" for name, flag in zip(names, BY_KIND.values()) if flag & kinds
    )
    return Cause(
        f"a seccomp filter refuses {call}(2){' with ' + flags if flags else ''}", SECCOMP_REMEDY
    )


def by_filter(kinds: int) -> Cause | None:
    """The filter that refuses to make these namespaces, if one does."""
    if not is_filtered():
        return None
    call, refused = _probe.filtered_kinds(kinds)
    return filtered(call, refused) if refused else None


SYSCTL_DEBIAN = Cause(
    "ordinary users may not make user namespaces here",
    "sysctl -w kernel.unprivileged_userns_clone=1",
)
SYSCTL_APPARMOR = Cause(
    "AppArmor restricts the user namespaces of ordinary users",
    "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or a profile with 'userns,'",
)
CHROOT = Cause(
    "a process in a chroot may not make a user namespace", "enter the root by pivot_root(2)"
)
NO_PRIVILEGE = Cause("this needs CAP_SYS_ADMIN", "with 'user' in new= an ordinary user may do it")


def by_sysctl(ordinary: bool | None = None) -> Cause | None:
    """The setting that keeps an ordinary user's user namespaces from being made, or of use.

    ordinary: is it about such a user?  None: the caller, whoever he is.
    """
    if not (_is_ordinary() if ordinary is None else ordinary):
        return None
    if _read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return SYSCTL_DEBIAN
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return SYSCTL_APPARMOR
    return None


def of_user_namespace(ordinary: bool | None = None) -> Cause:
    """Why a new user namespace is EPERM.  ordinary: for such a user, whoever asks."""
    cause = by_filter(NEWUSER)
    if cause is None and _in_chroot():
        cause = CHROOT
    if cause is None:
        cause = by_sysctl(ordinary)
    if cause is None and not _is_mapped():
        cause = Cause(
            "the caller's uid or gid has no id in his own user namespace",
            "start him there with ids that its uid_map and gid_map have",
        )
    if cause is None and not (may(CAP_SYS_ADMIN) or is_filtered() or _has_security_module()):
        cause = CHROOT  # at a mount point: nothing else is left, see user_namespaces(7)
    return cause or Cause(
        "the system refuses new user namespaces: a security module (SELinux, AppArmor), a seccomp "
        "filter, or a chroot"
    )


def of_limit(new: int) -> Cause:
    """Why these new namespaces are ENOSPC."""
    zero = [
        kind
        for kind, flag in BY_KIND.items()
        if new & flag and _read(f"/proc/sys/user/max_{kind}_namespaces") == "0"
    ]
    if zero:
        settings = " ".join(f"user.max_{kind}_namespaces=10000" for kind in zero)
        return Cause("the limit on such namespaces is 0", f"sysctl -w {settings}")
    return Cause(
        "a limit on namespaces is reached, here or in a user namespace above, or 32 levels of "
        "nesting",
        "raise sysctl user.max_*_namespaces",
    )


def missing(new: int) -> Cause:
    """This kernel has no such namespaces."""
    lacks = [
        kind
        for kind, flag in BY_KIND.items()
        if new & flag and not os.path.exists(f"/proc/thread-self/ns/{kind}")
    ]
    names = " ".join(lacks) or kind_names(new)
    options = ", ".join(f"CONFIG_{_CONFIG[kind]}" for kind in names.split())
    return Cause(f"this kernel was built without {names} namespaces", f"one with {options}")


_CONFIG = {
    "mnt": "NAMESPACES",
    "uts": "UTS_NS",
    "ipc": "IPC_NS",
    "user": "USER_NS",
    "pid": "PID_NS",
    "net": "NET_NS",
    "cgroup": "CGROUPS",
    "time": "TIME_NS",
}


def no_descriptor(number: int) -> Cause:
    """EMFILE, or ENFILE."""
    if number == errno.ENFILE:
        return Cause("the system has no open file left", "raise sysctl fs.file-max")
    return Cause("no file descriptor is left", "raise RLIMIT_NOFILE")


def of_clone(number: int, new: int) -> Cause | None:
    """Why clone(2) with these namespaces failed."""
    if number in (errno.EPERM, errno.EACCES):
        if new & NEWUSER:
            return of_user_namespace()
        if new and not may(CAP_SYS_ADMIN):
            return NO_PRIVILEGE
        return by_filter(new) or Cause("a seccomp filter or a security module may refuse it")
    if number in (errno.ENOSPC, errno.EUSERS):
        return of_limit(new)
    if number == errno.EAGAIN:
        return Cause("a limit on processes is reached: RLIMIT_NPROC, or pids.max of the cgroup")
    if number in (errno.EMFILE, errno.ENFILE):
        return no_descriptor(number)
    if number == errno.EINVAL and new:
        return missing(new)
    if number == errno.ENOMEM:
        return Cause("no memory, or the caller's pid namespace for its children has lost its init")
    return None


def _masks() -> list[str]:
    """What is mounted over parts of /proc; not automounts' and the like, which are empty."""
    mounts = _read("/proc/thread-self/mountinfo") or ""
    points = [line.split()[4] for line in mounts.splitlines() if len(line.split()) > 4]
    empty = ("/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd", "/proc/xen")
    return sorted({p for p in points if p.startswith("/proc/") and not p.startswith(empty)})


NO_MOUNT_POINT = Cause(
    "the root directory is no mount point, as in a chroot",
    "propagation='unchanged', or enter the root by pivot_root(2)",
)


BELOW_A_HOST = Cause(
    "the caller is in a chroot, whose host would stay above the new root, or on an initramfs that "
    "no /proc shows to be one",
    "enter the root by pivot_root(2)",
)


def of_mount() -> Cause | None:
    """Why mount(2) is EPERM, if it is a filter."""
    return filtered("mount") if is_filtered() and _probe.mount_is_filtered() else None


def of_setns() -> Cause | None:
    """Why setns(2) is refused, if it is a filter."""
    return filtered("setns") if is_filtered() and _probe.setns_is_filtered() else None


def of_name(call: str) -> Cause | None:
    """Why sethostname(2) is EPERM in a uts namespace that was just made."""
    return filtered(call) if is_filtered() else None


UNMASK = "podman: --security-opt unmask=ALL; docker: --security-opt systempaths=unconfined"
PROC_SYS_READONLY = Cause("/proc/sys is mounted read-only, as container engines do", UNMASK)


def of_fresh_proc(new: int) -> Cause:
    """Why a fresh /proc is EPERM."""
    if (cause := of_mount()) is not None:
        return cause
    if new & NEWUSER or _is_ordinary():
        masks = _masks()
        if masks:
            shown = ", ".join(masks[:3]) + (", ..." if len(masks) > 3 else "")
            return Cause(
                f"/proc is masked: something is mounted over {shown}, which a fresh one uncovers",
                f"proc=False leaves the old one; {UNMASK}",
            )
    return Cause(
        "a fresh proc needs a new pid namespace and, in a user namespace, a /proc that nothing is "
        "mounted over",
        "proc=False leaves the old one",
    )
