import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, Unpack, overload

from _typeshed import ReadableBuffer

from ._anyio import Process as AnyioProcess
from ._asyncio import Process as AsyncioProcess
from ._keywords import (
    Args,
    BoxAnyioKeywords,
    BoxAsyncioKeywords,
    BoxCallKeywords,
    BoxOutputKeywords,
    BoxPopenKeywords,
    BoxRunKeywords,
    File,
    SandboxFields,
    SpawnKeywords,
)
from ._popen import Popen
from ._process import Process
from ._run import CompletedProcess
from ._spec import Spec, StrOrBytesPath

class Sandbox(Spec):
    def explain(self, args: Args = ("PROGRAM",)) -> str: ...
    def to_dict(self) -> dict[str, Any]: ...
    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self: ...
    def to_toml(self) -> str: ...
    @classmethod
    def from_toml(cls, source: str | os.PathLike[str]) -> Self: ...
    @classmethod
    def untrusted(cls, **fields: Unpack[SandboxFields]) -> Self: ...
    @overload  # text is True
    def run(
        self,
        args: Args,
        *,
        input: str | None = None,
        universal_newlines: bool | None = None,
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **kwargs: Unpack[BoxRunKeywords],
    ) -> CompletedProcess[str]: ...
    @overload  # encoding is given
    def run(
        self,
        args: Args,
        *,
        input: str | None = None,
        universal_newlines: bool | None = None,
        text: bool | None = None,
        encoding: str,
        errors: str | None = None,
        **kwargs: Unpack[BoxRunKeywords],
    ) -> CompletedProcess[str]: ...
    @overload  # errors is given
    def run(
        self,
        args: Args,
        *,
        input: str | None = None,
        universal_newlines: bool | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str,
        **kwargs: Unpack[BoxRunKeywords],
    ) -> CompletedProcess[str]: ...
    @overload  # universal_newlines is True
    def run(
        self,
        args: Args,
        *,
        input: str | None = None,
        universal_newlines: Literal[True],
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **kwargs: Unpack[BoxRunKeywords],
    ) -> CompletedProcess[str]: ...
    @overload  # none of them
    def run(
        self,
        args: Args,
        *,
        input: ReadableBuffer | None = None,
        universal_newlines: Literal[False] | None = None,
        text: Literal[False] | None = None,
        encoding: None = None,
        errors: None = None,
        **kwargs: Unpack[BoxRunKeywords],
    ) -> CompletedProcess[bytes]: ...
    @overload  # whatever
    def run(
        self,
        args: Args,
        *,
        input: str | ReadableBuffer | None = None,
        universal_newlines: bool | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **kwargs: Unpack[BoxRunKeywords],
    ) -> CompletedProcess[Any]: ...
    def call(
        self,
        args: Args,
        *,
        universal_newlines: bool | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **kwargs: Unpack[BoxCallKeywords],
    ) -> int: ...
    def check_call(
        self,
        args: Args,
        *,
        universal_newlines: bool | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **kwargs: Unpack[BoxCallKeywords],
    ) -> int: ...
    @overload  # text is True
    def check_output(
        self,
        args: Args,
        *,
        input: str | ReadableBuffer | None = None,
        universal_newlines: bool | None = None,
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **kwargs: Unpack[BoxOutputKeywords],
    ) -> str: ...
    @overload  # encoding is given
    def check_output(
        self,
        args: Args,
        *,
        input: str | ReadableBuffer | None = None,
        universal_newlines: bool | None = None,
        text: bool | None = None,
        encoding: str,
        errors: str | None = None,
        **kwargs: Unpack[BoxOutputKeywords],
    ) -> str: ...
    @overload  # errors is given
    def check_output(
        self,
        args: Args,
        *,
        input: str | ReadableBuffer | None = None,
        universal_newlines: bool | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str,
        **kwargs: Unpack[BoxOutputKeywords],
    ) -> str: ...
    @overload  # universal_newlines is True
    def check_output(
        self,
        args: Args,
        *,
        input: str | ReadableBuffer | None = None,
        universal_newlines: Literal[True],
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **kwargs: Unpack[BoxOutputKeywords],
    ) -> str: ...
    @overload  # none of them
    def check_output(
        self,
        args: Args,
        *,
        input: str | ReadableBuffer | None = None,
        universal_newlines: Literal[False] | None = None,
        text: Literal[False] | None = None,
        encoding: None = None,
        errors: None = None,
        **kwargs: Unpack[BoxOutputKeywords],
    ) -> bytes: ...
    @overload  # whatever
    def check_output(
        self,
        args: Args,
        *,
        input: str | ReadableBuffer | None = None,
        universal_newlines: bool | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **kwargs: Unpack[BoxOutputKeywords],
    ) -> Any: ...
    @overload  # text is True
    def popen(
        self,
        args: Args,
        *,
        universal_newlines: bool | None = None,
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **kwargs: Unpack[BoxPopenKeywords],
    ) -> Popen[str]: ...
    @overload  # encoding is given
    def popen(
        self,
        args: Args,
        *,
        universal_newlines: bool | None = None,
        text: bool | None = None,
        encoding: str,
        errors: str | None = None,
        **kwargs: Unpack[BoxPopenKeywords],
    ) -> Popen[str]: ...
    @overload  # errors is given
    def popen(
        self,
        args: Args,
        *,
        universal_newlines: bool | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str,
        **kwargs: Unpack[BoxPopenKeywords],
    ) -> Popen[str]: ...
    @overload  # universal_newlines is True
    def popen(
        self,
        args: Args,
        *,
        universal_newlines: Literal[True],
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **kwargs: Unpack[BoxPopenKeywords],
    ) -> Popen[str]: ...
    @overload  # none of them
    def popen(
        self,
        args: Args,
        *,
        universal_newlines: Literal[False] | None = None,
        text: Literal[False] | None = None,
        encoding: None = None,
        errors: None = None,
        **kwargs: Unpack[BoxPopenKeywords],
    ) -> Popen[bytes]: ...
    @overload  # whatever
    def popen(
        self,
        args: Args,
        *,
        universal_newlines: bool | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **kwargs: Unpack[BoxPopenKeywords],
    ) -> Popen[Any]: ...
    def spawn(self, args: Args, **kwargs: Unpack[SpawnKeywords]) -> Process: ...
    async def create_subprocess_exec(
        self,
        program: StrOrBytesPath,
        *args: StrOrBytesPath,
        **kwargs: Unpack[BoxAsyncioKeywords],
    ) -> AsyncioProcess: ...
    async def create_subprocess_shell(
        self, cmd: str | bytes, **kwargs: Unpack[BoxAsyncioKeywords]
    ) -> AsyncioProcess: ...
    async def open_process(
        self,
        command: StrOrBytesPath | Sequence[StrOrBytesPath],
        *,
        stdin: File = -1,
        stdout: File = -1,
        stderr: File = -1,
        **kwargs: Unpack[BoxAnyioKeywords],
    ) -> AnyioProcess: ...
