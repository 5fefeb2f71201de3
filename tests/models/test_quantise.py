"""AdpQ against its closed form, a grid search, and numbers worked out by hand."""

import pytest
import torch
from torch import Tensor

from tiltune.models.quantise import (
    BITS,
    GROUP,
    Packed,
    grids,
    nearest,
    outliers,
    pack,
    quantise,
    top,
    unpack,
)

pytestmark = pytest.mark.quick

WEIGHTS = torch.tensor([-2, -1, -0.5, 0.1, 0.25, 0.5, 1, 4], dtype=torch.float64)
"""In 64 bit, in which -2 and ±.5 lie halfway between two levels; such go to the even code."""


def shrunk(weights: Tensor, penalty: float) -> Tensor:
    """`sign(w) ReLU(|w| - λ' / |w|)`, the closed form of the adaptive LASSO with λ' = λ / 2."""
    return weights.sign() * (weights.abs() - penalty / weights.abs()).relu()


def rounded(weights: Tensor, mask: Tensor, bits: int) -> Tensor:
    """One group through its two grids, whose scales are exact."""
    wide, apart = weights[None], mask[None]
    scales = grids(wide, apart, bits)
    return (nearest(wide, apart, scales, bits) * torch.where(apart, scales[:, 1:], scales[:, :1]))[
        0
    ]


@pytest.mark.parametrize(("weight", "exact"), [(0.7, 0.0), (2.0, 0.875), (-3.0, -2.25)])
def test_the_closed_form_is_the_minimum(weight: float, exact: float) -> None:
    """Golden 6.6.3, λ = 4.5: by a search over 800,001 places."""
    places = torch.linspace(-4, 4, 800_001, dtype=torch.float64)
    found = places[((weight - places).square() + 4.5 * (places / weight).abs()).argmin()]
    assert float(found) == pytest.approx(exact, abs=1e-5)
    assert float(shrunk(torch.tensor(weight), 2.25)) == pytest.approx(exact, abs=1e-6)


def test_outliers_are_what_the_lasso_leaves() -> None:
    """Golden 6.6.1."""
    found = outliers(WEIGHTS, 0.25)
    assert WEIGHTS[found].tolist() == [-2, 4]
    for penalty in (1.0, 2.25, 3.999):
        assert torch.equal(shrunk(WEIGHTS, penalty) != 0, found), penalty
    assert shrunk(WEIGHTS, 2.25).tolist() == [-0.875, 0, 0, 0, 0, 0, 0, 3.4375]


def test_by_rank_it_is_the_lasso_of_a_layer() -> None:
    torch.manual_seed(0)
    weights = torch.randn(40, 30)
    sizes = weights.abs().flatten().sort().values
    between = float((sizes[-60] + sizes[-61]) / 2) ** 2
    assert torch.equal(outliers(weights, 0.05), shrunk(weights, between) != 0)


def test_two_grids_keep_small_weights_apart() -> None:
    """Golden 6.6.2."""
    found = rounded(WEIGHTS, outliers(WEIGHTS, 0.25), 4)
    exact = [-2.285714, -1, -0.571429, 0.142857, 0.285714, 0.571429, 1, 4]
    torch.testing.assert_close(found, torch.tensor(exact).double(), atol=1e-6, rtol=0)
    core = WEIGHTS.abs() < 2
    assert float((found - WEIGHTS)[core].abs().max()) == pytest.approx(1 / 14, abs=1e-6)
    plain = rounded(WEIGHTS, outliers(WEIGHTS, 0), 4)
    assert float((plain - WEIGHTS).abs().max()) == pytest.approx(0.285714, abs=1e-6)
    assert plain[3] == 0 and plain[4] == 0


def test_stored_it_is_the_same_to_the_scales_rounding() -> None:
    packed = quantise(WEIGHTS, 4, share=0.25)
    exact = rounded(WEIGHTS, outliers(WEIGHTS, 0.25), 4)
    torch.testing.assert_close(packed.weights(), exact.float(), rtol=2**-8, atol=0)
    assert packed.counts.tolist() == [2] and packed.places.tolist() == [0, 7]


