"""Each loss against an independent computation, its gradient, and what must not matter."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tiltune.methods.losses import (
    clipped_policy_loss,
    clipped_value_loss,
    corpus_loss,
    group_advantages,
    reference_penalty,
    target_loss,
)
from tiltune.models.laws import LossOutput, log_softmax, prefix_weights, tilt
from tiltune.values.losses import consistency_loss, value_loss

pytestmark = pytest.mark.quick

N, T, V = 4, 5, 6
INF, NAN = float("inf"), float("nan")
TIGHT = {"rtol": 0.0, "atol": 1e-12}
close = torch.testing.assert_close


class Batch:
    """Random numbers of every kind that a loss takes; row lengths 5, 3, 1 and 4."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal() -> Tensor:
            return torch.randn(N, T, V, dtype=torch.float64, generator=generator)

        self.logits, self.values = normal(), normal()
        self.log_p, self.log_q = log_softmax(normal()), log_softmax(normal())
        self.weights = torch.rand(N, T, dtype=torch.float64, generator=generator) * 2
        self.ids = torch.randint(V, (N, T), generator=generator)
        self.mask = torch.arange(T) < torch.tensor([[5], [3], [1], [4]])
        self.labels = torch.tensor([1.0, 0.0, 0.3, 1.0], dtype=torch.float64)
        self.old, self.reference = (self.taken(log_p) for log_p in (self.log_p, self.log_q))
        self.advantages = normal()[..., 0]

    def taken(self, values: Tensor) -> Tensor:
        """Each position's entry for its own token."""
        return values.gather(-1, self.ids[..., None])[..., 0]


Loss = Callable[[Tensor, Batch, slice, float | None], LossOutput]
LOSSES: dict[str, Loss] = {
    "corpus": lambda x, b, r, count: corpus_loss(x[r], b.ids[r], b.mask[r], count=count),
    "target": lambda x, b, r, count: target_loss(
        x[r], b.log_q[r], b.weights[r], b.mask[r], count=count
    ),
    "value": lambda x, b, r, count: value_loss(x[r], b.ids[r], b.labels[r], b.mask[r], count=count),
    "consistency": lambda x, b, r, count: consistency_loss(
        x[r], b.log_p[r], b.ids[r], b.mask[r], count=count
    ),
    "clipped policy": lambda x, b, r, count: clipped_policy_loss(
        b.taken(log_softmax(x))[r], b.old[r], b.advantages[r], b.mask[r], clip=0.5, count=count
    ),
    "clipped value": lambda x, b, r, count: clipped_value_loss(
        b.taken(x)[r], b.old[r], b.advantages[r], b.mask[r], clip=0.2, count=count
    ),
    "penalty": lambda x, b, r, count: reference_penalty(
        b.taken(log_softmax(x))[r], b.old[r], b.reference[r], b.mask[r], count=count
    ),
}
ALL = slice(None)
TOKENS = ("old", "reference", "advantages")


def gradient(
    loss: Loss, x: Tensor, batch: Batch, parts: list[slice], count: float | None
) -> Tensor:
    x = x.detach().requires_grad_()
    for rows in parts:
        loss(x, batch, rows, count).loss.backward()
    assert x.grad is not None
    return x.grad


# Values.


def test_corpus_loss_is_torch_s_cross_entropy():
    b = Batch()
    expected = cross_entropy(b.logits[b.mask], b.ids[b.mask])
    output = corpus_loss(b.logits, b.ids, b.mask)
    close(output.loss, expected, **TIGHT)
    assert output.metrics == {"corpus_loss_nats_per_token": pytest.approx(expected.item())}


def test_target_loss_by_hand():
    logits = torch.tensor([[[0.9, 0.1], [0.25, 0.75]]], dtype=torch.float64).log()
    log_q = torch.tensor([[[0.5, 0.5], [1.0, 0.0]]], dtype=torch.float64).log()
    weights = torch.tensor([[1.0, 1.5]], dtype=torch.float64)
    first = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    second = math.log(1 / 0.25)
    output = target_loss(logits, log_q, weights, torch.ones(1, 2, dtype=torch.bool))
    assert output.loss.item() == pytest.approx((first + 1.5 * second) / 2, abs=1e-12)
    assert output.metrics["kl_target_policy_nats_per_token"] == output.loss.item()


