"""Evaluations of the small model: settings, the call, and its numbers."""

import json
from pathlib import Path
from typing import Any

import tiny
from tiltune.config import EvaluateConfig, parse_config
from tiltune.evaluation.contender import open_contender
from tiltune.evaluation.evaluate import evaluate
from tiltune.records.measurements import Evaluation, Measurement

PROMPTS = [
    {"prompt": f"the {word}", "toxic": toxic}
    for word, toxic in [("cat", 0.9), ("dog", 0.1), ("cat and", None), ("dog and", 0.6)]
]
WORDS = {"kind": "lexicon", "words": ["ran", "sorry"]}


def settings(folder: Path, **tables: Any) -> dict[str, Any]:
    path = str(tiny.write_rows(folder / "prompts.jsonl", PROMPTS))
    return {
        "prompts": [
            {"name": "toxic", "path": path, "field": "toxic", "at_least": 0.5},
            {"name": "other", "path": path, "field": "toxic", "below": 0.5},
        ],
        "scorer": [{"name": "words", **WORDS}],
        "utility": [{"kind": "perplexity", "name": "corpus", "path": str(folder / "corpus.jsonl")}],
        "protocol": {"k": 5, "max_new_tokens": 6, "batch_size": 4, "seed": 1},
    } | tables


def config(folder: Path, **tables: Any) -> EvaluateConfig:
    return parse_config(EvaluateConfig, settings(folder, **tables), source="test")


def run(place: Path, out: str = "out", **tables: Any) -> Evaluation:
    return evaluate(open_contender(place / "model"), config(place, **tables), place / out)


def number(evaluation: Evaluation, key: str, group: str = "toxic") -> Measurement:
    return next(m for m in evaluation.measurements if (m.key, m.group) == (key, group))


def files(folder: Path) -> dict[str, bytes]:
    """What a kill must not change: all but seconds."""
    kept = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    contents = {name: path.read_bytes() for name, path in kept.items()}
    result = json.loads(contents.pop("evaluation.json"))
    result.pop("seconds")
    return contents | {"evaluation": json.dumps(result).encode()}
