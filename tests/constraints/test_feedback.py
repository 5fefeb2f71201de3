"""What constraints tell the model of an answer: which can, what they say, what stays private."""

import doctest
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from conftest import ROOT
from tiltune.config import ConstraintConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion, Feedback
from tiltune.errors import ConstraintError

pytestmark = pytest.mark.quick

MBPP = ROOT.parent / "shared" / "data" / "code" / "mbpp.jsonl"
WORDS = {"kind": "lexicon", "words": ["rude"]}
LONG = {"kind": "length", "at_most": 2}
SYNTAX = {"kind": "python_syntax"}
PYTHON = {"kind": "python", "path": "told_words:score"}


def built(table: dict[str, Any]) -> TextConstraint:
    config = TypeAdapter[Any](ConstraintConfig).validate_python(table)
    constraint = build_constraint(config)
    assert config.explains == (constraint.explain is not None)  # `check` refuses by the settings
    return constraint


def told(table: dict[str, Any], *texts: str) -> list[Feedback | None]:
    return built(table).feedback([Completion("", text) for text in texts])


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "told_words.py").write_text(
        "def score(completions): return [float(c.text == 'yes') for c in completions]\n"
        "def why(c): return None if c.text == 'yes' else {'no': 'say yes'}.get(c.text, 3)\n"
        "def breaks(c): return c.nothing\n",
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("told_words", None)


def test_reasons_of_kinds_that_keep_nothing_from_the_model() -> None:
    rude = "Found: contains 'rude'. Wanted: none of 1 listed word or phrase occurs. Try again."
    long = "Found: 3 words, at most 2. Wanted: it has at most 2 words. Try again."
    assert told(WORDS, "rude", "kind") == [Feedback(rude), None]
    assert told(LONG, "a b c") == [Feedback(long)]
    found = told(SYNTAX, "x = (", "x = 1")
    assert found[0] is not None
    assert (found[0].parses, found[1]) == (False, None)
    both = told({"kind": "all", "parts": [WORDS, LONG, PYTHON_ALONE]}, "rude a b", "a", "rude")
    assert both == [
        Feedback(f"{rude}\n{long}"),
        None,
        Feedback(rude),
    ]


def test_each_kind_says_what_was_found_and_what_is_wanted() -> None:
    """A regular expression that is not found has no words of its own to tell; a part that may not
    be told is not named."""
    pattern = {"kind": "regex", "pattern": "[Yy]es"}
    wanted = "Found: no match. Wanted: the regular expression `[Yy]es` is found in it. Try again."
    assert told(pattern, "no") == [Feedback(wanted)]
    assert told({"kind": "all", "parts": [pattern, PYTHON_ALONE]}, "no") == [Feedback(wanted)]
    forbidden = told(pattern | {"mode": "forbid"}, "yes")[0]
    assert forbidden is not None
    assert forbidden.text.startswith("Found: matches 'yes'. Wanted: the regular expression")
    assert "is not found in it" in forbidden.text
    for table, text, words in (
        (WORDS | {"mode": "require"}, "a", "Wanted: each of these occurs: `rude`."),
        (
            {"kind": "temporal", "formula": "G !bad", "atoms": {"bad": ["rude"]}},
            "rude",
            "Wanted: the formula `G !bad` holds over its words, where of a word `bad`: one of",
        ),
        ({"kind": "grammar", "format": "regex", "grammar": "a+"}, "b", "Wanted: all of it matches"),
        (SYNTAX, "x = (", "Wanted: it parses as Python."),
    ):
        (said,) = told(table, text)
        assert said is not None and words in said.text and said.text.startswith("Found: "), said


PYTHON_ALONE = {"kind": "python", "path": "tiltune.worlds.by_when:score"}


def test_kinds_that_cannot_say_why() -> None:
    for table in (
        PYTHON_ALONE,
        {"kind": "not", "parts": [WORDS]},
        {"kind": "any", "parts": [LONG]},
    ):
        constraint = built(table)
        with pytest.raises(ConstraintError, match="cannot say why"):
            constraint.feedback([Completion("", "a")])


@pytest.mark.usefixtures("module")
def test_a_function_of_the_user_s() -> None:
    table = PYTHON | {"feedback": "told_words:why"}
    assert told(table, "no", "yes") == [Feedback("say yes"), None]
    with pytest.raises(ConstraintError, match=r"the feedback of .* returned 3; it must be a text"):
        told(table, "other")
    with pytest.raises(ConstraintError, match=r"AttributeError.*told_words.py, line 3"):
        told(PYTHON | {"feedback": "told_words:breaks"}, "no")
    with pytest.raises(ConstraintError, match=r"constraint.feedback 'told_words:why_': .*'why'"):
        built(PYTHON | {"feedback": "told_words:why_"})


def test_settings_that_name_no_feedback_hash_as_before() -> None:
    config = TypeAdapter[Any](ConstraintConfig).validate_python(PYTHON_ALONE)
    assert "feedback" not in json.loads(config.model_dump_json())


needs_mbpp = pytest.mark.skipif(
    not MBPP.exists(), reason="needs MBPP, which is not part of the project"
)


@needs_mbpp
def test_prompts_of_code_do_not_show_the_private_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """MBPP's own show all of them as examples of a docstring, with the values that are expected."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from code_rows import code_row

    read = doctest.DocTestParser().get_examples
    for line in MBPP.read_text("utf-8").splitlines():
        problem = json.loads(line)
        given, row = read(problem["prompt"]), code_row(problem)
        assert len(given) == 3
        (shown,) = read(row["prompt"])
        assert shown.source == given[0].source
        assert shown.want.partition('"""')[0].strip() == given[0].want.strip()
        assert row["prompt"].rstrip().endswith('"""')


@needs_mbpp
def test_public_tests_are_told_and_private_ones_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scripted policy on a problem of MBPP: nonsense, wrong, right in public alone, right."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from code_rows import code_row

    problem = json.loads(MBPP.read_text("utf-8").splitlines()[0])
    row = code_row(problem)
    assert row["public_tests"].count("assert") == 1
    asked_in_chat = code_row(problem, chat=True)
    assert row["prompt"].strip() in asked_in_chat.pop("messages")[0]["content"]
    assert asked_in_chat == {name: row[name] for name in ("public_tests", "tests")}
    assert row["tests"].count("assert") == 2
    constraint = built(
        {"kind": "execution", "public_tests_field": "public_tests", "isolation": "none"}
    )
    right = problem["prompt"] + problem["canonical_solution"]
    answers = [
        "def min_cost(",
        "def min_cost(a, b, c): return 7",
        "def min_cost(a, b, c): return 8",
    ]
    asked = [Completion(problem["prompt"], text, row=row) for text in (*answers, right)]
    said = constraint.feedback(asked)
    assert said[0] is not None and not said[0].parses
    assert said[1] is not None and said[1].parses
    assert "assert min_cost([[1, 2, 3], [4, 8, 2], [1, 5, 3]], 2, 2) == 8" in said[1].text
    for private in ("12", "16"):
        assert private not in said[1].text
    assert said[2:] == [None, None]
    assert [score.value for score in constraint.score(asked)] == [0, 0, 0, 1]
    lines = MBPP.read_text("utf-8").splitlines()
    named = next(each for each in map(json.loads, lines) if each["entry_point"] == "sum")
    whole = Completion("", named["prompt"] + named["canonical_solution"], row=code_row(named))
    assert constraint.feedback([whole]) == [None]  # though Python has a `sum` of its own
    assert constraint.score([whole])[0].value == 1
