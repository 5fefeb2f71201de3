"""The warm start: values that learn from labelled windows of text before any sample is drawn.

Values of a corpus's law are not the policy's, but the fit on own completions starts nearer from
them. What differs most is the level, and the level is known: it is shifted to the own completions'
rate before that fit. Measured: `LOG.md`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from tiltune.data.samples import Samples
from tiltune.values.exact_ends import ExactEnds
from tiltune.values.fit import brier_skill, labelled_values
from tiltune.values.model import ValueModel

LEAST_RATE, MOST_RATE = 0.001, 0.999
"""Values start at an observed rate, kept off 0 and 1 where its logit is infinite."""
LARGEST_SHIFT = 7.0
"""Logits: between the rates that values may start at."""
CERTAIN = 1e3
"""Logits beyond which R is known, and no shift moves it."""


def start_rate(rate: float) -> float:
    """The rate that values start at."""
    return min(max(rate, LEAST_RATE), MOST_RATE)


def learnt_part(values: ValueModel) -> ValueModel:
    """What learns from windows: without the ends, which a constraint's automaton tells anyway."""
    return values.without_ends() if isinstance(values, ExactEnds) else values


@torch.no_grad()
def shift_level(values: ValueModel, samples: Samples, *, most_tokens: int) -> float:
    """Shift the values' level to these completions' rate, and say by how many logits.

    `mean_t sigmoid(logit R_t + c) = mean_t C` over their own tokens of which R is not certain: as
    `R = E[C | prefix]`, the two means are one in expectation. Nothing is learnt of a completion but
    the rate.

    Args:
        values: moved by c, wherever R is not certain.
        samples: own completions, labelled.
        most_tokens: padded tokens of one forward pass.
    """
    said = labelled_values(values, samples, most_tokens)
    moved = said.logits.abs() < CERTAIN
    if not bool(moved.any()):
        return 0.0
    shift = level_shift(said.logits[moved], start_rate(float(said.labels[moved].mean())))
    values.shift(shift)
    return shift


def skill_of(values: ValueModel, samples: Samples, *, most_tokens: int) -> float | None:
    """The Brier skill on these completions, against their own rate as the constant."""
    said = labelled_values(values, samples, most_tokens)
    predicted = torch.sigmoid(said.logits)
    constant = float(said.labels.mean())
    errors = [(each - said.labels).square().mean() for each in (predicted, constant)]
    return brier_skill(float(errors[0]), float(errors[1]))


def level_shift(logits: Float[Tensor, " M"], rate: float) -> float:
    """The c at which `mean sigmoid(logits + c) = rate`, by bisection within `±LARGEST_SHIFT`."""
    low, high = -LARGEST_SHIFT, LARGEST_SHIFT
    for _ in range(60):
        middle = (low + high) / 2
        if float(torch.sigmoid(logits + middle).mean()) < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2
