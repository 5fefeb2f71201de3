"""A JSON Schema's verdict is the schema's, however the JSON is written; its grammar only guides."""

import importlib.util
import json
import random
from typing import Any

import pytest

from tiltune.config import GrammarConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion, Score
from tiltune.errors import ConstraintError

if not (importlib.util.find_spec("llguidance") and importlib.util.find_spec("jsonschema")):
    pytest.skip("the extra `grammar` is not installed", allow_module_level=True)

OBJECT = {
    "type": "object",
    "properties": {"a": {"type": "integer", "maximum": 5}, "n": {"type": "string", "maxLength": 3}},
    "required": ["a"],
    "additionalProperties": False,
}
STRING = {"type": "string"}


def built(schema: Any, **settings: Any) -> TextConstraint:
    source = schema if isinstance(schema, str) else json.dumps(schema)
    return build_constraint(
        GrammarConfig(kind="grammar", format="json_schema", grammar=source, **settings)
    )


def judged(schema: Any, text: str) -> Score:
    return built(schema).score([Completion("", text)])[0]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (STRING, r'"\u00e9"'),
        (STRING, r'"a\/b"'),
        (STRING, r'"\ud83d\ude00"'),
        (STRING, '"é😀"'),
        ({"enum": ["é", 1]}, r'"\u00e9"'),
        ({"const": 10}, "1e1"),
        ({"type": "integer"}, "1.0"),
        (OBJECT, '{"n": "x", "a": 3}'),
        (OBJECT, ' {"a" :\r\n\t3}\n'),
        (OBJECT, r'{"\u0061": 3, "n": "\u00e9\u00e9\u00e9"}'),
        ({"not": {"type": "string"}}, "3"),
        ({"type": "array", "uniqueItems": True}, "[1, 2]"),
        (True, '{"any": [null]}'),
        ({"multipleOf": 0.01}, "19.99"),
        ({"multipleOf": 0.01}, "4.35"),
    ],
)
def test_what_the_schema_allows_scores_1(schema: Any, text: str) -> None:
    assert judged(schema, text) == Score(1.0)


@pytest.mark.parametrize(
    ("schema", "text", "said"),
    [
        (OBJECT, '  {"a":7}', "$.a: 7 is greater than the maximum of 5"),
        (OBJECT, '{"b":1}', "$: "),
        (OBJECT, '{"a": 1, "n": "\\u00e9bcd"}', "$.n: 'ébcd' is too long"),
        (OBJECT, '{"a": 9, "a": 3}', "an object gives 'a' twice"),
        ({"type": "number"}, "NaN", "NaN is no number of JSON"),
        (STRING, '"' + "x" * 300 + "", "ends too early"),
        (STRING, "'a'", 'character 0: found "\'", expected '),
        (STRING, r'"\u00e9" x', "character 9: not JSON: Extra data"),
        (STRING, '"\ud83d"', "character 1"),
        (STRING, "", "ends too early: expected "),
        ({"type": "array", "uniqueItems": True}, "[1, 1]", "$: [1, 1] has non-unique elements"),
        ({"not": {"type": "string"}}, '"a"', "$: 'a' should not be valid under"),
        ({"type": "string", "maxLength": 3}, json.dumps("y" * 500), "$: 'yyy"),
        (False, "1", "$: False schema does not allow 1"),
        ({"multipleOf": 0.01}, "19.995", "$: 19.995 is not a multiple of 0.01"),
        ({"multipleOf": 0.01}, "1e999", "Invalid literal for Fraction: 'inf'"),
    ],
)
def test_what_it_does_not_allow_scores_0_and_says_why(schema: Any, text: str, said: str) -> None:
    score = judged(schema, text)
    assert score.value == 0.0 and score.feedback == score.reason
    assert score.reason.startswith(said) and len(score.reason) <= 201


