"""subprocess, plus Linux namespaces."""

from subprocess import (
    DEVNULL,
    PIPE,
    STDOUT,
    CalledProcessError,
    SubprocessError,
    TimeoutExpired,
)

from ._async import create_subprocess_exec, create_subprocess_shell, open_process
from ._clone import clone
from ._errors import SpawnError, SpawnTimeout, UnsupportedError
from ._flags import CloneFlags
from ._join import Fd
from ._listing import NamespaceInfo, list_namespaces, namespace_tree
from ._namespace import Namespace, Namespaces, namespaces
from ._popen import Popen
from ._process import Process
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
from ._usage import Usage
from ._version import __version__
from ._wrappers import pidfd_open, setns, unshare

__all__ = [
    "CalledProcessError",
    "CloneFlags",
    "CompletedProcess",
    "DEVNULL",
    "Fd",
    "Namespace",
    "NamespaceInfo",
    "Namespaces",
    "PIPE",
    "Popen",
    "Process",
    "STDOUT",
    "Sandbox",
    "SpawnError",
    "SpawnTimeout",
    "SubprocessError",
    "TimeoutExpired",
    "UnsupportedError",
    "Usage",
    "__version__",
    "call",
    "check_call",
    "check_output",
    "clone",
    "create_subprocess_exec",
    "create_subprocess_shell",
    "getoutput",
    "getstatusoutput",
    "list_namespaces",
    "namespace_tree",
    "namespaces",
    "open_process",
    "pidfd_open",
    "run",
    "setns",
    "spawn",
    "unshare",
]
