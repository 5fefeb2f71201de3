from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltune.automata.dfa import DFA
from tiltune.errors import ConstraintError
from tiltune.worlds.exact import Chain, ExactTarget

pytestmark = pytest.mark.quick

ABT_CHAIN = Chain(np.array([[0.4, 0.4, 0.2], [0.6, 0.1, 0.3]]), np.array([[0, 1], [0, 1]]))
ABT_DFA = DFA(np.array([[0, 1], [2, 3], [2, 1], [3, 3]]), np.array([False, True, True, False]))
PAIRS = [(0, 0), (1, 1), (0, 2)]
"""(chain state, DFA state) of the states s0, s1, s2 of method.md, section 6."""


@pytest.fixture
def abt() -> ExactTarget:
    return ExactTarget(ABT_CHAIN, ABT_DFA)


def at_pairs(flat: np.ndarray) -> np.ndarray:
    return flat[[s * 4 + d for s, d in PAIRS]]


def all_sentences(symbols: int, longest: int) -> list[list[int]]:
    return [list(s) for n in range(longest + 1) for s in product(range(symbols), repeat=n)]


# The table of method.md, section 6.


def test_abt_values_are_the_rationals(abt: ExactTarget):
    found = [abt.values[pair] for pair in PAIRS]
    np.testing.assert_allclose(found, [5 / 9, 5 / 6, 8 / 9], rtol=0, atol=1e-12)
    assert (abt.values[:, 3] == 0).all()


def test_abt_target_is_the_table(abt: ExactTarget):
    table = [[0.4, 0.6, 0], [0.64, 0, 0.36], [0.4, 0.375, 0.225]]
    np.testing.assert_allclose(at_pairs(abt.target_probabilities), table, rtol=0, atol=1e-12)
    assert (abt.target_probabilities[[3, 7]] == 0).all()


def test_abt_divergences_are_the_table(abt: ExactTarget):
    printed = [0.243279, 0.106940, 0.002299]
    np.testing.assert_allclose(at_pairs(abt.state_kl), printed, rtol=0, atol=5e-7)
    exact = [
        0.4 * np.log(0.4 / 0.4) + 0.6 * np.log(0.6 / 0.4),
        0.64 * np.log(0.64 / 0.6) + 0.36 * np.log(0.36 / 0.3),
        0.375 * np.log(0.375 / 0.4) + 0.225 * np.log(0.225 / 0.2),
    ]
    np.testing.assert_allclose(at_pairs(abt.state_kl), exact, rtol=0, atol=1e-12)


def test_abt_visits_are_the_table(abt: ExactTarget):
    visits = at_pairs(abt.expected_visits)
    np.testing.assert_allclose(visits, [5 / 3, 5 / 3, 16 / 9], rtol=0, atol=1e-12)
    assert abt.expected_visits.sum() == pytest.approx(visits.sum(), abs=1e-12)


def test_abt_divergence_of_sentences_is_minus_log_z(abt: ExactTarget):
    assert abt.kl_target_base_nats == pytest.approx(np.log(9 / 5), abs=1e-12)
    assert abt.kl_target_base_nats == pytest.approx(0.587787, abs=5e-7)
    assert abt.expected_visits @ abt.state_kl == pytest.approx(np.log(9 / 5), abs=1e-12)


def test_abt_probability_of_bt(abt: ExactTarget):
    p, q = np.exp(abt.log_prob([[1]])), np.exp(abt.target_log_prob([[1]]))
    assert (p[0], q[0]) == (pytest.approx(0.12, abs=1e-12), pytest.approx(0.216, abs=1e-12))


def test_abt_bt_is_the_most_probable_satisfying_sentence(abt: ExactTarget):
    sentences = all_sentences(2, 8)
    assert sentences[int(abt.target_log_prob(sentences).argmax())] == [1]


def test_abt_greedy_decoding_of_the_target_never_ends(abt: ExactTarget):
    prefix: list[int] = []
    for _ in range(20):
        s, d = abt.state_of(prefix)
        prefix.append(int(abt.target_probabilities[s * 4 + d].argmax()))
    assert prefix == [1] + [0] * 19


