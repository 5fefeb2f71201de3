"""Objects of the other side, and their classes: each asks its owner whatever it is asked.

What a class makes of Python's special methods is in `specials`; `mirrors` makes the classes.
"""

from collections.abc import Callable, Iterator
from typing import Any

Ask = Callable[..., Any]
"""Operation, thing, arguments: what the other side answers."""


class Mirror(type):
    """A class of the other side."""

    _ask_: Ask
    _far_: int  # the number that its owner knows it by

    def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> "Mirror":
        if "_far_" not in space:  # a class statement
            raise TypeError(f"no class can derive here from {bases[0].__name__}, which is far away")
        return super().__new__(cls, name, bases, space)

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        return cls._ask_("call", cls, *arguments, **named)

    def __getattr__(cls, name: str) -> Any:
        return cls._ask_("get", cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        cls._ask_("set", cls, name, value)

    def __delattr__(cls, name: str) -> None:
        cls._ask_("del", cls, name)

    def __iter__(cls) -> Iterator[Any]:
        return cls._ask_("__iter__", cls)

    def __len__(cls) -> int:
        return cls._ask_("__len__", cls)

    def __bool__(cls) -> bool:
        return True

    def __contains__(cls, item: Any) -> bool:
        return cls._ask_("__contains__", cls, item)

    def __getitem__(cls, item: Any) -> Any:
        return cls._ask_("__getitem__", cls, item)


class Remote:
    """What all objects of the other side share; each side has a root class below this one."""

    _ask_: Ask
    _number_: int | None = None
    _worked_out_: bool = False  # from plain data of ours, by an operator

    def __getattr__(self, name: str) -> Any:
        return self._ask_("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):  # Python's own marks on exceptions
            object.__setattr__(self, name, value)
        else:
            self._ask_("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._ask_("del", self, name)


def number_of(thing: Any) -> int | None:
    """The number that the owner knows a thing by; None: it is no thing of the other side."""
    if type(thing) is Mirror:
        return type.__getattribute__(thing, "_far_")
    if isinstance(thing, Remote):
        return object.__getattribute__(thing, "_number_")
    return mark_of(thing, "_number_", None) if isinstance(thing, BaseException) else None


def came_over(error: BaseException) -> bool:
    """Whether an exception was raised by the other side."""
    return mark_of(error, "_line_", ...) is not ...


def line_over_there(error: BaseException) -> int | None:
    """The line of the other side's code that it was raised from."""
    return mark_of(error, "_line_", None)


def note_line(error: BaseException, line: int | None) -> None:
    """Remember that line, where the exception is the other side's."""
    if came_over(error):
        mark(error, "_line_", line)


def mark(thing: Any, name: str, value: Any) -> None:
    """Set a name here, and not on the thing of the other side."""
    object.__setattr__(thing, name, value)


def mark_of(thing: Any, name: str, otherwise: Any) -> Any:
    """What `mark` set."""
    try:
        return object.__getattribute__(thing, name)
    except AttributeError:
        return otherwise
