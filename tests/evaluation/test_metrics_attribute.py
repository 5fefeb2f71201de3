"""Satisfaction rate, mean score and the first violation, by hand."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from metric_worlds import Row, by_key, generated, scored, shuffled, world
from tiltune.config import ScorerSection
from tiltune.evaluation.metrics.attribute import attribute
from tiltune.evaluation.table import control
from tiltune.records.intervals import wilson_interval

pytestmark = pytest.mark.quick

SCORES = [[0.9, 0.2, None], [0.5, 0.1], [None]]
TEXTS = [["x"] * len(row) for row in SCORES]


def test_rate_and_mean_by_hand() -> None:
    found = by_key(attribute(generated(TEXTS), scored(SCORES), seed=0))
    assert list(found) == ["satisfaction_rate", "satisfaction_rate_by_prompt", "score_mean"]
    rate, by_prompt, mean = found.values()
    assert (rate.value, rate.interval) == (0.5, wilson_interval(2, 4))
    assert (by_prompt.value, by_prompt.interval) == (0.5, (0.5, 0.5))
    assert mean.value == pytest.approx(1.7 / 4)
    assert mean.interval == pytest.approx((0.3, 0.55))
    assert {(each.count, each.missing) for each in found.values()} == {(4, 2)}


def test_a_completion_a_prompt_has_one_rate() -> None:
    found = by_key(attribute(generated([["x"], ["y"]]), scored([[1.0], [0.0]]), seed=0))
    assert list(found) == ["satisfaction_rate", "score_mean"]


def test_completions_of_a_prompt_that_agree_widen_the_interval() -> None:
    """Ten prompts, 25 completions each that are all alike: ten observations, not 250."""
    rows = [[1.0] * 25] * 5 + [[0.0] * 25] * 5
    found = by_key(attribute(generated([["x"] * 25] * 10), scored(rows), seed=0))
    rate, by_prompt = found["satisfaction_rate"], found["satisfaction_rate_by_prompt"]
    assert rate.interval and by_prompt.interval
    assert by_prompt.interval == pytest.approx((0.2, 0.8))  # Bin(10, 1/2): P(X <= 1) = .0107
    assert by_prompt.interval[1] - by_prompt.interval[0] > 4 * (rate.interval[1] - rate.interval[0])


def test_first_violation_by_hand() -> None:
    """Violating: at 4, at 0, without a span; a satisfied completion's span does not count."""
    scores = replace(
        scored([[0.1, 0.9], [0.2, 0.3, None]]),
        spans=[[(4, 6), (9, 10)], [(0, 2), None, None]],
    )
    texts = generated([["x" * 20] * 2, ["x" * 20] * 3])
    found = by_key(attribute(texts, scores, seed=0))["first_violation_characters"]
    assert (found.value, found.interval) == (2.0, (0.0, 4.0))
    assert (found.count, found.missing, found.unit) == (2, 1, "characters")


def test_spans_of_a_judged_prompt_count_from_the_completion() -> None:
    """The prompt is 8 characters long; what it says itself is no place in a completion."""
    scores = replace(scored([[0.1, 0.2]]), spans=[[(11, 12), (7, 9)]])
    found = by_key(attribute(generated([["xxxx"] * 2]), scores, seed=0, prompt_judged=True))
    position = found["first_violation_characters"]
    assert (position.value, position.count, position.missing) == (3.0, 1, 1)


def test_no_violation_has_no_position() -> None:
    scores = replace(scored([[0.9]]), spans=[[(0, 1)]])
    found = by_key(attribute(generated([["x"]]), scores, seed=0))["first_violation_characters"]
    assert (found.value, found.count, found.missing) == (None, 0, 0)


def test_a_scorer_that_always_failed_measured_nothing() -> None:
    found = attribute(generated([["x", "y"]]), scored([[None, None]]), seed=0)
    assert [(each.value, each.count, each.missing) for each in found] == [(None, 0, 2)] * 3


@settings(max_examples=30, deadline=None)
@given(shuffled())
def test_order_moves_nothing(pair: tuple[list[Row], list[Row]]) -> None:
    rows, other = pair
    assert attribute(*world(rows), seed=4) == attribute(*world(other), seed=4)


def test_a_share_that_is_to_lie_between_two_others_has_no_better_end() -> None:
    word = {"kind": "lexicon", "words": ["x"], "mode": "require"}
    for table, better in ((word, "higher"), (population(word), "neither")):
        scorer = ScorerSection.model_validate({"name": "s", **table})
        found = control(generated(TEXTS), scored(SCORES), scorer, seed=0)
        assert {each.better for each in found} == {better}


def population(part: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "population", "at_least": 0.4, "at_most": 0.6, "parts": [part]}