def test_abt_along_a_sentence(abt: ExactTarget):
    np.testing.assert_allclose(
        abt.values_along([1, 0, 1, 1]), [5 / 9, 5 / 6, 8 / 9, 5 / 6, 0], atol=1e-12
    )
    np.testing.assert_allclose(abt.values_along([]), [5 / 9], atol=1e-12)
    assert [abt.state_of(prefix) for prefix in ([], [1], [1, 0], [1, 1])] == [
        (0, 0),
        (1, 1),
        (0, 2),
        (1, 3),
    ]


def test_abt_impossible_sentences_have_minus_infinity(abt: ExactTarget):
    assert abt.target_log_prob([[1, 1], [], [0]]).tolist() == [-np.inf] * 3
    never_b = ExactTarget(
        Chain(np.array([[0.5, 0.0, 0.5]]), np.array([[0, 0]])),
        DFA(np.zeros((1, 2), int), np.array([True])),
    )
    assert never_b.log_prob([[0], [1]]).tolist() == [pytest.approx(np.log(0.25)), -np.inf]


# Samples.


def _chi_square_bound(freedom: int) -> float:
    """The .999 quantile by Wilson and Hilferty's approximation."""
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + 3.0902 * spread**0.5) ** 3


@pytest.mark.parametrize("law", ["base", "target"])
def test_samples_are_drawn_from_the_law(abt: ExactTarget, law: str):
    draw, log_prob = (
        (abt.sample_base, abt.log_prob)
        if law == "base"
        else (abt.sample_target, abt.target_log_prob)
    )
    drawn = draw(20_000, np.random.default_rng(0))
    listed = [s for s in all_sentences(2, 4) if log_prob([s])[0] > -np.inf]
    probability = np.exp(log_prob(listed))
    names = [tuple(s) for s in listed]
    counts = [sum(tuple(s) == name for s in drawn) for name in names]
    rest = len(drawn) - sum(counts)
    expected = np.append(probability, 1 - probability.sum()) * len(drawn)
    statistic = (([*counts, rest] - expected) ** 2 / expected).sum()
    assert statistic < _chi_square_bound(len(expected) - 1)


def test_every_sample_of_the_target_is_accepted(abt: ExactTarget):
    assert all(ABT_DFA.accepts(s) for s in abt.sample_target(2_000, np.random.default_rng(1)))


class _ZeroFirst(np.random.Generator):
    """The lowest uniform number at first, then ordinary ones."""

    asked = False

    def random(self, size: int) -> np.ndarray:
        first, self.asked = not self.asked, True
        return np.zeros(size) if first else super().random(size)


