"""Makes classes of the other side, with bases, names and special methods of their own, and objects.

So `isinstance`, `except` and operators mean what they say. An object whose class derives from a
plain type holds its value as that type.
"""

import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tiltune.constraints.sandbox.inside import plain
from tiltune.constraints.sandbox.inside.remote import Ask, Mirror, Remote, mark, mark_of
from tiltune.constraints.sandbox.inside.specials import forward, holding, methods

_NATIVE: dict[str, type] = {
    "function": types.FunctionType,
    "method": types.MethodType,
    "builtin_function_or_method": types.BuiltinFunctionType,
    "generator": types.GeneratorType,
    "coroutine": types.CoroutineType,
    "async_generator": types.AsyncGeneratorType,
    **{each.__name__: each for each in (map, filter, zip, enumerate, reversed)},
}
"""What `isinstance` takes a thing for whose class nothing can derive from."""


class Mirrors:
    """The classes of one other side.

    Args:
        ask: asks the other side.
        release: told the number of a thing that is no longer held here.
    """

    def __init__(self, ask: Ask, release: Callable[[int], None]) -> None:
        def forget(self: Any) -> None:
            number = mark_of(self, "_number_", None)
            if number is not None:
                release(number)

        root = {"_far_": 0, "_ask_": staticmethod(ask), "__del__": forget}
        self._root = Mirror("far", (Remote,), root)
        every = ("repr", "str", "format", "dir", "copy", "deepcopy")
        space: dict[str, Any] = {f"__{name}__": forward(f"__{name}__") for name in every}
        space |= {"_far_": 0, "__doc__": _Doc(), "__dict__": property(_dict_of)}
        self._holders: dict[type, Mirror] = {object: Mirror("object", (self._root,), space)}

    def make_class(
        self, number: int, names: tuple[str, str], bases: list[type], own: list[str]
    ) -> Mirror:
        """A class by name and module; `own` are the special methods that it defines itself."""
        name, module = names
        kinds = [each for each in bases if each is not object] or [object]
        mirrors = [each if isinstance(each, Mirror) else self._holder(each) for each in kinds]
        base = next((found for each in kinds if (found := plain.base_of(each))), None)
        space = {"__module__": module, "_far_": number, **methods(own, base)}
        if module == "builtins" and name in _NATIVE:
            space["__class__"] = property(lambda _: _NATIVE[name])
        return Mirror(name, tuple(mirrors), space)

    def make(self, kind: type, value: Any) -> Any:
        """An object; `value` is its plain value, where its class holds one that cannot change."""
        kind = kind if isinstance(kind, Mirror) else self._holder(object)
        base = plain.base_of(kind)
        given = () if base is None or plain.is_container(plain.name_of(base)) else (value,)
        made: Any = (base or object).__new__(kind, *given)
        return made

    def make_error(self, kind: type, arguments: tuple[Any, ...]) -> BaseException:
        """An exception, of a class here or of Python's own; LookupError: the class is of none."""
        if not issubclass(kind, BaseException):
            raise LookupError(kind)
        made: Any = kind.__new__(kind, *arguments)
        own = next(each for each in kind.__mro__ if type(each) is type and each is not Remote)
        with suppress(Exception):  # a class of theirs may have given other arguments on
            own.__init__(made, *arguments)
        mark(made, "_line_", None)
        return made

    def _holder(self, native: type) -> Mirror:
        """A class that derives from a class of Python's as well."""
        if native not in self._holders:
            space: dict[str, Any] = {"_far_": 0}
            if not issubclass(native, BaseException):
                space |= holding(native)
            self._holders[native] = Mirror(native.__name__, (self._root, native), space)
        return self._holders[native]


class _Doc:
    """`__doc__`, which Python looks for on the class and on the object."""

    def __get__(self, thing: Any, kind: Any) -> Any:
        return kind._ask_("get", kind if thing is None else thing, "__doc__")


def _dict_of(thing: Any) -> Any:
    return thing._ask_("get", thing, "__dict__")
