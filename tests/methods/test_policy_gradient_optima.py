"""Where policy gradients end: the closed forms of their optima, the values' fixed point."""

import math
from dataclasses import replace

import pytest
import torch
from gradient_worlds import (
    LIMIT,
    Kind,
    chain,
    drawn,
    every,
    every_arm,
    exact_values,
    learner,
    objective,
    sides,
    train,
    two_arms,
)

from small_models import A, B, T, one_b_never_two
from tiltune.training.learner import Trained


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_two_arms_end_at_the_closed_form(kind: Kind, weight: float) -> None:
    """p_ref = (½, ½) and scores ±1: the optimum gives the good one σ(2 / weight)."""
    lm = two_arms()
    _, method, models = sides(lm, kind, weight)
    train(learner(method, models, value_rate=0.02), every_arm, rounds=30, count=256, rate=0.3)
    good = every_arm(lm).proposal_logprobs[0].exp().item()
    assert every_arm(lm).ids[0, 0] == A
    optimum = 1 / (1 + math.exp(-2 / weight))
    assert optimum == pytest.approx({0.5: 0.982014, 1.0: 0.880797}[weight], abs=1e-6)
    assert good == pytest.approx(optimum, abs=0.01)


def test_the_size_of_a_group_does_not_move_the_optimum() -> None:
    """Pairs: with their own score in the mean the good one would end at σ(1 / weight) = .731."""
    lm = two_arms()
    _, method, models = sides(lm, "grpo", 1.0)
    side, generator = learner(method, models), torch.Generator().manual_seed(0)
    for number in range(30):
        side.optimiser.rate = 0.3 * (1 - number / 30)
        law = lm.clone("snapshot")
        samples = drawn(every_arm(law), 512, generator)
        samples = replace(samples, prompt_index=torch.arange(512) // 2)
        side.update(Trained(samples, law, None))
    good = every_arm(lm).proposal_logprobs[0].exp().item()
    assert good == pytest.approx(0.880797, abs=0.015)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_ppo_ends_at_the_tilted_rate_of_the_chain(weight: float) -> None:
    """`R e^{1/β} / (R e^{1/β} + (1 - R) e^{-1/β})` with the KL summed over tokens."""
    lm = chain()
    rows = every(lm)
    rate = (rows.proposal_logprobs.sum(1).exp() * rows.labels).sum().item()
    optimum = tilted(rate, weight)
    assert tilted(5 / 9, weight) == pytest.approx({1.0: 0.902309, 0.5: 0.985559}[weight], abs=1e-6)
    reference, method, models = sides(lm, "ppo", weight)
    best = math.log(rate * math.exp(1 / weight) + (1 - rate) * math.exp(-1 / weight)) * weight
    train(learner(method, models, value_rate=0.02), every, rounds=30, count=512, rate=0.2)
    rows = every(lm)
    found = (rows.proposal_logprobs.sum(1).exp() * rows.labels).sum().item()
    assert found == pytest.approx(optimum, abs=0.01)
    reached = objective(lm, reference, rows, weight).item()
    assert best - 0.005 < reached < best + 1e-9  # the whole law, not its rate alone


def tilted(rate: float, weight: float) -> float:
    good, bad = rate * math.exp(1 / weight), (1 - rate) * math.exp(-1 / weight)
    return good / (good + bad)


def test_grpo_ends_where_a_token_pays_for_its_own_divergence_alone() -> None:
    """At the fixed point without the KL of later tokens: ppo's optimum has .9099 and J = .5455."""
    lm, weight = chain(), 1.0
    reference, method, models = sides(lm, "grpo", weight)
    train(learner(method, models), every, rounds=30, count=512, rate=0.2)
    rows = every(lm)
    rate, reached = near_sighted((), weight)
    assert (rate, reached) == pytest.approx((0.9116, 0.5340), abs=1e-4)
    found = (rows.proposal_logprobs.sum(1).exp() * rows.labels).sum().item()
    assert found == pytest.approx(rate, abs=0.01)
    assert objective(lm, reference, rows, weight).item() == pytest.approx(reached, abs=0.005)


def near_sighted(prefix: tuple[int, ...], weight: float) -> tuple[float, float]:
    """Rate and J from a prefix on, under `p(v|s) ∝ p_ref(v|s) e^{E_p[2C - 1 | sv] / weight}`."""
    if len(prefix) == LIMIT or prefix[-1:] == (T,):
        met = float(one_b_never_two(prefix))
        return met, 2 * met - 1
    law = torch.tensor((0.6, 0.1, 0.3) if prefix[-1:] == (B,) else (0.4, 0.4, 0.2)).double()
    after = torch.tensor([near_sighted((*prefix, v), weight) for v in (A, B, T)]).double()
    own = (law.log() + (2 * after[:, 0] - 1) / weight).softmax(0)
    paid = weight * (own / law).log()
    return float(own @ after[:, 0]), float(own @ (after[:, 1] - paid))


def test_the_values_learn_the_gains_to_come() -> None:
    """With a policy that stands still, `V(s_t)` goes to the mean of the gains from token t on."""
    lm = chain()
    reference, method, models = sides(lm, "ppo", 0.3)
    side = learner(method, models, value_rate=0.05)
    train(side, every, rounds=20, count=512, rate=0.0)
    rows = every(lm)
    exact = exact_values(rows, reference, 0.3)
    assert models.state_values is not None
    ids, mask = rows.prefixes()
    with torch.no_grad():
        found = models.state_values.run(ids, mask, keep=rows.ids.shape[1])
    law = rows.proposal_logprobs.sum(1).exp()[:, None] * rows.mask
    error = (law * (found - exact).abs()).sum() / law.sum()
    spread = (law * (exact - exact[0, 0]).abs()).sum() / law.sum()
    assert spread > 0.3 and error < 0.1, (spread, error)
