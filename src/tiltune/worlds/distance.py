"""How far a model is from a world's exact target: estimates from samples, in nats a sentence.

A model enters as its log-probabilities of whole sentences (symbol ids without the end; the end's
probability is included), so that these are functions of numbers alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tiltune.worlds.exact import ExactTarget, Floats

SentenceLogProb = Callable[[Sequence[list[int]]], Floats]
"""Sentences -> natural log-probabilities, [N]."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error; `interval` is the 95 % normal interval."""

    value: float
    standard_error: float

    @property
    def interval(self) -> tuple[float, float]:
        half = 1.959964 * self.standard_error
        return (self.value - half, self.value + half)


@dataclass(frozen=True)
class WorldMeasure:
    """What one set of target sentences says about several models.

    Attributes:
        kl_target_model_nats: KL(q || model) of each model, nats a sentence.
        kl_target_base_nats: the exact KL(q || p) = -log Z: what the best model that always meets
            the constraint has to give up against the law of the world.
        log_ratios: log q(y) - log model(y) of each sentence, by model; for paired comparisons.
    """

    kl_target_model_nats: dict[str, Estimate]
    kl_target_base_nats: float
    log_ratios: dict[str, Floats]

    def difference(self, model: str, other: str) -> Estimate:
        """KL(q || model) - KL(q || other) on the same sentences: narrower than apart."""
        return mean_of(self.log_ratios[model] - self.log_ratios[other])


def measure_world(
    target: ExactTarget, models: Mapping[str, SentenceLogProb], *, count: int, seed: int
) -> WorldMeasure:
    """Estimate `KL(q || model) = sum_y q(y) (log q(y) - log model(y))` from `count` sentences of q.

    Raises:
        ConstraintError: the constraint cannot hold, so there is no q.
    """
    sentences = target.sample_target(count, np.random.default_rng(seed))
    log_q = target.target_log_prob(sentences)
    ratios = {name: log_q - log_prob(sentences) for name, log_prob in models.items()}
    return WorldMeasure(
        {name: mean_of(ratio) for name, ratio in ratios.items()},
        target.kl_target_base_nats,
        ratios,
    )


def kl_world_model_nats(
    target: ExactTarget, model: SentenceLogProb, *, count: int, seed: int
) -> Estimate:
    """Estimate `KL(p || model) = sum_y p(y) (log p(y) - log model(y))`, p unconstrained."""
    sentences = target.sample_base(count, np.random.default_rng(seed))
    return mean_of(target.log_prob(sentences) - model(sentences))


def tilt_floor_nats(kl_target_model: Estimate, *, satisfied: int, drawn: int) -> Estimate:
    """What a model's own exact tilt would leave: `E_q[log q - log model] + log Z_model`.

    Args:
        kl_target_model: KL(q || model), nats a sentence.
        satisfied: how many of the model's own samples meet the constraint; estimates Z_model.
        drawn: how many were drawn.
    """
    z = satisfied / drawn
    # Delta method: the variance of log z is (1 - z) / (n z); the two samples are independent.
    error = math.hypot(kl_target_model.standard_error, math.sqrt((1 - z) / (drawn * z)))
    return Estimate(kl_target_model.value + math.log(z), error)


def mean_of(values: Floats) -> Estimate:
    """The mean of independent draws, [N] with N >= 2, with its standard error."""
    return Estimate(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)))