def test_value_loss_by_hand():
    rates = torch.tensor([[[0.2, 0.7], [0.9, 0.4]], [[0.6, 0.5], [0.5, 0.5]]], dtype=torch.float64)
    ids, labels = torch.tensor([[1, 0], [0, 0]]), torch.tensor([1.0, 0.25])
    mask = torch.tensor([[True, True], [True, False]])
    soft = 0.25 * math.log(0.6) + 0.75 * math.log(0.4)
    expected = -(math.log(0.7) + math.log(0.9) + soft) / 3
    output = value_loss(rates.logit(), ids, labels, mask)
    assert output.loss.item() == pytest.approx(expected, abs=1e-12)
    assert output.metrics["value_loss_nats_per_token"] == output.loss.item()


def test_consistency_by_hand():
    """Three tokens, so two positions: the mean one step on against what was said before."""
    rates = torch.tensor([[[0.5, 0.3], [0.6, 0.2], [0.1, 0.8]]], dtype=torch.float64)
    law = torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.4, 0.6]]], dtype=torch.float64)
    ids = torch.tensor([[0, 1, 1]])
    pairs = [(0.25 * 0.6 + 0.75 * 0.2, 0.5), (0.4 * 0.1 + 0.6 * 0.8, 0.2)]
    parts = [p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for p, q in pairs]
    output = consistency_loss(rates.logit(), law.log(), ids, torch.ones(1, 3, dtype=torch.bool))
    assert output.loss.item() == pytest.approx(sum(parts) / 2, abs=1e-12)
    assert output.metrics["consistency_loss_nats_per_token"] == output.loss.item()


# Gradients.


def test_target_loss_s_gradient_is_w_times_p_minus_q():
    b = Batch()
    found = gradient(LOSSES["target"], b.logits, b, [ALL], None)
    expected = b.weights[..., None] * (b.logits.softmax(-1) - b.log_q.exp()) / b.mask.sum()
    close(found, torch.where(b.mask[..., None], expected, 0.0), **TIGHT)


def test_target_and_weights_take_no_gradient():
    b = Batch()
    log_q, weights = b.log_q.requires_grad_(), b.weights.requires_grad_()
    logits = b.logits.requires_grad_()
    target_loss(logits, log_q, weights, b.mask).loss.backward()
    assert (log_q.grad, weights.grad) == (None, None)
    assert logits.grad is not None


def test_consistency_reaches_both_sides_and_its_positions_alone():
    """`1 ≤ t < T`: not the first prefix's other tokens, nothing past the end, no step after it."""
    b = Batch()
    found = gradient(LOSSES["consistency"], b.values, b, [ALL], None) != 0
    expected = torch.zeros(N, T, V, dtype=torch.bool)
    for n, length in enumerate([5, 3, 1, 4]):
        for t in range(1, length):
            expected[n, t] = True  # the mean over every token after y_t
            expected[n, t - 1, b.ids[n, t - 1]] = True  # what was said of y_t
    assert torch.equal(found, expected)


def test_consistency_of_single_tokens_is_0():
    b = Batch()
    assert LOSSES["consistency"](b.values, b, slice(2, 3), None).loss.item() == 0.0


# Prompts without a target.


def test_a_hopeless_prompt_gives_no_loss_and_no_gradient():
    b = Batch()
    log_values = torch.zeros(N, T, V, dtype=torch.float64)
    log_values[0] = -INF  # row 0: nothing satisfies
    log_values[1, 1:] = -INF  # row 1: nothing any more after its first token
    log_values[3, :, 2] = -INF  # row 3: token 2 must not come
    log_q, log_z = tilt(b.log_p, log_values)
    weights = prefix_weights(log_z, b.mask).weights
    logits = b.logits.requires_grad_()
    loss = target_loss(logits, log_q, weights, b.mask).loss
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    moved = logits.grad.abs().sum(-1) > 0
    expected = b.mask.clone()
    expected[0] = expected[1, 1:] = False
    assert torch.equal(moved, expected)


