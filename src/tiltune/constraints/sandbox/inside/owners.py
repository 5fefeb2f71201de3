"""Who owns what: things of ours that the other side knows by number, and things of its own.

Modules of the standard library cross by name, and so do functions and classes of it that the judge
gives. What the code names can be a plain type, a builtin exception or a module, never a function:
else it could give `eval` to a test that calls what it is given.
"""

import _weakref
import sys
import types
from collections.abc import Callable
from typing import Any

from tiltune.constraints.sandbox.inside import plain
from tiltune.constraints.sandbox.inside.mirrors import Mirrors
from tiltune.constraints.sandbox.inside.remote import Mirror, Remote, mark, number_of
from tiltune.constraints.sandbox.inside.specials import SPECIALS
from tiltune.constraints.sandbox.inside.wire import Ref

_NO_IMPORT = ("__main__", "antigravity", "idlelib", "test", "this", "turtle", "turtledemo")


class Owners:
    """The entries of a message's heap that are no plain data.

    Args:
        ask: asks the other side.
        judge: whether this side is the judge's.
    """

    def __init__(self, ask: Callable[..., Any], *, judge: bool) -> None:
        self._judge = judge
        self._last = 0
        self._given: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._described: set[int] = set()
        self._taken: dict[int, Callable[[], Any]] = {}
        self._gone: list[int] = []
        self._mirrors = Mirrors(ask, self._gone.append)

    def give(self, value: Any, ref: Ref) -> list[Any]:
        """The entry of a value that is no plain data."""
        number = number_of(value)
        if number is not None:
            return ["yours", number]
        if isinstance(value, BaseException):
            kind = self._describe(type(value))
            known = self._judge or kind[0] != "type"
            return ["error", self._number(value) if known else None, kind, ref(value.args)]
        name = _module_name(value) if isinstance(value, types.ModuleType) else None
        if name is not None:
            return ["module", name]
        path = _path(value) if self._judge else None
        if path is not None:
            return ["standard", *path]
        if isinstance(value, type):
            return self._describe(value)
        held = plain.base_value(value)
        return ["mine", self._number(value), self._describe(type(value)), ref(held)]

    def take(self, entry: list[Any], value: Ref) -> Any:
        """What an entry of the other side's stands for; any exception: nothing."""
        match entry:
            case ["yours", int(number)]:
                return self._given[number]
            case ["module", str(name)] if _may_import(name):
                __import__(name)
                return sys.modules[name]
            case ["standard", str(module), str(path)] if not self._judge:
                return _follow(module, path)
            case ["mine" | "error" as how, int() | None as number, list(kind), held]:
                return self._thing(number, self._class(kind), value(held), error=how == "error")
            case _:
                return self._class(entry)

    def forget(self, numbers: list[int]) -> None:
        """The other side has dropped these things of ours."""
        for number in numbers:
            self._numbers.pop(id(self._given.pop(number)))

    def gone(self) -> list[int]:
        """The things of the other side's that were dropped here since last asked."""
        numbers = self._gone[:]
        del self._gone[: len(numbers)]
        for number in numbers:
            self._taken.pop(number, None)
        return numbers

    def _number(self, value: Any) -> int:
        number = self._numbers.get(id(value))
        if number is None:
            self._last = number = self._last + 1
            self._given[number], self._numbers[id(value)] = value, number
        return number

    def _describe(self, kind: type) -> list[Any]:
        name = plain.name_of(kind)
        if name is not None:
            return ["type", name]
        if type(kind) is Mirror:
            return ["yours", number_of(kind)]
        number = self._number(kind)
        if number in self._described:
            return ["known", number]
        self._described.add(number)
        bases = [self._describe(each) for each in kind.__bases__]
        space = vars(kind)
        own = [each for each in space if each in SPECIALS and space[each] is not None]
        return ["class", number, str(kind.__name__), str(kind.__module__), bases, own]

    def _class(self, entry: list[Any]) -> type:
        match entry:
            case ["type", str(name)]:
                return plain.type_named(name)
            case ["known", int(number)]:
                return self._taken[number]()
            case ["yours", int(number)]:
                found = self._given[number]
                assert isinstance(found, type)
                return found
            case ["class", int(number), str(name), str(module), list(bases), list(own)]:
                kinds = [self._class(each) for each in bases]
                made = self._mirrors.make_class(number, (name, module), kinds, own)
                self._taken[number] = lambda: made
                return made
            case _:
                raise LookupError("no such entry")

    def _thing(self, number: int | None, kind: type, held: Any, *, error: bool) -> Any:
        found = self._taken[number]() if number in self._taken else None
        if found is not None:
            return found
        made = self._mirrors.make_error(kind, held) if error else self._mirrors.make(kind, held)
        mark(made, "_number_", number)
        if number is not None:
            self._gone[:] = [each for each in self._gone if each != number]
            try:
                self._taken[number] = _weakref.ref(made)
            except TypeError:  # a tuple's kind: it stays
                self._taken[number] = lambda: made
        return made


def _module_name(module: types.ModuleType) -> str | None:
    name = str(module.__name__)
    return name if sys.modules.get(name) is module and _may_import(name) else None


def _may_import(name: str) -> bool:
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names and top not in _NO_IMPORT


def _path(value: Any) -> tuple[str, str] | None:
    """Module and name by which a function or class of the standard library is found."""
    owner = getattr(value, "__objclass__", value) if not isinstance(value, Remote) else value
    module, path = getattr(owner, "__module__", None), getattr(value, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(path, str) and _may_import(module)):
        return None
    try:
        return (module, path) if _follow(module, path) is value else None
    except (AttributeError, ImportError, KeyError):
        return None


def _follow(module: str, path: str) -> Any:
    __import__(module)
    found = sys.modules[module]
    for name in path.split("."):
        found = getattr(found, name)
    return found