@pytest.mark.parametrize("bits", BITS)
def test_without_outliers_it_is_plain_rounding_by_groups(bits: int) -> None:
    """Golden 6.6.4: α = 0; scales are powers of two, so that the stored ones are exact."""
    torch.manual_seed(1)
    levels = torch.randint(-top(bits), top(bits) + 1, (3, GROUP)).float()
    levels[:, 0] = top(bits)
    scales = torch.tensor([[0.5], [2.0], [2**-20]])
    weights = (levels + 0.4 * torch.rand(3, GROUP).masked_fill(levels == top(bits), 0)) * scales
    packed = quantise(weights, bits, share=0)
    assert torch.equal(packed.weights(), levels * scales)
    assert packed.scales.flatten().tolist() == scales.flatten().tolist()
    assert not len(packed.counts) and not len(packed.places)


def test_all_as_outliers_use_the_outliers_grid() -> None:
    """Golden 6.6.4: α = 1."""
    one, none = quantise(WEIGHTS, 4, share=1), quantise(WEIGHTS, 4, share=0)
    assert one.counts.tolist() == [8] and float(one.scales[0, 0]) == 1
    assert torch.equal(one.scales[:, 1], none.scales[:, 0])
    assert torch.equal(one.weights(), none.weights())


def test_equal_weights_give_exactly_as_many_outliers() -> None:
    """Golden 6.6.4: ties go to those stored first, also beside larger ones."""
    found = outliers(torch.full((10, 10), -0.3), 0.07)
    assert found.flatten().nonzero().flatten().tolist() == list(range(7))
    found = outliers(torch.tensor([1.0, 1, 5, 1, 1]), 0.6)
    assert found.tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("bits", BITS)
def test_unpacking_is_the_inverse_of_packing(bits: int) -> None:
    """Golden 6.6.4: every code of every width, thus every sign, at every place of a word."""
    torch.manual_seed(2)
    codes = torch.randint(0, 2**bits, (8 * 300,), dtype=torch.uint8)
    codes[: 2**bits] = torch.arange(2**bits).to(torch.uint8)
    packed = pack(codes, bits)
    assert len(packed) == 300 * bits
    assert torch.equal(unpack(packed, bits), codes)
    assert pack(torch.tensor([1, 2, 0, 0, 0, 0, 0, 0], dtype=torch.uint8), 3)[0] == 0b010001


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_no_weight_is_farther_than_half_a_step(bits: int, share: float) -> None:
    """Of any shape, groups of zeros and tiny ones among them, a last one that is not full."""
    torch.manual_seed(3)
    weights = torch.randn(37, 19)
    weights[:8] = 0
    weights[8:20] *= 1e-30
    packed = quantise(weights.bfloat16(), bits, share=share)
    found, wide = packed.weights(), weights.bfloat16().float()
    mask = outliers(wide, share)
    size = torch.nn.functional.pad(wide.flatten(), (0, -wide.numel() % GROUP)).view(-1, GROUP)
    apart = torch.nn.functional.pad(mask.flatten(), (0, -wide.numel() % GROUP)).view(-1, GROUP)
    step = torch.where(apart, packed.scales.float()[:, -1:], packed.scales.float()[:, :1])
    # the largest of a grid may lie beyond its end by the rounding of the scale
    bound = 0.5 * step + 2**-8 * size.abs()
    assert bool(((found - wide).flatten().abs() <= bound.flatten()[: wide.numel()]).all())
    assert bool((found[:8] == 0).all()) and found.shape == weights.shape


def test_its_bytes_are_those_of_the_formula() -> None:
    """bits + 2 scales of 16 bits a group, and for each outlier a byte, for each group another."""
    torch.manual_seed(4)
    size = 64 * GROUP
    packed = quantise(torch.randn(64, GROUP), 4, share=0.05)
    assert packed.bytes == size // 2 + 64 * 4 + round(0.05 * size) + 64
    plain = quantise(torch.randn(64, GROUP), 3, share=0)
    assert plain.bytes == 3 * size // 8 + 64 * 2


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        quantise(torch.tensor([1.0, float("nan")]), 4, share=0)
    with pytest.raises(ValueError, match="5 bits"):
        quantise(torch.ones(4), 5, share=0)


def test_more_outliers_round_heavy_tails_closer() -> None:
    torch.manual_seed(5)
    weights = torch.randn(256, 256) * torch.rand(256, 256) ** -0.4

    def error(share: float) -> float:
        packed: Packed = quantise(weights, 4, share=share)
        return float((packed.weights() - weights).square().mean())

    assert error(0.05) < 0.5 * error(0)