def test_every_way_of_writing_a_value_has_one_verdict() -> None:
    """Against jsonschema asked of the value itself, over values and ways to write them."""
    from jsonschema import Draft202012Validator

    validator, constraint, chance = Draft202012Validator(OBJECT), built(OBJECT), random.Random(1)
    seen = set[bool]()
    for _ in range(60):
        value: dict[str, Any] = {
            name: chance.choice([3, 7, "é", "abc/", "long é", None])
            for name in chance.sample(["a", "n", "b"], chance.randint(0, 2))
        }
        valid = validator.is_valid(value)
        ways = [
            json.dumps(value),
            json.dumps(value, ensure_ascii=False, indent=1),
            json.dumps(value).replace("/", r"\/"),
            json.dumps(dict(reversed(value.items())), separators=(",", ":")),
        ]
        scores = constraint.score([Completion("", text) for text in ways])
        assert [score.value for score in scores] == [float(valid)] * len(ways)
        seen.add(valid)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", "2024-02-29", "2024-2-9"),
        ("date-time", "2024-02-29T10:00:00Z", "yesterday"),
        ("uuid", "12345678-1234-1234-1234-123456789abc", "1234"),
        ("ipv4", "10.0.0.1", "10.0.0"),
    ],
)
def test_formats_are_judged_as_the_grammar_writes_them(name: str, good: str, bad: str) -> None:
    schema = {"type": "string", "format": name}
    assert judged(schema, json.dumps(good)) == Score(1.0)
    assert judged(schema, json.dumps(bad)).reason == f"$: {bad!r} is not a {name!r}"
    assert judged({"format": name}, "3") == Score(1.0)


def test_a_format_that_nobody_knows_says_nothing() -> None:
    assert judged({"type": "string", "format": "colour-of-tea"}, '"red"') == Score(1.0)


def test_text_too_deep_to_read_is_the_grammar_s_to_judge() -> None:
    schema = {
        "$ref": "#/$defs/l",
        "$defs": {"l": {"type": "array", "items": {"$ref": "#/$defs/l"}}},
    }
    assert judged(schema, "[" * 5000 + "]" * 5000) == Score(1.0)
    assert judged(schema, "[" * 5000 + "]" * 4999).value == 0.0


def test_a_reference_to_elsewhere_is_named_and_not_fetched() -> None:
    constraint = built({"type": "object", "properties": {"a": {"$ref": "https://x.invalid/s"}}})
    assert constraint.score([Completion("", "{}")])[0].value == 1.0
    with pytest.raises(
        ConstraintError, match=r"constraint\.grammar: .*'https://x\.invalid/s'.*fetch"
    ):
        constraint.score([Completion("", '{"a": 1}')])


def test_its_grammar_guides_and_a_schema_without_one_says_so() -> None:
    [guide] = built(OBJECT).grammars()
    assert "another order" in guide.narrower
    unguided = built({"not": {"type": "string"}})
    assert unguided.grammars() == ()
    assert 'Unimplemented keys: ["not"]' in unguided.without_rule()
    lark = GrammarConfig(kind="grammar", format="lark", grammar='start: "a"')
    assert build_constraint(lark).grammars()[0].narrower == ""


@pytest.mark.parametrize(
    ("schema", "text", "met"),
    [
        ({"pattern": "^ab$"}, r'"ab\n"', False),
        ({"pattern": "^ab$"}, '"ab"', True),
        ({"pattern": r"^[$]\$$"}, '"$$"', True),
        ({"pattern": r"^\d+$"}, '"٣"', False),
        ({"pattern": r"^[\d.]+$"}, '"٣"', False),
        ({"pattern": r"^[\d.]+$"}, '"3.5"', True),
        ({"pattern": r"^\w+$"}, '"é"', False),
        ({"pattern": r"^\W\D[\[]$"}, '"éé["', True),
        ({"patternProperties": {"^a$": {"type": "integer"}}}, r'{"a\n": "x"}', True),
        ({"patternProperties": {"^a$": {"type": "integer"}}}, '{"a": "x"}', False),
        ({"patternProperties": {"^a$": {}}, "additionalProperties": False}, r'{"a\n": 1}', False),
        ({"enum": [{"pattern": "a$"}]}, '{"pattern": "a$"}', True),
        ({"properties": {"pattern": {"pattern": "^a$"}}}, r'{"pattern": "a\n"}', False),
        ({"properties": {"enum": {"pattern": "^a$"}}}, r'{"enum": "a\n"}', False),
    ],
)
def test_a_pattern_is_read_as_json_schema_means_it(schema: Any, text: str, met: bool) -> None:
    assert judged(schema, text).value == met
