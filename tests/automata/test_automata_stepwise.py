"""Step by step and character by character: the composed automaton against judging the steps."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltune.automata import stepwise as module
from tiltune.automata.dfa import DFA
from tiltune.automata.nfa import NoAutomaton
from tiltune.automata.regex import regex_automaton
from tiltune.automata.steps import Step, split, step_machine
from tiltune.automata.stepwise import stepwise
from tiltune.automata.temporal import formula_dfa, holds, parse
from tiltune.automata.text import TextAutomaton

pytestmark = pytest.mark.quick

PATTERNS = {"a": r"(?<!\w)a(?!\w)", "b": r"b\b", "c": r"^c|[c.]$"}
FORMULAS = [
    *("a", "!a", "true", "G(a -> F b)", "F a & G !c", "a U b", "b R a", "a W b", "X X c"),
    *("WX a", "G(a -> X(b | WX c))", "F true", "F(a & b)", "G(a <-> !b)", "(a & F c) | X X b"),
]
CASES = [(step, text) for step in ("word", "line", "sentence") for text in FORMULAS]


def automaton(step: Step, written: str) -> TextAutomaton:
    atoms = [regex_automaton(PATTERNS[name]) for name in "abc"]
    return stepwise(step_machine(step), atoms, formula_dfa(parse(written), "abc"))


AUTOMATA = {case: automaton(*case) for case in CASES}
SMALLEST = {case: found.minimised() for case, found in AUTOMATA.items()}


def judged(step: Step, written: str, text: str) -> bool:
    steps = [text[start:end] for start, end in split(text, step)]
    trace = [{name for name, p in PATTERNS.items() if re.search(p, each)} for each in steps]
    return holds(parse(written), trace)


PIECES = st.sampled_from([*"aabbcc  \n.!'x5A。", ". ", "Dr. ", "etc. ", "No. "])


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join))
def test_the_automaton_of_characters_agrees_with_judging_the_steps(text: str) -> None:
    for step, written in CASES:
        told = judged(step, written, text)
        assert AUTOMATA[step, written].accepts(text) == told, (step, written)
        assert SMALLEST[step, written].accepts(text) == told, (step, written)


def test_texts_written_by_hand() -> None:
    texts = (
        "",
        " ",
        "a",
        "b a",
        "a b",
        "a. b! cc",
        "a\nb\n\ncc",
        "aa a.b c. b",
        "cc a\nb. a",
        "a a a",
    )
    for text in texts:
        for step, written in CASES:
            assert AUTOMATA[step, written].accepts(text) == judged(step, written, text), (
                text,
                written,
            )


def test_a_count_of_steps_needs_no_atoms() -> None:
    two = DFA(np.array([[1], [2], [3], [3]]), np.array([False, False, True, False]))
    counted = stepwise(step_machine("word"), [], two)
    texts = ("", "a", "a b", " a  b ", "a b c")
    assert [counted.accepts(text) for text in texts] == [False, False, True, True, False]


def test_automata_may_start_in_any_state() -> None:
    classes = np.zeros(0x110000, dtype=np.uint16)
    classes[ord("a")] = 1
    has_a = TextAutomaton(classes, DFA(np.array([[0, 0], [1, 0]]), np.array([True, False]), 1))
    never = DFA(np.array([[0, 0], [1, 0]]), np.array([False, True]), 1)  # no step with an `a`
    found = stepwise(step_machine("word"), [has_a], never)
    assert [found.accepts(text) for text in ("", "b", "a", "b ba", "b c")] == [
        *(True, True, False, False, True)
    ]


def test_a_decided_text_is_one_state_whatever_is_read() -> None:
    found = automaton("sentence", "G !a")
    assert found.run("a. ") == found.run("a. cc") == found.run("b a! x. ")
    assert found.run("b. ") != found.run("b. cc")


def test_too_many_states_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STATES", 5)
    with pytest.raises(NoAutomaton, match="more than 5 states"):
        automaton("word", "G(a -> F b)")
