"""Defaults that depend on model, corpus and machine: sizes, rates, steps, passes, threads.

`resolve` fills every `None` of a configuration that means "choose"; `tiltune check` prints the
choices. What is measured of the machine comes in as facts. The constants were set on exact worlds
(`benchmarks/exact_world.py`) and on real comments (`benchmarks/detox.py`); `LOG.md` says what was
tried.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tiltune.config import ResolvedConfig, RunConfig
from tiltune.config.method import MethodConfig, MethodSection
from tiltune.config.resolved import (
    ResolvedActor,
    ResolvedData,
    ResolvedLearner,
    ResolvedModel,
    ResolvedSampler,
    ResolvedValueModel,
)
from tiltune.methods.base import BuiltInMethod, Usual
from tiltune.training.balance import LEAST
from tiltune.values.build import LARGE, usual_kind

LEAST_FOR_THREADS = 1_000_000
"""Parameters below which a second thread costs more in waiting than it computes."""

HEAD_RATE = 2e-3
"""Of values that are a head on a large model: its own weights are small, whatever the model's."""

BALANCED_RATE = 1 / 6
"""Share of the policy's rate where beta is chosen: the KL term then has its say in every step, and
a larger rate only carries the policy away from the base (real comments, see `LOG.md`)."""


@dataclass(frozen=True)
class Scale:
    """What the defaults depend on.

    Attributes:
        parameters: of the whole model.
        context: most tokens it reads at once.
        cores: of this machine.
        useful_threads: with which a step of the model is quickest; None: not measured.
        corpus_rows: that are trained on; 0: there is no corpus, or it has not been read yet.
    """

    parameters: int
    context: int
    cores: int
    useful_threads: int | None = None
    corpus_rows: int = 0


def resolve(
    config: RunConfig, model: ResolvedModel, scale: Scale, method: BuiltInMethod
) -> ResolvedConfig:
    """The same configuration with every choice made.

    Args:
        config: as stated.
        model: its section with the precision chosen, see `precision.py`.
        scale: of model, corpus and machine.
        method: knows where its defaults are its own.
    """
    threads = _threads(config, scale)
    steps = _steps(config, scale, method)
    members = config.value_model.members or method.needs.members
    kind = config.value_model.kind or usual_kind(scale.parameters, members)
    rates = _rates(config, scale, method.usual, kind)
    return ResolvedConfig(
        track=config.track,
        run=config.run,
        model=model,
        constraint=config.constraint,
        method=_weighed(config),
        data=ResolvedData(**_filled(config.data, max_tokens=min(scale.context, 512))),
        sampler=ResolvedSampler(
            **_filled(
                config.sampler,
                samples_per_round=steps.samples,
                batch_size=_size(scale.parameters).drawn_at_once,
            )
        ),
        value_model=ResolvedValueModel(
            **_filled(
                config.value_model,
                kind=kind,
                members=members,
                steps_per_round=steps.values,
                batch_size=64,
                learning_rate=min(2e-3, rates[1]),
                warm_start=_warm_steps(scale, kind),
            )
        ),
        learner=ResolvedLearner(
            **_filled(
                config.learner,
                steps_per_round=steps.policy,
                batch_size=steps.batch_size,
                corpus_rows_per_step=steps.corpus_rows,
                learning_rate=min(2e-3, rates[0]),
                threads=threads[0],
            )
        ),
        actor=ResolvedActor(**_filled(config.actor, threads=threads[1])),
    )


@dataclass(frozen=True)
class _Size:
    """What a model's size decides.

    Attributes:
        below: parameters that are too many for this row.
        most_samples: completions a round.
        batch_size: samples of a step.
        passes, value_passes: over a round's samples, by policy and by values: a tiny model gains
            from more, a larger one is past the knee of the curve and they are what a run's time
            goes into.
        drawn_at_once: completions drawn side by side.
        adapted_values: times the values' usual rate, where they are a LoRA.
    """

    below: float
    most_samples: int
    batch_size: int
    passes: int
    value_passes: int
    drawn_at_once: int
    adapted_values: int


_SIZES = (
    _Size(1e6, 4992, 64, 8, 10, 256, 3),
    _Size(LARGE, 4992, 32, 2, 4, 256, 3),
    # a first estimate of what ends within 45 minutes on two cores at 135 million under LoRA
    _Size(float("inf"), 512, 8, 2, 4, 64, 8),
)


def _size(parameters: int) -> _Size:
    return next(size for size in _SIZES if parameters < size.below)


