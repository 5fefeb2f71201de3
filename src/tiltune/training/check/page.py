"""What `tiltune check` writes: the verdict's lines when they are known, then findings as they come.

A terminal would break a long line anywhere; here it is broken between words. In a file or a pipe a
line stays in one piece.
"""

import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from enum import IntEnum
from typing import final

from rich.console import Console
from rich.text import Text

LABEL = 7
"""Columns of a verdict line's question."""
_INDENT = 4
"""Columns by which a line that goes on is set in."""


class Gravity(IntEnum):
    """What a warning is of; the lower, the graver."""

    REFUSED = 0  # `fit` refuses the run
    IN_THE_WAY = 1  # `fit` would not begin, but the run is sound
    LABELS = 2  # there may be nothing to learn
    DATA = 3
    ENDINGS = 4  # where texts end, and are cut


@final
class Page:
    """Writes on a console, in the order of what matters.

    Args:
        console: a terminal, a file or a pipe.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._waiting: list[tuple[str, str]] | None = None
        self._warnings: list[tuple[Gravity, str]] = []

    @property
    def width(self) -> int:
        """Columns."""
        return self._console.width

    def note(self, text: str) -> None:
        """What is being done, at once."""
        self._console.print(Text(text, style="dim"), soft_wrap=True)

    def answer(self, question: str, text: str) -> None:
        """A line of the verdict, at once; in one piece, since a command is copied from it."""
        line = Text.assemble((f"{question:<{LABEL}}", "bold"), text)
        self._console.print(line, soft_wrap=True)

    def say(self, *lines: str) -> None:
        """Findings."""
        for line in lines:
            self._write("", line)

    def warn(self, warning: str, gravity: Gravity) -> None:
        """A finding that a person should look at before training."""
        self._warnings.append((gravity, warning))
        self._write("warning: ", warning)

    @property
    def gravest_first(self) -> list[str]:
        """All warnings so far."""
        return [warning for _, warning in sorted(self._warnings, key=lambda each: each[0])]

    @property
    def gravest(self) -> Gravity | None:
        """None: there is no warning."""
        return min((gravity for gravity, _ in self._warnings), default=None)

    @contextmanager
    def verdict_first(self) -> Generator[None]:
        """Within it findings wait for the verdict, or for the fault that cuts it short."""
        self._waiting = []
        try:
            yield
        finally:
            waiting, self._waiting = self._waiting, None
            self.say("")
            for mark, line in waiting:
                self._write(mark, line)

    def _write(self, mark: str, line: str) -> None:
        if self._waiting is not None:
            self._waiting.append((mark, line))
            return
        text = Text(mark + line)
        if self._console.is_terminal:
            text = Text("\n".join(wrapped(text.plain, self.width)))
        text.stylize("yellow", 0, len(mark))
        self._console.print(text, soft_wrap=True)


def wrapped(line: str, width: int) -> list[str]:
    """The line in pieces of at most so many characters, broken between words alone.

    A word that is longer stays whole.
    """
    indent = " " * (len(line) - len(line.lstrip()) + _INDENT)
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def cut(text: str, room: int) -> str:
    """The text, with an ellipsis for what is beyond so many characters."""
    return text if len(text) <= room else text[: room - 1].rstrip() + "…"
