"""Names of capabilities, as sets of which capget(2) and prctl(2) take the bits.  Pure."""

from __future__ import annotations

from _collections_abc import Iterable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

ALL: Literal["all"] = "all"

# In the order of their numbers: capabilities(7), linux/capability.h.
NAMES = (
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}


def names(value: Any, what: str) -> tuple[str, ...]:
    """Names in any case, with or without CAP_, in the order of their numbers.

    Raises TypeError and ValueError.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{what} must be names of capabilities, not {value!r}")
    numbers = set()
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"{what}: a capability is a str, not {type(name).__name__}")
        plain = name.lower().removeprefix("cap_")
        if plain not in NUMBERS:
            raise ValueError(f"{what}: unknown capability {name!r}: see capabilities(7)")
        numbers.add(NUMBERS[plain])
    return tuple(NAMES[number] for number in sorted(numbers))


def names_or_all(value: Any) -> tuple[str, ...] | Literal["all"]:
    """The same, or "all"."""
    if isinstance(value, str) and value.lower() == ALL:
        return ALL
    return names(value, "capabilities")


def mask(given: Iterable[str]) -> int:
    """The bits of names."""
    return sum(1 << NUMBERS[name] for name in given)


def words(bits: int) -> str:
    """The names of bits, or "none"."""
    return " ".join(name_of(number) for number in range(64) if bits >> number & 1) or "none"


def name_of(number: int) -> str:
    """The name of a capability, or its number where that is newer than this table."""
    return NAMES[number] if number < len(NAMES) else str(number)
