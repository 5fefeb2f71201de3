"""What a policy is worth beyond the constraint: validation text, distance to the reference."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tiltune.data.encode import Example
from tiltune.data.samples import Samples
from tiltune.decoding.divergence import completion_divergences
from tiltune.decoding.likelihood import nats_per_token
from tiltune.models.lm import LanguageModel
from tiltune.records.intervals import mean_interval
from tiltune.records.progress import Progress, silent
from tiltune.training.actor import Pair

MOST_KL_SAMPLES = 256
"""Completions that the distance to the reference is measured on."""


@dataclass(frozen=True)
class Measurer:
    """Measures a pair's policy; called by `fit` once a round.

    Attributes:
        reference: the frozen base model.
        satisfying, violating: validation rows that meet the constraint, and those that do not.
        pad_id: fills batches.
        progress: told of each forward pass.
    """

    reference: LanguageModel
    satisfying: Sequence[Example]
    violating: Sequence[Example]
    pad_id: int
    progress: Progress = silent

    def __call__(self, pair: Pair) -> dict[str, Any]:
        """Record fields of this policy version."""
        started = time.perf_counter()
        policy, samples = pair.policy, pair.measured.samples
        fields = divergence_numbers(policy, self.reference, samples, progress=self.progress)
        for name, examples in (("satisfying", self.satisfying), ("violating", self.violating)):
            fields |= self._validation(pair.policy, name, examples)
        return fields | {"measuring_seconds": time.perf_counter() - started}

    def _validation(
        self, lm: LanguageModel, name: str, examples: Sequence[Example]
    ) -> dict[str, Any]:
        if not examples:
            return {}
        mean, interval = nats_per_token(lm, examples, self.pad_id, progress=self.progress)
        return {f"validation_{name}_nats_per_token": mean, f"validation_{name}_interval": interval}


def divergence_numbers(
    policy: LanguageModel,
    reference: LanguageModel,
    samples: Samples,
    *,
    progress: Progress = silent,
) -> dict[str, Any]:
    """`KL(policy ‖ reference) = E_y~policy Σ_t KL(p_θ(·|s_t) ‖ p_0(·|s_t))`, nats.

    See `completion_divergences`.
    """
    picked = torch.linspace(0, len(samples) - 1, min(MOST_KL_SAMPLES, len(samples))).long().unique()
    own = samples.select(picked)
    totals = completion_divergences(policy, reference, own, progress=progress)
    measured = mean_interval(totals)
    assert measured is not None
    return {
        "kl_policy_reference_nats_per_token": math.fsum(totals) / int(own.written.sum()),
        "kl_policy_reference_nats_per_completion": measured[0],
        "kl_policy_reference_nats_per_completion_interval": measured[1],
    }
