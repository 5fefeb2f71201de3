"""Constraints: what they score, and that a broken one stops with its cause and never scores."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from asking import lexicon, texts

from tiltune.constraints.base import TextConstraint
from tiltune.constraints.scores import Completion, Failure, Score
from tiltune.errors import ConfigError, ConstraintError, ScorerUnavailable

pytestmark = pytest.mark.quick


def wrapped(scorer: Callable[[Sequence[Completion]], Any], **settings: Any) -> TextConstraint:
    return TextConstraint("toy constraint", scorer, **settings)


# ------------------------------------------------------------------------------------ every kind


@pytest.mark.parametrize(
    ("threshold", "value", "satisfied", "label"),
    [
        (0.5, 0.5, True, 1.0),
        (0.5, 0.49, False, 0.0),
        (0.9, 0.7, False, 0.0),
        (0.2, 0.3, True, 1.0),
        ("none", 0.5, True, 0.5),
        ("none", 0.3, False, 0.3),
    ],
)
def test_threshold_makes_labels_and_none_keeps_the_score(
    threshold: Any, value: float, satisfied: bool, label: float
) -> None:
    constraint = wrapped(lambda batch: [value], threshold=threshold)
    (score,) = constraint.score(texts("x"))
    assert constraint.satisfied(score) is satisfied
    assert constraint.label(score) == label


@pytest.mark.parametrize(
    "result",
    [
        *(math.nan, -0.01, 1.01, math.inf, 10**400),
        *(None, "0.5", [0.5], np.array([0.1, 0.2])),
        *(Score(2.0), Score(math.nan), Score("high")),  # type: ignore[arg-type]
    ],
)
def test_a_result_that_is_no_score_is_refused_with_the_offending_text(result: Any) -> None:
    constraint = wrapped(lambda batch: [0.5, result])
    with pytest.raises(ConstraintError) as caught:
        constraint.score(texts("fine", "z" * 300))
    message = str(caught.value)
    assert message.startswith("toy constraint returned ")
    assert "number in [0, 1]" in message
    assert "'" + "z" * 199 + "…" in message  # the second text, cut
    assert "fine" not in message


@pytest.mark.parametrize("result", [0, 1, True, np.float32(0.25), np.bool_(True), Score(1)])
def test_every_kind_of_number_is_taken_as_a_float(result: Any) -> None:
    (score,) = wrapped(lambda batch: [result]).score(texts("x"))
    expected = result.value if isinstance(result, Score) else float(result)
    assert (type(score.value), score.value) == (float, expected)


@pytest.mark.parametrize(
    ("returned", "found"),
    [([0.5], "1 score"), ([0.5] * 3, "3 scores"), ([], "0 scores"), (0.5, "0.5"), (None, "None")],
)
def test_too_few_or_too_many_scores_are_refused(returned: Any, found: str) -> None:
    with pytest.raises(ConstraintError, match=f"returned {found} for 2 completions.*'first'"):
        wrapped(lambda batch: returned).score(texts("first", "second"))


def test_no_completions_need_no_scorer() -> None:
    assert wrapped(lambda batch: 1 / 0).score([]) == []


@pytest.mark.parametrize("span", [(0, 4), (-1, 1), (2, 1), (0.0, 1), [0, 1], (1,)])
def test_a_span_outside_the_judged_text_is_refused(span: Any) -> None:
    with pytest.raises(ConstraintError, match="span"):
        wrapped(lambda batch: [Score(1.0, "", span)]).score(texts("abc"))


def test_spans_count_characters_of_the_judged_text() -> None:
    completion = Completion("Say damn: ", "no")
    alone = lexicon("damn").score([completion])
    (both,) = lexicon("damn", text="prompt+completion").score([completion])
    assert alone == [Score(1.0)]
    assert both == Score(0.0, "contains 'damn'", (4, 8))


def test_errors_of_this_package_pass_unchanged() -> None:
    def scorer(batch: Sequence[Completion]) -> list[float]:
        raise ConfigError("own words")

    with pytest.raises(ConfigError, match=r"^own words$"):
        wrapped(scorer).score(texts("x"))


def test_an_interrupt_is_not_an_error_of_the_scorer() -> None:
    def scorer(batch: Sequence[Completion]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wrapped(scorer).score(texts("x"))


# ------------------------------------------------------------------------- scores that are missing


def test_any_scorer_may_say_that_a_text_could_not_be_judged() -> None:
    constraint = TextConstraint("mine", lambda batch: [0.5, Failure("asleep")])
    assert constraint.score_or_missing(texts("a", "b")) == [Score(0.5), Failure("asleep")]
    with pytest.raises(ScorerUnavailable, match=r"^mine gave no score: asleep; the text: 'b'$"):
        constraint.score(texts("a", "b"))
    assert constraint.score_or_missing([]) == []


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda batch: 1 / 0, "raised ZeroDivisionError"),
        (lambda batch: [float("nan")], "returned nan"),
        (lambda batch: [None], "returned None"),
        (lambda batch: [], "0 scores for 1"),
    ],
)
def test_a_broken_scorer_is_never_missing(result: Any, message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        TextConstraint("mine", result).score_or_missing(texts("a"))
