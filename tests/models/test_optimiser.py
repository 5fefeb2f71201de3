"""The optimizer's step by hand: its rate, its clip, what it refuses, what a checkpoint keeps."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiltune.errors import RunError
from tiltune.models.optimiser import Optimiser, RateSchedule, one_cycle

pytestmark = pytest.mark.quick

POLICY = RateSchedule(50, 20, done=10, floor=0.1)
"""A second round's, before the warm-up's end."""


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 2), (4,))]


def gradients(step: int, *, size: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return [size * torch.randn(shape, generator=generator) for shape in ((3, 2), (4,))]


def optimiser(parameters: list[nn.Parameter], **settings: Any) -> Optimiser:
    plain: dict[str, Any] = {"rate": 0.03, "weight_decay": 0.01}
    return Optimiser(parameters, fitted="the policy", lower="the.rate", **plain | settings)


def step(trained: Optimiser, schedule: RateSchedule, number: int, *, size: float = 1.0) -> None:
    for value, grad in zip(trained.parameters, gradients(number, size=size), strict=True):
        value.grad = grad.clone()
    trained.step(schedule, number)


@pytest.mark.parametrize("number", [0, 1, 8, 9, 10, 25, 49])
def test_the_policy_s_share_of_the_rate(number: int) -> None:
    """Warm-up over all rounds' steps, and from 1 down to a tenth within each round."""
    falling = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * number / 50))
    warm = (10 + number + 1) / 20 if number < 9 else 1.0
    assert POLICY.share(number) == pytest.approx(warm * falling, rel=1e-15)
    later = RateSchedule(50, 20, done=60, floor=0.1)
    assert later.share(number) == pytest.approx(falling, rel=1e-15)


@pytest.mark.parametrize(
    ("steps", "number", "expected"),
    [
        (100, 0, 1 / 5),
        (100, 4, 1.0),
        (100, 5, 1.0),
        (100, 43, 0.5 * (1 + math.cos(math.pi * 38 / 95))),
        (100, 99, 0.5 * (1 + math.cos(math.pi * 94 / 95))),
        (19, 0, 1.0),  # a warm-up of one step
        (1, 0, 1.0),
    ],
)
def test_a_fit_by_itself_warms_up_over_a_twentieth(
    steps: int, number: int, expected: float
) -> None:
    assert one_cycle(steps).share(number) == pytest.approx(expected, rel=1e-15)


def test_no_share_is_above_1_or_negative() -> None:
    schedules = [one_cycle(steps) for steps in (1, 2, 7, 40, 333)]
    schedules += [
        RateSchedule(steps, 20, done=done, floor=floor)
        for steps in (1, 3, 50)
        for done in (0, 19, 1000)
        for floor in (0.0, 0.1, 0.3, 1.0)
    ]
    shares = [each.share(number) for each in schedules for number in range(each.steps)]
    assert max(shares) == 1.0 and min(shares) >= 0.0


@pytest.mark.parametrize("size", [0.01, 10.0])
def test_a_step_is_adamw_s_with_the_gradient_s_norm_bounded(size: float) -> None:
    """To the bit, with gradients below the bound and above it."""
    ours, by_hand = weights(), weights()
    trained = optimiser(ours)
    adam = torch.optim.AdamW(by_hand, lr=0.03, betas=(0.9, 0.98), weight_decay=0.01)
    for number in range(6):
        step(trained, POLICY, number, size=size)
        assert all(value.grad is None for value in ours)
        grads = gradients(number, size=size)
        for value, grad in zip(by_hand, grads, strict=True):
            value.grad = grad
        norm = torch.nn.utils.clip_grad_norm_(by_hand, 1.0)
        assert (norm > 1) == (size > 1)
        warm = min(1.0, (10 + number + 1) / 20)
        cosine = 0.5 * (1 + math.cos(math.pi * number / 50))
        for group in adam.param_groups:
            group["lr"] = 0.03 * (warm * (0.1 + (1 - 0.1) * cosine))
        adam.step()
        adam.zero_grad()
    for one, two, start in zip(ours, by_hand, weights(), strict=True):
        assert torch.equal(one, two) and not torch.equal(one, start)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_no_number_is_refused_and_moves_nothing(broken: float) -> None:
    ours = weights()
    trained = optimiser(ours)
    step(trained, POLICY, 0)
    kept, state = [value.detach().clone() for value in ours], trained.state()
    state = {name: value.clone() for name, value in state.items()}
    for value, grad in zip(ours, gradients(1, size=1.0), strict=True):
        value.grad = grad
    assert ours[1].grad is not None
    ours[1].grad[2] = broken
    with pytest.raises(RunError) as raised:
        trained.step(POLICY, 1)
    for value, before in zip(ours, kept, strict=True):
        assert torch.equal(value, before)
    assert all(torch.equal(value, state[name]) for name, value in trained.state().items())
    said = str(raised.value)
    rate = 0.03 * POLICY.share(1)
    assert said.startswith("the policy diverged: the gradient of step 2 of 50 is not finite")
    assert f"at a rate of {rate:.3g} (peak 0.03)" in said
    assert "start again with a lower the.rate (--resume keeps the settings" in said


def test_it_goes_on_from_its_state_to_the_bit() -> None:
    straight, stopped = weights(), weights()
    one, two = optimiser(straight), optimiser(stopped)
    for number in range(6):
        step(one, POLICY, number)
    for number in range(3):
        step(two, POLICY, number)
    state = {name: value.clone() for name, value in two.state().items()}
    again, fresh = ([nn.Parameter(v.detach().clone()) for v in stopped] for _ in range(2))
    three, four = optimiser(again), optimiser(fresh)
    three.load_state(state)
    for number in range(3, 6):
        step(three, POLICY, number)
        step(four, POLICY, number)
    for wanted, found, without in zip(straight, again, fresh, strict=True):
        assert torch.equal(found, wanted) and not torch.equal(without, wanted)


def test_what_is_trained_asks_for_gradients_from_then_on() -> None:
    parameters = [nn.Parameter(torch.ones(2), requires_grad=False)]
    optimiser(parameters)
    assert parameters[0].requires_grad
