"""`etpo` against closed forms: soft values of the chain, the gradient of Q, the optimum of J."""

import math
from dataclasses import replace

import pytest
import torch
from flow_worlds import LAWS, RATES, numbers
from gradient_worlds import ListedValues, chain, every, learner, objective
from torch import Tensor

import tiny
from tiltune.config import RunConfig, parse_config
from tiltune.data.samples import Samples
from tiltune.errors import ConfigError
from tiltune.methods.base import Models
from tiltune.methods.etpo import Etpo
from tiltune.methods.kinds import make_method
from tiltune.methods.losses import soft_policy_loss
from tiltune.methods.refusals import refuse
from tiltune.models import chunks
from tiltune.training.learner import Trained
from tiltune.worlds.testing import exact_values

VALUES = {0.5: (0.713380, 0.910667, 0.942252), 0.05: (0.970611, 0.990884, 0.994111)}
"""V before a b, after one, and after b and a: exact for scores ±1, by the KL's weight."""


def known(rows: Samples, width: int) -> ListedValues:
    """The exact ones."""
    values = torch.ones(*rows.ids.shape, width, dtype=torch.float64) / 2
    values[..., :3] = exact_values(rows, 3)
    return ListedValues(rows, values)


@pytest.mark.parametrize("weight", [0.5, 0.05])
def test_soft_values_are_read_from_the_rate(weight: float) -> None:
    rates = numbers([RATES["s0"], RATES["s1"], RATES["s2"]])
    found = weight * Etpo(weight).soften(rates.logit())
    assert found.tolist() == pytest.approx(VALUES[weight], abs=1e-6)
    log_z = rates * math.exp(1 / weight) + (1 - rates) * math.exp(-1 / weight)
    assert found.tolist() == pytest.approx((weight * log_z.log()).tolist(), rel=1e-12)


def test_they_are_the_fixed_point_of_the_soft_backup() -> None:
    """`V(s) = w log Σ_v ρ(v) e^{V(sv)/w}`, the end's value being ±1; and π* by hand."""
    weight = 0.5
    law = numbers([LAWS["a"], LAWS["b"], LAWS["a"]])
    v0, v1, v2 = VALUES[weight]
    after = numbers([[v0, v1, -1.0], [v2, -1.0, 1.0], [v2, v1, 1.0]])
    backup = weight * (law.log() + after / weight).logsumexp(1)
    assert backup.tolist() == pytest.approx([v0, v1, v2], abs=1e-6)
    policy = (law.log() + after / weight).softmax(1)
    assert policy[0].tolist() == pytest.approx([0.4, 0.593502, 0.006498], abs=1e-6)
    assert policy[1].tolist() == pytest.approx([0.639124, 0.002190, 0.358686], abs=1e-6)


def test_a_small_weight_ends_at_the_target() -> None:
    """`Q/w` up to a constant is `log R` as w goes to 0, but where R is 0 itself."""
    rates = numbers([5 / 9, 5 / 6, 8 / 9])
    for weight, gap in ((0.5, 0.02), (0.1, 1e-8)):
        soft = Etpo(weight).soften(rates.logit())
        off = (soft - soft[0]) - (rates.log() - rates[0].log())
        assert off.abs().max() < gap


def one(logits: Tensor, reference: Tensor, values: Tensor, weight: float) -> Tensor:
    """The loss at one prefix."""
    mask = torch.ones(1, 1, dtype=torch.bool)
    parts = (each[None, None] for each in (logits, reference, values))
    return soft_policy_loss(*parts, torch.ones(1, 1).double(), mask, kl_weight=weight).loss


def test_another_q_is_another_gradient() -> None:
    """The trap: the official code's mean over the vocabulary has the same for every Q."""
    logits = numbers([0.2, -0.1, 0.4]).requires_grad_()
    reference = numbers([0.5, 0.3, 0.2]).log()
    found = [
        torch.autograd.grad(one(logits, reference, numbers(q), 0.5), logits)[0]
        for q in ([0.0, 0.0, 0.0], [10.0, -5.0, 3.0])
    ]
    official = [
        torch.autograd.grad((0.5 * logits.log_softmax(0) - numbers(q)).mean(), logits)[0]
        for q in ([0.0, 0.0, 0.0], [10.0, -5.0, 3.0])
    ]
    assert (official[0] - official[1]).abs().max() < 1e-12
    assert (found[0] - found[1]).abs().max() > 0.1


def test_the_loss_is_the_expectation_by_hand() -> None:
    """`Σ_v π (w log π/ρ - Q) + V`, its gradient, and 0 at the soft policy."""
    logits = numbers([0.2, -0.1, 0.4]).requires_grad_()
    reference, values, weight = numbers([0.5, 0.3, 0.2]).log(), numbers([0.7, -0.2, 0.1]), 0.3
    log_pi = logits.log_softmax(0)
    v = weight * (reference + values / weight).logsumexp(0)
    by_hand = (log_pi.exp() * (weight * (log_pi - reference) - values)).sum() + v
    found = one(logits, reference, values, weight)
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-12)
    both = [torch.autograd.grad(each, logits)[0] for each in (found, by_hand)]
    torch.testing.assert_close(*both, rtol=1e-10, atol=1e-12)
    best = (reference + values / weight).log_softmax(0)
    assert one(best, reference, values, weight).item() == pytest.approx(0, abs=1e-15)


