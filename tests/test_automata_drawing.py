"""Automata in words: what an edge is called, which states are drawn, when it is too many."""

import re

import numpy as np
import pytest

from hand_made import reader, shorter_than, somewhere, without
from tiltune.automata.drawing import MOST_STATES, describe_characters, drawn, edges, text_table
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
