"""Steps in words, for errors and for explain()."""

from __future__ import annotations

import os
import struct

from ._compile import MS_PRIVATE, MS_SHARED, MS_SLAVE, RELAY_CGROUP
from ._describe_mounts import MOUNT_TARGETS, describe_mount, describe_mount_failure
from ._flags import BY_KIND, kind_names
from ._privilege_words import describe_privilege, describe_privilege_failure
from ._scheduling import ionice_words, scheduler_words
from ._values import INFINITY, rlimit_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._privileges import Step

_PROPAGATION = {MS_PRIVATE: "private", MS_SLAVE: "slave", MS_SHARED: "shared"}

_PLAIN = {
    "gate": "write the id maps",
    "setgroups_deny": "write 'deny' to /proc/self/setgroups",
    "enter_time": "enter the new time namespace",
    "loopback": "bring up the loopback interface",
    "fds": "pass file descriptors",
    "helper": "start the helper",
    "init_death": "ask for SIGKILL at the init's death",
    "parent_death": "ask for SIGKILL at the parent's death",
    "join": "join namespaces",
    "outer_userns": "unshare user",
    "mapped_id": "become an id that the maps have",
    "limit_userns": "write '1' to /proc/sys/user/max_user_namespaces",
    "no_userns": "verify that no user namespace can be made",
    "cgroup": "enter the control group",
    "join_as_root": "become root of the joined user namespace",
    "show": "show the namespaces to the parent",
    "setsid": "setsid",
    "ctty": "take the terminal: TIOCSCTTY",
    "foreground": "give the program the terminal: TIOCSPGRP",
    "checkpoint": "wait to be resumed",
    "default_signals": "reset signals",
    "exec": "exec",
    "call": "call the entry",
}

# Which part of a step failed: (step, aux) -> words.  See the steps' own enums in csrc/.
_PARTS = {
    ("pty", 1): "open /dev/pts/ptmx",
    ("pty", 2): "open the slave of /dev/pts/ptmx",
    ("pty", 3): "send the terminal to the parent",
    ("gate", 1): "find the child in /proc (which is another pid namespace's)",
    ("gate", 2): "write 'deny' to /proc/PID/setgroups",
    ("gate", 3): "write /proc/PID/gid_map",
    ("gate", 4): "write /proc/PID/uid_map",
    ("setgroups_deny", 1): "open /proc/self/setgroups",
    ("gid_map", 1): "open /proc/self/gid_map",
    ("uid_map", 1): "open /proc/self/uid_map",
    ("oom_score_adj", 1): "open /proc/self/oom_score_adj",
    ("time_offsets", 1): "open /proc/self/timens_offsets",
    ("cgroup", 1): "open cgroup.procs of the control group",
    ("cgroup", 2): "enter the control group by cgroup.procs",
    # Parts of csrc/helper/fs.h.
    ("fs_begin", 10): "mount a tmpfs to work in",
    ("fs_begin", 12): "open /proc",
    ("fs_begin", 18): "raise RLIMIT_NOFILE",
    ("fs_ids", 6): "mount what is to be bound",
    ("fs_ids", 10): "mount a tmpfs to work in",
    ("relay", 1): "open cgroup.procs of the control group",
    ("relay", 2): "enter the control group by cgroup.procs",
    ("relay", 3): "read the own /proc/self/gid_map",
    ("relay", 4): "read the own /proc/self/uid_map",
    ("relay", 5): "write /proc/PID/gid_map of the inner user namespace",
    ("relay", 6): "write /proc/PID/uid_map of the inner user namespace",
    ("limit_userns", 1): "open /proc/sys/user/max_user_namespaces",
    ("enter_time", 1): "open /proc/self/ns/time_for_children",
    **{("show", part): f"open /proc/self/ns/{kind}" for part, kind in enumerate(BY_KIND, 1)},
    ("show", len(BY_KIND) + 1): "open the root",
}

# The file that a step is about.
_PATHS = {
    "setgroups_deny": "/proc/self/setgroups",
    "gid_map": "/proc/self/gid_map",
    "uid_map": "/proc/self/uid_map",
    "time_offsets": "/proc/self/timens_offsets",
    "oom_score_adj": "/proc/self/oom_score_adj",
    "limit_userns": "/proc/sys/user/max_user_namespaces",
}


def _limit(value: int) -> str:
    return "unlimited" if value == INFINITY else str(value)


