"""Steps of a text: what the definition says, and that splitter and machine find the same ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltune.automata.steps import Step, split, step_machine


def steps(text: str, step: Step) -> list[str]:
    return [text[start:end] for start, end in split(text, step)]


@pytest.mark.parametrize(
    ("step", "text", "expected"),
    [
        ("word", "", []),
        ("word", " \n\t ", []),
        ("word", "you idiot, bye", ["you", "idiot,", "bye"]),
        ("word", "\u00a0a\u2003b\x1fc ", ["a", "b", "c"]),  # white space of every kind
        ("word", "a\u200bb", ["a\u200bb"]),  # a zero-width space is none
        ("line", "", []),
        ("line", "one\n\n  \n two \nthree", ["one", " two ", "three"]),
        ("line", "one\r\ntwo\u2028three", ["one\r", "two\u2028three"]),  # only line feeds part
        ("sentence", "", []),
        ("sentence", "  \n", []),
        ("sentence", "One. Two", ["One.", "Two"]),
        (
            "sentence",
            "  He said 'Go!'  Then?!) she\nleft… ",
            ["He said 'Go!'", "Then?!)", "she\nleft…"],
        ),
        ("sentence", "Version 1.2 is out. e.g.this", ["Version 1.2 is out.", "e.g.this"]),
        ("sentence", "no end  ", ["no end  "]),
        ("sentence", '"Really?". . )x', ['"Really?".', ".", ")x"]),
        ("sentence", "(.)a.) b", ["(.)a.)", "b"]),
        ("sentence", ") b a) c.", [") b a) c."]),  # closers close nothing before a stop
    ],
)
def test_steps_are_those_of_the_definition(step: Step, text: str, expected: list[str]) -> None:
    assert steps(text, step) == expected
    assert step_machine(step).spans(text) == split(text, step)


CHARACTERS = st.sampled_from(
    ["a", "b", " ", "\n", "\t", "\r", "\u2028", ".", "!", "…", '"', ")", "'", "("]
)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(["word", "line", "sentence"]), st.text(CHARACTERS) | st.text())
def test_the_machine_finds_the_steps_of_the_splitter(step: Step, text: str) -> None:
    assert step_machine(step).spans(text) == split(text, step)


@pytest.mark.parametrize("step", ["word", "line", "sentence"])
def test_long_texts_are_split_in_linear_time(step: Step) -> None:
    for text in (" " * 200_000, "." + ")" * 200_000 + "x", "\n " * 100_000, ".x" * 100_000):
        split(text, step)
