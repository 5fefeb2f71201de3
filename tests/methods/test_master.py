"""The master against numbers known by hand, brute force and the definition of the nearest law."""

import itertools
import math
import sys

import numpy as np
import pytest

from tiltune.constraints.scores import Bound
from tiltune.errors import ConfigError
from tiltune.methods.master import (
    Infeasible,
    balanced_labels,
    nearest,
    squared_targets,
    targets_within,
)

pytestmark = pytest.mark.quick


def counted(*flags: tuple[int, str]) -> np.ndarray:
    """Rows of flags, such as (3, "10"): three that the first bound alone counts."""
    return np.array([[f == "1" for f in text] for times, text in flags for _ in range(times)])


def at_least(share: float, name: str = "a") -> Bound:
    return Bound(name, share, 1.0)


FIVE_NINTHS = counted((5, "1"), (4, "0"))


def test_one_expectation_on_the_chain() -> None:
    """E[C] >= .9 where the law has 5/9 (papers, 10.6, 1)."""
    moved = nearest(FIVE_NINTHS, [at_least(0.9)])
    assert moved.weights == pytest.approx([1.62] * 5 + [0.225] * 4)
    assert moved.multipliers[0] == pytest.approx(math.log(7.2)) == pytest.approx(1.974081)
    assert moved.kl == pytest.approx(0.285018, abs=1e-6)
    assert moved.shares[0] == pytest.approx(0.9)


def test_all_of_them_is_the_projection() -> None:
    """τ → 1 gives q ∝ p·C, whose KL is ln(9/5)."""
    moved = nearest(FIVE_NINTHS, [at_least(1.0)])
    assert moved.weights == pytest.approx([9 / 5] * 5 + [0.0] * 4)
    assert moved.kl == pytest.approx(math.log(9 / 5)) == pytest.approx(0.587787, abs=1e-6)
    near = nearest(FIVE_NINTHS, [at_least(1 - 1e-9)])
    assert near.kl == pytest.approx(moved.kl, abs=1e-6)
    none = nearest(FIVE_NINTHS, [Bound("a", 0.0, 0.0)])
    assert none.weights == pytest.approx([0.0] * 5 + [9 / 4] * 4)


def test_what_meets_the_bounds_stays() -> None:
    moved = nearest(FIVE_NINTHS, [Bound("a", 0.5, 0.6)])
    assert moved.weights.tolist() == [1.0] * 9 and moved.kl == 0 and moved.multipliers == (0.0,)
    two = nearest(counted((5, "11"), (5, "00")), [at_least(0.4), Bound("b", 0.0, 0.5)])
    assert two.weights.tolist() == [1.0] * 10


def test_a_share_above_comes_down_to_the_upper_edge() -> None:
    moved = nearest(FIVE_NINTHS, [Bound("a", 0.1, 0.3)])
    assert moved.shares[0] == pytest.approx(0.3) and moved.multipliers[0] < 0


TWO = counted((10, "11"), (20, "10"), (30, "01"), (40, "00"))


def test_several_bounds_are_the_nearest_law() -> None:
    """Against random laws that meet the bounds too: none is nearer (strict convexity: one is)."""
    bounds = [at_least(0.5, "a"), Bound("b", 0.0, 0.25)]
    moved = nearest(TWO, bounds)
    assert moved.shares == pytest.approx((0.5, 0.25), abs=1e-6)
    p = np.array([0.1, 0.2, 0.3, 0.4])
    z = moved.weights[[0, 10, 30, 60]] * p
    up, down = moved.multipliers
    assert up > 0 > down
    tilted = p * np.exp([up + down, up, down, 0.0])
    assert z == pytest.approx(tilted / tilted.sum(), abs=1e-7)
    assert moved.kl == pytest.approx(float((z * np.log(z / p)).sum()))
    generator = np.random.default_rng(0)
    for _ in range(200):
        other = generator.dirichlet(np.ones(4) * 2)
        if other[0] + other[1] >= 0.5 and other[0] + other[2] <= 0.25:
            assert (other * np.log(other / p)).sum() >= moved.kl - 1e-7


def test_a_bound_that_another_one_meets_has_no_multiplier() -> None:
    moved = nearest(TWO, [at_least(0.5, "a"), Bound("b", 0.0, 0.9)])
    alone = nearest(TWO[:, :1], [at_least(0.5, "a")])
    assert moved.multipliers[1] == pytest.approx(0, abs=1e-6)
    assert moved.weights == pytest.approx(alone.weights, abs=1e-6)


