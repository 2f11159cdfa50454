"""clone(): a C function as the child's whole life."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Unpack

from . import _native
from ._grouped import GroupedProcess
from ._launch import Plan, fail, maps_of, plan_of, resolve
from ._process import Process
from ._spec import Spec

if TYPE_CHECKING:
    from ._keywords import SandboxFields

_WHY_NOT_PYTHON = (
    "entry must be a C function, not Python code: in a clone the interpreter's locks may be held "
    "by threads that do not exist there, and it would hang; compile one with cffi, or use "
    "nsext.Popen([sys.executable, ...])"
)


def _loaded(name: str) -> Any:
    return sys.modules[name] if name in sys.modules else None  # see kept_plan()


def _ctypes_address(entry: Any) -> int | None:
    ctypes: Any = _loaded("ctypes")
    if ctypes is None or not isinstance(entry, ctypes._CFuncPtr):
        return None
    kept = entry._objects or {}
    if any(type(item).__name__ == "CThunkObject" for item in kept.values()):
        raise TypeError(_WHY_NOT_PYTHON)
    return ctypes.cast(entry, ctypes.c_void_p).value or 0


def _cffi_address(entry: Any) -> int | None:
    backend: Any = _loaded("_cffi_backend")
    if backend is None or not isinstance(entry, backend._CDataBase):
        return None
    kind = backend.typeof(entry)
    if kind.kind == "pointer" and kind.item.kind == "function":
        kind = kind.item
    if kind.kind == "function":
        arguments = [argument.cname for argument in kind.args]
        if kind.result.cname != "int" or arguments != ["void *"] or kind.ellipsis:
            raise TypeError(f"entry must be int (*)(void *), not {kind.cname}")
        if " calling " in repr(entry):  # ffi.callback()
            raise TypeError(_WHY_NOT_PYTHON)
    elif kind.cname != "void *":
        raise TypeError(f"entry must be int (*)(void *), not {kind.cname}")
    return int(backend.FFI().cast("uintptr_t", entry))


def _address(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        address = value
    elif (found := _cffi_address(value)) is not None:
        address = found
    elif (found := _ctypes_address(value)) is not None:
        address = found
    elif type(value).__name__ == "PyCapsule":
        address = _native.capsule_pointer(value)
    elif callable(value):
        raise TypeError(_WHY_NOT_PYTHON)
    else:
        raise TypeError(f"entry must be the address of a C function, not {type(value).__name__}")
    if not 0 < address < 1 << 64:
        raise ValueError(f"entry: {address:#x} is no address")
    return address


def _argument(value: Any) -> int:
    """The void * that the entry is called with."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(1 << 63) <= value < 1 << 64:
            raise ValueError(f"arg does not fit into a pointer: {value}")
        return value
    backend: Any = _loaded("_cffi_backend")
    if backend is not None and isinstance(value, backend._CDataBase):
        return int(backend.FFI().cast("uintptr_t", value))
    raise TypeError(f"arg must be an int or a cffi pointer, not {type(value).__name__}")


_REFUSED = (
    "env",
    "join",
    "disable_userns",
    "exec_label",
    "oom_score_adj",
    "user",
    "group",
    "extra_groups",
    "init",
    "kill_on_parent_exit",
)


def clone(
    entry: Any,
    arg: Any = 0,
    *,
    stack_size: int = 1 << 20,
    sandbox: Spec | None = None,
    spawn_timeout: float | None = None,
    **fields: Unpack[SandboxFields],
) -> Process:
    """Run a C function, ``int entry(void *arg)``, in a child of its own; return the Process.

    This is clone(fn, stack, flags, arg) of clone(2), with the stack (mapped, guarded) handled.
    The child has a copy of this process's memory, taken at the call; its exit status is the
    function's value & 0xff.  File descriptors are inherited, as in clone(2).  Where this process
    has threads, the function may call only what is async-signal-safe: signal-safety(7).

    entry: an address, a ctypes or cffi function pointer, or a PyCapsule.
    arg: an int or a cffi pointer.
    stack_size: bytes, at least 16 KiB.
    sandbox, fields: as for spawn(); what needs an exec (env, join, disable_userns, exec_label,
        oom_score_adj, user, group, extra_groups, init, kill_on_parent_exit) is refused.

    Raises TypeError for a Python callable, which cannot run there; SpawnError.
    """
    address = _address(entry)
    argument = _argument(arg)
    if isinstance(stack_size, bool) or not isinstance(stack_size, int):
        raise TypeError(f"stack_size must be an int, not {type(stack_size).__name__}")
    if not 16 << 10 <= stack_size < 1 << 40:
        raise ValueError(f"stack_size: {stack_size} bytes; at least {16 << 10}")
    spec = resolve(sandbox, fields)
    for name in _REFUSED:
        value = getattr(spec, name)
        if value is not None and value is not False:  # user=0 is a choice
            raise ValueError(f"{name}= is for programs, not for a C function in a clone")
    sys.audit("nsext.clone", address, spec)
    plan: Plan = plan_of(spec, True, "copy")
    name = f"entry {address:#x}"
    group = maps = None
    if spec.cgroup is None:
        process = Process(name, spec.new)  # type: ignore[arg-type]
    else:
        process = grouped = GroupedProcess(name, int(spec.new), spec.cgroup)  # type: ignore[arg-type]
        group = grouped._group
    try:
        directory = -1 if group is None else group.open()
        values = (plan.blob, address, argument, stack_size, spawn_timeout, process._child)
        maps = maps_of(spec) if plan.gated else None
        failure = _native.clone(*values, directory, maps)
        if failure is not None:
            fail(failure, plan, spec, "", name, spawn_timeout, group)
    except BaseException:
        process._discard()
        raise
    finally:
        if maps is not None:
            maps.close()
    return process