# What must not matter.


@pytest.mark.parametrize("name", LOSSES)
def test_a_split_batch_adds_up(name: str):
    b, loss = Batch(), LOSSES[name]
    x = b.values if name in ("value", "consistency") else b.logits
    pairs = (b.mask[:, 1:] & b.mask[:, :-1]).sum()
    count = float(pairs if name == "consistency" else b.mask.sum())
    parts = [slice(0, 1), slice(1, 3), slice(3, 4)]
    whole = loss(x, b, ALL, None).loss
    close(sum(loss(x, b, part, count).loss for part in parts), whole, **TIGHT)
    close(gradient(loss, x, b, parts, count), gradient(loss, x, b, [ALL], None), **TIGHT)


@pytest.mark.parametrize("name", LOSSES)
def test_what_stands_in_the_padding_does_not_matter(name: str):
    b, junk, loss = Batch(), Batch(seed=1), LOSSES[name]
    x = b.values if name in ("value", "consistency") else b.logits
    for attribute in ("logits", "values", "log_p", "log_q", "weights", "ids", *TOKENS):
        kept = getattr(b, attribute)
        mask = b.mask.view(N, T, *[1] * (kept.dim() - 2))
        setattr(junk, attribute, torch.where(mask, kept, getattr(junk, attribute)))
    y = junk.values if name in ("value", "consistency") else junk.logits
    assert not torch.equal(x, y)
    assert torch.equal(loss(x, b, ALL, None).loss, loss(y, junk, ALL, None).loss)
    close(gradient(loss, x, b, [ALL], None), gradient(loss, y, junk, [ALL], None), **TIGHT)


@pytest.mark.parametrize("name", LOSSES)
def test_a_nan_in_the_padding_does_not_reach_the_loss(name: str):
    b, loss = Batch(), LOSSES[name]
    x = b.values if name in ("value", "consistency") else b.logits
    broken = torch.where(b.mask[..., None], x, NAN)
    assert torch.equal(loss(broken, b, ALL, None).loss, loss(x, b, ALL, None).loss)


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_is_computed_in_32_bit(name: str):
    b, raised, loss = Batch(), Batch(), LOSSES[name]
    for attribute in ("logits", "values", "log_p", "log_q", "weights", "labels", *TOKENS):
        rounded = getattr(b, attribute).bfloat16()
        setattr(b, attribute, rounded)
        setattr(raised, attribute, rounded.float())
    x, y = (z.values if name in ("value", "consistency") else z.logits for z in (b, raised))
    found = loss(x, b, ALL, None).loss
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(y, raised, ALL, None).loss)


def test_consistency_next_to_1_is_no_nan():
    """`1 - 1e-5` is 1 in bfloat16, and the logarithm of the rest would be -inf."""
    values = torch.full((1, 3, 2), 14.0, dtype=torch.bfloat16)
    values[0, 1] = 12.0
    law = torch.full((1, 3, 2), 0.5).log()
    ids, mask = torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.bool)
    found = consistency_loss(values, law, ids, mask).loss
    reference = consistency_loss(values.double(), law.double(), ids, mask).loss
    assert 0 < found.item() < 1e-3
    close(found.double(), reference, rtol=0.05, atol=0.0)


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def real(length: int) -> Tensor:
    return torch.ones(1, length, dtype=torch.bool)


