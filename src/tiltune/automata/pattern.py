"""Python's own parse of a regular expression: the one place that knows the standard library's."""

import re
import warnings
from collections.abc import Iterable
from importlib import import_module
from typing import Any

_PARSER: Any = import_module("re._parser")  # not public, but the only exact account of the syntax

Item = tuple[str, Any]
"""A part of a pattern: the name of its operation, such as "LITERAL", and its arguments."""

UNBOUNDED = int(_PARSER.MAXREPEAT)
"""The upper bound of `*` and `+`."""

_KINDS = re.ASCII | re.UNICODE | re.LOCALE


def parsed(pattern: str, flags: int = 0) -> tuple[list[Item], int]:
    """The items of a pattern, and the flags with those that stand at its beginning.

    Raises:
        re.error, OverflowError, RecursionError: as `re.compile`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `re.compile` has said it
        tree = _PARSER.parse(pattern, flags)
    return items_of(tree), int(tree.state.flags)


def items_of(tree: Iterable[tuple[Any, Any]]) -> list[Item]:
    """The items of a parsed sequence; an item's arguments hold further such sequences."""
    return [(str(operation), arguments) for operation, arguments in tree]


def flags_within(flags: int, added: int, removed: int) -> int:
    """The flags inside of a group such as (?i-s:…)."""
    if added & _KINDS:
        flags &= ~_KINDS
    return (flags | added) & ~removed


def class_source(members: Iterable[tuple[Any, Any]]) -> str:
    """A set of characters in the notation of `re`, from its parse."""
    return "[" + "".join(_member(str(kind), value) for kind, value in members) + "]"


def escaped(code: int) -> str:
    """A code point in the notation of `re`."""
    return f"\\U{code:08x}"


def _member(kind: str, value: Any) -> str:
    if kind == "NEGATE":
        return "^"
    if kind == "RANGE":
        return f"{escaped(value[0])}-{escaped(value[1])}"
    if kind == "LITERAL":
        return escaped(value)
    return _CATEGORIES[str(value)]


_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
