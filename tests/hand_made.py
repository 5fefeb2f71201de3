"""Automata made by hand, and constraints that have them."""

import functools
from collections.abc import Sequence

import numpy as np

from tiltune.automata import DFA, TextAutomaton
from tiltune.automata.text import CODEPOINTS
from tiltune.config.constraint_section import JudgedText
from tiltune.constraints.base import TextConstraint, on_texts
from tiltune.constraints.scores import Rule, Score


def reader(
    characters: Sequence[str], transitions: Sequence[Sequence[int]], accepting: Sequence[int]
) -> TextAutomaton:
    """An automaton over classes of characters; the last symbol is every other character."""
    classes = np.full(CODEPOINTS, len(characters), dtype=np.uint16)
    for symbol, members in enumerate(characters):
        classes[[ord(member) for member in members]] = symbol
    flags = np.isin(np.arange(len(transitions)), accepting)
    return TextAutomaton(classes, DFA(np.array(transitions), flags))


def without(character: str) -> TextAutomaton:
    """Texts in which the character does not occur."""
    return reader([character], [[1, 0], [1, 1]], [0])


def somewhere(character: str) -> TextAutomaton:
    """Texts in which it does."""
    return without(character).complement()


def shorter_than(length: int) -> TextAutomaton:
    """Texts of fewer characters."""
    rows = [[min(state + 1, length)] for state in range(length + 1)]
    return reader([], rows, range(length))


def ruled(
    automaton: TextAutomaton,
    *,
    name: str = "hand-made",
    text: JudgedText = "completion",
    complete: bool = True,
) -> TextConstraint:
    """A constraint that the automaton decides."""

    def judge(texts: Sequence[str]) -> list[Score]:
        return [Score(1.0) if automaton.accepts(each) else Score(0.0, "refused") for each in texts]

    rule = functools.cache(lambda: Rule(automaton, text, complete))
    return TextConstraint(name, on_texts(judge, text), text, make_rule=rule)
