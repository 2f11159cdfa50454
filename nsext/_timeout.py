"""SpawnTimeout, apart from the other exceptions: it needs subprocess."""

from __future__ import annotations

import subprocess
from typing import Any

from ._errors import SpawnError


class SpawnTimeout(SpawnError, TimeoutError, subprocess.TimeoutExpired):
    """The set-up did not end within ``spawn_timeout`` (or run's ``timeout``).

    cmd, timeout (seconds), output, stdout, stderr: as in subprocess.TimeoutExpired.
    """

    def __init__(
        self,
        errno: int,
        strerror: str,
        filename: Any = None,
        *,
        cmd: Any = None,
        timeout: float = 0.0,
        **state: Any,
    ) -> None:
        SpawnError.__init__(self, errno, strerror, filename, **state)
        self.cmd = cmd
        self.timeout = timeout
        self.output = None
        self.stderr = None

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "cmd": self.cmd, "timeout": self.timeout}
