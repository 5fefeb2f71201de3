"""What is written on a console, a line at a time to whoever wants it."""

import io
from collections.abc import Callable
from typing import final


@final
class Lines(io.StringIO):
    """A file whose lines are told when they are whole.

    Args:
        say: takes a line without its end.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__()
        self._say, self._begun = say, ""

    def write(self, text: str, /) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._say(line)
        return len(text)
