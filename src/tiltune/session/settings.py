"""Keywords of `tiltune.Run` and of its methods, and the tables of `run.toml` that they become."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from pydantic import BaseModel

from tiltune.errors import ConfigError
from tiltune.session.objects import read_model_given, read_rows_given

Table = Mapping[str, Any] | BaseModel
"""A table of `run.toml`: its keys and values, or the section of `tiltune.config`."""
ROWS = {"corpus": "text", "prompts": "prompt", "valid": "text"}
"""Settings of [data] that name rows, and the field that a text fills."""


class Settings(TypedDict, total=False):
    """The tables of `run.toml` beside model, data and constraint."""

    run: Table
    method: Table
    sampler: Table
    value_model: Table
    learner: Table
    actor: Table
    track: Table


class SampleOptions(TypedDict, total=False):
    """As of `tiltune sample`, see `Request`."""

    chat: bool | None
    n: int
    guided: bool
    round: int | None
    temperature: float
    top_p: float
    max_new_tokens: int | None
    seed: int


class EvaluateOptions(TypedDict, total=False):
    """How the model decodes, as of `tiltune evaluate`; `utility`, the tables of what else is
    measured; and the protocol, see `ProtocolSection`."""

    guided: bool
    round: int | None
    best_of: int
    base: bool
    utility: Sequence[Table]
    k: int
    top_p: float
    temperature: float
    max_new_tokens: int
    seed: int
    batch_size: int
    reference: str | None
    before: str | None
    allow_training_scorer: bool


def keys(table: Table, name: str) -> dict[str, Any]:
    """A table's stated keys."""
    if isinstance(table, BaseModel):
        return table.model_dump(exclude_unset=True)
    if not isinstance(cast(object, table), Mapping):
        raise ConfigError(
            f"tiltune.Run: {name} = {table!r}: give a table of settings, such as "
            "method={'beta': 2}"
        )
    return dict(table)


def model_table(given: Any, beside: Path) -> dict[str, Any]:
    table = keys(given, "model") if isinstance(given, Mapping | BaseModel) else {"path": given}
    return table | ({"path": read_model_given(table["path"], beside)} if "path" in table else {})


def data_table(given: Any, beside: Path) -> dict[str, Any]:
    if given is None:
        return {}
    table = keys(given, "data") if isinstance(given, Mapping | BaseModel) else {"corpus": given}
    return table | {
        name: read_rows_given(table[name], beside, setting=f"data.{name}", texts=text)
        for name, text in ROWS.items()
        if table.get(name) is not None
    }
