"""Seccomp filters as they are given, and their one form: a tuple of programs in bytes."""

from __future__ import annotations

from _collections_abc import Iterable

from ._bpf import MAX_INSTRUCTIONS, SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, TypeAlias

    class SupportsBPF(Protocol):
        """What writes its program into a file: SyscallFilter of pyseccomp and of libseccomp."""

        def export_bpf(self, file: Any, /) -> object: ...


Filter: TypeAlias = "bytes | bytearray | memoryview | SupportsBPF"


class Program(bytes):
    """A program; its repr is short."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self) // SIZE} instructions>"


def _exported(value: Any) -> bytes:
    """The bindings of libseccomp write to a descriptor."""
    import tempfile

    with tempfile.TemporaryFile() as file:
        value.export_bpf(file)
        file.flush()
        file.seek(0)
        return file.read()


def _program(value: Any) -> Program:
    if isinstance(value, str):
        if value != "default":
            raise ValueError(f"seccomp: {value!r} is no filter; the built-in one is 'default'")
        from ._profile import seccomp_default

        value = seccomp_default()
    elif hasattr(value, "export_bpf"):
        value = _exported(value)
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"seccomp: BPF is bytes, or what has export_bpf(), not {type(value).__name__}"
        )
    code = Program(value)
    if not code or len(code) % SIZE:
        raise ValueError(f"seccomp: {len(code)} bytes are no instructions of {SIZE} bytes")
    if len(code) // SIZE > MAX_INSTRUCTIONS:
        raise ValueError(
            f"seccomp: {len(code) // SIZE} instructions; the kernel takes {MAX_INSTRUCTIONS}"
        )
    return code


def filters(value: Any) -> tuple[Program, ...]:
    """Programs, in the order in which they are loaded.  Raises TypeError and ValueError."""
    single = isinstance(value, (str, bytes, bytearray, memoryview)) or hasattr(value, "export_bpf")
    if single:
        return (_program(value),)
    if not isinstance(value, Iterable):
        raise TypeError(f"seccomp must be BPF or several in order, not {type(value).__name__}")
    return tuple(_program(item) for item in value)
