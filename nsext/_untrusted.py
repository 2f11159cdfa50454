"""Sandbox.untrusted(): every default that a program should have that nobody has read."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The kernel's own "nobody": what root's programs are, in files and limits of the host.
NOBODY = 65534

# What container engines hide of /proc: the state of the whole machine.
_SECRETS = ("kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list")

ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
}


def identity() -> dict[str, Any]:
    """Who the program is: the caller; where that is root, nobody."""
    if os.geteuid() != 0:
        return {"uid_map": "self", "gid_map": "self"}
    own = ((NOBODY, NOBODY, 1),)
    return {
        "uid_map": own,
        "gid_map": own,
        "user": NOBODY,
        "group": NOBODY,
        "extra_groups": (),
    }


def defaults() -> dict[str, Any]:
    """The fields of a sandbox for what nobody trusts.  Looks at the running system."""
    from ._hostlike import hostlike
    from ._mounts import Mask, Remount, Tmpfs
    from ._profile import seccomp_default

    return {
        "new": "all",
        **identity(),
        "hostname": "sandbox",
        "root": Tmpfs(size="16m"),
        "mounts": (
            *hostlike(tmp_size="256m"),
            *(Mask(f"/proc/{name}", optional=True) for name in _SECRETS),
            # Of /dev only shm is to be written, of the root nothing.
            Tmpfs("/dev/shm", size="256m", mode=0o1777),
            Remount("/dev", readonly=True),
            Remount("/", readonly=True),
        ),
        "cwd": "/tmp",
        "env": ENVIRONMENT,
        "umask": 0o077,
        "init": True,
        "kill_on_parent_exit": True,
        "start_new_session": True,
        "rlimits": {
            "core": 0,
            "fsize": "1g",
            "memlock": "64k",
            "msgqueue": 0,
            "nofile": 1024,
            "nproc": 1024,
        },
        "oom_score_adj": 500,
        "capabilities": (),
        "no_new_privs": True,
        "seccomp": seccomp_default(),
        "disable_userns": True,
        "keyring": "new",
    }