@dataclass(frozen=True)
class _StepCounts:
    """Completions a round, the steps on them, and the corpus rows of a step."""

    samples: int
    batch_size: int
    policy: int
    values: int
    corpus_rows: float


def _steps(config: RunConfig, scale: Scale, method: BuiltInMethod) -> _StepCounts:
    """Enough steps for the passes over a round's samples; few enough for those over the corpus."""
    size, usual = _size(scale.parameters), method.usual
    millions = max(scale.parameters, 1) / 1e6
    samples = config.sampler.samples_per_round or (
        usual.samples or _even(4096 * millions**-0.25, 256, size.most_samples)
    )
    policy = max(50, samples * size.passes // size.batch_size)
    at_once = (config.learner.batch_size or size.batch_size) * config.learner.accumulation
    if usual.passes is not None:
        policy = max(1, samples * usual.passes // at_once)
    rounds = _rounds(config.method, samples)
    allowed = config.learner.corpus_passes_max * scale.corpus_rows / rounds
    if scale.corpus_rows and method.needs.law == "none":  # no samples that would starve
        policy = max(1, min(policy, int(allowed / at_once)))
    if config.learner.steps_per_round is not None:
        policy = config.learner.steps_per_round
    rows = _corpus_rows(allowed, policy, at_once, alone=method.needs.law == "none")
    values = max(50, samples * size.value_passes // 64)
    return _StepCounts(samples, size.batch_size, policy, values, rows)


def _rounds(section: MethodSection, samples: int) -> int:
    """Rounds to expect: a budget of completions may end a run before its last one.

    Of a budget of seconds nothing is known, so such a run counts as one of the usual length.
    """
    rounds = section.rounds
    if section.samples_max is not None:
        rounds = min(rounds, -(-section.samples_max // samples))
    if section.seconds_max is not None:
        rounds = min(rounds, type(section).model_fields["rounds"].default)
    return rounds


def _corpus_rows(allowed: float, steps: int, at_once: int, *, alone: bool) -> float:
    """Corpus rows of a step: as many as samples, or fewer so that the corpus lasts.

    A mean over fewer rows has the same expectation, so the corpus term weighs what it weighed, and
    the samples' term keeps all its steps. Where there are more steps than rows left, some steps go
    without any.

    Args:
        allowed: rows a round; 0: no corpus is known of.
        steps: of a round.
        at_once: samples of a step.
        alone: whether steps are made of the corpus alone.
    """
    if alone or not allowed or not steps:
        return float(at_once)
    return min(float(at_once), allowed / steps)


def _weighed(config: RunConfig) -> MethodConfig:
    """The method with a beta that scales its loss where there is no corpus to weigh it against."""
    if config.method.beta is not None or config.data.corpus is not None:
        return config.method
    return config.method.model_copy(update={"beta": LEAST})


def _warm_steps(scale: Scale, kind: str) -> int:
    """A head's steps on a large model cost no pass through it, a copy's many."""
    if scale.parameters < LARGE:
        return 200
    return 2400 if kind == "head" else 60


def _rates(config: RunConfig, scale: Scale, usual: Usual, kind: str) -> tuple[float, float]:
    """The policy's and the values' peak rate."""
    root = (max(scale.parameters, 1) / 1e6) ** -0.5
    lora = config.model.adapter == "lora"
    policy = 7e-4 * root * (10 if lora else 1) * usual.rate
    if _weighed(config).beta is None:
        policy *= BALANCED_RATE
    values = 1.5e-3 * root * (_size(scale.parameters).adapted_values if lora else 1)
    if scale.parameters >= LARGE and kind == "head":
        values = HEAD_RATE
    return policy, values if usual.value_rate is None else policy * usual.value_rate


def _filled(section: BaseModel, **chosen: Any) -> dict[str, Any]:
    """The section's settings, with what is chosen where it leaves that open."""
    stated = dict(section)
    return stated | {name: value for name, value in chosen.items() if stated[name] is None}


def _even(value: float, low: int, high: int) -> int:
    """Rounded to a multiple of 64 within bounds."""
    return max(low, min(high, round(value / 64) * 64))


def _threads(config: RunConfig, scale: Scale) -> tuple[int, int]:
    """Learner's and actor's: as many as are useful; beside an actor of its own half of the cores at
    most, of which an odd one goes to the learner."""
    cores, half, useful = scale.cores, max(1, scale.cores // 2), scale.useful_threads
    if scale.parameters < LEAST_FOR_THREADS:
        return 1, 1
    if config.method.schedule != "parallel":
        return useful or half, useful or half
    return min(useful or cores, max(1, cores - cores // 2)), min(useful or cores, half)
