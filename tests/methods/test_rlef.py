"""`rlef` against numbers by hand: turns, masks, the correction, the optimum; both traps."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from flow_worlds import numbers
from torch import Tensor

import tiny
from small_models import llama
from tiltune.config import parse_config
from tiltune.config.run import RunConfig
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.errors import ConfigError
from tiltune.methods.base import Models, taken_log_probs
from tiltune.methods.kinds import make_method
from tiltune.methods.losses import corrected_policy_loss
from tiltune.methods.refusals import refuse
from tiltune.methods.rlef import (
    Rlef,
    at_tokens,
    at_turns,
    normalised,
    turn_gains,
    turn_numbers,
    turn_starts,
)
from tiltune.values.state import StateValue

pytestmark = pytest.mark.quick

WRITTEN = torch.tensor([[1, 1, 1, 0, 0, 1, 1, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
WRITTEN = WRITTEN.bool()
"""Three turns of 3, 2 and 4 tokens with feedback between them; and one of 2."""
LOG_PI = numbers([-0.1, -0.2, -0.3, 9, 9, -0.5, -0.5, 9, -0.2, -0.2, -0.2, -0.2])
LOG_RHO = numbers([-0.2, -0.2, -0.5, 7, 7, -0.6, -0.2, 7, -0.3, -0.2, -0.1, -0.4])


def test_turns_are_found() -> None:
    assert turn_starts(WRITTEN).nonzero().tolist() == [[0, 0], [0, 5], [0, 8], [1, 0]]
    turn = turn_numbers(WRITTEN)
    assert turn[0].tolist() == [0, 0, 0, -1, -1, 1, 1, -1, 2, 2, 2, 2]
    assert turn[1].tolist() == [0, 0] + [-1] * 10
    assert at_tokens(numbers([[1, 2, 3], [4, 0, 0]]), turn)[0].tolist() == [
        *[1] * 3, *[0] * 2, *[2] * 2, 0, *[3] * 4,
    ]  # fmt: skip


def test_the_golden_turns() -> None:
    """Gains, returns and advantages by the paper's mean; the sum is another number, the trap."""
    turn = turn_numbers(WRITTEN[:1])
    gains = turn_gains((LOG_PI - LOG_RHO)[None], numbers([[0, -0.2, 1]]), turn, 0.05)
    assert gains[0].tolist() == pytest.approx([-0.005, -0.195, 0.9975])
    means = (numbers([[0, -0.2, 1]]) - gains) / 0.05
    assert means[0].tolist() == pytest.approx([0.1, -0.1, 0.05])
    sums = at_turns((LOG_PI - LOG_RHO)[None], WRITTEN[:1], turn)
    assert sums[0].tolist() == pytest.approx([0.3, -0.2, 0.2])  # what it must not be
    returns = gains.flip(1).cumsum(1).flip(1)
    assert returns[0].tolist() == pytest.approx([0.7975, 0.8025, 0.9975])
    advantages = returns - numbers([[0.1, 0.2, 0.5]])
    assert advantages[0].tolist() == pytest.approx([0.6975, 0.6025, 0.4975])
    there = torch.ones(1, 3, dtype=torch.bool)
    scaled = normalised(advantages, there)
    assert scaled.mean().item() == pytest.approx(0, abs=1e-12)
    assert scaled.square().mean().item() == pytest.approx(1)


def test_what_turns_earn() -> None:
    """±1 of the last answer, whether or not it parses; the penalty of earlier ones alone."""
    samples = episodes()
    earned = Rlef().earned(samples, turn_numbers(samples.written))
    assert earned.tolist() == [[pytest.approx(-0.2), 0.0, 1.0], [-1.0, 0.0, 0.0]]


def ratio_loss(now: Tensor, old: float, drawn: float, advantage: float = 1.0) -> Tensor:
    log = numbers([[old]]).log(), numbers([[drawn]]).log()
    mask = torch.ones(1, 1, dtype=torch.bool)
    return corrected_policy_loss(now, *log, numbers([[advantage]]), mask, clip=0.2).loss


