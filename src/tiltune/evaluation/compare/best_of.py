"""Best of n with a 0/1 chooser, in closed form.

Of n independent draws from p the first that satisfies is kept, and the first of all where none
does. With Z = P(satisfied) under p,

    p_n(y) = p(y) (1 - (1 - Z)^n) / Z    where y satisfies: Σ_i (1 - Z)^(i-1) p(y)
    p_n(y) = p(y) (1 - Z)^(n - 1)        where it does not

and the two sum to 1. Z is estimated from draws of p; intervals follow by the delta method,
Var f(Z) ≈ f'(Z)² Z (1 - Z) / drawn.
"""

import math

from tiltune.worlds.distance import Estimate


def satisfaction_of_best(z: float, n: int) -> float:
    """P(satisfied) of the best of n: `1 - (1 - Z)^n`."""
    return -math.expm1(n * math.log1p(-z)) if z < 1 else 1.0


def log_gain(z: float, n: int) -> float:
    """`log p_n(y) - log p(y) = log((1 - (1 - Z)^n) / Z)` of a satisfying y, nats; Z > 0."""
    return math.log(satisfaction_of_best(z, n) / z)


def kl_target_best(kl_target_base: Estimate, n: int, *, satisfied: int, drawn: int) -> Estimate:
    """`KL(q || p_n) = KL(q || p) - log((1 - (1 - Z)^n) / Z)` for a q that always satisfies, nats.

    Args:
        kl_target_base: KL(q || p), nats a sentence.
        n: draws for each that is kept.
        satisfied: how many of p's own draws satisfy, at least one; estimates Z.
        drawn: how many were drawn; independent of the sentences of `kl_target_base`.
    """
    z = satisfied / drawn
    slope = n * (1 - z) ** (n - 1) / satisfaction_of_best(z, n) - 1 / z
    error = math.hypot(kl_target_base.standard_error, slope * math.sqrt(z * (1 - z) / drawn))
    return Estimate(kl_target_base.value - log_gain(z, n), error)


def kl_best_base(n: int, *, satisfied: int, drawn: int) -> Estimate:
    """`KL(p_n || p) = s log(s / Z) + (1 - s)(n - 1) log(1 - Z)` with `s = 1 - (1 - Z)^n`, nats."""
    z = satisfied / drawn
    s, rest = satisfaction_of_best(z, n), 1 - z
    if z in (0.0, 1.0):  # all draws are alike, and so is the one that is kept
        return Estimate(0.0, 0.0)
    value = s * math.log(s / z) + (1 - s) * (n - 1) * math.log(rest)
    growth = n * rest ** (n - 1)
    slope = growth * (math.log(s / z) + 1) - s / z
    slope -= (n - 1) * rest ** (n - 1) * (n * math.log(rest) + 1)
    return Estimate(value, abs(slope) * math.sqrt(z * rest / drawn))
