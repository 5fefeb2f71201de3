"""Automata over characters: every character of Unicode belongs to a class, a class is a symbol."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.dfa import DFA, Flags, product

CODEPOINTS = 0x110000


@dataclass(frozen=True, eq=False)
class TextAutomaton:
    """Reads a text character by character.

    Attributes:
        classes: the symbol of each code point, uint16 [0x110000]; classes 0..K-1.
        dfa: the automaton over the K classes.
    """

    classes: NDArray[np.uint16]
    dfa: DFA

    def __post_init__(self) -> None:
        symbols = self.dfa.transitions.shape[1]
        if self.classes.shape != (CODEPOINTS,) or int(self.classes.max()) >= symbols:
            raise ValueError(
                f"classes must give one of {symbols} symbols to each of {CODEPOINTS} code points"
            )

    def symbols(self, text: str) -> list[int]:
        """The class of each character."""
        return [int(self.classes[ord(character)]) for character in text]

    def run(self, text: str, start: int | None = None) -> int:
        """The state after the text."""
        return self.dfa.run(self.symbols(text), start)

    def accepts(self, text: str) -> bool:
        """Whether the text satisfies the constraint."""
        return bool(self.dfa.accepting[self.run(text)])

    def complement(self) -> "TextAutomaton":
        """Accepts the other texts."""
        return replace(self, dfa=self.dfa.complement())

    def minimised(self) -> "TextAutomaton":
        """The same texts with the fewest states and classes."""
        dfa = self.dfa.minimised()
        columns, merged = np.unique(dfa.transitions, axis=1, return_inverse=True)
        classes = merged.ravel()[self.classes].astype(np.uint16)
        return TextAutomaton(classes, replace(dfa, transitions=columns))


def refined(
    partitions: Sequence[NDArray[np.uint16]],
) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """The coarsest partition that tells apart whatever one of these does.

    Args:
        partitions: a class for each code point, [P][0x110000].

    Returns:
        The common partition [0x110000] of K classes, and each class's class in every part, [K, P].
    """
    codes = np.zeros(CODEPOINTS, dtype=np.int64)
    members = np.zeros((1, 0), dtype=np.int64)
    for part in partitions:
        width = int(part.max()) + 1
        codes = codes * width + part
        kept = np.flatnonzero(np.bincount(codes))  # small numbers: far quicker than np.unique
        number = np.zeros(kept[-1] + 1, dtype=np.int64)
        number[kept] = np.arange(len(kept))
        codes = number[codes]
        members = np.concatenate([members[kept // width], (kept % width)[:, None]], axis=1)
    return codes.astype(np.uint16), members


def combined(
    parts: Sequence[TextAutomaton],
    accept: Callable[[Flags, Flags], Flags],
    *,
    most_states: int | None = None,
) -> TextAutomaton:
    """The product of all parts, minimised; acceptance is folded from the left.

    Args:
        parts: one or more.
        accept: such as `np.logical_and` or `np.logical_or`.
        most_states: a bound on the states of all products on the way together; none: no bound.

    Raises:
        TooManyStates: the bound is passed.
    """

    left = most_states

    def fold(one: TextAutomaton, other: TextAutomaton) -> TextAutomaton:
        nonlocal left
        classes, members = refined([one.classes, other.classes])
        first = replace(one.dfa, transitions=one.dfa.transitions[:, members[:, 0]])
        second = replace(other.dfa, transitions=other.dfa.transitions[:, members[:, 1]])
        both = product(first, second, accept, most_states=left)
        left = None if left is None else left - len(both.accepting)
        return TextAutomaton(classes, both).minimised()

    return reduce(fold, parts)
