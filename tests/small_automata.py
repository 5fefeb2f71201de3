"""Automata over characters, made by hand and at random."""

import numpy as np

from tiltune.automata import DFA, TextAutomaton
from tiltune.automata.text import CODEPOINTS


def contains(word: str) -> TextAutomaton:
    """Texts that contain the word (Knuth, Morris and Pratt)."""
    letters = sorted(set(word))
    classes = np.zeros(CODEPOINTS, dtype=np.uint16)
    for symbol, letter in enumerate(letters, start=1):
        classes[ord(letter)] = symbol
    count = len(word)
    transitions = np.full((count + 1, len(letters) + 1), 0)
    for state in range(count):
        for symbol, letter in enumerate(letters, start=1):
            read = word[:state] + letter
            transitions[state, symbol] = max(
                k for k in range(min(count, len(read)) + 1) if word[:k] == read[len(read) - k :]
            )
    transitions[count] = count
    return TextAutomaton(classes, DFA(transitions, np.arange(count + 1) == count))


def without(word: str) -> TextAutomaton:
    return contains(word).complement()


def whole_word(word: str) -> TextAutomaton:
    """Texts in which the word stands apart from letters, digits and underscores."""
    classes = np.array(
        [int(c.isalnum() or c == "_") for c in map(chr, range(CODEPOINTS))], dtype=np.uint16
    )
    letters = sorted(set(word))
    for symbol, letter in enumerate(letters, start=2):
        classes[ord(letter)] = symbol
    count, inside = len(word), len(word) + 1  # inside: some other word
    met = inside + 1
    transitions = np.full((met + 1, len(letters) + 2), inside)
    transitions[:, 0] = 0
    for state in range(count):
        transitions[state, 2 + letters.index(word[state])] = state + 1
    transitions[count, 0] = transitions[met] = met
    accepting = np.isin(np.arange(met + 1), [count, met])
    return TextAutomaton(classes, DFA(transitions, accepting))


def random_automaton(seed: int, *, states: int = 4, classes: int = 4) -> TextAutomaton:
    """Random classes in stretches of code points of every length, random transitions."""
    rng = np.random.default_rng(seed)
    bounds = np.sort(
        np.concatenate(
            [
                rng.integers(0, 0x80, 8),
                rng.integers(0x80, 0x800, 6),
                rng.integers(0x800, 0x10000, 8),
                rng.integers(0x10000, CODEPOINTS, 6),
                [0xFFFD, 0xFFFE],
            ]
        )
    )
    stretches = np.searchsorted(bounds, np.arange(CODEPOINTS), side="right")
    symbols = rng.integers(0, classes, len(bounds) + 1)
    symbols[:classes] = np.arange(classes)
    dfa = DFA(rng.integers(0, states, (states, classes)), rng.random(states) < 0.5, 0)
    return TextAutomaton(symbols[stretches].astype(np.uint16), dfa)
