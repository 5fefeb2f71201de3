"""The types whose exact instances are plain data: taken apart on one side, built on the other.

An instance of a subclass is no plain data. Where it has to be compared as such, `base_value` copies
it with the methods of the plain type, whatever the subclass says.
"""

import builtins
import sys
from collections.abc import Callable
from typing import Any

_COPY: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__pos__,
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    tuple: lambda value: tuple.__getitem__(value, slice(None)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}
_MAPPINGS = {"dict", "OrderedDict", "Counter", "defaultdict"}
_CONTAINERS = {"list", "set", "bytearray", "deque", *_MAPPINGS}
_BUILTIN: dict[str, type] = {
    each.__qualname__: each
    for each in (
        *(*_COPY, bool, list, dict, set, bytearray, range, slice, object),
        *(type(None), type(...), type(NotImplemented)),
        *(
            each
            for each in vars(builtins).values()
            if isinstance(each, type) and issubclass(each, BaseException)
        ),
    )
}
_BUILTIN_NAMES = {kind: name for name, kind in _BUILTIN.items()}
# imported where one occurs: no run pays for what it does not use
_STANDARD = {
    **dict.fromkeys(("OrderedDict", "Counter", "defaultdict", "deque"), "collections"),
    **dict.fromkeys(("date", "datetime", "time", "timedelta", "timezone"), "datetime"),
    **{"Decimal": "decimal", "Fraction": "fractions", "PosixPath": "pathlib"},
}
_ARGUMENTS: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "Decimal": lambda value: (str(value),),
    "Fraction": lambda value: (value.numerator, value.denominator),
    "PosixPath": lambda value: (str(value),),
    "date": lambda value: (value.year, value.month, value.day),
    "datetime": lambda value: (value.year, value.month, value.day, *_clock(value)),
    "time": lambda value: _clock(value),
    "timedelta": lambda value: (value.days, value.seconds, value.microseconds),
    "timezone": lambda value: (value.utcoffset(None),),
    "range": lambda value: (value.start, value.stop, value.step),
    "slice": lambda value: (value.start, value.stop, value.step),
    "complex": lambda value: (value.real, value.imag),
}


def type_named(name: str) -> Any:
    """A plain type, or a builtin exception, by its name; LookupError: there is none."""
    if name in _BUILTIN:
        return _BUILTIN[name]
    return getattr(__import__(_STANDARD[name]), name)


def name_of(kind: type) -> str | None:
    """The name of a plain type or of a builtin exception; None: it is neither."""
    if kind in _BUILTIN_NAMES:
        return _BUILTIN_NAMES[kind]
    name = kind.__qualname__
    module = sys.modules.get(_STANDARD.get(name, ""))
    return name if module is not None and getattr(module, name, None) is kind else None


def is_container(name: object) -> bool:
    """Whether a plain type holds others and can be changed."""
    return name in _CONTAINERS


def arguments(value: Any, name: str | None) -> tuple[Any, ...] | None:
    """What an immutable value is built from again; None: it is not of such a type."""
    return _ARGUMENTS[name](value) if name in _ARGUMENTS else None


def is_built(name: str) -> bool:
    """Whether `arguments` takes such values apart, and `build` builds them."""
    return name in _ARGUMENTS


def build(name: str, given: list[Any]) -> Any:
    """The value that `arguments` took apart."""
    return type_named(name)(*given)


def base_of(kind: type) -> type | None:
    """The plain type that a class derives from; None: there is none."""
    for each in kind.__mro__:
        if each in _COPY or is_container(name_of(each)):
            return each
    return None


def base_value(value: Any) -> Any:
    """A copy of a value as the plain type that its class derives from; None: a container's."""
    base = base_of(type(value))
    return _COPY[base](value) if base in _COPY else None


def parts(value: Any, name: str) -> list[Any]:
    """What a container holds, by the plain type's own methods; a mapping's keys come first."""
    kind = type_named(name)
    if name in _MAPPINGS:
        keys = list(kind.__iter__(value))
        return [*keys, *(dict.__getitem__(value, key) for key in keys)]
    return list(kind.__iter__(value))


def fill(value: Any, name: str, held: list[Any]) -> None:
    """Make a container hold these parts and no others, in place."""
    kind = type_named(name)
    if name in ("list", "bytearray"):
        kind.__setitem__(value, slice(None), bytes(held) if name == "bytearray" else held)
        return
    kind.clear(value)
    if name in _MAPPINGS:
        half = len(held) // 2
        for key, each in zip(held[:half], held[half:], strict=True):
            kind.__setitem__(value, key, each)
    elif name == "deque":
        kind.extend(value, held)
    else:  # as a literal is built, so that items stand in the same order
        kind.update(value, frozenset(held))


def empty(name: str, extra: Any) -> Any:
    """A new container; `extra` is what `extra_of` found."""
    kind = type_named(name)
    return kind((), extra) if name == "deque" else kind()


def extra_of(value: Any, name: str) -> Any:
    """What a container is beside its parts: a deque's bound, a defaultdict's factory."""
    if name == "deque":
        return value.maxlen
    return value.default_factory if name == "defaultdict" else None


def _clock(value: Any) -> tuple[Any, ...]:
    return (value.hour, value.minute, value.second, value.microsecond, value.tzinfo)