def test_clipped_policy_loss_by_hand():
    """Ratios 1.25 and .5 with both signs of A: the min is pessimistic."""
    old = row(0.4, 0.4, 0.4, 0.4).log()
    new = row(0.5, 0.5, 0.2, 0.2).log().requires_grad_()
    output = clipped_policy_loss(new, old, row(1.0, -1.0, 1.0, -1.0), real(4), clip=0.2)
    close(output.loss, torch.tensor(-(1.2 - 1.25 + 0.5 - 0.8) / 4, dtype=torch.float64), **TIGHT)
    assert output.metrics["ratio_clipped_share"] == pytest.approx(0.5)
    output.loss.backward()
    close(new.grad, row(0.0, 1.25 / 4, -0.5 / 4, 0.0), **TIGHT)  # no gradient where the clip holds


def test_clipped_value_loss_by_hand():
    for value, expected in ((0.9, 0.245), (0.25, 0.28125)):
        loss = clipped_value_loss(row(value), row(0.1), row(1.0), real(1), clip=0.2).loss
        close(loss, torch.tensor(expected, dtype=torch.float64), **TIGHT)


def test_the_penalty_s_mean_and_gradient_are_those_of_the_divergence():
    """Σ_y p_old(y) · loss(y) = KL(p_θ ‖ p_ref) and so is its gradient, for p_θ other than p_old."""
    old, reference = row(0.5, 0.3, 0.2), row(0.2, 0.2, 0.6)
    one, other = (row(0.1, -0.4, 0.8).requires_grad_() for _ in range(2))
    for place in range(3):
        output = reference_penalty(
            log_softmax(one)[:, place : place + 1],
            old.log()[:, place : place + 1],
            reference.log()[:, place : place + 1],
            real(1),
        )
        (old[0, place] * output.loss).backward()
    law = log_softmax(other)
    (law.exp() * (law - reference.log())).sum().backward()
    close(one.grad, other.grad, **TIGHT)


def test_the_penalty_by_hand():
    """Token by token: r = 2 and d = log ½, r = ½ and d = 0."""
    new, old, reference = row(0.4, 0.2).log(), row(0.2, 0.4).log(), row(0.2, 0.2).log()
    loss = reference_penalty(new, old, reference, real(2)).loss
    expected = 2 * (0.5 - 1 + math.log(2)) / 2
    close(loss, torch.tensor(expected, dtype=torch.float64), **TIGHT)


def test_group_advantages_by_hand():
    scores = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 0.5])
    prompts = torch.tensor([4, 7, 4, 2, 4, 7, 9])
    # each less the mean of the others; prompts 2 and 9 were drawn once: one group
    expected = torch.tensor([1.0, -2.0, 1.0, 0.5, -2.0, 2.0, -0.5])
    close(group_advantages(scores, prompts), expected, rtol=0, atol=1e-6)
    close(
        group_advantages(scores, torch.arange(7)),
        7 / 6 * (scores - scores.mean()),
        rtol=0,
        atol=1e-6,
    )  # nothing but lonely prompts: the whole round is the group
    # prompt 3 alone was drawn once: there is nothing to compare with
    alone = group_advantages(torch.tensor([1.0, -1.0, 1.0]), torch.tensor([0, 0, 3]))
    close(alone, torch.tensor([2.0, -2.0, 0.0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["policy", "penalty"])
def test_a_masked_token_has_no_gradient_however_far_its_ratio(name: str):
    new, old = row(-1.0, 900.0).requires_grad_(), row(-1.5, 0.0)
    mask = torch.tensor([[True, False]])
    if name == "policy":
        output = clipped_policy_loss(new, old, row(1.0, 1.0), mask, clip=0.9)
    else:
        output = reference_penalty(new, old, row(-2.0, 0.0), mask)
    output.loss.backward()
    assert new.grad is not None and new.grad[0, 0] != 0 and new.grad[0, 1] == 0


def test_advantages_and_what_values_are_fitted_to_take_no_gradient():
    new, fixed = row(-1.0, -2.0).requires_grad_(), row(0.3, 0.4).requires_grad_()
    clipped_policy_loss(new, new.detach(), fixed, real(2), clip=0.2).loss.backward()
    clipped_value_loss(new, fixed, row(1.0, 1.0), real(2), clip=0.2).loss.backward()
    assert new.grad is not None and fixed.grad is None
