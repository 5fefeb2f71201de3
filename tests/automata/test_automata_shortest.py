"""Shortest ways, against trying every text."""

from itertools import product

import numpy as np
import pytest

from hand_made import reader, shorter_than, somewhere, without
from tiltune.automata import TextAutomaton
from tiltune.automata.shortest import shortest_text, steps_to
from tiltune.automata.text import combined

pytestmark = pytest.mark.quick

HARD = reader(["a", "b"], [[1, 0, 3], [1, 2, 3], [2, 3, 2], [3, 3, 3]], [2])
"""a then b before anything else, and no b after it."""


def brute(automaton: TextAutomaton, state: int, wanted: bool) -> float:
    for length in range(5):
        for text in product("abc", repeat=length):
            if automaton.dfa.accepting[automaton.run("".join(text), state)] == wanted:
                return length
    return np.inf


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("automaton", [HARD, without("b"), shorter_than(3)])
def test_steps_are_those_of_the_shortest_text(automaton: TextAutomaton, wanted: bool) -> None:
    dfa = automaton.dfa
    goal = dfa.accepting if wanted else ~dfa.accepting
    expected = [brute(automaton, state, wanted) for state in range(len(goal))]
    assert steps_to(dfa, goal).tolist() == expected


def test_a_shortest_text_is_accepted_and_readable() -> None:
    assert shortest_text(HARD) == "ab"
    assert shortest_text(without("b")) == ""
    both = combined([somewhere("x"), somewhere("y"), without("a")], np.logical_and)
    assert shortest_text(both) in ("xy", "yx")
    assert shortest_text(shorter_than(2).complement()) == "aa"
    assert shortest_text(combined([somewhere("x"), without("x")], np.logical_and)) is None
