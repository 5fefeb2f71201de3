"""Containers that both sides hold while an exchange lasts, and which of them have changed.

A container gets a number when it first crosses. What one side did to its own is told with the next
message, and done to the other side's, which so stays the same object.
"""

from collections.abc import Iterable
from operator import is_
from typing import Any

from tiltune.constraints.sandbox.inside import plain


class Shared:
    """Numbered containers, each with the parts it held when last told."""

    def __init__(self, first: int) -> None:
        self._next = first  # one side gives out even numbers, the other odd ones
        self._held: dict[int, tuple[Any, str, list[Any]]] = {}
        self._numbers: dict[int, int] = {}

    def number(self, value: Any, name: str) -> tuple[int, bool]:
        """The container's number, and whether the other side knows it."""
        if id(value) in self._numbers:
            return self._numbers[id(value)], True
        number, self._next = self._next, self._next + 2
        self.add(number, value, name)
        return number, False

    def add(self, number: int, value: Any, name: str) -> None:
        self._held[number] = (value, name, [])
        self._numbers[id(value)] = number

    def find(self, number: int, name: str) -> Any:
        """The container with a number; None: there is none; LookupError: of another type."""
        if number not in self._held:
            return None
        value, kind, _ = self._held[number]
        if kind != name:
            raise LookupError(name)
        return value

    def news(self, number: int) -> tuple[Any, list[Any], bool]:
        """The container, what it holds, and whether that is not what it held when last told."""
        value, name, told = self._held[number]
        now = plain.parts(value, name)
        return value, now, len(now) != len(told) or not all(map(is_, now, told))

    def told(self, number: int, held: list[Any]) -> None:
        """Both sides' hold these parts now."""
        value, name, _ = self._held[number]
        self._held[number] = (value, name, held)

    def keep(self, numbers: Iterable[int]) -> None:
        """Forget all containers but these."""
        self._held = {each: self._held[each] for each in numbers if each in self._held}
        self._numbers = {id(held[0]): number for number, held in self._held.items()}
