"""subprocess, plus Linux namespaces."""

from subprocess import (
    DEVNULL,
    PIPE,
    STDOUT,
    CalledProcessError,
    SubprocessError,
    TimeoutExpired,
)

from ._clone import clone
from ._errors import SpawnError, SpawnTimeout, UnsupportedError
from ._flags import CloneFlags
from ._join import Fd
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
from ._version import __version__
from ._wrappers import pidfd_open, setns, unshare

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "CalledProcessError",
    "CloneFlags",
    "CompletedProcess",
    "Fd",
    "Popen",
    "Process",
    "Sandbox",
    "SpawnError",
    "SpawnTimeout",
    "SubprocessError",
    "TimeoutExpired",
    "UnsupportedError",
    "__version__",
    "call",
    "check_call",
    "check_output",
    "clone",
    "getoutput",
    "getstatusoutput",
    "pidfd_open",
    "run",
    "setns",
    "spawn",
    "unshare",
]
