"""Grammars: the whole text or nothing, with the place in characters and what was expected there."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tiltune.config import GrammarConfig
from tiltune.constraints import grammar
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion, Score
from tiltune.errors import ConstraintError

needs_llguidance = pytest.mark.skipif(
    not importlib.util.find_spec("llguidance"),
    reason="llguidance is not installed",
)

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"a": {"type": "integer", "maximum": 5}, "n": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
)
BALANCED = 'start: "(" start ")" | "x"'


def built(format: Any, source: str, **settings: Any) -> TextConstraint:
    return build_constraint(
        GrammarConfig(kind="grammar", format=format, grammar=source, **settings)
    )


def judged(format: Any, source: str, text: str) -> Score:
    return built(format, source).score([Completion("", text)])[0]


@needs_llguidance
@pytest.mark.parametrize(
    ("format", "source", "text"),
    [
        ("json_schema", SCHEMA, '{"a":3}'),
        ("json_schema", SCHEMA, ' {"a" :\n3, "n": "é€😀"}\n'),
        ("regex", "[é€]+x?", "é€é"),
        ("regex", "a*", ""),
        ("regex", "<end>", "<end>"),
        ("lark", BALANCED, "((x))"),
        ("lark", BALANCED, "(" * 3000 + "x" + ")" * 3000),
    ],
)
def test_a_sentence_of_the_grammar_scores_1(format: str, source: str, text: str) -> None:
    assert judged(format, source, text) == Score(1.0)


@needs_llguidance
@pytest.mark.parametrize(
    ("format", "source", "text", "span", "said"),
    [
        ("json_schema", SCHEMA, '{"a":3}x', (7, 8), "found 'x', expected the end"),
        ("json_schema", SCHEMA, '{"a":', (5, 5), "ends too early: expected "),
        ("json_schema", SCHEMA, '{"a":3,"n":"\ud83d', (12, 13), "character 12"),
        ("regex", "[é€]+", "éåé", (1, 2), "found 'å', expected the end or a letter beyond ASCII"),
        ("regex", "[é€]+x", "é", (1, 1), "ends too early: expected 'x' or a letter beyond ASCII"),
        ("regex", "ab", " ab", (0, 1), "character 0: found ' ', expected 'ab'"),
        ("regex", "ab", "ab ", (2, 3), "expected the end"),
        ("regex", "a+", "", (0, 0), "ends too early: expected 'a'"),
        ("lark", BALANCED, "((x)", (4, 4), "ends too early: expected ')'"),
        ("lark", BALANCED, "(x))", (3, 4), "found ')', expected the end"),
    ],
)
def test_what_is_no_sentence_names_place_and_expectation(
    format: str, source: str, text: str, span: tuple[int, int], said: str
) -> None:
    score = judged(format, source, text)
    assert (score.value, score.span) == (0.0, span)
    assert said in score.reason and score.feedback == score.reason


@needs_llguidance
def test_texts_do_not_depend_on_one_another() -> None:
    scores = built("regex", "ab").score([Completion("", text) for text in ("a", "ab", "x", "ab")])
    assert [score.value for score in scores] == [0, 1, 0, 1]


@needs_llguidance
@pytest.mark.parametrize(
    ("format", "source", "said"),
    [
        ("json_schema", '{"type": "foo"}', r"is no JSON Schema: \$\.type: 'foo' is not valid"),
        ("json_schema", '{"type": ', "not JSON: Expecting value: line 1 column 10"),
        ("json_schema", "[" * 100_000, "not JSON"),
        ("regex", "(", "unclosed group"),
        ("regex", "(?=a)b", "look-around"),
        ("lark", 'start: "a" foo', r"1\(8\): unknown name: \"foo\""),
        ("lark", 'foo: "a"', "no start rule"),
    ],
)
def test_a_grammar_that_does_not_compile_is_refused_at_once(
    format: str, source: str, said: str
) -> None:
    with pytest.raises(ConstraintError, match=f"(?s)^constraint.grammar.*{said}"):
        built(format, source)


@needs_llguidance
def test_the_grammar_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "g.lark"
    path.write_text(BALANCED, "utf-8")
    config = GrammarConfig(kind="grammar", format="lark", file=str(path))
    assert build_constraint(config).score([Completion("", "(x)")]) == [Score(1.0)]
    path.write_text("start: /(/", "utf-8")
    with pytest.raises(ConstraintError, match=r"constraint.file '.*g\.lark': llguidance cannot"):
        build_constraint(config)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "neither is given"),
        ({"grammar": "a", "file": "b"}, "both are given"),
        ({"file": "absent.lark"}, "cannot read 'absent.lark': No such file"),
    ],
)
def test_the_grammar_is_given_once(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConstraintError, match=said):
        build_constraint(GrammarConfig(kind="grammar", format="lark", **settings))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    grammar._llguidance.cache_clear()
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConstraintError, match=r"pip install 'tiltune\[grammar\]'"):
        built("regex", "a")
    grammar._llguidance.cache_clear()
