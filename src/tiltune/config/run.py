"""`run.toml`: what a run is.

A value of `None` means "choose what is good for this model", or that there is none. `resolve`
chooses from facts about the model and gives a `ResolvedConfig`, whose choices cannot be None.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from tiltune.config.constraint import ConstraintConfig
from tiltune.config.method import MethodConfig, TiltSection
from tiltune.config.parse import Section, apply_override, parse_config, read_toml


class RunSection(Section):
    dir: str = Field(description="Folder that the run writes; must not exist unless `overwrite`.")
    seed: int = Field(
        default=0, ge=0, lt=2**60, description="Seed of every random generator of the run."
    )
    overwrite: bool = Field(default=False, description="Replace an existing run folder.")

    @field_validator("dir")
    @classmethod
    def _is_of_its_own(cls, value: str) -> str:
        if Path(value).name in ("", ".."):
            raise ValueError(
                f"{value!r} names no folder of the run's own; give one, such as 'runs/first'"
            )
        return value


class ModelSection(Section):
    path: str = Field(description="Local Hugging Face folder, a .gguf file, or a hub id.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Of the weights; auto: float32, and under LoRA bfloat16 for the frozen base "
        "weights, but on a processor without quick bfloat16 only where float32 would take more "
        "than a quarter of the memory.",
    )
    autocast: bool | None = Field(
        default=None,
        description="Compute in bfloat16, whatever the weights are in; none: on a GPU, and for 50 "
        "million parameters or more on a processor whose bfloat16 is quick, which is measured.",
    )
    adapter: Literal["none", "lora"] = Field(default="none", description="What is trained.")
    quantise: Literal[2, 3, 4, 8] | None = Field(
        default=None,
        description="Bits that the frozen weights are held in under LoRA, 5 % of them as outliers, "
        "see docs/quantise.md; the reference is then the rounded model. none: as they are.",
    )
    rank: int = Field(default=16, ge=1, description="LoRA rank.")
    alpha: float = Field(
        default=32.0, gt=0, description="LoRA scale numerator: updates are scaled by alpha / rank."
    )
    targets: str | tuple[str, ...] = Field(
        default="all-linear", description="Module names that get LoRA."
    )

    @model_validator(mode="after")
    def _holds_frozen_weights(self) -> Self:
        if self.quantise is not None and self.adapter != "lora":
            raise ValueError(
                f"quantise = {self.quantise} holds frozen weights in few bits, and adapter = "
                "'none' trains them; set adapter = 'lora', or leave quantise out"
            )
        return self


class DataSection(Section):
    corpus: str | None = Field(
        default=None,
        description="Rows to train on, a file or hub:OWNER/NAME:SPLIT, see docs/data.md; none: "
        "control only.",
    )
    prompts: str | None = Field(
        default=None, description="Rows, as a corpus; none: the corpus's prompts, else BOS."
    )
    valid: str | None = Field(
        default=None, description="Rows, as a corpus; none: rows held out of the corpus."
    )
    violating: Literal["drop", "keep"] = Field(
        default="drop", description="Corpus rows that violate the constraint."
    )
    train_on: Literal["all", "last"] = Field(
        default="all",
        description="Which of the assistant's turns in a {messages} row are trained on; under "
        "violating = 'drop' none that violates. Values and prompts are of the last turns alone.",
    )
    max_tokens: int | None = Field(
        default=None, ge=2, description="Corpus rows are cut here; none: min(context, 512)."
    )


class SamplerSection(Section):
    samples_per_round: int | None = Field(
        default=None, ge=1, description="Completions drawn a round."
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="Completions drawn side by side."
    )
    max_new_tokens: int = Field(
        default=24, ge=1, description="Token limit of a completion; it is part of the law."
    )


class ValueModelSection(Section):
    kind: Literal["copy", "head", "separate"] | None = Field(
        default=None,
        description="What carries the values: a copy of the policy, a head on the snapshot, a "
        "smaller model; none: a head from 50 million parameters on, else a copy.",
    )
    path: str | None = Field(
        default=None,
        description="For kind 'separate': folder or .gguf of a smaller LM, same vocabulary.",
    )
    members: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Heads on one frozen trunk, each fitted to its own four fifths of the "
        "completions; their mean is R, and where they disagree it is not known. none: what the "
        "method needs, 4 for rce and else 1.",
    )
    steps_per_round: int | None = Field(
        default=None,
        ge=1,
        description="Optimizer steps a round; a quarter of them in the first after a warm start.",
    )
    batch_size: int | None = Field(default=None, ge=1, description="Completions a step.")
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Peak rate; a tenth of it for the own completions right after a warm start.",
    )
    consistency: float = Field(default=0.5, ge=0, description="Weight of the consistency loss.")
    warm_start: int | None = Field(
        default=None,
        ge=0,
        description="Optimizer steps, of 64 windows of text each, before the first own "
        "completions; none: 200 (of a head on a large model 2400, of its copy 60) where there is a "
        "corpus, the constraint is cheap and no automaton knows all of it; 0: no warm start.",
    )
    warm_text: str | None = Field(
        default=None,
        description="Further text for the warm start, rows as of a corpus; "
        "windows are cut from its rows and the corpus's alike.",
    )
    automaton: Literal["prior", "ends", "none"] = Field(
        default="prior",
        description="What values take from the constraint's automaton or grammar, if it has one. "
        "ends: R = 0 at dead ends, R = 1 where satisfied for certain. prior: besides, what its "
        "state says of R by the transitions counted so far. none: nothing.",
    )


class LearnerSection(Section):
    steps_per_round: int | None = Field(
        default=None,
        ge=0,
        description="Optimizer steps a round; 0 leaves the policy as it is: values alone.",
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="Samples, and at most as many corpus rows, a micro-batch."
    )
    corpus_passes_max: float = Field(
        default=3.0,
        gt=0,
        description="Times that the run reads its corpus, at most, where corpus_rows_per_step is "
        "left open.",
    )
    corpus_rows_per_step: float | None = Field(
        default=None,
        gt=0,
        description="Corpus rows of a step, on the average; none: as many as samples, fewer where "
        "a small corpus would else be read more often than corpus_passes_max.",
    )
    accumulation: int = Field(default=1, ge=1, description="Micro-batches a step.")
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Peak rate; none: by the model's size, a sixth of that where method.beta is "
        "chosen.",
    )
    device: str = Field(default="auto", description="'auto', 'cpu', 'cuda' or 'cuda:N'.")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads; none: what a forward and backward pass is quickest with, one for "
        "a small model; half of the cores beside an actor of its own, if so many help.",
    )


class ActorSection(Section):
    device: str = Field(
        default="auto",
        description="'auto', 'cpu', 'cuda' or 'cuda:N'; used by the parallel schedule.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads; used by the parallel schedule; none: as for the learner.",
    )


class TrackSection(Section):
    to: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = Field(
        default=(),
        description="Where each record's numbers go besides records.jsonl; each is an extra of "
        "the same name.",
    )


class RunConfig(Section):
    """A whole run, as `run.toml` states it; each section's fields describe themselves.

    Attributes:
        run: folder and seed.
        model: what is tuned, and whether by LoRA.
        constraint: what must hold.
        data: corpus, prompts, validation rows.
        method: how samples become a loss, for how many rounds.
        sampler: how many completions a round, and how long.
        value_model: what learns `R(prefix)`, and how.
        learner: steps, rates and parts of the policy's update.
        actor: threads and device of the parallel schedule's other process.
    """

    run: RunSection
    model: ModelSection
    constraint: ConstraintConfig
    data: DataSection = DataSection()
    method: MethodConfig = TiltSection()
    sampler: SamplerSection = SamplerSection()
    value_model: ValueModelSection = ValueModelSection()
    learner: LearnerSection = LearnerSection()
    actor: ActorSection = ActorSection()
    track: TrackSection = TrackSection()


def load_config(path: str | Path, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read `run.toml`, apply `key.path=value` overrides, validate.

    Args:
        path: of the file.
        overrides: such as `("method.beta=2",)`; a value is TOML, or a bare word.

    Returns:
        The settings as they were given; what is left open is chosen when the run is opened.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or does not describe a run.
    """
    tree = read_toml(path)
    for override in overrides:
        apply_override(tree, override)
    return parse_config(RunConfig, tree, source=str(path))


def load_constraint_config(path: str | Path) -> ConstraintConfig:
    """Read `constraint.toml`: the keys of a `[constraint]` table, with or without the header.

    A whole `run.toml` will do, too.

    Args:
        path: of the file.

    Returns:
        The table, for `build_constraint`.

    Raises:
        ConfigError: see `load_config`; so is a key that belongs to neither.
    """
    tree = read_toml(path)
    if "constraint" not in tree:
        tree = {"constraint": tree}
    unknown = {name: table for name, table in tree.items() if name not in RunConfig.model_fields}
    tree = {"constraint": tree["constraint"], **unknown}
    return parse_config(ConstraintFile, tree, source=str(path)).constraint


class ConstraintFile(Section):
    constraint: ConstraintConfig
