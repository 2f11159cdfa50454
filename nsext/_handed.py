"""Descriptors that mount specs are given, for a child that is to be started."""

from __future__ import annotations

from typing import Any

from ._fds import fileno
from ._mounts import Bind, MountSpec, descriptors
from ._spec import Spec


class Handed:
    """What the sources of *spec* are, in the order in which compile() counts them."""

    def __init__(self, spec: Spec) -> None:
        self.pairs: list[tuple[int, int]] = []
        self._own: list[Any] = []
        root = (spec.root,) if isinstance(spec.root, MountSpec) else ()
        try:
            for item in (*root, *spec.mounts):
                for given in descriptors(item):
                    self.pairs.append((self._number(item, given), 0))
        except BaseException:
            self.close()
            raise

    def _number(self, item: MountSpec, given: Any) -> int:
        if isinstance(item, Bind) and isinstance(given, tuple):
            namespace = _user_namespace(given)
            self._own.append(namespace)
            return fileno(namespace)
        return fileno(given)

    def close(self) -> None:
        """Close what was made here."""
        while self._own:
            self._own.pop().close()


def _user_namespace(ranges: Any) -> Any:
    """A user namespace with these maps, in which nothing ever runs."""
    from ._popen import Popen

    process = Popen(["true"], new="user", uid_map=ranges, gid_map=ranges, paused=True)
    try:
        return process.namespaces["user"]
    finally:
        process.kill()
        process.wait()
