"""The actor: draws from a snapshot, scores, fits values, publishes the matching pair.

`submit` hands it a snapshot and `collect` waits for the pair. Whether the work happens inside
`collect` or meanwhile in a process of its own (`remote.py`) is all that tells schedules apart.
"""

import time
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from tiltune.lm import LanguageModel
from tiltune.records import wilson_interval
from tiltune.sampler import Sampler, Scored
from tiltune.types import Samples, concatenate
from tiltune.value_learner import ValueFit, ValueLearner
from tiltune.value_model import ValueModel

LEAST_RATE, MOST_RATE = 0.001, 0.999
"""The values start at the observed rate, kept off 0 and 1 where its logit is infinite."""


@dataclass(frozen=True)
class Pair:
    """What a round trains on: a law, completions drawn from it, and its values.

    Attributes:
        version: of the policy that `measured` was drawn from.
        policy: that policy, frozen.
        measured: fresh scored completions of it.
        law: what `samples` were drawn from: the same policy, or the reference.
        samples: completions to train on; None where the method trains on the corpus alone.
        values: the law's value model; None where the method has none.
        numbers: fields of the round's record.
    """

    version: int
    policy: LanguageModel
    measured: Scored
    law: LanguageModel
    samples: Samples | None
    values: ValueModel | None
    numbers: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class ActorPlan:
    """What an actor does each round.

    Attributes:
        law: whose completions are trained on; "none" draws only to measure (sft).
        renew: whether each round draws (and fits) anew, or the first round's pair serves throughout.
        samples: completions to train on, drawn a round.
        measured: completions drawn of the policy where those to train on are not its own.
    """

    law: Literal["snapshot", "reference", "none"]
    renew: bool
    samples: int
    measured: int


class ActorLike(Protocol):
    """What `fit` needs of an actor."""

    def submit(self, weights: dict[str, Tensor], version: int) -> None: ...

    def collect(self) -> Pair: ...

    def measure(self, weights: dict[str, Tensor], version: int) -> Pair: ...


class Actor:
    """Works in the calling process, inside `collect`.

    Args:
        plan: what to do.
        sampler: draws and scores.
        policy: a view of its own, into which submitted weights are loaded.
        reference: the frozen base model.
        value_learner: fits the values; None for methods without.
    """

    def __init__(
        self,
        plan: ActorPlan,
        sampler: Sampler,
        policy: LanguageModel,
        reference: LanguageModel,
        value_learner: ValueLearner | None,
    ) -> None:
        self.plan = plan
        self.sampler = sampler
        self.policy = policy
        self.reference = reference
        self.value_learner = value_learner
        self.pool: list[Samples] = []
        self._submitted: tuple[dict[str, Tensor], int] | None = None

    def submit(self, weights: dict[str, Tensor], version: int) -> None:
        """Hand over the policy's weights; `collect` works on them."""
        self._submitted = (weights, version)

    def collect(self) -> Pair:
        """The pair of the weights submitted last."""
        if self._submitted is None:
            raise RuntimeError("collect() before submit()")
        weights, version = self._submitted
        self.policy.load_state(weights)
        if self.plan.law == "none" or (self.pool and not self.plan.renew):
            return self._pair(version, self._draw(self.policy, self.plan.measured, version), None)
        own = self.plan.law == "snapshot" or version == 0
        drawn = self._draw(self.policy if own else self.reference, self.plan.samples, version)
        self.pool = [drawn.samples] if self.plan.law == "snapshot" else [*self.pool, drawn.samples]
        fit = self._fit(drawn)
        measured = drawn if own else self._draw(self.policy, self.plan.measured, version)
        return self._pair(version, measured, fit)

    def measure(self, weights: dict[str, Tensor], version: int) -> Pair:
        """Fresh samples of these weights and nothing else."""
        self.policy.load_state(weights)
        return self._pair(version, self._draw(self.policy, self.plan.samples, version), None)

    def _draw(self, lm: LanguageModel, count: int, version: int) -> Scored:
        return self.sampler.draw(lm, count, policy_version=version)

    def _fit(self, drawn: Scored) -> dict[str, Any]:
        if self.value_learner is None:
            return {}
        if len(self.pool) == 1 and self.value_learner.fits == 0:
            rate = float(drawn.samples.labels.mean())
            self.value_learner.model.set_constant(min(max(rate, LEAST_RATE), MOST_RATE))
        law = self.policy if self.plan.law == "snapshot" else self.reference
        started = time.perf_counter()
        fitted = self.value_learner.fit(concatenate(self.pool), law)
        return value_numbers(fitted, time.perf_counter() - started)

    def _pair(self, version: int, measured: Scored, fit: dict[str, Any] | None) -> Pair:
        return Pair(
            version=version,
            policy=self.policy,
            measured=measured,
            law=self.policy if self.plan.law == "snapshot" else self.reference,
            samples=concatenate(self.pool) if self.pool else None,
            values=self.value_learner.model if self.value_learner else None,
            numbers=sample_numbers(measured) | (fit or {}),
        )


def sample_numbers(scored: Scored) -> dict[str, Any]:
    """Record fields about fresh samples of the policy."""
    samples, count = scored.samples, len(scored.samples)
    texts = [completion.text for completion in scored.completions]
    return {
        "samples": count,
        "satisfaction_rate": scored.satisfied / count,
        "satisfaction_rate_interval": wilson_interval(scored.satisfied, count),
        "score_mean": sum(score.value for score in scored.scores) / count,
        "completion_tokens_mean": samples.tokens / count,
        "clipped_share": float((~samples.ended).float().mean()),
        "distinct_share": len(set(texts)) / count,
        "empty_share": sum(not text.strip() for text in texts) / count,
        "sampling_seconds": scored.sampling_seconds,
        "sampled_tokens": samples.tokens,
        "scoring_seconds": scored.scoring_seconds,
    }


def value_numbers(fit: ValueFit, seconds: float) -> dict[str, Any]:
    """Record fields about a value fit."""
    return {
        "value_loss_nats_per_token": fit.value_loss,
        "consistency_loss_nats_per_token": fit.consistency_loss,
        "brier_score": fit.calibration.brier_score,
        "brier_score_constant": fit.calibration.brier_score_constant,
        "calibration_error": fit.calibration.calibration_error,
        "calibration": fit.calibration.bins,
        "value_seconds": seconds,
        "value_tokens": fit.tokens,
    }
