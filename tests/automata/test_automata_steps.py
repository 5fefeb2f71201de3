"""Steps of a text: what the definition says, and that splitter and machine find the same ones."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltune.automata.dfa import DFA
from tiltune.automata.sentences import NEVER, NUMBERED, PERHAPS, is_word
from tiltune.automata.steps import Step, split, step_machine
from tiltune.automata.stepwise import stepwise


def steps(text: str, step: Step) -> list[str]:
    return [text[start:end] for start, end in split(text, step)]


SENTENCES = [
    ["Dr. Smith is 3.5 years old.", "He lives in the U.S. now."],
    ["J. R. R. Tolkien met Mrs. Lee vs. Prof. St. John.", "So it was."],
    ["'Dr. No' is a film.", "It's Bob's.", "So is X's.", "Yes."],
    ["See e.g. London, i.e. the city, at 5 p.m. today.", "Yes."],
    [
        "Apples, pears, etc. and so on.",
        "Pears, etc.",
        "Then more from Lee et al. 2019.",
        "Foo Inc.",
    ],
    ["No. 5 is best.", "No.", "No. 7?!", "No!"],
    ["Wait... what?", "Wait…", "What.. is it…"],
    ['"Go!" he said.', "(So it was.)", "[He left.] then “why?”", "‘Who?’"],
    ["1. Foo.", "2. Bar.", "3.1. It was 1990.", "4.) We left."],
    ["1. Foo\n2.", "Bar\n3.", "Baz"],  # a number ends what has no stop, so that items are counted
    ["Mail a.b@c.de or see http://x.org/a.b?c=d.e!f today.", "Or foo.com.", "Yes."],
    ["**Bold.**", "_Really?_", "`x = 1.`"],
    ["i like it.", "it is good.", "solve for x.", "then y."],
    ["नमस्ते।", "कैसे?", "А. С. Пушкин и т.е. он.", "Да."],
]


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
            ["He said 'Go!'", "Then?!) she\nleft…"],  # small letters go on after closers
        ),
        ("sentence", "Version 1.2 is out. e.g.this", ["Version 1.2 is out.", "e.g.this"]),
        ("sentence", "no end  ", ["no end  "]),
        ("sentence", '"Really?". . )x', ['"Really?".', ".", ")x"]),
        ("sentence", "(.)a.) b", ["(.)a.) b"]),
        ("sentence", ") b a) c.", [") b a) c."]),  # closers close nothing before a stop
        *(("sentence", " ".join(found), found) for found in SENTENCES),
        ("sentence", "今天下雨。我们走吧！？好", ["今天下雨。", "我们走吧！？", "好"]),
        ("sentence", "「行け！」と言った。（略） 次", ["「行け！」と言った。", "（略） 次"]),
        ("sentence", "Mr.  ", ["Mr.  "]),  # what is left
        ("sentence", "etc.  ", ["etc."]),
    ],
)
def test_steps_are_those_of_the_definition(step: Step, text: str, expected: list[str]) -> None:
    assert steps(text, step) == expected
    assert step_machine(step).spans(text) == split(text, step)


PIECES = st.sampled_from(
    [
        *"ab \n\t\r\u2028.!…\")'(15Aéß中。」*",
        *NEVER,
        *PERHAPS,
        *NUMBERED,
        "U.S.",
        " ",
        " ",
        ". ",
        "x.y",
    ]
)
TEXTS = st.lists(PIECES, max_size=25).map("".join) | st.text()


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(["word", "line", "sentence"]), TEXTS)
def test_the_machine_finds_the_steps_of_the_splitter(step: Step, text: str) -> None:
    assert step_machine(step).spans(text) == split(text, step)


def test_every_character_is_of_its_kind_in_both() -> None:
    """What sentences look at in a character, the machine's symbols tell apart."""
    classes, kinds = step_machine("sentence").classes, dict[int, set[Any]]()
    for point in range(0x110000):
        character = chr(point)
        case = (character.islower(), character.isupper()) if is_word(character) else None
        kinds.setdefault(int(classes[point]), set()).add((character.isspace(), case))
    assert all(len(told) == 1 for told in kinds.values())


@pytest.mark.parametrize("step", ["word", "line", "sentence"])
def test_long_texts_are_split_in_linear_time(step: Step) -> None:
    hard = ("A. ", "1", "1.", "'", "'.", "Dr. 。", "a", "etc.\n", ". . ", "x.) ", "\u0301")
    for text in (" " * 200_000, "." + ")" * 200_000 + "x", "\n " * 100_000, ".x" * 100_000):
        split(text, step)
    for piece in hard:
        split(piece * 50_000, step)


def test_the_machine_of_sentences_is_small() -> None:
    """Bounds on sentences multiply it: 50 states for each that is counted, two at the end."""
    within = np.array([True, True, True, False])
    counter = DFA(np.array([[1], [2], [3], [3]]), within)
    assert len(stepwise(step_machine("sentence"), [], counter).minimised().dfa.accepting) == 102
