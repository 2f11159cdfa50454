"""Classic BPF as seccomp(2) takes it: a few instructions, and a search tree of them.  Pure.

A fragment is a list of instructions of which every path ends in a return; so fragments can be put
behind each other, and whoever jumps over one needs its length alone.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _collections_abc import Sequence
    from typing import TypeAlias

Instruction: TypeAlias = "tuple[int, int, int, int]"
"""(code, jt, jf, k), as struct sock_filter has them."""

Fragment: TypeAlias = "list[Instruction]"

SIZE = 8  # bytes of an instruction
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_FAR = 255  # how far a conditional jump reaches

# linux/bpf_common.h
_LD_W_ABS, _JA, _JEQ, _JGE, _JSET, _RET = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06

# Offsets in struct seccomp_data; the low half of an argument, on little-endian machines.
NUMBER, ARCH = 0, 4

# SECCOMP_RET_*
ALLOW = 0x7FFF0000
_ERRNO = 0x00050000


def argument(index: int) -> int:
    """The offset of the low half of an argument.

    The kernel reads no more of an int: a filter that looked at the upper half, which the caller
    may fill at will, could be passed by.
    """
    return 16 + 8 * index


def load(offset: int) -> Instruction:
    """A word of struct seccomp_data."""
    return (_LD_W_ABS, 0, 0, offset)


def give(action: int) -> Instruction:
    """The end: one of SECCOMP_RET_*."""
    return (_RET, 0, 0, action)


def fail(number: int) -> Instruction:
    """The end: the call fails with this errno."""
    return give(_ERRNO | number)


def _branch(code: int, value: int, yes: Fragment, no: Fragment) -> Fragment:
    if len(no) <= _FAR:
        return [(code, len(no), 0, value), *no, *yes]
    return [(code, 0, 1, value), (_JA, 0, 0, len(no)), *no, *yes]


def if_equal(value: int, yes: Fragment, no: Fragment) -> Fragment:
    """What was loaded is this value."""
    return _branch(_JEQ, value, yes, no)


def if_any_bit(mask: int, yes: Fragment, no: Fragment) -> Fragment:
    """What was loaded has one of these bits."""
    return _branch(_JSET, mask, yes, no)


def switch(cases: Sequence[tuple[int, Fragment]]) -> Fragment:
    """By what was loaded: the fragment of the last case whose number it reaches.

    cases: sorted by their numbers, of which the first is 0.
    """
    if len(cases) == 1:
        return cases[0][1]
    middle = len(cases) // 2
    return _branch(_JGE, cases[middle][0], switch(cases[middle:]), switch(cases[:middle]))


def assemble(fragment: Fragment) -> bytes:
    """The bytes of a program."""
    return b"".join(struct.pack("@HBBI", *instruction) for instruction in fragment)
