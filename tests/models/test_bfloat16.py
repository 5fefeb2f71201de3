"""Products with frozen bfloat16 weights: as close as rounding allows, whatever the processor."""

from collections.abc import Generator

import pytest
import torch
from torch import Tensor, nn

from tiltune.models import bfloat16 as product
from tiltune.models.bfloat16 import WideLinear, frozen_product, widen_frozen_layers


@pytest.fixture(autouse=True)
def old_processor(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Every machine takes the 32-bit path, in blocks that do not divide the weight."""
    monkeypatch.setattr(product, "lacks_bfloat16", lambda: True)
    monkeypatch.setattr(product, "BLOCK", 7 * 24)
    yield
    product.settle(None)


def states_and_weight(rows: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, rows, 24, generator=generator).bfloat16()
    return states, torch.randn(50, 24, generator=generator).bfloat16()


def test_product_is_the_exact_one_rounded_once():
    states, weight = states_and_weight()
    exact = states.double() @ weight.double().T
    found = frozen_product(states, weight)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.double(), exact, rtol=2**-8, atol=1e-4)


def test_gradient_is_the_exact_one_rounded_once():
    states, weight = states_and_weight()
    states.requires_grad_()
    outer = torch.randn(2, 20, 50, generator=torch.Generator().manual_seed(1)).bfloat16()
    frozen_product(states, weight).backward(outer)
    exact = outer.double() @ weight.double()
    assert states.grad is not None
    assert torch.allclose(states.grad.double(), exact, rtol=2**-8, atol=1e-4)


def test_no_gradient_reaches_the_weight():
    states, weight = states_and_weight()
    weight.requires_grad_()
    frozen_product(states.requires_grad_(), weight).sum().backward()
    assert weight.grad is None


@pytest.mark.parametrize(
    ("rows", "kind", "wide"),
    [(20, torch.bfloat16, True), (7, torch.bfloat16, False), (20, torch.float32, False)],
)
def test_what_goes_through_32_bit(rows: int, kind: torch.dtype, wide: bool):
    states, weight = (value.to(kind) for value in states_and_weight(rows))
    assert product.widens(states, weight) == wide


def test_a_processor_with_bfloat16_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(product, "lacks_bfloat16", lambda: False)
    assert not product.widens(*states_and_weight())


def test_frozen_layers_are_widened_and_trained_ones_keep_their_gradient():
    layers = nn.Sequential(nn.Linear(24, 50), nn.Linear(50, 6, bias=False)).bfloat16()
    states, _ = states_and_weight()
    expected = layers.float()(states.float())
    layers.bfloat16().requires_grad_(False)
    widen_frozen_layers(layers)
    assert all(type(layer) is WideLinear for layer in layers)
    assert torch.allclose(layers(states).float(), expected, rtol=0.02, atol=0.02)
    layers.requires_grad_(True)
    layers(states).sum().backward()
    assert all(value.grad is not None for value in layers.parameters())


def test_32_bit_layers_stay():
    layers = nn.Sequential(nn.Linear(4, 4))
    widen_frozen_layers(layers)
    assert type(layers[0]) is nn.Linear


@pytest.mark.parametrize(
    ("wide", "narrow", "quick"), [(1.0, 0.5, True), (1.0, 0.9, False), (1.0, 6.0, False)]
)
def test_bfloat16_is_quick_where_it_is_clearly_quicker(
    monkeypatch: pytest.MonkeyPatch, wide: float, narrow: float, quick: bool
):
    quiet = [wide, narrow]  # once: other work on the machine slows all the other products
    noisy = [[9 * wide, 7 * narrow], [3 * wide, 80 * narrow]] * product.REPEATS
    pairs = [*noisy[: product.REPEATS - 1], quiet]
    seconds = iter([each for pair in pairs for each in pair])
    found = product.speed_up(lambda _: next(seconds))
    assert found == wide / narrow
    product.settle(None)
    monkeypatch.setattr(product, "speed_up", lambda: found)
    assert product.quick_bfloat16() == quick


def test_bfloat16_is_measured_once_and_not_where_it_is_settled(monkeypatch: pytest.MonkeyPatch):
    product.settle(None)
    asked: list[None] = []
    monkeypatch.setattr(product, "speed_up", lambda: asked.append(None) or 2.0)
    assert product.quick_bfloat16() and product.quick_bfloat16() and len(asked) == 1
    product.settle(False)
    assert not product.quick_bfloat16() and len(asked) == 1
    product.settle(None)
    assert product.quick_bfloat16() and len(asked) == 2
