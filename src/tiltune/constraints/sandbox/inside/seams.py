"""What tests put in Python's place, such as `sys.stdin`, is in its place for the code, too."""

import builtins
import sys
from collections.abc import Callable
from typing import Any

_PLACES = {
    **{f"sys.{name}": (sys, name) for name in ("stdin", "stdout", "stderr", "argv")},
    **{f"builtins.{name}": (builtins, name) for name in ("input", "print", "open")},
}


class Seams:
    """The places, and what stood there at the start."""

    def __init__(self) -> None:
        self._first = {key: getattr(*place) for key, place in _PLACES.items()}
        self._told = dict(self._first)

    def tell(self, ask: Callable[..., Any]) -> None:
        """Tell the other side what has been put in a place since last told."""
        for key, place in _PLACES.items():
            value = getattr(*place)
            if value is not self._told[key]:
                self._told[key] = value
                ask("place", key, *(() if value is self._first[key] else (value,)))

    def put(self, key: str, *value: Any) -> None:
        """Put a thing in a place; none: what stood there at the start."""
        setattr(*_PLACES[key], value[0] if value else self._first[key])