def _cpus(mask: bytes) -> list[int]:
    words = struct.unpack(f"@{len(mask) // struct.calcsize('@L')}L", mask)
    bits = struct.calcsize("@L") * 8
    return [cpu for cpu in range(len(words) * bits) if words[cpu // bits] >> cpu % bits & 1]


def describe(step: Step, steps: tuple[Step, ...] = ()) -> str:
    """Return what *step* does, in words: "mount proc on /proc".

    steps: those that it is one of, for the names of its sources.
    """
    name, args = step[0], step[1:]
    if name in _PLAIN:
        return _PLAIN[name]
    match name, args:
        case (("gid_map" | "uid_map"), (inside,)):
            who = "itself" if inside == -1 else str(inside)
            return f"map the own {name[0]}id to {who} in /proc/self/{name}"
        case "unshare", (flags,):
            return f"unshare {kind_names(flags)}"
        case "time_offsets", (lines,):
            return f"set time offsets {', '.join(lines.decode().splitlines())}"
        case "hostname", (text,):
            return f"sethostname {os.fsdecode(text)}"
        case "domainname", (text,):
            return f"setdomainname {os.fsdecode(text)}"
        case "propagation", (flags,):
            return f"make all mounts {_PROPAGATION[flags]}"
        case "mount_proc", (target,):
            return f"mount proc on {os.fsdecode(target)}"
        case "setgroups", (gids, _):
            names = " ".join(map(str, struct.unpack(f"={len(gids) // 4}I", gids)))
            return f"set supplementary groups to {names or 'none'}"
        case "setgid", (gid,):
            return f"setresgid {gid}"
        case "setuid", (uid,):
            return f"setresuid {uid}"
        case "pty", (_, rows, columns):
            return f"open a terminal of the new /dev/pts, {rows} by {columns}"
        case "relay", (flags, how):
            new = f" with new {kind_names(flags)}" if flags else ""
            return f"clone again{new}{' into the control group' if how & RELAY_CGROUP else ''}"
        case "init", (_,):
            return "start the program from its init"
        case "setpgid", (group,):
            return f"setpgid {group}"
        case "rlimit", (number, soft, hard):
            return f"set rlimit {rlimit_name(number)} to {_limit(soft)}:{_limit(hard)}"
        case "affinity", (mask,):
            return f"set CPU affinity to {' '.join(map(str, _cpus(mask)))}"
        case "nice", (value,):
            return f"set nice {value}"
        case "ionice", (value,):
            return f"set I/O priority to {ionice_words(value)}"
        case "scheduler", (policy, priority):
            return f"set scheduling policy to {scheduler_words(policy, priority)}"
        case "oom_score_adj", (score,):
            return f"set oom_score_adj to {score.decode()}"
        case "personality", (value,):
            return f"set personality to {value:#x}"
        case "timer_slack", (value,):
            return f"set timer slack to {value} ns"
        case "dumpable", (value,):
            return f"set dumpable to {value}"
        case "chdir", (target,):
            return f"chdir to {os.fsdecode(target)}"
        case "umask", (mask,):
            return f"set umask {mask:03o}"
    words = describe_privilege(step) or describe_mount(step, steps)
    assert words is not None, step
    return words


def describe_failure(step: Step, aux: int, steps: tuple[Step, ...] = ()) -> str:
    """As describe(), with the part of the step that failed where that says more."""
    name = step[0]
    if name == "fds" or (name == "helper" and aux >= 0):
        return f"pass file descriptor {aux}" if aux >= 0 else "close file descriptors"
    if name == "join" and aux > 0:
        return f"join {kind_names(aux)} namespace"
    if name in MOUNT_TARGETS or name == "pivot":
        return describe_mount_failure(step, aux, steps)
    part = _PARTS.get((name, aux)) or describe_privilege_failure(step, aux)
    return part or describe(step, steps)


def is_about_cgroup(step: Step) -> bool:
    """Does *step* put the child into its control group?"""
    return step[0] == "cgroup" or (step[0] == "relay" and bool(step[2] & RELAY_CGROUP))


def step_path(step: Step) -> str | None:
    """The file that *step* is about, or None."""
    if step[0] in ("chdir", "exec_label", "landlock_path", "mount_proc"):
        return os.fsdecode(step[1])
    if step[0] in MOUNT_TARGETS:
        return os.fsdecode(step[1 + MOUNT_TARGETS[step[0]]]) or None
    return _PATHS.get(step[0])