def test_no_discount_between_the_tokens_of_a_completion() -> None:
    """Two tokens of {0, 1}, uniform ρ, 1 for 00 and 0 else, weight ½ (±1: weight 1).

    By tokens the first is 0 as often as by whole answers; a discount a token would move it.
    """
    whole = numbers([1.0, -1.0, -1.0, -1.0]).softmax(0)[:2].sum().item()
    rates = numbers([0.5, 0.0])
    first = Etpo(1.0).soften(rates.logit())
    assert first.softmax(0)[0].item() == pytest.approx(whole, abs=1e-12)
    assert whole == pytest.approx(0.807490, abs=1e-6)
    lead = 0.5 * numbers([(math.exp(2) + 1) / 2, 1.0]).log()
    assert (0.9 * lead / 0.5).softmax(0)[0].item() == pytest.approx(0.784215, abs=1e-6)


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_it_ends_at_the_optimum_of_j(weight: float) -> None:
    lm = chain()
    reference = lm.clone("reference")
    rows = every(reference)
    rate = (rows.proposal_logprobs.sum(1).exp() * rows.labels).sum().item()
    best = weight * math.log(rate * math.exp(1 / weight) + (1 - rate) * math.exp(-1 / weight))
    models = Models(lm, reference, reference, known(rows, 4), most_tokens=4000)
    side = learner(Etpo(weight), models, steps=160, batch_size=62, learning_rate=0.1)
    before = objective(lm, reference, every(lm), weight).item()
    numbers = side.update(Trained(rows, reference, models.values))
    reached = objective(lm, reference, every(lm), weight).item()
    assert before < best - 0.1
    assert best - 1e-3 < reached < best + 1e-6
    assert numbers["soft_value"] == pytest.approx(best, abs=1e-6)


def test_the_weights_are_the_optimum_s_visits() -> None:
    """Over completions of the reference: `E Σ_t u_t` is the optimum's mean length."""
    lm, weight = chain(), 0.5
    rows = every(lm)
    models = Models(lm, lm, lm, known(rows, 4), most_tokens=4000)
    with torch.no_grad():
        found = Etpo(weight, 100.0).prepare(rows, models).columns["weights"]
    law = rows.proposal_logprobs.sum(1).exp()
    optimum = law * ((2 * rows.labels - 1) / weight).exp()
    optimum = optimum / optimum.sum()
    mean = (optimum * rows.mask.sum(1)).sum().item()
    assert (law[:, None] * found).sum().item() == pytest.approx(mean, rel=1e-6)


def test_chunks_and_parts_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Tensor] = []
    for at_once, parts in ((2**24, 1), (12, 3)):
        monkeypatch.setattr(chunks, "LOGITS_AT_ONCE", at_once)
        lm = chain()
        reference, rows = lm.clone("reference"), every(lm)
        models = Models(lm, reference, reference, known(rows, 4), most_tokens=4000 // parts**4)
        with torch.no_grad():
            lm.module.table.weight[1] += 0.3
            work = Etpo(0.5).prepare(rows, models)
        for part in torch.arange(len(rows)).chunk(parts):
            Etpo(0.5).loss(work.select(part), models, count=50.0)["policy"].loss.backward()
        gradient = lm.module.table.weight.grad
        assert gradient is not None
        found.append(gradient)
    assert found[0].norm() > 1e-3
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-12)


def test_soft_scores_are_refused() -> None:
    tables: tiny.Tree = {
        "run": {"dir": "run"},
        "model": {"path": "model"},
        "constraint": {"kind": "lexicon", "words": ["rude"], "threshold": "none"},
        "method": {"kind": "etpo"},
    }
    given = parse_config(RunConfig, tables, source="test")
    with pytest.raises(ConfigError, match=r"soft scores. Set a threshold, or method.kind = 'ppo'"):
        refuse(given, make_method(given.method))


def test_the_samples_law_is_not_the_policy_s() -> None:
    """A round later the policy has moved, and Q is still of the reference."""
    lm = chain()
    reference, rows = lm.clone("reference"), every(lm)
    models = Models(lm, reference, reference, known(rows, 4), most_tokens=4000)
    with torch.no_grad():
        before = Etpo(0.5).prepare(rows, models)
        lm.module.table.weight[0] += 1.0
        after = Etpo(0.5).prepare(rows, replace(models, policy=lm))
    torch.testing.assert_close(after.columns["weights"], before.columns["weights"])
