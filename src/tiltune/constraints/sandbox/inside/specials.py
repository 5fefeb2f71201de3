"""What Python's special methods do on a thing of the other side: they ask, but for two.

Never the owner's to say, so that no object passes for plain data: whether it equals or precedes
plain data, which goes by its own plain value alone, and where there is none is no; and a number
that it works out from a number of ours, as in `abs(f(3) - 3.14) < 1e-6`.
"""

from collections.abc import Iterator
from typing import Any, NoReturn

from tiltune.constraints.sandbox.inside import plain
from tiltune.constraints.sandbox.inside.remote import Remote, mark


def _special(names: str) -> frozenset[str]:
    return frozenset(f"__{name}__" for name in names.split())


_BINARY = (
    *("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "divmod", "pow"),
    *("lshift", "rshift", "and", "xor", "or"),
)
_IN_PLACE = _special(" ".join("i" + name for name in _BINARY))
_OPERATORS = _special(" ".join((*_BINARY, *("r" + name for name in _BINARY))))
_COMPARISONS = _special("eq ne lt le gt ge")
_CONVERSIONS = _special("abs neg pos invert round trunc floor ceil int float complex index bool")
_READS = _special("len length_hint getitem contains iter reversed str repr bytes")
_WRITES = _special("setitem delitem") | _IN_PLACE
_OTHERS = _special("call next hash format fspath enter exit aenter aexit aiter anext await get")
SPECIALS = frozenset[str]().union(
    *(_COMPARISONS, _OPERATORS, _CONVERSIONS, _READS, _WRITES, _OTHERS),
    ("__missing__", "send", "throw", "close"),
)
"""Methods that Python finds by the class, and those that make a generator or a coroutine."""

_NUMBERS = (int, float, complex)


def methods(own: list[str], base: type | None) -> dict[str, Any]:
    """Of a class that defines these itself; `base` is the plain type that it derives from."""
    space = {name: _method(name, base) for name in SPECIALS.intersection(own)}
    if "__eq__" in own and "__hash__" not in own:
        space["__hash__"] = None
    if "__await__" in own:
        space["__await__"] = _await
        if "send" in own:
            space["send"] = _complete
    return space


def holding(base: type) -> dict[str, Any]:
    """Methods of a class that holds a value as a plain type: what that one defines is done here."""
    space: dict[str, Any] = {"__getattribute__": _get_of_owner, "__hash__": base.__hash__}
    space |= {name: _held(name, base) for name in _COMPARISONS}
    if plain.is_container(plain.name_of(base)):
        defined = set(dir(base))
        space |= {name: _held(name, base) for name in (_READS | _OPERATORS) & defined}
        space |= {name: forward(name) for name in _WRITES & defined}
    return space


def forward(name: str) -> Any:
    """A method that asks the owner."""
    operation = "call" if name == "__call__" else name

    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        return self._ask_(operation, self, *arguments, **named)

    return method


def _method(name: str, base: type | None) -> Any:
    if name in _COMPARISONS:
        return _compare(name, base)
    if name in _OPERATORS | _IN_PLACE:
        return _operate(name, base)
    return _convert(name) if name in _CONVERSIONS else forward(name)


def _compare(name: str, base: type | None) -> Any:
    def method(self: Any, other: Any) -> Any:
        if isinstance(other, Remote):
            return self._ask_(name, self, other)
        return NotImplemented if base is None else getattr(base, name)(_fresh(self), other)

    return method


def _operate(name: str, base: type | None) -> Any:
    def method(self: Any, *others: Any) -> Any:
        ours = [each for each in others if not isinstance(each, (Remote, str, bytes))]
        if ours and hasattr(base, name):
            return getattr(base, name)(_fresh(self), *others)
        result = self._ask_(name, self, *others)
        if result is NotImplemented or not (ours or self._worked_out_):
            return result
        if not isinstance(result, Remote) or isinstance(result, _NUMBERS):
            _refuse(name, self)
        mark(result, "_worked_out_", True)
        return result

    return method


def _convert(name: str) -> Any:
    def method(self: Any, *arguments: Any) -> Any:
        if self._worked_out_:
            _refuse(name, self)
        return self._ask_(name, self, *arguments)

    return method


def _refuse(name: str, thing: Any) -> NoReturn:
    raise TypeError(
        f"{name} of {type(thing).__name__!r} would work out a plain value from one of the tests'; "
        "only an object of the code's own can come out"
    )


def _held(name: str, base: type) -> Any:
    def method(self: Any, *others: Any) -> Any:
        return getattr(base, name)(_fresh(self), *map(_fresh, others))

    return method


def _fresh(thing: Any) -> Any:
    """The thing; where it is a container of the other side's, it holds again what that one does."""
    if isinstance(thing, Remote):
        name = plain.name_of(plain.base_of(type(thing)) or object)
        if name is not None and plain.is_container(name):
            plain.fill(thing, name, thing._ask_("parts", thing))  # pyright: ignore[reportPrivateUsage]
    return thing


def _get_of_owner(self: Any, name: str) -> Any:
    return object.__getattribute__(self, name) if name[:1] == "_" else self._ask_("get", self, name)


def _await(self: Any) -> Iterator[Any]:
    return self._ask_("await", self)
    yield  # what is awaited is run to its end by its owner


def _complete(self: Any, _: Any) -> NoReturn:
    raise StopIteration(self._ask_("await", self))
