"""The asynchronous ways to start a program.  What they need is imported on first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

if TYPE_CHECKING:
    from ._anyio import Process as AnyioProcess
    from ._asyncio import Process
    from ._keywords import AnyioKeywords, AsyncioKeywords, File
    from ._spec import StrOrBytesPath


async def create_subprocess_exec(
    program: StrOrBytesPath, *args: StrOrBytesPath, **kwargs: Unpack[AsyncioKeywords]
) -> Process:
    """Start a program under asyncio: an asyncio.subprocess.Process, with its streams.

    As asyncio.create_subprocess_exec (stdin, stdout, stderr, limit), plus the keywords of
    nsext.Popen.  Its ``async with`` kills and reaps on the way out.  Cancelling it during the
    set-up kills and reaps the child.  Raises what nsext.Popen raises.
    """
    from . import _asyncio

    return await _asyncio.create_subprocess_exec(program, *args, **kwargs)


async def create_subprocess_shell(cmd: str | bytes, **kwargs: Unpack[AsyncioKeywords]) -> Process:
    """Run a shell command under asyncio.  As create_subprocess_exec()."""
    from . import _asyncio

    return await _asyncio.create_subprocess_shell(cmd, **kwargs)


async def open_process(
    command: StrOrBytesPath | Sequence[StrOrBytesPath],
    *,
    stdin: File = -1,
    stdout: File = -1,
    stderr: File = -1,
    **kwargs: Unpack[AnyioKeywords],
) -> AnyioProcess:
    """Start a program under anyio, on asyncio or trio: an anyio.abc.Process, with its streams.

    As anyio.open_process (a str is a shell command), plus the keywords of nsext.Popen.  Needs
    anyio 4.10 or newer.  Raises what nsext.Popen raises.
    """
    from . import _anyio

    keywords: dict[str, Any] = {**kwargs, "stdin": stdin, "stdout": stdout, "stderr": stderr}
    return await _anyio.open_process(command, keywords)
