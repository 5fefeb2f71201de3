"""The imbalances of `gfn` on the abT chain, against numbers known from its exact law."""

import math
from typing import Any

import pytest
import torch
from flow_worlds import columns, numbers, posterior, rate, reference, score
from torch import Tensor

from tiltune.methods.flow_losses import (
    fitted_log_z,
    stretch_imbalance,
    token_imbalances,
    whole_imbalance,
)

pytestmark = pytest.mark.quick

TEXTS = ("b", "ab", "bab", "bba", "aabab")
OF_THE_PRIOR = dict(zip(TEXTS, (47.7171, 31.8114, 23.8585, 23.8585, 28.6302), strict=True))
"""subtb's loss of the reference itself with ε = 1e-3; ln(1e-3)² is 47.7171."""
NEARLY_0 = 1e-300


def stretches(text: str, policy: Any, *, ended: bool = True) -> float:
    """subtb's loss; without an end the text is cut after its last letter."""
    told = columns(text, policy)
    width = len(text) + ended
    ratios, ends, rewards = (told[n][:, :width] for n in ("ratios", "ends", "rewards"))
    reward = numbers([math.log(score(text))])
    mask = torch.ones(1, width, dtype=torch.bool)
    return stretch_imbalance(ratios, ends, rewards, reward, mask, torch.tensor([ended])).item()


@pytest.mark.parametrize("text", TEXTS)
def test_stretches_of_the_exact_posterior_and_of_the_prior(text: str) -> None:
    assert stretches(text, posterior) < 1e-28
    assert stretches(text, reference) == pytest.approx(OF_THE_PRIOR[text], abs=1e-4)


def test_the_flow_that_is_read_from_the_end_is_the_rate() -> None:
    """`R(⊤) / q(⊤|∅)` over p is .556, `R_ε(∅)`."""
    flow = score("") * reference("")[2] / posterior("")[2]
    assert flow == pytest.approx(rate(""), abs=1e-12)
    assert flow == pytest.approx(0.556, abs=5e-4)


def test_stretches_are_the_pairs_by_hand() -> None:
    """All pairs of states one by one, from `log R(s_i) + Σ log π - log p - log R(s_j)`."""
    policy = lambda text: (0.5, 0.2, 0.3) if text[-1:] == "a" else (0.3, 0.3, 0.4)  # noqa: E731
    for text in TEXTS:
        log_r = [
            math.log(score(text[:t]) * reference(text[:t])[2] / policy(text[:t])[2])
            for t in range(len(text) + 1)
        ]
        ratio = columns(text, policy)["ratios"][0].tolist()
        pairs = [
            (log_r[i] + sum(ratio[i:j]) - log_r[j]) ** 2
            for j in range(len(log_r))
            for i in range(j)
        ]
        assert stretches(text, policy) == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)


def test_a_cut_completion_ends_with_certainty_under_both() -> None:
    """Cut after "ab", R there is its score: the pairs with that state, by hand."""
    log_r = [math.log(score("") * 1.0), math.log(score("a")), math.log(score("ab"))]
    found = stretches("ab", reference, ended=False)  # policy = reference: all ratios are 0
    pairs = [(log_r[i] - log_r[j]) ** 2 for j in range(3) for i in range(j)]
    assert found == pytest.approx(sum(pairs) / 3, rel=1e-12)
    assert stretches("ab", posterior, ended=False) > 0.01  # unforced it would be balanced


@pytest.mark.parametrize("text", [t for t in TEXTS if score(t) == 1.0])
def test_the_others_are_0_at_the_target(text: str) -> None:
    """With ε at 0 on what satisfies: log Z = ln(5/9)."""
    told = columns(text, lambda prefix: posterior(prefix, NEARLY_0), NEARLY_0)
    log_z, reward = numbers([math.log(5 / 9)]), numbers([0.0])
    assert whole_imbalance(log_z, told["ratios"].sum(1), reward).item() < 1e-28
    mask = torch.ones_like(told["ratios"], dtype=torch.bool)
    assert token_imbalances(told["values"], told["ratios"], reward, mask).item() < 1e-28


def test_vargrad_finds_log_z_and_leaves_no_variance_at_the_target() -> None:
    rows = [columns(text, posterior)["ratios"].sum() for text in TEXTS]
    rewards = numbers([math.log(score(text)) for text in TEXTS])
    group = torch.tensor([7, 7, 7, 7, 2])
    log_z, variance = fitted_log_z(torch.stack(rows), rewards, group)
    assert log_z.tolist() == pytest.approx([math.log(rate(""))] * 5, abs=1e-12)
    assert variance[:4].tolist() == pytest.approx([0.0] * 4, abs=1e-24)
    assert variance[4].isnan()


def test_fitted_log_z_by_hand() -> None:
    """A mean of logarithms of its own group, and not the logarithm of a mean."""
    ratio, reward = numbers([1.0, 3.0, 0.0]), numbers([0.0, -2.0, 5.0])
    log_z, variance = fitted_log_z(ratio, reward, torch.tensor([0, 0, 1]))
    assert log_z.tolist() == [-3.0, -3.0, 5.0]
    assert variance[:2].tolist() == [4.0, 4.0]


def test_a_whole_completion_is_a_sum_of_logarithms() -> None:
    """Neither the logarithm of a sum nor a mean a token: (log Z + Σ - log C)²."""
    ratio = numbers([0.5 + 0.25])
    found = whole_imbalance(numbers([-1.0]), ratio, numbers([-2.0]))
    assert found.item() == pytest.approx((-1 + 0.75 + 2) ** 2)


def test_token_imbalances_by_hand() -> None:
    """The last token's is with the score; what is padding is never read."""
    values = numbers([[-1.0, -0.5, math.nan], [-2.0, -1.0, -0.25]])
    ratios = numbers([[0.1, 0.2, math.nan], [0.0, 0.5, 1.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    reward = numbers([-3.0, 0.0])
    found = token_imbalances(values, ratios, reward, mask)
    first = (-1 + 0.1 + 0.5) ** 2 + (-0.5 + 0.2 + 3) ** 2
    second = (-2 + 0 + 1) ** 2 + (-1 + 0.5 + 0.25) ** 2 + (-0.25 + 1) ** 2
    assert found.tolist() == pytest.approx([first, second], rel=1e-12)


def test_padding_moves_nothing() -> None:
    told = columns("bab", reference)
    pad = lambda part: torch.nn.functional.pad(part, (0, 3), value=9.0)  # noqa: E731
    mask = torch.nn.functional.pad(torch.ones(1, 4, dtype=torch.bool), (0, 3))
    parts: list[Tensor] = [pad(told[name]) for name in ("ratios", "ends", "rewards")]
    found = stretch_imbalance(*parts, numbers([0.0]), mask, torch.tensor([True]))
    assert found.item() == pytest.approx(stretches("bab", reference), rel=1e-12)
