"""Values as they cross: references, and a heap of entries that they point into.

A reference is what JSON holds as it is (null, a truth value, a number, a text), or `[i]` for entry
i of the heap. Nothing nests, so that depth and cycles need no care, and nothing that is read is
run, as pickled data would be. An entry is `[name, …]`: a plain type and what it is built from, or a
thing of its owner's.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from tiltune.constraints.sandbox.inside import plain
from tiltune.constraints.sandbox.inside.shared import Shared

_ATOMS = frozenset((type(None), bool, float))
_VIEWS: dict[str, tuple[type, Callable[[list[Any]], Any]]] = {
    "keys": (type({}.keys()), lambda held: dict.fromkeys(held).keys()),
    "values": (type({}.values()), lambda held: dict(enumerate(held)).values()),
    "items": (type({}.items()), lambda held: dict(held).items()),
}
_GROUPS: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "frozenset": frozenset,
    **{name: build for name, (_, build) in _VIEWS.items()},
}
_GROUP_NAMES: dict[type, str] = {
    **{tuple: "tuple", frozenset: "frozenset"},
    **{kind: name for name, (kind, _) in _VIEWS.items()},
}
_CONSTANTS = {"ellipsis": ..., "NotImplementedType": NotImplemented}
_LARGE = 2**63

Ref = Callable[[Any], Any]


class Owners(Protocol):
    """Knows what does not cross by value: writes entries of its own, and reads the other side's."""

    def give(self, value: Any, ref: Ref) -> list[Any]: ...

    def take(self, entry: list[Any], value: Ref) -> Any: ...


def pack(
    values: Iterable[Any], also: Collection[int], shared: Shared, owners: Owners
) -> tuple[list[Any], list[Any], set[int]]:
    """References, heap, and the numbers of the containers that it names.

    `also` are numbers of containers that are told where they have changed.
    """
    packer = _Packer(shared, owners)
    references = [packer.ref(value) for value in values]
    packer.finish()
    for number in also:
        value, _, changed = shared.news(number)
        if changed:
            packer.ref(value)
    packer.finish()
    return references, packer.heap, packer.numbers


class _Packer:
    def __init__(self, shared: Shared, owners: Owners) -> None:
        self.heap: list[Any] = []
        self.numbers: set[int] = set()
        self._shared, self._owners = shared, owners
        self._places: dict[int, tuple[int, Any]] = {}  # the value too, so that its id stays its own
        self._open: deque[tuple[int, Any, str]] = deque()

    def ref(self, value: Any) -> Any:
        kind = type(value)
        if kind in _ATOMS or (kind is int and -_LARGE < value < _LARGE):
            return value
        if kind is str and (value.isascii() or _is_text(value)):
            return value
        if id(value) in self._places:
            return [self._places[id(value)][0]]
        name = plain.name_of(kind)
        if name is not None and plain.is_container(name):
            self._open.append((len(self.heap), value, name))
            return self._put(value, [])
        return self._put(value, self._entry(value, kind, name))

    def finish(self) -> None:
        """Write what the containers hold."""
        while self._open:
            place, value, name = self._open.popleft()
            number, known = self._shared.number(value, name)
            self.numbers.add(number)
            _, held, changed = self._shared.news(number)
            references = [
                self.ref(each) for each in held
            ]  # also of what is known: it may hold news
            told = references if changed or not known else None
            self._shared.told(number, held)
            self.heap[place] = [name, number, told, self.ref(plain.extra_of(value, name))]

    def _put(self, value: Any, entry: list[Any]) -> list[int]:
        self.heap.append(entry)
        self._places[id(value)] = (len(self.heap) - 1, value)
        return [len(self.heap) - 1]

    def _entry(self, value: Any, kind: type, name: str | None) -> list[Any]:
        if kind is int:
            return ["int", hex(value)]
        if kind is str:
            return ["str", value.encode("utf-32-le", "surrogatepass").hex()]
        if kind is bytes:
            return ["bytes", value.hex()]
        if kind in _GROUP_NAMES:
            return [_GROUP_NAMES[kind], [self.ref(each) for each in value]]
        given = plain.arguments(value, name)
        if given is not None:
            return [name, [self.ref(each) for each in given]]
        if name in _CONSTANTS:
            return [name]
        return self._owners.give(value, self.ref)


def unpack(
    references: list[Any], heap: list[Any], shared: Shared, owners: Owners
) -> tuple[list[Any], set[int]]:
    """The values, and the numbers of the containers named; any exception: there are no values."""
    built = list[Any](heap)

    def value(reference: Any) -> Any:
        if type(reference) is not list:
            return reference
        (place,) = reference
        return built[place]

    containers = [(at, entry) for at, entry in enumerate(heap) if plain.is_container(entry[0])]
    for place, (name, number, told, extra) in containers:
        found = shared.find(number, name)
        if found is None:
            if told is None or type(number) is not int:
                raise LookupError(number)
            found = plain.empty(name, extra)
            shared.add(number, found, name)
        built[place] = found
    for place, entry in enumerate(heap):
        if not plain.is_container(entry[0]):
            built[place] = _build(entry, value, owners)
    for place, (name, number, told, extra) in containers:
        if told is not None:
            held = [value(each) for each in told]
            plain.fill(built[place], name, held)
            in_order = name == "list"
            shared.told(number, held if in_order else plain.parts(built[place], name))
        if name == "defaultdict":
            built[place].default_factory = value(extra)
    return [value(each) for each in references], {entry[1] for _, entry in containers}


def _build(entry: list[Any], value: Ref, owners: Owners) -> Any:
    match entry:
        case ["int", str(text)]:
            return int(text, 16)
        case ["str", str(text)]:
            return bytes.fromhex(text).decode("utf-32-le", "surrogatepass")
        case ["bytes", str(text)]:
            return bytes.fromhex(text)
        case [str(name), list(held)] if name in _GROUPS:
            return _GROUPS[name]([value(each) for each in held])
        case [str(name)] if name in _CONSTANTS:
            return _CONSTANTS[name]
        case [str(name), list(given)] if plain.is_built(name):
            return plain.build(name, [value(each) for each in given])
        case _:
            return owners.take(entry, value)


def _is_text(value: str) -> bool:
    """Whether JSON gives it back the same: it joins halves of a character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
