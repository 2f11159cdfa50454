"""The description of a sandbox: frozen, checked when it is made.  No system calls here."""

from __future__ import annotations

from . import _flags, _scheduling, _values
from ._flags import kind_names, parse_kinds
from ._frozen import FrozenMap, defaults_of, frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from _collections_abc import Iterable, Mapping, Sequence
    from typing import Any, Literal, Self, TypeAlias, Unpack

    from ._cgroup import CgroupLike
    from ._flags import Kinds
    from ._join import Joins
    from ._keywords import SandboxFields
    from ._landlock import Landlock
    from ._mounts import MountSpec
    from ._seccomp import Filter

StrOrBytesPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
IdMap: TypeAlias = "Literal['root', 'self', 'auto'] | int | Sequence[tuple[int, int, int]]"
Size: TypeAlias = "int | str"
Propagation: TypeAlias = "Literal['private', 'slave', 'shared', 'unchanged']"
Limit: TypeAlias = "Size | tuple[Size, Size]"
Rlimits: TypeAlias = "Mapping[str, Limit] | Mapping[int, Limit] | Mapping[str | int, Limit]"
Scheduling: TypeAlias = "str | tuple[str, int]"
Seccomp: TypeAlias = "Literal['default'] | Filter | Sequence[Filter | Literal['default']]"
Keyring: TypeAlias = "Literal['new', 'inherit']"
Capabilities: TypeAlias = "Iterable[str] | Literal['all']"


class _Kept:
    """What a description keeps with it, and is no part of its value."""

    __slots__ = ("_plans",)

    _plans: dict[Any, Any]


