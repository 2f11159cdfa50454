"""subprocess, plus Linux namespaces."""

import sys as _sys

from ._version import __version__


def _is_command() -> bool:
    """Is this the nsext command starting, which imports what it needs and no more?"""
    name: str = [*getattr(_sys, "argv", ()), ""][0]
    if "_asked" in globals():
        return False
    started = name.rpartition("/")[2]
    return started == "nsext" or (started == "-m" and _sys.orig_argv[1:3] == ["-m", "nsext"])


_EVERYTHING = not _is_command()
if _EVERYTHING:
    from subprocess import (
        DEVNULL,
        PIPE,
        STDOUT,
        CalledProcessError,
        SubprocessError,
        TimeoutExpired,
    )

    from . import _eager as _eager
    from ._async import create_subprocess_exec, create_subprocess_shell, open_process
    from ._cgroup import Cgroup
    from ._cgroup_handle import CgroupHandle, CgroupStats
    from ._check import check
    from ._clone import clone
    from ._clone_flags import CloneFlags
    from ._errors import SpawnError, UnsupportedError
    from ._hostlike import hostlike
    from ._join import Fd
    from ._landlock import Landlock
    from ._listing import NamespaceInfo, list_namespaces, namespace_tree
    from ._mounts import (
        Bind,
        Cgroup2,
        Dev,
        Dir,
        File,
        Mask,
        Mount,
        MountSpec,
        Mqueue,
        Overlay,
        Proc,
        ReadOnly,
        Remount,
        Symlink,
        Sysfs,
        Tmpfs,
    )
    from ._namespace import Namespace, Namespaces, namespaces
    from ._persist import unpersist
    from ._popen import Popen
    from ._process import Process
    from ._profile import seccomp_default
    from ._report import Finding, Report
    from ._root import Root, open_in
    from ._run import (
        CompletedProcess,
        call,
        check_call,
        check_output,
        getoutput,
        getstatusoutput,
        run,
    )
    from ._sandbox import Sandbox
    from ._spawn import spawn
    from ._timeout import SpawnTimeout
    from ._translate import translate_pid
    from ._usage import Usage
    from ._wrappers import pidfd_open, setns, unshare

else:

    def __getattr__(name: str) -> object:
        """It was a script of the same name: import everything."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        globals()["_asked"] = name
        importlib.reload(_sys.modules[__name__])
        return globals()[name]


__all__ = [
    "Bind",
    "CalledProcessError",
    "Cgroup",
    "Cgroup2",
    "CgroupHandle",
    "CgroupStats",
    "CloneFlags",
    "CompletedProcess",
    "DEVNULL",
    "Dev",
    "Dir",
    "Fd",
    "File",
    "Finding",
    "Landlock",
    "Mask",
    "Mount",
    "MountSpec",
    "Mqueue",
    "Namespace",
    "NamespaceInfo",
    "Namespaces",
    "Overlay",
    "PIPE",
    "Popen",
    "Proc",
    "Process",
    "ReadOnly",
    "Remount",
    "Report",
    "Root",
    "STDOUT",
    "Sandbox",
    "SpawnError",
    "SpawnTimeout",
    "SubprocessError",
    "Symlink",
    "Sysfs",
    "TimeoutExpired",
    "Tmpfs",
    "UnsupportedError",
    "Usage",
    "__version__",
    "call",
    "check",
    "check_call",
    "check_output",
    "clone",
    "create_subprocess_exec",
    "create_subprocess_shell",
    "getoutput",
    "getstatusoutput",
    "hostlike",
    "list_namespaces",
    "namespace_tree",
    "namespaces",
    "open_in",
    "open_process",
    "pidfd_open",
    "run",
    "seccomp_default",
    "setns",
    "spawn",
    "translate_pid",
    "unpersist",
    "unshare",
]
