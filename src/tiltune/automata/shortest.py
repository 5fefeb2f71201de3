"""Shortest ways through an automaton: how far off another verdict is, and a text that has it."""

import numpy as np
from numpy.typing import NDArray

from tiltune.automata.dfa import DFA, Flags
from tiltune.automata.text import TextAutomaton

_PREFERRED = (*map(ord, "abcdefghijklmnopqrstuvwxyz .,0123456789"), *range(0x20, 0x7F))
"""Code points that a text to be shown is made of where it can be."""


def steps_to(dfa: DFA, goal: Flags) -> NDArray[np.float64]:
    """Fewest symbols from each state to a state of `goal`: 0 within it, infinite where none leads.

    Args:
        dfa: over V symbols.
        goal: bool [D].

    Returns:
        [D].
    """
    steps = np.where(goal, 0.0, np.inf)
    while True:
        nearer = np.minimum(steps, 1 + steps[dfa.transitions].min(1))
        if (nearer == steps).all():
            return steps
        steps = nearer


def shortest_text(automaton: TextAutomaton) -> str | None:
    """A shortest accepted text, of plain characters where it can be; None: nothing is accepted."""
    points = _representatives(automaton)
    known = np.array(sorted(points))
    dfa = DFA(automaton.dfa.transitions[:, known], automaton.dfa.accepting, automaton.dfa.start)
    steps = steps_to(dfa, dfa.accepting)
    if np.isinf(steps[dfa.start]):
        return None
    text, state = "", dfa.start
    while steps[state]:
        ahead = steps[dfa.transitions[state]]
        nearest = np.flatnonzero(ahead == ahead.min())
        order = [points[int(known[place])] for place in nearest]
        choice = min(range(len(order)), key=lambda place: order[place])
        text += chr(order[choice][1])
        state = int(dfa.transitions[state, nearest[choice]])
    return text


def _representatives(automaton: TextAutomaton) -> dict[int, tuple[int, int]]:
    """(rank, code point) of the most readable character of each class that has one."""
    symbols, first = np.unique(automaton.classes, return_index=True)
    found = {
        int(symbol): (len(_PREFERRED) + int(point), int(point))
        for symbol, point in zip(symbols, first, strict=True)
    }
    for rank, point in enumerate(_PREFERRED):
        symbol = int(automaton.classes[point])
        found[symbol] = min(found[symbol], (rank, point))
    return found
