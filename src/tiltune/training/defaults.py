"""Defaults that depend on the model: rates and steps scale with its size and with the adapter.

`resolve` fills every `None` of a configuration that means "choose"; `tiltune check` prints the
choices. The constants were set on exact worlds (`benchmarks/exact_world.py`) and on real comments
(`benchmarks/detox.py`); `LOG.md` says what was tried.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tiltune.config import ResolvedConfig, RunConfig
from tiltune.config.resolved import (
    ResolvedActor,
    ResolvedData,
    ResolvedLearner,
    ResolvedSampler,
    ResolvedValueModel,
)
from tiltune.methods.base import Usual

LEAST_FOR_THREADS = 1_000_000
"""Parameters below which a second thread costs more in waiting than it computes."""


@dataclass(frozen=True)
class Scale:
    """What the defaults depend on.

    Attributes:
        parameters: of the whole model.
        context: most tokens it reads at once.
        cores: of this machine.
    """

    parameters: int
    context: int
    cores: int


def resolve(config: RunConfig, scale: Scale, usual: Usual) -> ResolvedConfig:
    """The same configuration with every choice made.

    Args:
        config: as stated.
        scale: of model and machine.
        usual: where the method's defaults are its own.
    """
    threads = _threads(config, scale)
    steps = _steps(config, scale, usual)
    rates = _rates(config, scale, usual)
    return ResolvedConfig(
        run=config.run,
        model=config.model,
        constraint=config.constraint,
        method=config.method,
        data=ResolvedData(**_filled(config.data, max_tokens=min(scale.context, 512))),
        sampler=ResolvedSampler(
            **_filled(
                config.sampler,
                samples_per_round=steps.samples,
                batch_size=256 if scale.parameters < 50_000_000 else 32,
            )
        ),
        value_model=ResolvedValueModel(
            **_filled(
                config.value_model,
                steps_per_round=steps.values,
                batch_size=64,
                learning_rate=min(2e-3, rates[1]),
                warm_start=200 if scale.parameters < 50_000_000 else 60,
            )
        ),
        learner=ResolvedLearner(
            **_filled(
                config.learner,
                steps_per_round=steps.policy,
                batch_size=steps.batch_size,
                learning_rate=min(2e-3, rates[0]),
                threads=threads[0],
            )
        ),
        actor=ResolvedActor(**_filled(config.actor, threads=threads[1])),
    )


@dataclass(frozen=True)
class _StepCounts:
    """Completions a round, and the steps on them."""

    samples: int
    batch_size: int
    policy: int
    values: int


def _steps(config: RunConfig, scale: Scale, usual: Usual) -> _StepCounts:
    """Passes over a round's samples, by policy and by values: a tiny model gains from more, a
    larger one is past the knee of the curve and they are what a run's time goes into."""
    millions = max(scale.parameters, 1) / 1e6
    samples = config.sampler.samples_per_round or (
        usual.samples or _even(4096 * millions**-0.25, 256, 4992)
    )
    batch = 64 if millions < 1 else 32 if millions < 50 else 8
    passes, value_passes = (8, 10) if millions < 1 else (2, 4)
    policy = max(50, samples * passes // batch)
    if usual.passes is not None:
        at_once = (config.learner.batch_size or batch) * config.learner.accumulation
        policy = max(1, samples * usual.passes // at_once)
    return _StepCounts(samples, batch, policy, max(50, samples * value_passes // 64))


def _rates(config: RunConfig, scale: Scale, usual: Usual) -> tuple[float, float]:
    """The policy's and the values' peak rate."""
    root = (max(scale.parameters, 1) / 1e6) ** -0.5
    lora = config.model.adapter == "lora"
    policy = 7e-4 * root * (10 if lora else 1) * usual.rate
    return policy, policy if usual.rate != 1 else 1.5e-3 * root * (3 if lora else 1)


def _filled(section: BaseModel, **chosen: Any) -> dict[str, Any]:
    """The section's settings, with what is chosen where it leaves that open."""
    stated = dict(section)
    return stated | {name: value for name, value in chosen.items() if stated[name] is None}


def _even(value: float, low: int, high: int) -> int:
    """Rounded to a multiple of 64 within bounds."""
    return max(low, min(high, round(value / 64) * 64))


def _threads(config: RunConfig, scale: Scale) -> tuple[int, int]:
    """Learner's and actor's: half of the cores; beside an actor of its own an odd one goes to the
    learner."""
    cores = scale.cores
    if scale.parameters < LEAST_FOR_THREADS:
        return 1, 1
    if config.method.schedule != "parallel":
        return max(1, cores // 2), max(1, cores // 2)
    return max(1, cores - cores // 2), max(1, cores // 2)
