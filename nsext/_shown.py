"""What a paused child shows of itself, where its parent may not look: csrc/helper/steps_show.c."""

from __future__ import annotations

import errno
import os
import socket

from ._causes import no_descriptor
from ._errors import SpawnError
from ._fds import above_stdio
from ._flags import BY_KIND
from ._namespace import Namespace, Namespaces
from ._root import Root


class Shown:
    """Descriptors of a child's namespaces and of its root, which come by a socket."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._fds: list[int] = []

    def childs_end(self) -> int:
        """The child's end of the socket, which is the caller's to close."""
        return above_stdio(self._theirs.detach())

    def receive(self) -> None:
        """Take what has come: the child is at its checkpoint."""
        with self._ours as ours:
            try:
                _, fds, flags, _ = socket.recv_fds(ours, 1, len(BY_KIND) + 1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                fds, flags = [], 0
        for fd in fds:
            os.set_inheritable(fd, False)
        self._fds = [above_stdio(fd) for fd in fds]
        if flags & socket.MSG_CTRUNC or len(fds) != len(BY_KIND) + 1:
            self.close()
            raise SpawnError(
                errno.EMFILE,
                os.strerror(errno.EMFILE),
                stage="setup",
                step="receive the namespaces of the child",
                hint=no_descriptor(errno.EMFILE),
            )

    def namespaces(self, kinds: int) -> Namespaces:
        """Copies of those of these kinds; 0: all."""
        flags = BY_KIND.values()
        return Namespaces(
            [
                Namespace.from_fd(fd)
                for fd, flag in zip(self._fds, flags, strict=False)
                if not kinds or flag & kinds
            ]
        )

    def root(self) -> Root:
        """A copy of the root."""
        mnt = self._fds[list(BY_KIND).index("mnt")]
        return Root(above_stdio(os.dup(self._fds[-1])), Namespace.from_fd(mnt))

    def close(self) -> None:
        """Let them go."""
        self._ours.close()
        self._theirs.close()
        while self._fds:
            os.close(self._fds.pop())

    def __del__(self) -> None:
        if hasattr(self, "_fds"):
            self.close()