def test_the_correction_for_a_stale_proposal() -> None:
    """r = 1.25 · .625, and the factor has no gradient: d r / d log π is r itself."""
    now = numbers([[0.5]]).log().requires_grad_()
    loss = ratio_loss(now, 0.4, 0.8)
    assert loss.item() == pytest.approx(-0.78125)
    loss.backward()
    assert now.grad is not None
    assert now.grad.item() == pytest.approx(-0.78125)  # twice that if it had
    fresh = ratio_loss(numbers([[0.5]]).log(), 0.4, 0.4)
    assert fresh.item() == pytest.approx(-1.2)  # min(π/π_b, 1) = 1, and the ratio is clipped


@pytest.mark.parametrize("length", [1, 2])
def test_the_optimum_of_the_mean(length: int) -> None:
    """`π* = σ(2 L / β)` for two answers of L tokens, β = .5: there the exact gradient is 0.

    With a sum over tokens in place of the mean it would be σ(2/β) whatever the length.
    """
    beta, exact = 0.5, 2 * length / 0.5
    theta = numbers([exact]).requires_grad_()
    log_pi = torch.stack((theta, -theta)).squeeze(1)
    first = torch.nn.functional.logsigmoid(log_pi)[:, None]  # good, bad
    log_probs = torch.cat((first, torch.zeros(2, length - 1, dtype=torch.float64)), 1)
    log_rho = torch.zeros_like(log_probs)
    log_rho[:, 0] = math.log(0.5)
    written = torch.ones(2, length, dtype=torch.bool)
    turn = turn_numbers(written)
    gains = turn_gains(log_probs.detach() - log_rho, numbers([[1], [-1]]), turn, beta)
    law = first.detach().exp()
    advantages = at_tokens(gains - (law * gains).sum(), turn)
    loss = (
        law.expand(2, length).T[0]  # each answer as often as it is drawn
        * torch.stack(
            [
                corrected_policy_loss(
                    log_probs[row : row + 1],
                    *[log_probs[row : row + 1].detach()] * 2,
                    advantages[row : row + 1],
                    written[:1],
                    clip=0.2,
                    count=1.0,
                ).loss
                for row in range(2)
            ]
        )
    ).sum()
    loss.backward()
    assert theta.grad is not None
    assert theta.grad.abs().item() < 1e-12
    if length == 1:
        assert torch.sigmoid(theta).item() == pytest.approx(0.982014, abs=1e-6)


def episodes() -> Samples:
    """Two rows of random tokens in turns as `WRITTEN` has them; the first answer does not parse."""
    mask = WRITTEN.clone()
    mask[0] = True
    unparsed = torch.zeros_like(mask)
    unparsed[0, 2] = True
    generator = torch.Generator().manual_seed(1)
    return Samples(
        prompt_ids=torch.full((2, 1), 5),
        prompt_mask=torch.ones(2, 1, dtype=torch.bool),
        ids=torch.randint(4, 20, WRITTEN.shape, generator=generator),
        mask=mask,
        written=WRITTEN,
        proposal_logprobs=torch.where(WRITTEN, -2.0, 0.0),
        ended=torch.ones(2, dtype=torch.bool),
        prompt_index=torch.arange(2),
        policy_version=torch.zeros(2, dtype=torch.long),
        labels=torch.tensor([1.0, 0.0]),
        law=SamplingLaw(4),
        unparsed=unparsed,
    )


def models() -> Models:
    policy = llama()
    reference = llama(seed=1)
    values = StateValue(policy.clone("values"))
    with torch.no_grad():
        values.output.weight.normal_(generator=torch.Generator().manual_seed(2))
    return Models(policy, policy, reference, state_values=values, most_tokens=1000)