def test_the_lowest_draw_never_picks_an_impossible_symbol():
    chain = Chain(np.array([[0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]), np.array([[0, 1], [0, 0]]))
    free = ExactTarget(chain, DFA(np.zeros((1, 2), int), np.array([True])))
    assert free.sample_base(2, _ZeroFirst(np.random.PCG64(0))) == [[1], [1]]


def test_no_sentences_in_no_sentences_out(abt: ExactTarget):
    assert abt.sample_base(0, np.random.default_rng(0)) == []
    assert abt.log_prob([]).shape == (0,)


# Any chain with any automaton.


@st.composite
def worlds(draw: st.DrawFn, *, longest: int | None = None) -> ExactTarget:
    """A random chain and DFA; with `longest`, state t is position t and no sentence is longer."""
    states = longest + 1 if longest else draw(st.integers(1, 4))
    symbols, memory = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.gamma(0.5, size=(states, symbols + 1)) * (rng.random((states, symbols + 1)) < 0.8)
    weight[:, -1] += 0.1
    successor = rng.integers(states, size=(states, symbols))
    if longest:
        weight[-1, :-1] = 0
        successor = np.minimum(np.arange(states) + 1, longest)[:, None].repeat(symbols, 1)
    chain = Chain(weight / weight.sum(1, keepdims=True), successor)
    accepting = rng.random(memory) < 0.5
    return ExactTarget(
        chain,
        DFA(rng.integers(memory, size=(memory, symbols)), accepting, int(rng.integers(memory))),
    )


def z_of(world: ExactTarget) -> float:
    return float(world.values[world.chain.start, world.dfa.start])


def possible(world: ExactTarget) -> bool:
    return bool(z_of(world) > 0)


@given(worlds(longest=5))
@settings(max_examples=60, deadline=None)
def test_values_and_target_equal_the_enumeration(world: ExactTarget):
    sentences = all_sentences(world.chain.successor.shape[1], 5)
    p = np.exp(world.log_prob(sentences))
    accepted = np.array([world.dfa.accepts(s) for s in sentences])
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert z_of(world) == pytest.approx(p @ accepted, abs=1e-12)
    if possible(world):
        q = p * accepted / (p @ accepted)
        np.testing.assert_allclose(np.exp(world.target_log_prob(sentences)), q, rtol=0, atol=1e-12)
        told = q[q > 0] @ np.log(q[q > 0] / p[q > 0])
        assert world.kl_target_base_nats == pytest.approx(told, abs=1e-12)


@given(worlds(longest=4))
@settings(max_examples=60, deadline=None)
def test_the_value_of_a_prefix_is_the_share_of_its_accepted_continuations(world: ExactTarget):
    sentences = all_sentences(world.chain.successor.shape[1], 4)
    p = np.exp(world.log_prob(sentences))
    accepted = np.array([world.dfa.accepts(s) for s in sentences])
    for prefix in all_sentences(world.chain.successor.shape[1], 2):
        below = np.array([s[: len(prefix)] == prefix for s in sentences])
        if p[below].sum() > 0:
            share = p[below] @ accepted[below] / p[below].sum()
            assert world.values_along(prefix)[-1] == pytest.approx(share, abs=1e-9)


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_bellman(world: ExactTarget):
    values, law = world.values, world.chain.probabilities
    assert ((values >= 0) & (values <= 1)).all()
    for s, d in np.ndindex(values.shape):
        after = values[world.chain.successor[s], world.dfa.transitions[d]]
        expected = law[s, :-1] @ after + law[s, -1] * world.dfa.accepting[d]
        assert values[s, d] == pytest.approx(expected, abs=1e-12)


@given(worlds())
@settings(max_examples=100, deadline=None)
def test_the_target_is_a_law_and_its_divergence_adds_up(world: ExactTarget):
    alive = world.values.ravel() > 0
    total = world.target_probabilities.sum(1)
    np.testing.assert_allclose(total, alive.astype(float), rtol=0, atol=1e-12)
    assert (world.state_kl >= -1e-12).all()
    if possible(world):
        told = world.expected_visits @ world.state_kl
        assert told == pytest.approx(world.kl_target_base_nats, abs=1e-9)


@given(worlds())
@settings(max_examples=30, deadline=None)
def test_a_constraint_that_always_holds_leaves_the_law_as_it_is(world: ExactTarget):
    free = ExactTarget(world.chain, DFA(world.dfa.transitions, np.ones_like(world.dfa.accepting)))
    np.testing.assert_allclose(free.values, 1, rtol=0, atol=1e-12)
    copies = np.repeat(world.chain.probabilities, len(world.dfa.accepting), axis=0)
    np.testing.assert_allclose(free.target_probabilities, copies, rtol=0, atol=1e-12)


# What is refused.


def test_a_constraint_that_never_holds_has_no_target():
    world = ExactTarget(ABT_CHAIN, DFA(ABT_DFA.transitions, np.zeros(4, bool)))
    assert (world.values == 0).all()
    with pytest.raises(ConstraintError, match=r"R\(start\) is 0"):
        world.sample_target(1, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("probabilities", "successor", "message"),
    [
        ([[0.5, 0.4]], [[0]], r"rows \[0\] of probabilities are no distribution"),
        ([[1.5, -0.5]], [[0]], r"rows \[0\] of probabilities are no distribution"),
        ([[0.5, 0.5]], [[1]], r"state in 0\.\.0"),
        ([[0.5, 0.5]], [[0, 0]], r"must be \[1, 3\]"),
        ([[0.5, 0.5], [1.0, 0.0]], [[1], [1]], r"from states \[1\] no sentence can end"),
        ([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], [[0, 1], [0, 0]], r"from states \[0\] no sentence"),
    ],
)
def test_a_chain_that_is_no_law_of_sentences_is_refused(
    probabilities: list[list[float]], successor: list[list[int]], message: str
):
    with pytest.raises(ValueError, match=message):
        Chain(np.array(probabilities), np.array(successor))


def test_other_symbols_than_the_chains_are_refused():
    with pytest.raises(ValueError, match="the chain has 2 symbols, the DFA 1"):
        _ = ExactTarget(ABT_CHAIN, DFA(np.array([[0]]), np.array([True]))).values
