"""What a scorer warns of in a process of its own, told again in the one that waits for it.

There it meets the filters that a user, or the command line, has set; what other processes write to
the terminal by themselves is mostly libraries talking, and is kept off it.
"""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Warned:
    """A warning that crosses to another process: its category is one of Python's own."""

    text: str
    category: type[Warning]
    filename: str
    line: int


@contextmanager
def listened() -> Generator[list[Warned]]:
    """Every warning of the block, at its end, whatever this process was told to ignore."""
    heard: list[Warned] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            yield heard
        finally:
            heard += map(_crossing, caught)


def told_again(heard: Sequence[Warned], told: set[Warned]) -> None:
    """Warn of it here.

    Args:
        heard: in another process.
        told: what was told before, and is not again; filled.
    """
    for each in heard:
        if each not in told:
            told.add(each)
            warnings.warn_explicit(each.text, each.category, each.filename, each.line)


def _crossing(caught: warnings.WarningMessage) -> Warned:
    """With the name of a category of the user's own before the text."""
    own = next(each for each in caught.category.__mro__ if each.__module__ == "builtins")
    name = "" if own is caught.category else f"{caught.category.__name__}: "
    return Warned(f"{name}{caught.message}", own, caught.filename, caught.lineno)
