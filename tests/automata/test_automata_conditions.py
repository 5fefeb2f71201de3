"""Conditions on atoms: true of exactly the symbols they tell, and short."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltune.automata.conditions import condition
from tiltune.automata.temporal import holds, parse

pytestmark = pytest.mark.quick

ATOMS = ("a", "b", "c", "d")
SETS = st.integers(0, 4).flatmap(
    lambda count: st.lists(st.booleans(), min_size=2**count, max_size=2**count)
)


def step(symbol: int) -> set[str]:
    return {atom for place, atom in enumerate(ATOMS) if symbol >> place & 1}


@given(SETS)
def test_a_condition_is_true_of_its_symbols_and_of_no_other(members: list[bool]) -> None:
    """Read back as a formula."""
    told = condition(np.array(members), ATOMS[: len(members).bit_length() - 1])
    formula = parse({"any": "true", "none": "false"}.get(told, told))
    assert [holds(formula, [step(symbol)]) for symbol in range(len(members))] == members


@pytest.mark.parametrize(
    ("formula", "told"),
    [
        ("a", "a"),
        ("!a", "!a"),
        ("a & !b", "a & !b"),
        ("!(a & !b)", "!a | b"),
        ("a & b | a & !b & c", "a & b | a & c"),
        ("a <-> b", "a & b | !a & !b"),
        ("!(a | b | c | d)", "!a & !b & !c & !d"),
        ("!(a & b & c & d)", "!a | !b | !c | !d"),
        ("c | d & c", "c"),
        ("true", "any"),
        ("a & !a", "none"),
    ],
)
def test_terms_are_few_and_in_the_order_of_the_atoms(formula: str, told: str) -> None:
    members = [holds(parse(formula), [step(symbol)]) for symbol in range(16)]
    assert condition(np.array(members), ATOMS) == told
