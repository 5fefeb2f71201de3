"""Validation loss and distance to the reference, by hand and by enumeration."""

import math
from collections.abc import Sequence

import pytest
import torch

from tiltune.data.encode import Example
from tiltune.data.samples import Samples
from tiltune.decoding.likelihood import nats_per_token
from tiltune.models.laws import gather, log_softmax
from tiltune.models.lm import LanguageModel
from tiltune.records.intervals import mean_interval
from tiltune.training.measure import divergence_numbers
from tiltune.worlds.testing import EnumerableModel, enumerate_completions

EOS, V, LIMIT = 3, 4, 3


def rows(samples: Samples, policy: LanguageModel, other: LanguageModel) -> list[float]:
    """`Σ_t KL(p_θ(·|s_t) ‖ p_0(·|s_t))` of each completion, a prefix at a time."""
    sums: list[float] = []
    for ids, mask in zip(samples.ids.tolist(), samples.mask.tolist(), strict=True):
        total = 0.0
        for t in range(sum(mask)):
            prefix = torch.tensor([[EOS, *ids[:t]]])
            whole = torch.ones_like(prefix).bool()
            p, r = (lm.log_probs(prefix, whole, keep=1)[0, 0] for lm in (policy, other))
            total += float((p.exp() * (p - r)).sum())
        sums.append(total)
    return sums


@torch.no_grad()
def test_distance_to_the_reference_by_hand() -> None:
    policy, other = (LanguageModel(EnumerableModel(V, seed=seed)) for seed in (0, 1))
    every = enumerate_completions(policy, (EOS,), lambda _: 1.0, eos_id=EOS, limit=LIMIT)
    found = divergence_numbers(policy, other, every)
    sums = rows(every, policy, other)
    measured = mean_interval(sums)
    assert measured is not None
    name = "kl_policy_reference_nats_per"
    assert found[f"{name}_completion"] == pytest.approx(measured[0], abs=1e-9)
    assert found[f"{name}_completion_interval"] == pytest.approx(measured[1], abs=1e-9)
    assert found[f"{name}_token"] == pytest.approx(sum(sums) / every.tokens, abs=1e-9)
    # and weighted by p it is the divergence of whole completions
    ids, mask = every.prefixes()
    there = torch.where(
        every.mask, gather(log_softmax(other.forward(ids, mask, keep=LIMIT).logits), every.ids), 0.0
    )
    log_p = every.proposal_logprobs.sum(1)
    exact = float((log_p.exp() * (log_p - there.sum(1))).sum())
    weighted = sum(p * total for p, total in zip(log_p.exp().tolist(), sums, strict=True))
    assert weighted == pytest.approx(exact, abs=1e-9)


EXAMPLES = [
    Example("", "", (3, 1, 2, 0, 3), 2, False),
    Example("", "", (3, 0, 3), 1, False),
    Example("", "", (3, 2, 2, 1), 3, True),
    Example("", "", (3, 3), 1, False),
]


@torch.no_grad()
def losses_by_hand(lm: LanguageModel, examples: Sequence[Example]) -> list[tuple[float, int]]:
    """`-Σ log p` over what follows the prompt, and how many tokens that is."""
    found: list[tuple[float, int]] = []
    for example in examples:
        ids = torch.tensor([example.ids])
        log_p = lm.log_probs(ids[:, :-1], torch.ones_like(ids[:, :-1]).bool())[0]
        taken = [-float(log_p[t - 1, example.ids[t]]) for t in range(1, len(example.ids))]
        trained = taken[example.prompt_length - 1 :]
        found.append((sum(trained), len(trained)))
    return found


@pytest.mark.parametrize("most_tokens", [2**12, 1])
def test_validation_loss_is_a_mean_over_tokens_with_the_interval_of_a_ratio(
    most_tokens: int,
) -> None:
    lm = LanguageModel(EnumerableModel(V))
    by_hand = losses_by_hand(lm, EXAMPLES)
    assert [count for _, count in by_hand] == [3, 2, 1, 1]
    ratio = sum(loss for loss, _ in by_hand) / 7
    spread = [(loss - ratio * count) / (7 / 4) for loss, count in by_hand]
    half = 1.959964 * math.sqrt(sum(x * x for x in spread) / 3 / 4)
    mean, interval = nats_per_token(lm, EXAMPLES, EOS, most_tokens=most_tokens)
    assert mean == pytest.approx(ratio, abs=1e-9)
    assert interval == pytest.approx((ratio - half, ratio + half), abs=1e-9)
