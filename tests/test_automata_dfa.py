import numpy as np
import pytest

from tiltune.automata.dfa import DFA

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
