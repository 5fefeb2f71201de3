"""What a run folder holds, read into plain values; every file but `config.json` may be absent."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tiltune.errors import RunError
from tiltune.records.files import damaged
from tiltune.records.measurements import Evaluation, read_evaluation
from tiltune.records.rounds import ConstraintRecord, RoundRecord, read_records, read_steps
from tiltune.records.steps import StepRecord

CONTENTS = (
    "config.json, manifest.json, constraint.json, records.jsonl, samples/, checkpoints/, model/, "
    "value/"
)

EVALUATION, EVALUATION_OF_BASE = "evaluation", "evaluation-base"
"""Folders of a run whose evaluations its page, or its model's card, tells of."""


@dataclass(frozen=True)
class Sample:
    """A completion as a row of `samples/*.jsonl` tells it; `None` is what the row does not tell.

    `log_values[t]` is `log R` after token t, in nats; as long as `tokens`. `span` are the
    characters [start, end) of the text that decided. `earlier` are the answers before the text and
    what was said of each, of a completion of several turns.
    """

    prompt: str
    text: str
    score: float | None
    satisfied: bool | None
    reason: str
    feedback: str
    ended: bool | None
    tokens: tuple[str, ...]
    log_values: tuple[float | None, ...]
    span: tuple[int, int] | None = None
    earlier: tuple[tuple[str, str], ...] = ()

    @property
    def valued(self) -> bool:
        return any(value is not None for value in self.log_values)


@dataclass(frozen=True)
class RunFolder:
    """The parts of a run that the report shows; `version`: of the policy in `model/`, once the run
    has finished."""

    path: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    records: list[RoundRecord]
    before: list[Sample]
    after: list[Sample]
    by_round: dict[int, list[Sample]]
    tables: list[dict[str, Any]]
    evaluation: Evaluation | None = None
    constraint: ConstraintRecord | None = None
    steps: Sequence[StepRecord] = ()
    version: int | None = None

    def setting(self, section: str, key: str) -> Any:
        """A value of the resolved configuration; None where it is absent."""
        table = self.config.get(section)
        return table.get(key) if isinstance(table, dict) else None


def read_folder(path: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        RunError: there is no such folder, it holds no `config.json`, or a file in it is damaged.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise RunError(f"{path}: found {found}; a run folder is expected, which holds {CONTENTS}")
    if not (path / "config.json").is_file():
        names = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        raise RunError(
            f"{path}: no config.json in it (found: {names}); a run folder holds {CONTENTS}"
        )
    config = _read_object(path / "config.json")
    if not isinstance(config.get("run"), dict):
        raise RunError(f"{path}: its config.json is not that of a run; a run folder is expected")
    samples, measured = path / "samples", path / EVALUATION / "evaluation.json"
    rounds = sorted(samples.glob("round-*.jsonl"))
    return RunFolder(
        path=path,
        config=config,
        manifest=_read_object(path / "manifest.json"),
        records=read_records(path / "records.jsonl"),
        before=_read_samples(samples / "before.jsonl"),
        after=_read_samples(samples / "after.jsonl"),
        # The first and the last tell the story; a long run's others would drown it.
        by_round={_round_of(file): _read_samples(file) for file in {*rounds[:1], *rounds[-1:]}},
        tables=_read_tables(path / "tables.json"),
        evaluation=read_evaluation(measured) if measured.exists() else None,
        constraint=_read_constraint(path / "constraint.json"),
        steps=read_steps(path / "records.jsonl"),
        version=_read_object(path / "finished.json").get("policy_version"),
    )


def _read_constraint(path: Path) -> ConstraintRecord | None:
    if not path.exists():
        return None
    try:
        return ConstraintRecord.model_validate_json(_read_text(path))
    except ValidationError as error:
        raise damaged(path, error, remedy="put it back, or remove it: the page lacks it") from None


def _read_json(text: str, path: Path, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        remedy = "put it back as it was"
        remedy += ", or remove it: a page can be without" if path.name != "config.json" else ""
        raise damaged(path, error, remedy=remedy, line=line) from None


def _read_text(path: Path) -> str:
    """Bytes that are no UTF-8 become replacement characters: they are shown, not trusted."""
    return path.read_text("utf-8", errors="replace")


def _read_object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    value = _read_json(_read_text(path), path)
    if not isinstance(value, dict):
        raise RunError(f"{path}: holds {type(value).__name__}, not a JSON object")
    return value


def _read_tables(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    tables = _read_json(_read_text(path), path)
    if not isinstance(tables, list):
        raise RunError(f"{path}: holds {type(tables).__name__}, not a list of tables")
    for place, table in enumerate(tables):
        if not isinstance(table, dict) or not {"title", "columns", "rows"} <= table.keys():
            raise RunError(f"{path}: table {place} lacks one of title, columns, rows")
    return tables


def _read_samples(path: Path) -> list[Sample]:
    if not path.exists():
        return []
    # Not splitlines(): model text may hold U+2028, which ends no line of JSONL.
    lines = enumerate(_read_text(path).split("\n"), start=1)
    return [_sample(_read_json(line, path, n), f"{path}:{n}") for n, line in lines if line]


def _sample(row: Any, where: str) -> Sample:
    if not isinstance(row, dict) or not {"prompt", "text"} <= row.keys():
        raise RunError(f"{where}: expected an object with `prompt` and `text`")
    tokens = tuple(str(token) for token in row.get("tokens") or ())
    values = [_number(value) for value in row.get("log_values") or ()][: len(tokens)]
    return Sample(
        prompt=str(row["prompt"]),
        text=str(row["text"]),
        score=_number(row.get("score")),
        satisfied=_truth(row.get("satisfied")),
        reason=str(row.get("reason") or ""),
        feedback=str(row.get("feedback") or ""),
        ended=_truth(row.get("ended")),
        tokens=tokens,
        log_values=(*values, *[None] * (len(tokens) - len(values))),
        span=_span(row.get("span"), len(str(row["text"]))),
        earlier=_earlier(row.get("earlier")),
    )


def _earlier(value: Any) -> tuple[tuple[str, str], ...]:
    """Pairs of an answer and what was said of it; what is no such pair is left out."""
    pairs: list[Any] = value if isinstance(value, list) else []
    return tuple(
        (str(pair[0]), str(pair[1])) for pair in pairs if isinstance(pair, list) and len(pair) == 2
    )


def _span(value: Any, length: int) -> tuple[int, int] | None:
    """Characters [start, end) within a text of this length; None for what is no such pair."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    start, end = value
    whole = type(start) is int and type(end) is int
    return (start, end) if whole and 0 <= start < end <= length else None


def _truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    """A number; `-inf`, the exact value of a lost prefix, stays what it is; NaN is no number."""
    if not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def _round_of(path: Path) -> int:
    digits = path.stem.removeprefix("round-")
    if not digits.isdigit():
        raise RunError(f"{path}: a round's samples are named round-000.jsonl, round-001.jsonl, …")
    return int(digits)