@frozen
class Spec(_Kept):
    """The fields of nsext.Sandbox, which see."""

    new: Kinds = ()
    join: Joins | None = None
    uid_map: IdMap | None = None
    gid_map: IdMap | None = None
    hostname: str | None = None
    domainname: str | None = None
    time_offsets: Mapping[str, float] = FrozenMap({})
    loopback: bool | None = None
    propagation: Propagation | None = None
    proc: bool | None = None
    root: StrOrBytesPath | MountSpec | None = None
    mounts: Sequence[MountSpec] = ()
    cwd: StrOrBytesPath | None = None
    env: Mapping[Any, Any] | None = None
    user: int | str | None = None
    group: int | str | None = None
    extra_groups: Sequence[int | str] | None = None
    umask: int = -1
    start_new_session: bool = False
    process_group: int | None = None
    rlimits: Rlimits = FrozenMap({})
    affinity: Iterable[int] | None = None
    nice: int | None = None
    ionice: Scheduling | None = None
    scheduler: Scheduling | None = None
    oom_score_adj: int | None = None
    personality: int | None = None
    timer_slack: int | None = None
    dumpable: bool | None = None
    capabilities: Capabilities | None = None
    ambient: Iterable[str] = ()
    securebits: int | None = None
    no_new_privs: bool | None = None
    seccomp: Seccomp | None = None
    landlock: Landlock | Mapping[str, Any] | None = None
    landlock_strict: bool = True
    disable_userns: bool = False
    keyring: Keyring | None = None
    exec_label: str | None = None
    cgroup: CgroupLike | None = None
    init: bool = False
    kill_on_parent_exit: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "_plans", {})
        for name, normal in _NORMAL.items():
            value = getattr(self, name)
            if value is None and name in _NONE:  # the default rule
                value = _NONE[name]
            if value is not None or name == "new":
                object.__setattr__(self, name, normal(value))
        _check_namespaces(self)
        _check_privileges(self)
        if self.root is not None or self.mounts:
            _check_mounts(self)
        check_names(self, 0 if self.join is None else self.join.kinds)  # type: ignore[union-attr]

    def _given(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return {
            name: value
            for name, default in _DEFAULTS.items()
            if (value := getattr(self, name)) != default or type(value) is not type(default)
        }

    def __repr__(self) -> str:
        parts = []
        for name, value in self._given().items():
            if name == "new":
                value = kind_names(value)
            if name == "env":
                shown = "{" + ", ".join(f"{key!r}: ..." for key in value) + "}"
            else:
                shown = repr(value)
            parts.append(f"{name}={shown}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {name: getattr(self, name) for name in _DEFAULTS})

    def replace(self, **changes: Unpack[SandboxFields]) -> Self:
        """Return a copy with these fields replaced, each as a whole."""
        values = {name: getattr(self, name) for name in _DEFAULTS}
        unknown = changes.keys() - values.keys()
        if unknown:
            raise TypeError(f"no such field: {', '.join(sorted(unknown))}")
        values.update(changes)
        return type(self)(**values)

    __replace__ = replace

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def _rebuild(cls: type[Spec], values: dict[str, Any]) -> Spec:
    return cls(**values)


def _capabilities() -> Any:
    from . import _capabilities as module  # only where it is asked for

    return module


def _landlock(value: Any) -> Any:
    from ._landlock import normal

    return normal(value)


def _label(value: Any) -> Any:
    from ._labels import label

    return label(value)


def _filters(value: Any) -> Any:
    from ._seccomp import filters

    return filters(value)


def _truth(value: Any) -> bool:
    return bool(value)


def _one_of(name: str, *words: str) -> Any:
    def check(value: Any) -> Any:
        if value not in words:
            raise ValueError(f"{name}: {value!r} is none of {', '.join(map(repr, words))}")
        return value

    return check


def _normal_join(value: Any) -> Any:
    from ._join import normal

    return normal(value)


def _normal_cgroup(value: Any) -> Any:
    from ._cgroup import normal

    return normal(value)


def _in_range(name: str, low: int, high: int) -> Any:
    def check(value: Any) -> int:
        number = _values.integer(value, name)
        if not low <= number <= high:
            raise ValueError(f"{name}: {number} is not in {low} to {high}")
        return number

    return check


def _process_group(value: Any) -> int | None:
    number: int = _in_range("process_group", -1, 2**31 - 1)(value)
    return None if number == -1 else number


# Those who mount nothing do without the module of mount specs.
def _root(value: Any) -> Any:
    from . import _mounts

    return _mounts.root(value)


def _mount_specs(value: Any) -> tuple[MountSpec, ...]:
    if value == ():
        return ()
    from . import _mounts

    return _mounts.mounts(value)


_NORMAL: dict[str, Any] = {
    "new": parse_kinds,
    "join": _normal_join,
    "uid_map": lambda value: _values.id_map(value, "uid_map"),
    "gid_map": lambda value: _values.id_map(value, "gid_map"),
    "hostname": lambda value: _values.uts_name(value, "hostname"),
    "domainname": lambda value: _values.uts_name(value, "domainname"),
    "time_offsets": _values.time_offsets,
    "loopback": _truth,
    "propagation": _one_of("propagation", "private", "slave", "shared", "unchanged"),
    "proc": _truth,
    "root": _root,
    "mounts": _mount_specs,
    "cwd": lambda value: _values.path(value, "cwd"),
    "env": _values.environment,
    "user": lambda value: _values.identity(value, "user"),
    "group": lambda value: _values.identity(value, "group"),
    "extra_groups": _values.identities,
    "umask": _in_range("umask", -1, 0o7777),
    "start_new_session": _truth,
    "process_group": _process_group,
    "rlimits": _values.rlimits,
    "affinity": _values.affinity,
    "nice": _in_range("nice", -20, 19),
    "ionice": _scheduling.ionice,
    "scheduler": _scheduling.scheduler,
    "oom_score_adj": _in_range("oom_score_adj", -1000, 1000),
    "personality": _in_range("personality", 0, 2**32 - 2),  # 2**32 - 1 only asks
    "timer_slack": _in_range("timer_slack", 1, 2**63 - 1),
    "dumpable": _truth,
    "capabilities": lambda value: _capabilities().names_or_all(value),
    "ambient": lambda value: _capabilities().names(value, "ambient") if value != () else (),
    "securebits": _in_range("securebits", 0, 2**32 - 1),
    "no_new_privs": _truth,
    "landlock": lambda value: _landlock(value),
    "landlock_strict": _truth,
    "seccomp": lambda value: _filters(value),
    "disable_userns": _truth,
    "keyring": _one_of("keyring", "new", "inherit"),
    "exec_label": lambda value: _label(value),
    "cgroup": _normal_cgroup,
    "init": _truth,
    "kill_on_parent_exit": _truth,
}

# What None stands for, where it is no value itself.  Not in new=: who passes it on by mistake
# would get no isolation.
_NONE: dict[str, Any] = {
    name: value for name, value in defaults_of(Spec).items() if value is not None and name != "new"
}

# An option, the namespace it needs, and whether a value asks for it.
_NEEDS: tuple[tuple[str, int], ...] = (
    ("hostname", _flags.NEWUTS),
    ("domainname", _flags.NEWUTS),
    ("time_offsets", _flags.NEWTIME),
    ("loopback", _flags.NEWNET),
    ("uid_map", _flags.NEWUSER),
    ("gid_map", _flags.NEWUSER),
    ("disable_userns", _flags.NEWUSER),
    ("propagation", _flags.NEWNS),
    ("proc", _flags.NEWNS),
    ("root", _flags.NEWNS),
    ("mounts", _flags.NEWNS),
)


def _check_namespaces(spec: Spec) -> None:
    """Refuse an option whose namespace is not new: it would change the caller's."""
    flags = int(spec.new)  # type: ignore[arg-type]
    if spec.join is not None and (both := spec.join.kinds & flags):  # type: ignore[union-attr]
        raise ValueError(f"{kind_names(both)} stands in new= and in join=")
    for name, flag in _NEEDS:
        value = getattr(spec, name)
        asked = value is not None and value is not False and value not in ({}, (), "unchanged")
        if asked and not flags & flag:
            kind = kind_names(flag)
            raise ValueError(f"{name}= needs a new {kind} namespace: add {kind!r} to new=")


def _check_privileges(spec: Spec) -> None:
    """Refuse what contradicts itself."""
    if spec.ambient and spec.capabilities is not None and spec.capabilities != "all":
        more = [name for name in spec.ambient if name not in spec.capabilities]
        if more:
            raise ValueError(f"ambient: {' '.join(more)} is missing in capabilities=")


def _check_mounts(spec: Spec) -> None:
    """Refuse what is known to fail, or to be seen outside."""
    from ._mounts import MountSpec, Proc, refusal_in_user

    new = int(spec.new)  # type: ignore[arg-type]
    if spec.propagation == "unchanged":
        raise ValueError(
            'propagation="unchanged" with root= or mounts=: the mounts would be seen outside'
        )
    if not new & _flags.NEWUSER:
        return
    kinds = [kind for kind, flag in _flags.BY_KIND.items() if new & flag]
    items = [*spec.mounts, *((Proc(),) if spec.proc else ())]
    if isinstance(spec.root, MountSpec):
        items.append(spec.root)
    for item in items:
        reason = refusal_in_user(item, kinds)
        if reason is not None:
            raise ValueError(f"{item!r}: {reason}")


def has_names(spec: Spec) -> bool:
    """Do user=, group= or extra_groups= need the passwd and group data bases?"""
    groups = spec.extra_groups or ()
    return any(isinstance(value, str) for value in (spec.user, spec.group, *groups))


def check_names(spec: Spec, joined: int) -> None:
    """Refuse names of users where the child is in another user namespace.  Raises ValueError."""
    new = int(spec.new)  # type: ignore[arg-type]
    if (new | joined) & _flags.NEWUSER and has_names(spec):
        raise ValueError(
            "names of users and groups are those of the caller's passwd: in another user "
            "namespace say user=, group= and extra_groups= as numbers"
        )


_DEFAULTS: dict[str, Any] = {**defaults_of(Spec), "new": parse_kinds(())}
FIELDS = frozenset(_DEFAULTS)
