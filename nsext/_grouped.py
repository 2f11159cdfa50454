"""A Process in a control group, which is removed when the process has ended."""

from __future__ import annotations

from . import _native
from ._cgroupfs import Group
from ._process import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._cgroup_handle import CgroupHandle
    from ._usage import Usage


class GroupedProcess(Process):
    """As Process, for spawn(cgroup=...) and clone(..., cgroup=...)."""

    __slots__ = ("_group",)

    def __init__(self, args: Any, new: int, cgroup: Any) -> None:
        super().__init__(args, new)
        self._group = Group(cgroup)

    @property
    def cgroup(self) -> CgroupHandle | None:
        """The control group that it was born in."""
        return self._group.handle

    @property
    def usage(self) -> Usage | None:
        """What it has used: None while it runs, and where somebody else has waited for it."""
        raw = _native.child_usage(self._child)
        if raw is None:
            return None
        from ._usage import usage_of

        handle = self._group.handle
        return usage_of(raw, None, None if handle is None else handle._last)

    def poll(self) -> int | None:
        """Return the return code, None while it runs."""
        code = super().poll()
        if code is not None:
            self._group.end()
        return code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the return code.  As Process.wait()."""
        code = super().wait(timeout)
        self._group.end()
        return code

    def _discard(self) -> None:
        super()._discard()
        self._group.discard()
