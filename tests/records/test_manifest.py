"""What a run was made of: which hashes move, and which do not."""

from typing import Any

from pydantic import TypeAdapter

from tiltune.config import ConstraintConfig
from tiltune.records import manifest

CONSTRAINT: TypeAdapter[Any] = TypeAdapter(ConstraintConfig)


def test_scores_by_an_earlier_rule_of_sentences_are_not_read_again() -> None:
    """What was kept before the rule changed has another digest: that of the settings alone."""
    bound: dict[str, Any] = {"kind": "length", "at_most": 2}
    formula: dict[str, Any] = {"kind": "temporal", "formula": "a", "atoms": {"a": ("x",)}}
    for table, name, moved, kept in (
        (bound, "unit", "sentences", "words"),
        (formula, "step", "sentence", "line"),
    ):
        for value, same in ((moved, False), (kept, True)):
            config = CONSTRAINT.validate_python(table | {name: value})
            earlier = manifest.digest([], config.model_dump_json())
            assert (manifest.constraint_digest(config) == earlier) is same
            outer = CONSTRAINT.validate_python({"kind": "all", "parts": [config, config]})
            earlier = manifest.digest([], outer.model_dump_json())
            assert (manifest.constraint_digest(outer) == earlier) is same
