"""Plain data: the types that cross by value, taken apart on one side and built on the other.

Exact types alone, never what derives from them: nothing with a mind of its own gets across. What
crosses is a reference, which is what JSON holds as it is or `[i]` for entry i of a heap; an entry
is `[type, [reference, …]]`. So depth, cycles and what two lists share need no care.
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

_ATOMS = frozenset((type(None), bool, float, str))
_LARGE = 2**63


def _pairs(value: Any) -> list[Any]:
    return [part for pair in value.items() for part in pair]


def _add_pairs(value: Any, parts: list[Any]) -> None:
    if len(parts) % 2:
        value.default_factory, *parts = parts
    for key, each in zip(parts[::2], parts[1::2], strict=True):
        value[key] = each


# How a value is taken apart, and built from its parts. What can be cleared is built empty: its
# parts are added; a set's as a literal's are, so that they stand in the same order.
_TYPES: dict[type, tuple[Callable[[Any], Iterable[Any]], Callable[..., Any]]] = {
    int: (lambda value: [hex(value)], lambda text: int(text, 16)),
    bytes: (lambda value: [value.hex()], bytes.fromhex),
    complex: (lambda value: [value.real, value.imag], complex),
    tuple: (iter, lambda *parts: parts),
    frozenset: (iter, lambda *parts: frozenset(parts)),
    range: (lambda value: [value.start, value.stop, value.step], range),
    type: (lambda value: [_NAMES[value]], lambda name: _KINDS[name]),
    Decimal: (lambda value: [str(value)], Decimal),
    timedelta: (lambda value: [value.days, value.seconds, value.microseconds], timedelta),
    date: (lambda value: [value.isoformat()], date.fromisoformat),
    time: (lambda value: [value.isoformat()], time.fromisoformat),
    datetime: (lambda value: [value.isoformat()], datetime.fromisoformat),
    list: (iter, list[Any].extend),
    bytearray: (iter, bytearray.extend),
    set: (iter, lambda value, parts: value.update(frozenset(parts))),
    **dict.fromkeys((dict, OrderedDict, Counter), (_pairs, _add_pairs)),
    defaultdict: (lambda value: [value.default_factory, *_pairs(value)], _add_pairs),
}
_NAMES = {kind: kind.__name__ for kind in (object, *_ATOMS, *_TYPES)}
_KINDS = {name: kind for kind, name in _NAMES.items()}


def _loses(value: Any) -> bool:
    """Whether a date or a time says more than its text: a fold, the name of its zone."""
    kind = type(value)
    return kind in (time, datetime) and repr(kind.fromisoformat(value.isoformat())) != repr(value)


class NotPlain(Exception):
    """Its argument does not cross."""


def write(
    value: Any, things: Sequence[Any] = (), known: Sequence[Any] = ()
) -> tuple[Any, list[Any], list[Any]]:
    """A reference, the entries of the heap, and the things that they are of; raises NotPlain.

    `things`, the first of the heap, are on both sides; None stands for an entry still as `known`.
    """
    held, entries = list(things), list[Any]()
    places = {id(each): place for place, each in enumerate(held)}

    def refer(part: Any) -> Any:
        kind = type(part)
        if kind in _ATOMS or (kind is int and -_LARGE < part < _LARGE):
            return part
        if id(part) not in places:
            if kind not in _TYPES or (kind is type and part not in _NAMES) or _loses(part):
                raise NotPlain(part)
            places[id(part)] = len(held)
            held.append(part)
        return [places[id(part)]]

    reference = refer(value)
    for place, thing in enumerate(held):  # they grow as parts are met
        entry = [_NAMES[type(thing)], [refer(each) for each in _TYPES[type(thing)][0](thing)]]
        same = place < len(known) and repr(known[place]) == repr(entry)  # 1 is not True
        entries.append(None if same else entry)
    return reference, entries, held


def read(reference: Any, entries: list[Any], things: Sequence[Any] = ()) -> tuple[Any, list[Any]]:
    """The value, and the things of the heap; any exception: it cannot be read.

    `things`, the first of the heap, are changed to what their entries say.
    """
    built = dict(enumerate(things))

    def take(part: Any) -> Any:
        if type(part) is not list:
            return part
        (place,) = part
        if place not in built:
            kind = _KINDS[entries[place][0]]
            fixed = not hasattr(kind, "clear")
            built[place] = _TYPES[kind][1](*map(take, entries[place][1])) if fixed else kind()
        return built[place]

    for place, entry in enumerate(entries):
        thing = take([place])
        if entry is not None and hasattr(type(thing), "clear"):
            assert _KINDS[entry[0]] is type(thing)
            thing.clear()
            _TYPES[type(thing)][1](thing, [take(each) for each in entry[1]])
    return take(reference), [built[place] for place in range(len(entries))]
