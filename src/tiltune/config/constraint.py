"""The `[constraint]` table: what is judged, by which kind of constraint, with its settings."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tiltune.config.parse import Section, parse_config, read_toml


class ConstraintSection(Section):
    """What every kind of constraint shares."""

    text: Literal["completion", "prompt+completion"] = Field(
        default="completion", description="The text that is judged."
    )
    threshold: Annotated[float, Field(ge=0, le=1)] | Literal["none"] = Field(
        default=0.5, description="A score at or above it satisfies; 'none' keeps raw soft scores."
    )


class LexiconConfig(ConstraintSection):
    kind: Literal["lexicon"]
    words: tuple[str, ...] = Field(
        default=(), description="Words or phrases; matched whole, letter case ignored."
    )
    file: str | None = Field(default=None, description="File with one word or phrase a line.")
    mode: Literal["forbid", "require"] = Field(
        default="forbid", description="forbid: none may occur. require: every one must occur."
    )


class RegexConfig(ConstraintSection):
    kind: Literal["regex"]
    pattern: str = Field(description="Python regular expression, searched anywhere in the text.")
    mode: Literal["forbid", "require"] = Field(
        default="require", description="Whether a match violates or satisfies."
    )


class ClassifierConfig(ConstraintSection):
    kind: Literal["classifier"]
    path: str = Field(
        description="Folder of `tiltune classifier train`, or of a Hugging Face sequence "
        "classifier."
    )
    label: str = Field(description="The label whose probability counts.")
    mode: Literal["forbid", "require"] = Field(
        default="forbid", description="forbid: score = 1 - P(label); require: score = P(label)."
    )


class PythonConfig(ConstraintSection):
    kind: Literal["python"]
    path: str = Field(
        description="'module:attribute' of a callable, see `tiltune.constraints.base`."
    )


ConstraintConfig = Annotated[
    LexiconConfig | RegexConfig | ClassifierConfig | PythonConfig, Field(discriminator="kind")
]


def load_constraint_config(path: str | Path) -> ConstraintConfig:
    """Read `constraint.toml`: the keys of a `[constraint]` table, with or without the table's
    header."""
    tree = read_toml(path)
    if "constraint" not in tree:
        tree = {"constraint": tree}
    return parse_config(
        _ConstraintFile, {"constraint": tree["constraint"]}, source=str(path)
    ).constraint


class _ConstraintFile(Section):
    constraint: ConstraintConfig
