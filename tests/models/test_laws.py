"""The algebra against numbers typed by hand, the abT chain, and laws that hold for any numbers."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltune.models.laws import (
    at_least_float32,
    effective_sample_size,
    gather,
    generalised_advantages,
    kl,
    kl_bernoulli,
    kl_from,
    log_softmax,
    masked_mean,
    prefix_weights,
    tilt,
    token_log_probs,
)

pytestmark = pytest.mark.quick

INF, NAN = float("inf"), float("nan")
TIGHT = {"rtol": 0.0, "atol": 1e-12}


def doubles(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def law(*probabilities: float) -> Tensor:
    return doubles(*probabilities).log()


def close(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(
        found, torch.as_tensor(expected, dtype=found.dtype).expand_as(found), **TIGHT
    )


# The abT chain: states s0 (no b yet), s1 (the last was b), s2 (b seen, the last was a).

ABT_LAW = law([0.4, 0.4, 0.2], [0.6, 0.1, 0.3], [0.4, 0.4, 0.2])
ABT_VALUES = law([5 / 9, 5 / 6, 0], [8 / 9, 0, 1], [8 / 9, 5 / 6, 1])
"""R after each of a, b and the end."""


def test_abt_tilt_is_the_table():
    log_q, log_z = tilt(ABT_LAW, ABT_VALUES)
    close(log_q.exp(), [[0.4, 0.6, 0], [0.64, 0, 0.36], [0.4, 0.375, 0.225]])
    close(log_z.exp(), [5 / 9, 5 / 6, 8 / 9])


def test_abt_divergences_add_up_to_minus_log_z():
    log_q, log_z = tilt(ABT_LAW, ABT_VALUES)
    found = kl(log_q, ABT_LAW)
    torch.testing.assert_close(found, doubles(0.243279, 0.106940, 0.002299), rtol=0.0, atol=5e-7)
    close((doubles(5 / 3, 5 / 3, 16 / 9) * found).sum(), math.log(9 / 5))
    close(log_z[0], -math.log(9 / 5))


def test_abt_prefix_weights_along_a_sentence():
    log_z = law([5 / 9, 5 / 9, 5 / 6, 8 / 9, 1.0])  # before each of a b a T, and padding
    mask = torch.tensor([[True, True, True, True, False]])
    weights, clipped = prefix_weights(log_z, mask)
    close(weights, [[1.0, 1.0, 1.5, 1.6, 0.0]])
    assert not clipped.any()


# Prefix weights.


def test_a_clip_cuts_weights_and_says_which():
    log_z = law([0.2, 0.4, 1.0, 0.9])
    mask = torch.tensor([[True, True, True, False]])
    weights, clipped = prefix_weights(log_z, mask, clip=2.5)
    close(weights, [[1.0, 2.0, 2.5, 0.0]])
    assert clipped.tolist() == [[False, False, True, False]]


def test_no_weight_where_nothing_satisfies_any_more():
    log_z = doubles([math.log(0.5), -INF, -INF], [-INF, -INF, -INF], [-INF, 0.0, 0.0])
    weights, clipped = prefix_weights(log_z, torch.ones(3, 3, dtype=torch.bool), clip=1.0)
    close(weights, [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert not clipped.any()


def test_a_masked_prefix_s_weight_is_0_whatever_stands_there():
    weights, _ = prefix_weights(doubles([0.0, NAN, 700.0]), torch.tensor([[True, False, False]]))
    close(weights, [[1.0, 0.0, 0.0]])


# Tilt.


def test_without_a_target_tilt_repeats_the_law():
    log_p = law([0.5, 0.25, 0.25], [0.5, 0.25, 0.25])
    log_q, log_z = tilt(log_p, doubles([-INF, -INF, -INF], [-INF, 0.0, 0.0]))
    assert log_z.tolist() == [-INF, math.log(0.5)]
    close(log_q[0], log_p[0])
    close(log_q[1].exp(), [0.0, 0.5, 0.5])


# Divergences: the direction, in numbers.


def test_kl_is_of_the_first_from_the_second():
    p, q = law(0.5, 0.5), law(0.9, 0.1)
    close(kl(p, q), 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))  # .5108
    close(kl(q, p), 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5))  # .3681


def test_kl_where_a_law_is_0():
    certain, fair = law(1.0, 0.0), law(0.5, 0.5)
    close(kl(certain, fair), math.log(2))
    assert kl(fair, certain).item() == INF
    close(kl(certain, certain), 0.0)


def test_kl_s_gradient_has_no_nan_where_p_is_0():
    logits = doubles(0.3, -0.2, 0.1).requires_grad_()
    kl(law(0.75, 0.25, 0.0), log_softmax(logits)).backward()
    assert logits.grad is not None
    close(logits.grad, logits.detach().softmax(-1) - doubles(0.75, 0.25, 0.0))


def test_fused_laws_are_the_plain_formulas_and_so_are_their_gradients():
    generator = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    ids = torch.randint(5, (3, 4), generator=generator)
    outer = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    log_q = log_softmax(other)
    pairs = (
        (lambda x: token_log_probs(x, ids), lambda x: gather(log_softmax(x), ids)),
        (lambda x: kl_from(log_q, x), lambda x: kl(log_q, log_softmax(x))),
    )
    for fused, plain in pairs:
        found, wanted = (side(logits.requires_grad_()) for side in (fused, plain))
        close(found.detach(), wanted.detach())
        one, two = (torch.autograd.grad((outer * y).sum(), logits)[0] for y in (found, wanted))
        close(one, two)
        assert one.abs().max() > 0.1


def test_kl_bernoulli_is_of_the_first_from_the_second():
    p, q = torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64)
    logs = [x.log() for x in (p, 1 - p, q, 1 - q)]
    close(kl_bernoulli(*logs), 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))


def test_kl_bernoulli_next_to_1_in_32_bit():
    """`log(1 - p)` of a p rounded to 1 would be -inf; given as a logarithm it is not."""
    logits = torch.tensor([20.0, 30.0])
    logs = [logsigmoid(sign * logits[n]) for n in (0, 1) for sign in (1, -1)]
    p, q = torch.sigmoid(logits.double())
    expected = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(kl_bernoulli(*logs).double(), expected, rtol=1e-3, atol=1e-15)


# Means and gathering.


def test_gather_takes_each_place_s_own_token():
    values = torch.arange(12.0).view(1, 3, 4)
    assert gather(values, torch.tensor([[2, 0, 3]])).tolist() == [[2.0, 4.0, 11.0]]


def test_masked_mean_never_reads_outside_the_mask():
    values = torch.tensor([1.0, NAN, 3.0, INF], requires_grad=True)
    mean = masked_mean(values, torch.tensor([True, False, True, False]))
    assert mean.item() == 2.0
    mean.backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.5, 0.0, 0.5, 0.0]


def test_masked_mean_of_nothing_is_0():
    assert masked_mean(torch.tensor([NAN]), torch.tensor([False])).item() == 0.0
    assert masked_mean(torch.tensor([NAN]), torch.tensor([False]), count=0.0).item() == 0.0


def test_parts_with_the_whole_s_count_add_up():
    values, mask = torch.randn(7, 5, dtype=torch.float64), torch.rand(7, 5) < 0.6
    count = float(mask.sum())
    parts = [masked_mean(values[r], mask[r], count=count) for r in (slice(0, 2), slice(2, 7))]
    close(parts[0] + parts[1], masked_mean(values, mask).item())


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.float32, torch.bfloat16])
def test_the_mask_s_type_does_not_matter(kind: torch.dtype):
    values, mask = torch.rand(1001), torch.ones(1001, dtype=torch.bool)
    mask[500:700] = False
    mask[:3] = True
    for function in (masked_mean, effective_sample_size):
        assert torch.equal(function(values, mask.to(kind)), function(values, mask))
    full = torch.ones_like(mask)
    assert torch.equal(masked_mean(values, full.to(kind)), masked_mean(values, full))


def test_effective_sample_size_by_hand():
    mask = torch.tensor([True, True, True, True, False])
    for weights, expected in (
        ([1.0, 1.0, 1.0, 1.0, 9.0], 1.0),
        ([0.0, 3.0, 0.0, 0.0, 9.0], 0.25),
        ([2.0, 1.0, 1.0, 0.0, NAN], 16 / 24),
        ([0.0, 0.0, 0.0, 0.0, 1.0], 0.0),
    ):
        close(effective_sample_size(doubles(*weights), mask), expected)


# Types of numbers.

KINDS = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}
MASK = torch.tensor([[True, True, False], [True, True, True]])
SAFE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "log_softmax": lambda x, y: log_softmax(x),
    "masked_mean": lambda x, y: masked_mean(x[..., 0], MASK),
    "kl": lambda x, y: kl(-x.abs(), -y.abs()),
    "kl_bernoulli": lambda x, y: kl_bernoulli(*(-z.abs() for z in (x, y, y, x))),
    "tilt.log_q": lambda x, y: tilt(x, y).log_q,
    "tilt.log_z": lambda x, y: tilt(x, y).log_z,
    "prefix_weights": lambda x, y: prefix_weights(x[..., 0], MASK, clip=1.5).weights,
    "effective_sample_size": lambda x, y: effective_sample_size(x[..., 0].abs(), MASK),
}


@pytest.mark.parametrize("name", SAFE)
def test_bfloat16_is_computed_in_32_bit(name: str):
    x, y = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = SAFE[name](x, y)
    assert found.dtype == torch.float32
    assert torch.equal(found, SAFE[name](x.float(), y.float()))


@pytest.mark.parametrize("name", SAFE)
def test_64_bit_stays(name: str):
    x, y = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    assert SAFE[name](x, y).dtype == torch.float64


def test_16_bit_is_raised():
    raised = {kind: at_least_float32(torch.ones(1, dtype=kind)).dtype for kind in KINDS}
    assert raised == KINDS


# Laws.

Logits = st.lists(st.floats(-30, 30), min_size=5, max_size=5).map(
    lambda x: log_softmax(doubles(*x))
)
Weights = st.lists(st.floats(0, 1e6).filter(lambda w: w == 0 or w > 1e-6), min_size=6, max_size=6)
laws = settings(max_examples=60, deadline=None)


@laws
@given(Logits, Logits)
def test_kl_is_at_least_0(log_p: Tensor, log_q: Tensor):
    divergence = kl(log_p, log_q).item()
    distance = (log_p.exp() - log_q.exp()).abs().sum().item()
    assert divergence >= distance**2 / 2 - 1e-12  # Pinsker: 0 only where they are equal


@laws
@given(Logits)
def test_kl_from_itself_is_0(log_p: Tensor):
    assert kl(log_p, log_p.clone()).item() == 0.0


@laws
@given(Logits, Logits)
def test_a_tilt_is_a_law_and_says_its_normaliser(log_p: Tensor, log_values: Tensor):
    log_q, log_z = tilt(log_p, log_values)
    close(log_q.exp().sum(), 1.0)
    close((log_p + log_values).exp().sum(), log_z.exp().item())
    torch.testing.assert_close(log_q + log_z, log_p + log_values, rtol=1e-12, atol=1e-12)


@laws
@given(Logits, st.floats(-20, 0))
def test_a_constant_tilts_nothing(log_p: Tensor, constant: float):
    log_q, log_z = tilt(log_p, torch.full_like(log_p, constant))
    torch.testing.assert_close(log_q, log_p, rtol=1e-12, atol=1e-12)
    close(log_z, constant)


@laws
@given(Weights)
def test_effective_sample_size_is_a_share(weights: list[float]):
    share = effective_sample_size(doubles(*weights), torch.ones(6)).item()
    least = 1 / 6 if any(weights) else 0.0
    assert least - 1e-12 <= share <= 1 + 1e-12


@laws
@given(Weights.filter(any), st.floats(0.01, 100))
def test_effective_sample_size_has_no_scale(weights: list[float], scale: float):
    mask = torch.ones(6)
    scaled = effective_sample_size(doubles(*weights) * scale, mask)
    torch.testing.assert_close(
        scaled, effective_sample_size(doubles(*weights), mask), rtol=1e-9, atol=0.0
    )


GAINS = torch.tensor([[0.0, -0.5, 2.0], [1.0, 9.0, 9.0]], dtype=torch.float64)
STATE_VALUES = torch.tensor([[0.3, 0.7, 0.2], [0.4, 9.0, 9.0]], dtype=torch.float64)
REAL = torch.tensor([[True, True, True], [True, False, False]])


@pytest.mark.parametrize(
    ("decay", "discount", "expected"),
    [
        # residuals by hand: .9·.7 - .3 = .33, -.5 + .9·.2 - .7 = -1.02, 2 - .2 = 1.8
        (0.5, 0.9, [0.33 + 0.45 * (-1.02 + 0.45 * 1.8), -1.02 + 0.45 * 1.8, 1.8]),
        (0.0, 0.9, [0.33, -1.02, 1.8]),  # the residuals themselves
        (1.0, 1.0, [1.5 - 0.3, 1.5 - 0.7, 2.0 - 0.2]),  # return minus value
    ],
)
def test_generalised_advantages_by_hand(decay: float, discount: float, expected: list[float]):
    found = generalised_advantages(GAINS, STATE_VALUES, REAL, decay=decay, discount=discount)
    wanted = torch.tensor([expected, [0.6, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_generalised_advantages_never_read_the_padding():
    spoilt = [torch.where(REAL, part, float("nan")) for part in (GAINS, STATE_VALUES)]
    found = generalised_advantages(*spoilt, REAL, decay=0.9)
    assert torch.equal(found, generalised_advantages(GAINS, STATE_VALUES, REAL, decay=0.9))
    half = generalised_advantages(GAINS.bfloat16(), STATE_VALUES.bfloat16(), REAL, decay=0.9)
    assert half.dtype == torch.float32
