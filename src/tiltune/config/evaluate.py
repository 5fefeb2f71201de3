"""`eval.toml`: on which prompts, by which scorers, under which protocol a model is evaluated."""

from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from tiltune.config.constraint import ConstraintConfig
from tiltune.config.decoding import RobustSection, SearchSection
from tiltune.config.parse import Section, apply_override, parse_config, read_toml


class PromptsSection(Section):
    """One group of prompts; every number is reported for each group apart."""

    name: str = Field(description="How tables call this group.")
    path: str = Field(description="Rows as in `data.prompts`.")
    limit: int | None = Field(default=None, ge=1, description="The first so many rows; none: all.")
    field: str | None = Field(default=None, description="Keep rows by this numeric field only.")
    at_least: float | None = Field(default=None, description="Keep rows whose field is >= this.")
    below: float | None = Field(default=None, description="Keep rows whose field is < this.")
    hidden: bool = Field(
        default=False, description="Show these prompts in pages after a click only."
    )


class ScorerSection(Section):
    """A name and the keys of a `[constraint]` table."""

    name: str = Field(description="How tables call this scorer.")
    constraint: ConstraintConfig

    @model_validator(mode="before")
    @classmethod
    def _one_table(cls, table: Any) -> Any:
        if not isinstance(table, dict) or "constraint" in table:
            return table
        keys = cast(dict[str, Any], table)
        name = {"name": keys["name"]} if "name" in keys else {}
        rest = {key: value for key, value in keys.items() if key != "name"}
        return {**name, "constraint": rest}


class PerplexityConfig(Section):
    kind: Literal["perplexity"]
    name: str = Field(description="How tables call it.")
    path: str = Field(description="Corpus rows as in `data.corpus`, or a plain .txt file.")
    limit: int | None = Field(default=None, ge=1, description="The first so many rows; none: all.")


class TasksConfig(Section):
    kind: Literal["tasks"]
    name: str = Field(default="", description="Put before each task's name in tables.")
    path: str = Field(description="Folder of lm-evaluation-harness task files (YAML).")
    tasks: tuple[str, ...] = Field(default=(), description="Names of tasks; none: all there.")
    limit: int | None = Field(default=None, ge=1, description="The first so many rows of a task.")


class DivergenceConfig(Section):
    kind: Literal["divergence"]
    name: str = Field(description="How tables call it.")
    path: str = Field(description="Neutral prompts: KL to the reference is measured on them.")
    reference: str = Field(description="Folder of the reference model, same tokenizer.")
    limit: int | None = Field(default=None, ge=1, description="The first so many rows; none: all.")


class DetectorConfig(Section):
    kind: Literal["detector"]
    name: str = Field(description="How tables call it.")
    path: str = Field(description="Labelled rows {text, label}.")
    label: str = Field(description="The label's field: 0 or 1.")
    template: str = Field(
        default="Comment: {text}\nThis comment is",
        description="The prompt; {text} is replaced by the row's text.",
    )
    positive: str = Field(default=" toxic", description="Completion that says 1.")
    negative: str = Field(default=" fine", description="Completion that says 0.")
    limit: int | None = Field(default=None, ge=1, description="The first so many rows; none: all.")


class PreferenceConfig(Section):
    kind: Literal["preference"]
    name: str = Field(description="How tables call it.")
    judge: str = Field(description="Folder of the language model that judges likelihood.")
    against: str = Field(description="evaluation.json of the model to compare with.")


UtilityConfig = Annotated[
    PerplexityConfig | TasksConfig | DivergenceConfig | DetectorConfig | PreferenceConfig,
    Field(discriminator="kind"),
]


class ProtocolSection(Section):
    """How completions are drawn; the defaults are RealToxicityPrompts' protocol."""

    k: int = Field(default=25, ge=1, description="Completions a prompt.")
    top_p: float = Field(default=0.9, gt=0, le=1, description="Nucleus; 1: no truncation.")
    temperature: float = Field(default=1.0, gt=0, description="1: the model's own law.")
    max_new_tokens: int = Field(default=20, ge=1, description="Tokens a completion at most.")
    seed: int = Field(default=0, ge=0, description="Of the draws and of the bootstrap.")
    batch_size: int = Field(default=128, ge=1, description="Completions drawn side by side.")
    turns: int = Field(
        default=1,
        ge=1,
        description="Answers of a prompt at most. Above 1 the first scorer that can say why an "
        "answer fails is asked between them, and the last answer is judged.",
    )
    feedback: Literal["own", "random"] = Field(
        default="own",
        description="What is said between turns: what is wrong with the answer, or (random) with "
        "that of another prompt; a rate that is the same shows that the model does not read it.",
    )
    feedback_tokens: int = Field(
        default=128, ge=1, description="Tokens between two answers at most; the rest is cut."
    )
    reference: str | None = Field(
        default=None, description="Folder of the LM whose perplexity measures quality; none: not."
    )
    before: str | None = Field(
        default=None,
        description="evaluation.json of the model that training started from, under the same "
        "protocol; alarms compare with it. None: no alarms.",
    )
    allow_training_scorer: bool = Field(
        default=False, description="Report by the scorer that trained the model all the same."
    )

    @property
    def room(self) -> int:
        """Most tokens that follow a prompt."""
        return self.turns * self.max_new_tokens + (self.turns - 1) * self.feedback_tokens


class EvaluateConfig(Section):
    """A whole evaluation, as `eval.toml` states it."""

    prompts: tuple[PromptsSection, ...] = Field(default=(), description="Groups of prompts.")
    scorer: tuple[ScorerSection, ...] = Field(default=(), description="Scorers to report by.")
    utility: tuple[UtilityConfig, ...] = Field(default=(), description="What else is measured.")
    protocol: ProtocolSection = ProtocolSection()
    search: SearchSection = Field(
        default=SearchSection(), description="Of `evaluate --search` alone."
    )
    robust: RobustSection = Field(
        default=RobustSection(), description="Of `evaluate --robust` alone."
    )


def load_evaluate_config(path: str | Path, overrides: tuple[str, ...] = ()) -> EvaluateConfig:
    """Read `eval.toml`, apply overrides such as `("protocol.turns=3",)`; raises ConfigError."""
    tree = read_toml(path)
    for override in overrides:
        apply_override(tree, override)
    return parse_config(EvaluateConfig, tree, source=str(path))
