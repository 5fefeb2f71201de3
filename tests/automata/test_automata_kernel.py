"""The counted kernel and its values against numbers by hand and the abT chain."""

import numpy as np
import pytest

from tiltune.automata.kernel import posterior_kernel, state_values

pytestmark = pytest.mark.quick

ABT = np.array(  # s0 no b yet, s1 last was b, s2 b seen and last was a, dead; then the end
    [
        [0.4, 0.4, 0.0, 0.0, 0.2],
        [0.0, 0.0, 0.6, 0.1, 0.3],
        [0.0, 0.4, 0.4, 0.0, 0.2],
        [0.0, 0.0, 0.0, 0.7, 0.3],
    ]
)
ACCEPTING = np.array([False, True, True, False])


def test_values_of_the_abt_chain_are_r() -> None:
    assert state_values(ABT, ACCEPTING) == pytest.approx([5 / 9, 5 / 6, 8 / 9, 0.0], abs=1e-12)


def test_posterior_by_hand() -> None:
    counts, edges = np.zeros((4, 5)), ABT > 0
    counts[0, [0, 1, 4]] = 4, 4, 2
    kernel = posterior_kernel(counts, edges)
    assert kernel[0, [0, 1, 4]] == pytest.approx(np.array([5, 5, 3]) / 13)
    assert kernel[1, [2, 3, 4]] == pytest.approx([1 / 3] * 3)
    assert (kernel[~edges] == 0).all()
    assert kernel.sum(1) == pytest.approx(np.ones(4))


def test_the_prior_s_weight_is_in_observations() -> None:
    counts, edges = np.zeros((4, 5)), ABT > 0
    counts[0, [0, 1, 4]] = 4, 4, 2
    assert posterior_kernel(counts, edges, weight=3)[0, 4] == pytest.approx(5 / 19)


def test_many_counts_win_over_the_prior() -> None:
    rng = np.random.default_rng(0)
    counts = np.stack([rng.multinomial(200_000, row) for row in ABT]).astype(float)
    values = state_values(posterior_kernel(counts, ABT > 0), ACCEPTING)
    assert values == pytest.approx([5 / 9, 5 / 6, 8 / 9, 0.0], abs=0.01)


def test_shaping_by_values_telescopes() -> None:
    path = [*state_values(ABT, ACCEPTING)[[0, 0, 1, 2]], 1.0]  # a, b, a, end
    steps = np.diff(path)
    assert steps == pytest.approx([0, 5 / 18, 1 / 18, 1 / 9])
    assert steps.sum() == pytest.approx(4 / 9)


def test_counts_of_another_automaton_are_refused() -> None:
    counts = np.zeros((4, 5))
    counts[0, 3] = 1
    with pytest.raises(ValueError, match="no edge"):
        posterior_kernel(counts, ABT > 0)
