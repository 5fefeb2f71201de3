"""Automata in words: what an edge is called, which states are drawn, when it is too many."""

import re

import numpy as np
import pytest

from hand_made import reader, shorter_than, somewhere, without
from tiltune.automata.drawing import (
    MOST_EDGES,
    MOST_STATES,
    OTHERWISE,
    describe_characters,
    drawn,
    edges,
    step_edges,
    table,
    text_table,
)
from tiltune.automata.temporal import formula_dfa, parse
from tiltune.automata.text import CODEPOINTS


def members(pattern: str) -> np.ndarray:
    expression = re.compile(pattern, re.DOTALL)
    return np.array([bool(expression.fullmatch(chr(point))) for point in range(CODEPOINTS)])


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (".", "any"),
        ("a", "a"),
        (" ", "space"),
        ("\n", "line break"),
        ("[Rr]", "[Rr]"),
        ("[0-9]", "[0-9]"),
        ("[0-9.]", "[.0-9]"),
        ("[^a]", "not a"),
        (r"\d", "digit"),
        (r"\w", "word character"),
        (r"\s", "white space"),
        (r"[\s.]", "white space or ."),
        (r"[^\s.]", "not (white space or .)"),
        (r"[^\W\d]", "other word character"),
        (r"[bdfhjlnprtv]", "other word character"),
    ],
)
def test_characters_are_called_by_name_or_spelt(pattern: str, told: str) -> None:
    assert describe_characters(members(pattern)) == told


def test_each_edge_stands_once_and_the_widest_takes_what_is_left() -> None:
    rude = reader(["rR", "s"], [[1, 0, 0], [1, 0, 1]], [0])
    assert edges(rude) == [(0, 1, "[Rr]"), (0, 0, "any other"), (1, 0, "s"), (1, 1, "any other")]


def test_a_class_without_characters_is_no_edge() -> None:
    """The letter class is empty: all its characters belong to the class before it."""
    empty = reader(["a", ""], [[0, 1, 0], [1, 1, 1]], [0])
    assert edges(empty)[0] == (0, 0, "any")


def test_a_drawing_tells_where_a_text_may_end_and_where_all_is_lost() -> None:
    picture = drawn(without("b"))
    assert (picture.states, picture.classes, picture.start) == (2, 2, 0)
    assert picture.accepting == (0,) and picture.dead == (1,)
    table = text_table(without("b")).splitlines()
    assert table[0].split() == ["→", "0", "satisfied", "b", "→", "1;", "any", "other:", "stays"]
    assert table[1].split() == ["1", "dead", "any:", "stays"]
    assert text_table(somewhere("b")).splitlines()[1].split()[1] == "certain"


def test_many_states_are_counted_and_not_drawn() -> None:
    fits, large = shorter_than(MOST_STATES - 1), shorter_than(MOST_STATES)
    assert drawn(fits).edges and len(text_table(fits).splitlines()) == MOST_STATES
    assert drawn(large).edges == () and drawn(large).states == MOST_STATES + 1
    assert f"{MOST_STATES + 1} states, too many" in text_table(large)


def steps_of(text: str) -> tuple[list[tuple[int, int, str]] | None, str]:
    """Edges and table of a formula's automaton."""
    formula = parse(text)
    dfa = formula_dfa(formula, formula.atoms())
    found = step_edges(dfa, formula.atoms())
    return found, table(dfa, found or [])


def test_letters_that_share_an_edge_are_one_condition() -> None:
    found, told = steps_of("G(rude -> F apology)")
    assert found == [
        (0, 0, "!rude | apology"),
        (0, 1, "rude & !apology"),
        (1, 0, "apology"),
        (1, 1, "!apology"),
    ]
    assert told.splitlines() == [
        "→  0  satisfied  rude & !apology → 1; !rude | apology: stays",
        "   1  open       apology → 0; !apology: stays",
    ]


def test_a_long_condition_is_what_is_left() -> None:
    names = [f"a_long_name_{number}" for number in range(4)]
    found, _ = steps_of(f"G({' & '.join(names)})")
    assert found is not None
    assert [(source, target) for source, target, _ in found] == [(0, 0), (0, 1), (1, 1)]
    assert [label for _, _, label in found] == [" & ".join(names), OTHERWISE, "any"]


def test_steps_with_too_many_edges_or_states_are_not_drawn() -> None:
    three, four = (" & ".join(f"F a{k}" for k in range(count)) for count in (3, 4))
    found, _ = steps_of(three)
    assert found is not None and len(found) == 27 <= MOST_EDGES
    assert steps_of(four)[0] is None  # 16 states, 81 edges
    assert steps_of("G(a <-> b <-> c <-> d)")[0] is not None
    assert steps_of("G(a <-> b <-> c <-> d <-> e)")[0] is None  # 16 cases
    assert steps_of(f"G({' <-> '.join('abcdefghij')})")[0] is None  # 512, in little time
    assert steps_of("X " * MOST_STATES + "a")[0] is None
    assert steps_of("X " * (MOST_STATES - 3) + "a")[0] is not None
