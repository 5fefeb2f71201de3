"""A run with every choice made: what may be None in `run.toml` for "choose" is a number here.

`training.defaults.resolve` makes it, and code that acts on settings takes it.
"""

# Sections are frozen, so a field may be narrowed by a subclass; pyright takes fields for mutable.
# pyright: reportIncompatibleVariableOverride=false, reportGeneralTypeIssues=false

from typing import Literal

from tiltune.config.run import (
    ActorSection,
    DataSection,
    LearnerSection,
    ModelSection,
    RunConfig,
    SamplerSection,
    ValueModelSection,
)


class ResolvedModel(ModelSection):
    dtype: Literal["float32", "bfloat16"]
    autocast: bool


class ResolvedData(DataSection):
    max_tokens: int


class ResolvedSampler(SamplerSection):
    samples_per_round: int
    batch_size: int


class ResolvedValueModel(ValueModelSection):
    kind: Literal["copy", "head", "separate"]
    members: int
    steps_per_round: int
    batch_size: int
    learning_rate: float
    warm_start: int


class ResolvedLearner(LearnerSection):
    steps_per_round: int
    batch_size: int
    corpus_rows_per_step: float
    learning_rate: float
    threads: int


class ResolvedActor(ActorSection):
    threads: int


class ResolvedConfig(RunConfig):
    model: ResolvedModel
    data: ResolvedData
    sampler: ResolvedSampler
    value_model: ResolvedValueModel
    learner: ResolvedLearner
    actor: ResolvedActor
