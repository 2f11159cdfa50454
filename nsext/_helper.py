"""The helper's program, read once.

Its file may be out of reach when it is needed: a caller may have entered another root, and an
upgrade of the package puts a helper there that expects plans of another layout.
"""

from __future__ import annotations

import os

HELPER = os.path.join(os.path.dirname(__file__), "nsext-helper")

_READ: list[tuple[bytes, bytes] | None] = []


def helper() -> tuple[bytes, bytes] | None:
    """Return the program and its path, None where this build has none."""
    if not _READ:
        try:
            with open(HELPER, "rb", buffering=0) as file:
                _READ.append((file.readall(), os.fsencode(HELPER)))
        except FileNotFoundError:
            _READ.append(None)
    return _READ[0]
