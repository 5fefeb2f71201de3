import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltune.automata.dfa import DFA, product, walk

pytestmark = pytest.mark.quick

NEVER_BB = DFA(np.array([[0, 1], [2, 3], [2, 1], [3, 3]]), np.array([False, True, True, False]))
"""At least one b (symbol 1) and never bb: method.md, section 6."""


def says(sentence: list[int]) -> bool:
    text = "".join("ab"[symbol] for symbol in sentence)
    return "b" in text and "bb" not in text


def test_a_sentence_is_accepted_exactly_if_it_meets_the_constraint():
    sentences = [
        [(n >> i) & 1 for i in range(length)] for length in range(9) for n in range(2**length)
    ]
    assert [NEVER_BB.accepts(s) for s in sentences] == [says(s) for s in sentences]


def test_run_starts_at_the_start_state():
    assert NEVER_BB.run([]) == 0
    assert NEVER_BB.run([1, 0]) == 2
    assert DFA(NEVER_BB.transitions, NEVER_BB.accepting, start=1).run([1]) == 3


@pytest.mark.parametrize(
    ("transitions", "start", "message"),
    [
        (np.array([[0, 1], [1, 2]]), 0, r"state in 0\.\.1"),
        (np.array([[0, 1], [1, -1]]), 0, r"state in 0\.\.1"),
        (np.array([[0, 1], [1, 1]]), 2, r"state in 0\.\.1"),
        (np.array([[0, 1], [1, 1], [0, 0]]), 0, r"must be \[2, V\]"),
    ],
)
def test_an_automaton_that_leads_nowhere_is_refused(
    transitions: np.ndarray, start: int, message: str
):
    with pytest.raises(ValueError, match=message):
        DFA(transitions, np.array([True, False]), start)


def by_plain_refinement(dfa: DFA) -> int:
    """The number of classes of reachable states, by refining until nothing changes."""
    met = walk(dfa.start, lambda state: dfa.transitions[state].tolist())
    classes = {state: int(dfa.accepting[state]) for state in met}
    while True:
        rows = {s: (classes[s], *(classes[n] for n in dfa.transitions[s].tolist())) for s in met}
        number = {row: place for place, row in enumerate(dict.fromkeys(rows.values()))}
        if len(number) == len(set(classes.values())):
            return len(number)
        classes = {state: number[row] for state, row in rows.items()}


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_minimised_says_the_same_with_the_fewest_states(
    states: int, symbols: int, seed: int, share: float
) -> None:
    draws = np.random.default_rng(seed)
    near = np.arange(states)[:, None] + draws.integers(0, 4, (states, symbols))  # long chains, too
    anywhere = draws.integers(0, states, (states, symbols))
    transitions = np.where(draws.random((states, symbols)) < share, near % states, anywhere)
    dfa = DFA(transitions, draws.random(states) < 0.3)
    small = dfa.minimised()
    assert len(small.accepting) == by_plain_refinement(dfa)
    assert product(dfa, small, np.not_equal).never
