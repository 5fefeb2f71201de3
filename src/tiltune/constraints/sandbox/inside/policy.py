"""What the code may do to the judge's things: use them as they were meant, and not climb.

It may call what it was given, iterate it and use its special methods. It may read and set names
without a leading underscore on objects of classes that the tests define, and read them on files and
a few more. From a function, a generator or a module there is no way on.
"""

from typing import Any

TESTS = "solution"
"""The module that classes of the tests say they are of."""

_READ_TOO = ("_io", "io", "random", "re", "unittest.mock")
_OF_FUNCTIONS = ("__name__", "__qualname__", "__doc__", "__module__")
_CLOSED = ("del", "__dir__")


def may(operation: str, target: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether the code may do this."""
    if operation not in ("get", "set"):
        return operation not in _CLOSED
    kind, name = type(target), arguments[0] if arguments else None
    if type(name) is not str:
        return False
    if operation == "get" and name in _OF_FUNCTIONS:
        return type(getattr(target, name, None)) is str
    if name.startswith("_"):
        return False
    if isinstance(target, type):
        inherited = [each for each in target.__mro__ if each.__module__ == TESTS]
        return operation == "get" and any(name in vars(each) for each in inherited)
    return kind.__module__ == TESTS or (operation == "get" and kind.__module__ in _READ_TOO)
