"""Waiting for a pidfd under asyncio or trio, without a thread and without a child watcher."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any


async def readable(fd: int) -> None:
    """Return when *fd* is readable."""
    # A loop that runs has been imported.
    try:
        loop: Any = sys.modules["asyncio"].get_running_loop()
    except (KeyError, RuntimeError):
        trio: Any = sys.modules.get("trio")
        if trio is None:
            raise RuntimeError("no running event loop") from None
        # A copy: trio takes one waiter for each number, and others may wait as well.
        own = os.dup(fd)
        try:
            await trio.lowlevel.wait_readable(own)
        finally:
            os.close(own)
        return
    future: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    # A copy: a loop takes one reader for each number, and others may wait as well.
    own = os.dup(fd)
    loop.add_reader(own, wake)
    try:
        await future
    finally:
        loop.remove_reader(own)
        os.close(own)
