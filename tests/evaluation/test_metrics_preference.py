"""Pairwise preference, by hand: swaps, ties, a judge that looks at the position only."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metric_worlds import by_key, generated
from tiltune.errors import ConstraintError, DataError
from tiltune.evaluation.metrics.preference import preference

pytestmark = pytest.mark.quick

NUMBERS = {"good": 0.9, "fair": 0.5, "bad": 0.2}


def by_number(prompt: str, first: str, second: str) -> float:
    """Bradley and Terry: P(first) = a / (a + b)."""
    return NUMBERS[first] / (NUMBERS[first] + NUMBERS[second])


def leaning(prompt: str, first: str, second: str) -> float:
    """The same judge with a taste for what comes first."""
    return 0.8 * by_number(prompt, first, second) + 0.2


OURS = generated([["good", "bad"], ["fair", "fair"]], group="g")
OTHERS = generated([["bad", "fair"], ["fair", "bad"]])


def test_wins_by_hand() -> None:
    found = by_key(preference(OURS, OTHERS, by_number, name="n", seed=0))
    win, mean, bias = (found[key] for key in ("win_rate", "preference_mean", "position_bias"))
    assert win.value == (1 + 0 + 0.5 + 1) / 4
    assert win.interval == (0.5, 0.75)
    assert mean.value == pytest.approx((9 / 11 + 2 / 7 + 1 / 2 + 5 / 7) / 4)
    assert bias.value == pytest.approx(0)
    assert {(each.count, each.missing, each.group) for each in found.values()} == {(4, 0, "g")}
    assert win.key == "preference.n.win_rate"


def test_the_swap_takes_the_position_s_part() -> None:
    """.8 p + .2 in both orders: u = (.8 p + .2 + 1 - .8 (1 - p) - .2) / 2 = .8 p + .1."""
    found = by_key(preference(OURS, OTHERS, leaning, name="n", seed=0))
    assert found["win_rate"].value == 0.625
    plain = (9 / 11 + 2 / 7 + 1 / 2 + 5 / 7) / 4
    assert found["preference_mean"].value == pytest.approx(0.8 * plain + 0.1)
    assert found["position_bias"].value == pytest.approx(0.1)  # (.8 + .4) / 2 - 1/2


def test_a_judge_of_positions_finds_only_ties() -> None:
    found = by_key(preference(OURS, OTHERS, lambda *_: 1.0, name="n", seed=0))
    assert [each.value for each in found.values()] == [0.5, 0.5, 0.5]


def test_pairs_without_both_answers_are_missing() -> None:
    def silent(prompt: str, first: str, second: str) -> float | None:
        return None if (first, second) == ("fair", "bad") else by_number(prompt, first, second)

    found = by_key(preference(OURS, OTHERS, silent, name="n", seed=0))
    win = found["win_rate"]
    assert (win.value, win.count, win.missing) == (0.75, 2, 2)  # good-bad, fair-fair
    nothing = preference(OURS, OTHERS, lambda *_: None, name="n", seed=0)
    assert [(each.value, each.count, each.missing) for each in nothing] == [(None, 0, 4)] * 3


def test_a_judge_sees_the_prompt_and_both_orders() -> None:
    asked: list[tuple[str, str, str]] = []

    def record(prompt: str, first: str, second: str) -> float:
        asked.append((prompt, first, second))
        return 0.5

    preference(generated([["a"]]), generated([["b"]]), record, name="n", seed=0)
    assert asked == [("prompt 0", "a", "b"), ("prompt 0", "b", "a")]


@pytest.mark.parametrize("answer", [1.1, -0.1, float("nan")])
def test_an_answer_that_is_no_probability_is_refused(answer: float) -> None:
    with pytest.raises(ConstraintError, match="the judge returned"):
        preference(OURS, OTHERS, lambda *_: answer, name="n", seed=0)


def test_a_judge_that_fails_is_named_with_what_it_was_asked() -> None:
    def broken(prompt: str, first: str, second: str) -> float:
        raise KeyError("weights")

    with pytest.raises(ConstraintError, match=r"KeyError: 'weights'.*'prompt 0'.*'good' and 'bad'"):
        preference(OURS, OTHERS, broken, name="n", seed=0)


def test_other_prompts_are_refused() -> None:
    other = replace(OTHERS, prompts=["prompt 0", "else"])
    with pytest.raises(DataError, match=r"same prompts in the same order.*difference at 1"):
        preference(OURS, other, by_number, name="n", seed=0)
    with pytest.raises(DataError, match="2 prompts against 1, the first difference at 1"):
        preference(OURS, generated([["bad", "bad"]]), by_number, name="n", seed=0)
    with pytest.raises(DataError, match="prompt 1 has 2 against 1"):
        fewer = generated([["bad", "bad"], ["bad"]])
        preference(OURS, fewer, by_number, name="n", seed=0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(NUMBERS)), st.sampled_from(sorted(NUMBERS)))),
    st.randoms(),
)
def test_sides_and_order(pairs: list[tuple[str, str]], random: object) -> None:
    """What one side wins the other loses; the order of prompts moves nothing."""

    def judged(pairs: list[tuple[str, str]], *, swapped: bool = False) -> list[object]:
        sides = [generated([[pair[side]] for pair in pairs]) for side in (0, 1)]
        ours, others = reversed(sides) if swapped else sides
        return list(preference(ours, others, leaning, name="n", seed=1))

    ours, others = judged(pairs), judged(pairs, swapped=True)
    for mine, theirs in zip(ours[:2], others[:2], strict=True):
        if pairs:
            assert mine.value + theirs.value == pytest.approx(1)  # type: ignore[attr-defined]
    random.shuffle(pairs)  # type: ignore[attr-defined]
    assert judged(pairs) == ours
