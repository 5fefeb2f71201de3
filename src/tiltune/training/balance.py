"""Beta where it is left open: chosen before the policy's first step, from both terms' gradients.

Adam moves a weight by the gradient over its own size, so what the samples' term does depends on its
share of the gradient alone. A corpus's term is hundreds of times as large, in nats a token, as the
KL to a target near the policy; with a fixed beta a step is then the corpus's and little else.
"""

import math
from dataclasses import dataclass

STEPS = 4
"""Steps whose mean gradient is measured."""
PULL = 1.4
"""Norm of beta times the samples' gradient, over that of the corpus's. On real comments it gives
the beta of about 30 that was best of those tried by hand, at a sixth of the rate (`LOG.md`)."""
LEAST = 2.0
"""The least that is chosen; and beta where there is no corpus that it could weigh against."""


@dataclass(frozen=True)
class Norms:
    """Of the mean gradient of each term by the policy's own parameters, at a weight of 1.

    Attributes:
        corpus, samples: nats a token (the method's unit), per unit of a parameter.
    """

    corpus: float
    samples: float


def balanced(norms: Norms, *, lowest: float, highest: float) -> float:
    """`clip(PULL · |g_corpus| / |g_samples|)` within `[max(LEAST, lowest), highest]`.

    A samples' term without a gradient gets the most: so it is the limit of small ones.

    Args:
        norms: both above or equal to 0.
        lowest, highest: the bounds of an adapted beta; where they leave no room above `LEAST`, the
            upper one holds.
    """
    wanted = PULL * norms.corpus / norms.samples if norms.samples > 0 else math.inf
    return min(max(wanted, LEAST, lowest), highest)


def balance_told(*, lowest: float, highest: float) -> str:
    """What can be said before a run, as the values that make the samples' term are yet to learn."""
    return (
        "method.beta: chosen at the first update, when the values are fitted, so that the samples' "
        f"term pulls {PULL:g} times as much as the corpus (gradient norms over {STEPS} steps), "
        f"from {min(max(LEAST, lowest), highest):g} to {highest:g}"
    )
