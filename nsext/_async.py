"""The asynchronous ways to start a program.  What they need is imported on first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import anyio.abc

    from ._asyncio import Process


async def create_subprocess_exec(program: Any, *args: Any, **kwargs: Any) -> Process:
    """Start a program under asyncio: an asyncio.subprocess.Process, with its streams.

    As asyncio.create_subprocess_exec (stdin, stdout, stderr, limit), plus the keywords of
    nsext.Popen.  Its ``async with`` kills and reaps on the way out.  Cancelling it during the
    set-up kills and reaps the child.  Raises what nsext.Popen raises.
    """
    from . import _asyncio

    return await _asyncio.create_subprocess_exec(program, *args, **kwargs)


async def create_subprocess_shell(cmd: str | bytes, **kwargs: Any) -> Process:
    """Run a shell command under asyncio.  As create_subprocess_exec()."""
    from . import _asyncio

    return await _asyncio.create_subprocess_shell(cmd, **kwargs)


async def open_process(
    command: str | bytes | Sequence[Any],
    *,
    stdin: Any = -1,
    stdout: Any = -1,
    stderr: Any = -1,
    **kwargs: Any,
) -> anyio.abc.Process:
    """Start a program under anyio, on asyncio or trio: an anyio.abc.Process, with its streams.

    As anyio.open_process (a str is a shell command), plus the keywords of nsext.Popen.  Needs
    anyio 4.10 or newer.  Raises what nsext.Popen raises.
    """
    from . import _anyio

    kwargs.update(stdin=stdin, stdout=stdout, stderr=stderr)
    return await _anyio.open_process(command, kwargs)
