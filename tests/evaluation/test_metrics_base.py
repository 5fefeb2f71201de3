"""Means and shares with intervals over prompts, against enumerated and closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metric_worlds import generated, scored
from tiltune.evaluation.metrics.base import (
    Generated,
    Quantity,
    Scores,
    bootstrap_mean,
    bootstrap_ratio,
    bootstrap_share,
    rate,
)
from tiltune.records.intervals import mean_interval, wilson_interval

pytestmark = pytest.mark.quick

QUANTITY = Quantity("a.b", "quality", "share", "higher", "What it is.")


def test_nothing_has_no_mean() -> None:
    assert bootstrap_mean([], seed=0) is None
    assert bootstrap_ratio([], [], seed=0) is None
    assert bootstrap_share([], [], seed=0) is None
    assert bootstrap_share([0, 0], [0, 0], seed=0) is None
    assert rate(0, 0) is None


def test_one_item_has_no_interval() -> None:
    assert bootstrap_mean([0.3], seed=0) == (0.3, None)


def test_the_interval_is_the_binomial_s() -> None:
    """Of 16 items, half of them 1, a resample's sum is Bin(16, 1/2).

    P(X <= 3) = .0106 and P(X <= 4) = .0384, so 2.5 % lie below 4/16, and as many above 12/16. (At
    99 % the ends are 3/16 and 13/16, at 90 % 5/16 and 11/16.)
    """
    found = bootstrap_mean([0.0, 1.0] * 8, seed=3, resamples=20_000)
    assert found == (0.5, (0.25, 0.75))


@pytest.mark.parametrize("value", [0.1, 13 / 15, 1e6 / 7])
def test_an_interval_holds_its_mean(value: float) -> None:
    """Where no item differs, too: rounding would move both ends off it."""
    found = bootstrap_mean([value] * 2500, seed=0)
    assert found and found[1]
    assert found[1][0] <= found[0] <= found[1][1]
    assert [found[0], *found[1]] == pytest.approx([value] * 3, rel=1e-12)


def test_many_items_come_near_the_normal_interval() -> None:
    values = list(np.random.default_rng(1).exponential(2.0, 400))
    found, normal = bootstrap_mean(values, seed=0, resamples=4000), mean_interval(values)
    assert found and found[1] and normal
    assert found[0] == pytest.approx(normal[0], rel=1e-12)
    assert found[1] == pytest.approx(normal[1], abs=0.03)  # of a width of 0.4


def test_the_interval_covers_the_truth() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for seed in range(300):
        found = bootstrap_mean(list(generator.normal(7.0, 2.0, 40)), seed=seed, resamples=300)
        assert found and found[1]
        covered += found[1][0] <= 7.0 <= found[1][1]
    assert 0.90 <= covered / 300 <= 0.98  # percentile intervals of 40 cover a little below 95 %


def test_many_items_are_resampled_in_parts() -> None:
    """More than are held at once: the parts are one stream of draws."""
    values = [float(value) for value in range(5000)]
    found = bootstrap_mean(values, seed=0, resamples=1000)
    assert found and found[1]
    half = 1.96 * 5000 / math.sqrt(12 * 5000)
    assert found[1] == pytest.approx((2499.5 - half, 2499.5 + half), abs=4)


def test_a_ratio_weighs_prompts_by_their_completions() -> None:
    found = bootstrap_ratio([1.0, 3.0], [1.0, 9.0], seed=0)
    assert found is not None
    assert found[0] == 0.4  # not the mean of 1 and 1/3
    assert found[1] == (pytest.approx(1 / 3), 1.0)  # both resamples of one prompt twice: 1/4 each


def test_a_share_without_spread_has_wilson_s_interval_over_prompts() -> None:
    assert bootstrap_share([0, 0, 0], [5, 5, 0], seed=0) == (0.0, wilson_interval(0, 2))
    assert bootstrap_share([5, 5, 0], [5, 5, 0], seed=0) == (1.0, wilson_interval(2, 2))
    mixed = bootstrap_share([5, 0, 0], [5, 5, 0], seed=0)
    assert mixed == (0.5, (0.0, 1.0))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_has_no_mean(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean([0.1, value], seed=0)
    with pytest.raises(ValueError, match="positive"):
        bootstrap_ratio([0.1, 0.2], [1, 0], seed=0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.randoms(), st.integers(0, 99))
def test_order_moves_nothing(values: list[float], random: object, seed: int) -> None:
    other = list(values)
    random.shuffle(other)  # type: ignore[attr-defined]
    assert bootstrap_mean(values, seed=seed) == bootstrap_mean(other, seed=seed)


def test_a_seed_decides() -> None:
    values = list(np.random.default_rng(0).normal(size=30))
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_missing_is_counted_and_left_out() -> None:
    mean = QUANTITY.mean("g", [1.0, None, 2.0], seed=0)
    assert (mean.value, mean.interval, mean.count, mean.missing) == (1.5, (1.0, 2.0), 2, 1)
    over = QUANTITY.completions_mean("g", [[1.0, None], [None], [2.0, 6.0], []], seed=0)
    assert (over.value, over.interval, over.count, over.missing) == (3.0, (1.0, 4.0), 3, 2)
    share = QUANTITY.completions_share("g", [[True, None], [None], [False, False]], seed=0)
    assert (share.value, share.count, share.missing) == (1 / 3, 3, 2)
    share_rate = QUANTITY.rate("g", 1, 4, missing=3)
    assert (share_rate.value, share_rate.count, share_rate.missing) == (0.25, 4, 3)
    assert share_rate.interval == wilson_interval(1, 4)


def test_nothing_measured_is_missing_never_zero() -> None:
    for found in (
        QUANTITY.mean("g", [None], seed=0),
        QUANTITY.completions_mean("g", [[None], []], seed=0),
        QUANTITY.completions_share("g", [[None], []], seed=0),
    ):
        assert (found.value, found.interval, found.count, found.missing) == (None, None, 0, 1)
    assert QUANTITY.rate("g", 0, 0).value is None


def test_a_quantity_describes_its_measurement() -> None:
    found = QUANTITY.of("g", (0.5, (0.4, 0.6)), count=7, missing=1)
    assert found.model_dump() == {
        "key": "a.b",
        "aspect": "quality",
        "group": "g",
        "value": 0.5,
        "interval": (0.4, 0.6),
        "unit": "share",
        "better": "higher",
        "count": 7,
        "missing": 1,
        "definition": "What it is.",
    }


def test_lists_that_are_not_parallel_are_refused() -> None:
    whole = generated([["a", "b"], ["c"]])
    with pytest.raises(ValueError, match=r"Generated\.tokens"):
        Generated("g", whole.prompts, whole.texts, [[1], [1]], whole.ended)
    with pytest.raises(ValueError, match=r"Generated\.ended"):
        Generated("g", whole.prompts, whole.texts, whole.tokens, [[True, True]])
    with pytest.raises(ValueError, match="1 prompts"):
        Generated("g", ["x"], whole.texts, whole.tokens, whole.ended)
    scores = scored([[0.1], [0.2]])
    with pytest.raises(ValueError, match=r"Scores\.satisfied"):
        Scores("s", scores.values, [[True]], scores.spans)
    with pytest.raises(ValueError, match=r"Scores\.spans"):
        Scores("s", scores.values, scores.satisfied, [[], [None, None]])