def test_the_method_is_the_formula_of_its_turns() -> None:
    """`prepare` on two episodes by hand: log-ratios, returns, values where answers begin."""
    samples, side = episodes(), models()
    with torch.no_grad():
        work = Rlef(kl_weight=0.3).prepare(samples, side)
        ratios = taken_log_probs(side.policy, samples) - taken_log_probs(side.reference, samples)
        assert side.state_values is not None
        said = side.state_values.run(*samples.prefixes(), keep=12)
    spans = [
        (0, slice(0, 3), -0.2),
        (0, slice(5, 7), 0),
        (0, slice(8, 12), 1),
        (1, slice(0, 2), -1),
    ]
    gains = [r - 0.3 * ratios[row, span].mean().item() for row, span, r in spans]
    returns = [sum(gains[:3]), sum(gains[1:3]), gains[2], gains[3]]
    values = [said[row, span.start].item() for row, span, _ in spans]
    apart = torch.tensor([g - v for g, v in zip(returns, values, strict=True)])
    scaled = ((apart - apart.mean()) / apart.std(correction=0)).tolist()
    for (row, span, _), ret, value, advantage in zip(spans, returns, values, scaled, strict=True):
        for name, expected in (("returns", ret), ("values", value), ("advantages", advantage)):
            found = work.columns[name][row, span].tolist()
            assert found == pytest.approx([expected] * len(found), rel=1e-4), name
    assert work.columns["advantages"][~samples.written].abs().max() == 0


def test_what_was_said_between_has_no_gradient() -> None:
    log_probs = torch.randn(2, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    old = torch.zeros(2, 12)
    loss = corrected_policy_loss(log_probs, old, old, torch.ones(2, 12), WRITTEN, clip=9.0).loss
    loss.backward()
    assert log_probs.grad is not None
    assert (log_probs.grad[~WRITTEN] == 0).all()
    assert (log_probs.grad[WRITTEN] != 0).all()


def test_other_words_between_at_the_same_laws_change_no_gradient_of_the_policy() -> None:
    """Parts add up, and a row's padding is nothing: split and whole are one loss."""
    samples, side, method = episodes(), models(), Rlef()
    with torch.no_grad():
        work = method.prepare(samples, side)
    count = float(samples.written.sum())
    whole = method.loss(work, side, count=count)
    parts = [method.loss(work.select(torch.tensor([n])), side, count=count) for n in range(2)]
    for name, output in whole.items():
        assert output.loss.item() == pytest.approx(
            sum(p[name].loss.item() for p in parts), rel=1e-5
        )


def run(**tables: dict[str, Any]) -> RunConfig:
    plain: dict[str, dict[str, Any]] = {
        "run": {"dir": "r"},
        "model": {"path": "m"},
        "constraint": {"kind": "lexicon", "words": ["a"]},
        "method": {"kind": "rlef"},
        "data": {"prompts": "p.jsonl"},
    }
    return parse_config(RunConfig, tiny.changed(plain, **tables), source="test")


def test_a_constraint_that_cannot_say_why_is_refused_with_methods_that_need_it_not() -> None:
    config = run()
    refuse(config, make_method(config.method))  # a lexicon's reasons may be told
    for constraint in (
        {"kind": "python", "path": "a:b", "words": None},
        {"kind": "execution", "words": None},
        {"kind": "classifier", "path": "c", "label": "x", "words": None},
    ):
        config = run(constraint=constraint)
        with pytest.raises(ConfigError, match=r"cannot say as it is set; .*'ppo', 'grpo'"):
            refuse(config, make_method(config.method))
    config = run(constraint={"kind": "python", "path": "a:b", "feedback": "a:c", "words": None})
    refuse(config, make_method(config.method))
    config = run(method={"kind": "rlef", "schedule": "fixed"})
    with pytest.raises(ConfigError, match="schedule"):
        refuse(config, make_method(config.method))


def test_a_turn_that_is_alone_is_one_completion() -> None:
    samples = replace(episodes(), unparsed=None).select(torch.tensor([1]))
    work = Rlef().prepare(samples, models())
    assert work.columns["advantages"].abs().max() == 0  # nothing to compare it with
