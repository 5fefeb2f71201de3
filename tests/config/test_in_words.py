"""Every kind of constraint has its sentence, and none tells what is nobody's business."""

from typing import Any

import pytest

from tiltune.config.in_words import code, in_words
from tiltune.constraints.build import BUILDERS

BAD = {"kind": "lexicon", "words": ["bad", "worse"]}
CASES: list[tuple[dict[str, Any], str]] = [
    (BAD, "none of 2 listed words or phrases occurs"),
    (
        {"kind": "lexicon", "file": "/home/me/bad.txt"},
        "none of the words and phrases in `bad.txt` occurs",
    ),
    (
        {"kind": "lexicon", "words": ["a", ["run", "ran"]], "mode": "require"},
        "each of these occurs: `a`, `run` or `ran`",
    ),
    ({"kind": "regex", "pattern": "a|`b"}, "the regular expression ``a|`b`` is found in it"),
    (
        {"kind": "regex", "pattern": "x", "mode": "forbid", "text": "prompt+completion"},
        "the regular expression `x` is not found in it, the prompt included",
    ),
    (
        {"kind": "classifier", "path": "/m/judge", "label": "toxic"},
        "1 - P(`toxic`) by the classifier `judge` is 0.5 or more",
    ),
    (
        {
            "kind": "classifier",
            "path": "judge",
            "label": "kind",
            "mode": "require",
            "threshold": 0.9,
        },
        "P(`kind`) by the classifier `judge` is 0.9 or more",
    ),
    (
        {"kind": "python", "path": "toy:score", "threshold": "none"},
        "the score of the function `toy:score` is as high as can be",
    ),
    ({"kind": "profanity"}, "1 - P(profane) by alt-profanity-check is 0.5 or more"),
    (
        {"kind": "http", "url": "https://me:KEY@judge.example/v1?key=KEY", "headers": {"k": "KEY"}},
        "1 - number of the scoring service at `judge.example` is 0.5 or more",
    ),
    (
        {"kind": "length", "unit": "sentences", "at_least": 2, "at_most": 3},
        "it has at least 2 and at most 3 sentences",
    ),
    (
        {"kind": "temporal", "formula": "G !a", "atoms": {"a": ["x", "y"], "b": "z+"}},
        "the formula `G !a` holds over its words, where of a word `a`: one of 2 listed words "
        "occurs; `b`: `z+` is found in it",
    ),
    ({"kind": "grammar", "format": "json_schema"}, "it is JSON that meets the schema"),
    ({"kind": "python_syntax"}, "it parses as Python"),
    ({"kind": "execution"}, "it is Python code that passes the tests of its row, in a sandbox"),
    (
        {"kind": "all", "parts": [BAD, {"kind": "length", "at_most": 9}]},
        "all of this holds: (1) none of 2 listed words or phrases occurs; (2) it has at most 9 "
        "words",
    ),
    (
        {"kind": "any", "parts": [BAD, {"kind": "python_syntax"}]},
        "one of these holds at least: (1) none of 2 listed words or phrases occurs; (2) it parses "
        "as Python",
    ),
    (
        {"kind": "not", "parts": [BAD]},
        "this does not hold: none of 2 listed words or phrases occurs",
    ),
    (
        {"kind": "mean", "parts": [BAD, {"kind": "python_syntax"}], "weights": [2, 1]},
        "the mean (weights [2, 1]) of what holds is 0.5 or more: (1) none of 2 listed words or "
        "phrases occurs; (2) it parses as Python",
    ),
    (
        {"kind": "population", "at_most": 0.25, "parts": [{"kind": "python_syntax"}]},
        "of at most 0.25 of all completions this holds: it parses as Python",
    ),
]


@pytest.mark.parametrize(("table", "sentence"), CASES, ids=lambda each: str(each)[:40])
def test_the_sentence(table: dict[str, Any], sentence: str) -> None:
    assert in_words(table) == sentence


def test_no_kind_is_without_one() -> None:
    assert {table["kind"] for table, _ in CASES} == set(BUILDERS)
    assert in_words({"kind": "new"}) == "a constraint of kind `new` is met"


@pytest.mark.parametrize(
    ("text", "span"), [("a", "`a`"), ("`", "`` ` ``"), ("a``b\nc", "```a``b c```")]
)
def test_code_spans(text: str, span: str) -> None:
    assert code(text) == span
