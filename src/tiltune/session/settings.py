"""Keywords of `tiltune.Run` and of its methods, and the tables of `run.toml` that they become."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from pydantic import BaseModel, Field

from tiltune.config.decoding import RobustSection, SearchSection
from tiltune.config.parse import Section
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
    search: Table | None


class Drawing(Section):
    """What `sample` is asked for."""

    prompt: str = Field(default="", description="What is completed.")
    chat: bool | None = Field(default=None, description="Whether it is a user's turn.")
    n: int = Field(default=1, ge=1, description="Completions.")
    guided: bool = Field(default=False, description="Add the learnt values while decoding.")
    round: int | None = Field(default=None, ge=0, description="0: the base model's pair.")
    temperature: float = Field(default=1.0, gt=0, description="1: the model's own law.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus; 1: no truncation.")
    max_new_tokens: int | None = Field(default=None, ge=1, description="None: the run's.")
    seed: int = Field(default=0, ge=0, lt=2**60, description="Of the draws.")
    search: SearchSection | None = Field(
        default=None, description="Search by these settings, {} for all defaults; None: draw."
    )


class Way(Section):
    """How a model decodes, for `evaluate`."""

    guided: bool = Field(default=False, description="Add the learnt values.")
    round: int | None = Field(default=None, ge=0, description="Of the values; none: the last.")
    best_of: int = Field(default=1, ge=1, description="Completions drawn for each that is kept.")
    base: bool = Field(default=False, description="The model before training.")
    search: SearchSection | None = Field(
        default=None, description="Search by these settings, {} for all defaults."
    )
    robust: RobustSection | None = Field(
        default=None, description="Draw chunks that the worst member chooses; {}: all defaults."
    )


class EvaluateOptions(TypedDict, total=False):
    """How the model decodes, as of `tiltune evaluate`; `utility`, the tables of what else is
    measured; and the protocol, see `ProtocolSection`."""

    guided: bool
    round: int | None
    best_of: int
    base: bool
    search: Table | None
    robust: Table | None
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