def test_independent_bounds_have_each_their_own_closed_form() -> None:
    met = counted((4, "11"), (6, "10"), (6, "01"), (9, "00"))  # .4 by .4, independent
    moved = nearest(met, [at_least(0.7, "a"), Bound("b", 0.1, 0.2)])
    one, other = (
        nearest(met[:, [0]], [at_least(0.7)]),
        nearest(met[:, [1]], [Bound("b", 0.1, 0.2)]),
    )
    assert moved.weights == pytest.approx(one.weights * other.weights, abs=1e-6)
    assert moved.kl == pytest.approx(one.kl + other.kl, abs=1e-6)


def test_three_bounds_with_one_of_all() -> None:
    met = counted((8, "110"), (8, "101"), (8, "011"), (8, "111"), (8, "000"))
    moved = nearest(met, [at_least(1.0, "a"), Bound("b", 0.6, 0.6), Bound("c", 0.5, 1.0)])
    assert moved.shares[0] == pytest.approx(1.0, abs=1e-6)
    assert moved.shares[1] == pytest.approx(0.6, abs=1e-6) and moved.shares[2] >= 0.5 - 1e-6


@pytest.mark.parametrize(
    ("met", "bound", "said"),
    [
        (counted((9, "0")), Bound("lexicon", 0.45, 0.55), "none of 9 completions of the reference"),
        (counted((9, "1")), Bound("lexicon", 0.45, 0.55), "each of 9 completions of the reference"),
    ],
)
def test_one_kind_alone_is_an_error_in_words(met: np.ndarray, bound: Bound, said: str) -> None:
    with pytest.raises(Infeasible, match=rf"{said} .*lexicon, whose share is to be 0.45 to 0.55"):
        nearest(met, [bound])


def test_bounds_that_contradict_each_other_are_named_and_no_others() -> None:
    """Whatever is counted by the first is counted by the second."""
    met = counted((5, "110"), (5, "010"), (5, "001"), (5, "000"))
    bounds = [at_least(0.6, "cats"), Bound("animals", 0.0, 0.5), Bound("suns", 0.1, 0.9)]
    with pytest.raises(Infeasible) as caught:
        nearest(met, bounds)
    said = str(caught.value)
    assert "(cats: at least 0.6 and animals: at most 0.5)" in said and "suns" not in said
    assert "nearest miss by 0.100" in said


def test_the_effective_share() -> None:
    moved = nearest(counted((1, "1"), (99, "0")), [at_least(0.5)])
    assert moved.effective_share == pytest.approx(1 / (100 * (0.25 + 0.25 / 99)))


def test_without_scipy_several_bounds_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    assert nearest(FIVE_NINTHS, [at_least(0.9)]).kl > 0  # one is solved without
    with pytest.raises(ConfigError, match=r"tiltune\[population\]"):
        nearest(TWO, [at_least(0.5), Bound("b", 0.0, 0.25)])


DATA, PREDICTED = np.array([1.0, 0.0, 3.0, 2.0]), np.array([1.5, 0.5, 2.0, 2.0])


def test_squares_where_the_predictions_are_infeasible() -> None:
    found = squared_targets(DATA, PREDICTED, alpha=2.0, mean=1.0)
    assert found == pytest.approx([0.666667, -0.333333, 2.166667, 1.5], abs=1e-6)


def test_squares_where_the_predictions_are_feasible() -> None:
    found = targets_within(DATA, PREDICTED, beta=0.1)
    assert found == pytest.approx([1.241801, 0.241801, 2.516398, 2.0], abs=1e-6)
    assert targets_within(DATA, PREDICTED, beta=9.0) == pytest.approx(DATA)  # it is near enough
    assert targets_within(DATA, DATA, beta=0.1) == pytest.approx(DATA)


def test_feasible_data_of_boundless_weight_stay() -> None:
    found = squared_targets(DATA, PREDICTED, alpha=1e12, mean=float(DATA.mean()))
    assert found == pytest.approx(DATA, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_balanced_counts_equal_brute_force(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels, most = generator.integers(0, 3, 7), (3, 2, 2)
    found = balanced_labels(labels, most)
    assert all((found == each).sum() <= bound for each, bound in enumerate(most))
    fewest = min(
        int((np.array(each) != labels).sum())
        for each in itertools.product(range(3), repeat=7)
        if all(each.count(c) <= bound for c, bound in enumerate(most))
    )
    assert int((found != labels).sum()) == fewest


def test_classes_without_room_are_told() -> None:
    with pytest.raises(Infeasible, match="3 labels do not fit into classes of at most 1, 1"):
        balanced_labels(np.array([0, 1, 1]), (1, 1))
