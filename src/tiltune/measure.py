"""What a policy is worth beyond the constraint: validation text, distance to the reference."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tiltune.actor import Pair
from tiltune.data import Example, corpus_batch
from tiltune.functional import gather, kl, log_softmax
from tiltune.lm import LanguageModel
from tiltune.records import mean_interval
from tiltune.types import Samples
from tiltune.value_learner import length_parts, micro_batches

MOST_KL_SAMPLES = 256
"""Completions that the distance to the reference is measured on."""


@dataclass(frozen=True)
class Measurer:
    """Measures a pair's policy; called by `fit` once a round.

    Attributes:
        reference: the frozen base model.
        satisfying, violating: validation rows that meet the constraint, and those that do not.
        pad_id: fills batches.
    """

    reference: LanguageModel
    satisfying: Sequence[Example]
    violating: Sequence[Example]
    pad_id: int

    def __call__(self, pair: Pair) -> dict[str, Any]:
        """Record fields of this policy version."""
        started = time.perf_counter()
        fields = divergence_numbers(pair.policy, self.reference, pair.measured.samples)
        for name, examples in (("satisfying", self.satisfying), ("violating", self.violating)):
            fields |= self._validation(pair.policy, name, examples)
        return fields | {"measuring_seconds": time.perf_counter() - started}

    def _validation(
        self, lm: LanguageModel, name: str, examples: Sequence[Example]
    ) -> dict[str, Any]:
        if not examples:
            return {}
        mean, interval = nats_per_token(lm, examples, self.pad_id)
        return {f"validation_{name}_nats_per_token": mean, f"validation_{name}_interval": interval}


@torch.no_grad()
def nats_per_token(
    lm: LanguageModel, examples: Sequence[Example], pad_id: int, *, most_logits: int = 2**23
) -> tuple[float, tuple[float, float]]:
    """`-Σ log p / Σ tokens` over the examples' trained tokens, with a 95 % interval over examples.

    The interval is that of a ratio of means, by linearisation: the mean of
    `(loss_i - ratio · tokens_i) / mean tokens` has the ratio's standard error.
    """
    losses: list[float] = []
    counts: list[int] = []
    for part in length_parts([len(example.ids) for example in examples], most_logits // lm.width):
        batch = corpus_batch([examples[place] for place in part], pad_id).to(lm.device)
        log_probs = lm.log_probs(batch.ids[:, :-1], batch.mask[:, :-1])
        mask = batch.loss_mask[:, 1:]
        losses += (-gather(log_probs, batch.ids[:, 1:]) * mask).sum(1).tolist()
        counts += mask.sum(1).tolist()
    ratio, mean_count = sum(losses) / sum(counts), sum(counts) / len(counts)
    residuals = [(loss - ratio * n) / mean_count for loss, n in zip(losses, counts, strict=True)]
    spread = mean_interval(residuals)
    assert spread is not None
    return ratio, (ratio + spread[1][0] - spread[0], ratio + spread[1][1] - spread[0])


@torch.no_grad()
def divergence_numbers(
    policy: LanguageModel, reference: LanguageModel, samples: Samples
) -> dict[str, Any]:
    """`KL(policy ‖ reference) = E_y~policy Σ_t KL(p_θ(·|s_t) ‖ p_0(·|s_t))`, nats.

    The sum over the vocabulary is exact at each prefix of the policy's own samples, which leaves
    less noise than the log-ratio of the tokens drawn.
    """
    picked = torch.linspace(0, len(samples) - 1, min(MOST_KL_SAMPLES, len(samples))).long().unique()
    sums: list[Tensor] = []
    tokens = 0
    for part in micro_batches(samples.select(picked).to(policy.device), policy.width, 2**23):
        ids, mask = (columns[:, :-1] for columns in part.sequence())
        keep = part.ids.shape[1]
        own = log_softmax(policy.forward(ids, mask, keep=keep).logits)
        other = log_softmax(reference.forward(ids, mask, keep=keep).logits)
        sums.append((kl(own, other) * part.mask).sum(1))
        tokens += part.tokens
    totals = torch.cat(sums)
    measured = mean_interval(totals.tolist())
    assert measured is not None
    return {
        "kl_policy_reference_nats_per_token": float(totals.sum()) / tokens,
        "kl_policy_reference_nats_per_completion": measured[0],
        "kl_policy_reference_nats_per_completion_interval": measured[1],
    }
