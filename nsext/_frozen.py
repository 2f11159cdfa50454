"""Values: a mapping that can be hashed, and frozen classes without the import of dataclasses."""

from __future__ import annotations

from _collections_abc import Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _collections_abc import Callable, Iterator
    from typing import Any, TypeVar, dataclass_transform

    K = TypeVar("K")
    V = TypeVar("V")
    C = TypeVar("C", bound=type)
else:
    K = V = object

    def dataclass_transform(**unused: Any) -> Any:
        return lambda function: function


class FrozenMap(Mapping[K, V]):
    """An immutable dict; equal to any mapping with the same items."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[K, V]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: K) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mapping):
            return self._items == dict(other)
        return NotImplemented

    def __repr__(self) -> str:
        return repr(self._items)

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenMap, (self._items,)


class _OnDemand:
    """An attribute of a class that is made when somebody asks for it."""

    def __init__(self, make: Callable[[type], Any]) -> None:
        self._make = make

    def __get__(self, instance: object, owner: type) -> Any:
        return self._make(owner)


def defaults_of(cls: type) -> dict[str, Any]:
    """{field: default} of a frozen class."""
    return cls._defaults  # type: ignore[attr-defined, no-any-return]


def _signature(cls: type) -> Any:
    """What inspect.signature() shows of the class."""
    import inspect

    kind = inspect.Parameter.KEYWORD_ONLY
    notes = next(base for base in cls.__mro__ if "_defaults" in base.__dict__).__annotations__
    return inspect.Signature(
        [
            inspect.Parameter(name, kind, default=default, annotation=notes[name])
            for name, default in defaults_of(cls).items()
        ]
    )


def _dataclass_fields(cls: type) -> Any:
    """dataclasses.fields() and dataclasses.replace() know a dataclass by these."""
    import dataclasses

    fields = [
        (name, object, dataclasses.field(default=default))
        for name, default in defaults_of(cls).items()
    ]
    made = dataclasses.make_dataclass(cls.__name__, fields, kw_only=True, frozen=True)
    return vars(made)["__dataclass_fields__"]


def _refuse(name: str) -> Any:
    import dataclasses

    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def frozen(cls: C) -> C:
    """A class decorator, as ``dataclass(frozen=True, slots=True, kw_only=True)`` is.

    Every annotated name is a field, and has a default.  What an object keeps beside its value is
    a slot of a base class, and filled by __post_init__.

    dataclasses itself costs more than the start of an interpreter, which the nsext command would
    pay each time.  For dataclasses.fields() and .replace() such a class is a dataclass.
    """
    names = cls.__annotations__
    space = dict(cls.__dict__)
    defaults = {name: space.pop(name) for name in names}
    for name in ("__dict__", "__weakref__", "__annotations_cache__", "__annotate_func__"):
        space.pop(name, None)
    space["__annotations__"] = names
    put = object.__setattr__

    def __init__(self: Any, **given: Any) -> None:
        for name, default in defaults.items():
            put(self, name, given.pop(name, default))
        if given:
            unknown = ", ".join(map(repr, sorted(given)))
            raise TypeError(f"{type(self).__name__}: unexpected keyword argument {unknown}")
        self.__post_init__()

    def __setattr__(self: Any, name: str, value: Any) -> None:
        _refuse(name)

    def __delattr__(self: Any, name: str) -> None:
        _refuse(name)

    def values(self: Any) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in defaults])

    def __eq__(self: Any, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return values(self) == values(other)

    def __hash__(self: Any) -> int:
        return hash(values(self))

    for function in (__init__, __setattr__, __delattr__, __eq__, __hash__):
        function.__qualname__ = f"{cls.__qualname__}.{function.__name__}"
        space[function.__name__] = function
    space["__slots__"] = tuple(names)
    space["_defaults"] = defaults
    space["__signature__"] = _OnDemand(_signature)
    space["__dataclass_fields__"] = _OnDemand(_dataclass_fields)
    return type(cls)(cls.__name__, cls.__bases__, space)
