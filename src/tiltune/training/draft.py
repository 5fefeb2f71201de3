"""Three answers, of model, data and what must hold -> a commented `run.toml`."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltune.config import ConstraintConfig, parse_config
from tiltune.config.run import ConstraintFile
from tiltune.constraints.build import build_constraint
from tiltune.data.encode import Example, Tokenizer, corpus_examples, prompt_list
from tiltune.data.rows import Row, read_rows
from tiltune.errors import DataError
from tiltune.models import hub
from tiltune.training.held import read_held

LARGE = 50_000_000
"""Parameters from which an adapter is trained and not all weights."""
LOOKED_AT = 200
"""Rows that tell what all are, and how long a completion is."""
TOKENS = (24, 64)
"""Of a completion, at least and at most: longer ones cost as much more."""
ASKING = {"prompt", "messages", "conversations", "instruction", "chosen"}
"""Fields of which a prompt may be made; `text` has none."""


@dataclass(frozen=True)
class Model:
    """A path, how large the model there is, and how it reads text."""

    path: str
    parameters: int
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Data:
    """A path, and what its rows are.

    Attributes:
        path: of the file.
        count: of its rows.
        fields: of the first.
        prompts: whether they are prompts alone, with nothing to train on.
        chat: whether they are dialogues, or become such by the model's chat template.
        tokens: of a completion, at most, so that most of the rows' would not be cut.
    """

    path: str
    count: int
    fields: tuple[str, ...]
    prompts: bool
    chat: bool
    tokens: int


def read_model(path: str) -> Model:
    """Raises ModelError for what is no causal language model."""
    tokenizer: Any = hub.load_tokenizer(path)
    return Model(path, hub.parameter_count(path), tokenizer)


def read_data(path: str, tokenizer: Tokenizer) -> Data:
    """What its rows are, as `fit` would read them: to train on, or where none can be, prompts.

    Raises:
        DataError: no rows, or a row that `fit` would refuse.
        ModelError: the tokenizer has no EOS.
    """
    rows = read_rows(path, setting="data")
    few = rows[:: max(1, len(rows) // LOOKED_AT)]
    examples = _trained(few, tokenizer)
    prompts = [] if examples else prompt_list(few, tokenizer, limit=sys.maxsize, setting="data")
    return Data(
        path,
        len(rows),
        tuple(rows[0].fields),
        prompts=not examples,
        chat=any(each.chat for each in (*examples, *prompts)),
        tokens=_tokens(examples),
    )


def _trained(rows: Sequence[Row], tokenizer: Tokenizer) -> list[Example]:
    """The rows as what is trained on; none: each of them is a prompt alone.

    Raises:
        DataError: some can be trained on, and others cannot; or none can, and they ask nothing.
    """
    examples: list[Example] = []
    refused: list[DataError] = []
    for row in rows:
        try:
            examples += corpus_examples(
                [row], tokenizer, ends=(), max_tokens=sys.maxsize, setting="data"
            )
        except DataError as error:
            refused.append(error)
    if refused and (examples or not any(ASKING & row.fields.keys() for row in rows)):
        raise refused[0]
    return examples


def read_constraint(held: str) -> dict[str, Any]:
    """The keys of the constraint's table, see `held.KINDS`; built once to see that it can be.

    Raises:
        TiltuneError: no such kind, or what follows it is not what it needs.
    """
    table = read_held(held)
    build_constraint(as_config(table))
    return table


def as_config(table: Mapping[str, Any]) -> ConstraintConfig:
    return parse_config(
        ConstraintFile, {"constraint": dict(table)}, source="what must hold"
    ).constraint


def draft(model: Model, data: Data, constraint: Mapping[str, Any], *, out: Path) -> str:
    """The file's text.

    Args:
        model: what is tuned.
        data: what it is tuned on, or prompts alone.
        constraint: keys of the `[constraint]` table.
        out: where the file will stand; names the run's folder.
    """
    large = model.parameters >= LARGE
    said = "only a small adapter beside the weights" if large else "all weights"
    lines = [
        "# Written by `tiltune init`. A line that begins with # says nothing to Tiltune.",
        f"#   tiltune check {out}          what the run will meet, and take",
        f"#   tiltune fit --quick {out}    ten minutes, to see it move",
        f"#   tiltune fit {out}            the run",
        f"# All settings, with a sentence each: tiltune check {out} --all",
        "",
        "[run]",
        f"dir = {quoted(str(_free_folder(out)))}  # what `fit` writes; must not exist before",
        "",
        "[model]",
        f"path = {quoted(model.path)}  # {model.parameters / 1e6:.1f} million parameters",
        f"adapter = {quoted('lora' if large else 'none')}  # trained: {said}",
        "",
        *_data_lines(data),
        "",
        "[constraint]  # what must hold of a completion; other kinds are in docs/constraints.md",
        *(f"{key} = {_value(value)}" for key, value in constraint.items()),
        "",
        "[sampler]",
        f"max_new_tokens = {data.tokens}  # of a completion at most; it is cut there",
        "",
        "[method]",
        "rounds = 3  # of drawing, learning values, and training",
        "# target_rate = 0.95  # stop when so many completions meet the constraint",
    ]
    return "\n".join(lines) + "\n"


def _data_lines(data: Data) -> list[str]:
    """The `[data]` table: rows to train on, or prompts alone."""
    names = [each if each.isprintable() else json.dumps(each) for each in data.fields]
    held = f"{data.count} rows of {', '.join(names)}"
    if data.prompts:
        return [
            "[data]",
            f"prompts = {quoted(data.path)}  # {held}, to be completed",
            '# corpus = "corpus.jsonl"  # text that should become likely; without it control alone',
        ]
    prompts = "what stands before the last answers" if data.chat else "the corpus's own"
    return [
        "[data]",
        f"corpus = {quoted(data.path)}  # {held}, to be trained on",
        f'# prompts = "prompts.jsonl"  # to be completed; left out: {prompts}',
        '# violating = "keep"  # train on rows that do not meet the constraint, too',
    ]


def quoted(text: str) -> str:
    """A TOML string; the kind that needs no escapes where it can be had."""
    if "\\" in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    """A string, a number, or a list of strings."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)


def _free_folder(out: Path) -> Path:
    """`runs/NAME`, with a number where that is taken."""
    names = (out.stem if number == 1 else f"{out.stem}-{number}" for number in range(1, 10_000))
    return next(path for name in names if not (path := Path("runs") / name).exists())


def _tokens(answers: Sequence[Example]) -> int:
    """So many that nine of ten would not be cut, in eights, within `TOKENS`."""
    low, high = TOKENS
    if not answers:
        return 48
    lengths = sorted(len(each.ids) - each.prompt_length for each in answers)
    return max(low, min(high, math.ceil(lengths[int(0.9 * (len(lengths) - 1))] / 8) * 8))
