"""Bounds on length: counts, reasons, spans, the counting automaton, and what is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltune.automata.lift import lift
from tiltune.automata.tokens import TokenTable, Vocabulary
from tiltune.config import LengthConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.length import LONGEST
from tiltune.constraints.scores import Completion, Score
from tiltune.errors import ConstraintError

pytestmark = pytest.mark.quick


def length(unit: str, **settings: Any) -> TextConstraint:
    return build_constraint(LengthConfig(kind="length", unit=unit, **settings))


@pytest.mark.parametrize(
    ("unit", "bounds", "text", "expected"),
    [
        ("words", {"at_most": 2}, "one two", Score(1.0, "2 words")),
        (
            "words",
            {"at_most": 2},
            " one two  three four ",
            Score(0.0, "4 words, at most 2", (10, 21)),
        ),
        ("words", {"at_least": 2}, "one two", Score(1.0, "2 words")),
        ("words", {"at_least": 2}, "one", Score(0.0, "1 word, at least 2")),
        ("words", {"at_most": 0}, "", Score(1.0, "0 words")),
        ("words", {"at_least": 1, "at_most": 1}, "a b", Score(0.0, "2 words, at most 1", (2, 3))),
        ("characters", {"at_most": 3}, "añ😀", Score(1.0, "3 characters")),
        ("characters", {"at_most": 3}, "abcde", Score(0.0, "5 characters, at most 3", (3, 5))),
        ("lines", {"at_least": 3}, "a\n\nb", Score(0.0, "2 lines, at least 3")),
        (
            "sentences",
            {"at_most": 1},
            "Go 1.5 km. Stop",
            Score(0.0, "2 sentences, at most 1", (11, 15)),
        ),
        (
            "sentences",
            {"at_most": 2},
            "Dr. Smith is 3.5 years old. He lives in the U.S. now.",
            Score(1.0, "2 sentences"),
        ),
    ],
)
def test_counts_reasons_and_spans(unit: str, bounds: Any, text: str, expected: Score) -> None:
    assert length(unit, **bounds).score([Completion("", text)]) == [expected]


BOUNDS = [
    {"at_least": 2},
    {"at_most": 2},
    {"at_least": 1, "at_most": 3},
    {"at_most": 0},
    {"at_least": 0},
]
LONGER = (". ", "Dr", " Mr.", "etc", ".. ", "S. ", "! A", "。", " 1.", "。中", " no", "No. 5")
WHOLE = Vocabulary((*(bytes([each]) for each in range(256)), *(each.encode() for each in LONGER)))


@pytest.fixture(scope="module")
def tables() -> list[tuple[TextConstraint, TokenTable]]:
    made = [length("sentences", at_most=2), length("sentences", at_least=1, at_most=1)]
    return [(each, lift(rule.automaton, WHOLE)) for each in made if (rule := each.rule())]


CASES = [length(u, **b) for u in ("characters", "words", "lines", "sentences") for b in BOUNDS]


PIECES = st.sampled_from([*"abA5 .!\n。)", "Dr. ", "etc. ", "No. ", "U.S. "])


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_the_rule_accepts_what_satisfies(text: str) -> None:
    for constraint in CASES:
        rule, (score,) = constraint.rule(), constraint.score([Completion("", text)])
        assert rule is not None and rule.complete
        assert rule.automaton.accepts(text) == (score.value == 1.0), constraint.name


def test_many_sentences_are_judged_but_not_counted_exactly() -> None:
    assert length("sentences", at_most=31).rule() is not None
    many = length("sentences", at_most=32)  # whose automaton would take minutes over a vocabulary
    assert many.rule() is None
    assert many.score([Completion("", "So it is. " * 33)])[0].value == 0.0
    assert length("words", at_most=32).rule() is not None


def test_a_text_over_the_bound_is_a_dead_end_at_once() -> None:
    rule = length("words", at_most=2).rule()
    assert rule is not None
    dead = rule.automaton.dfa.dead
    assert [
        bool(dead[rule.automaton.run(text)]) for text in ("", "a b", "a b ", "a b c", "a b c ")
    ] == [*(False, False, False, True, True)]


def test_a_bound_too_high_to_count_to_has_no_rule() -> None:
    constraint = length("characters", at_most=LONGEST)
    assert constraint.rule() is None
    assert constraint.score([Completion("", "abc")]) == [Score(1.0, "3 characters")]
    assert length("characters", at_most=LONGEST - 1).rule() is not None


def test_no_bound_and_bounds_that_cross_are_refused() -> None:
    with pytest.raises(ConstraintError, match="set `at_least`, `at_most` or both"):
        length("words")
    with pytest.raises(ConstraintError, match="at_least: 5 is above `at_most` = 4"):
        length("words", at_least=5, at_most=4)


@settings(max_examples=50, deadline=None)
@given(st.lists(PIECES, max_size=8).map("".join), st.lists(st.integers(0, 400), max_size=8))
def test_tokens_lead_where_the_text_is_judged(
    tables: list[tuple[TextConstraint, TokenTable]], text: str, places: list[int]
) -> None:
    """The sentences of a text are counted alike however it is cut into tokens."""
    constraint, table = tables[len(text) % 2]
    ids = list(text.encode())
    for place in places:  # and with tokens that hold more than a character
        ids.insert(place % (len(ids) + 1), 256 + place % len(LONGER))
    state = table.start
    for token in ids:
        state = table.step(state, token)
    (score,) = constraint.score([Completion("", WHOLE.decode(ids))])
    assert bool(table.accepting[state]) == (score.value == 1.0)
