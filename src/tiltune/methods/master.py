"""The master of moving targets: what is nearest to what is given, and meets bounds on all of it.

    z = argmin KL(z ‖ p)    over the laws z with    low_m <= E_z[f_m] <= high_m    for every bound m

p gives each of N completions 1/N, and f_m says whether bound m counts it. The answer is a tilt,
`z_i ∝ exp(Σ_m λ_m f_m(i))` with one multiplier a bound, 0 where the bound is met without it. Of one
bound it is known in closed form: the completions that are counted weigh `τ/μ`, the others
`(1-τ)/(1-μ)`, μ their share and τ the nearest one that is allowed; of several the dual is solved by
SciPy. The other losses at the end are those of the paper, on numbers and on labels.
Source: arXiv 2002.10766; its equations as its authors' code has them, the form with KL is ours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from tiltune.constraints.scores import Bound
from tiltune.errors import ConfigError, RunError, counted

MOST_MULTIPLIER = 40.0
"""Nats. Where no finite multiplier reaches a bound, as for 'all of them', e^-40 is none of them."""
TOLERANCE = 1e-6
"""By which a share may miss its bound; the solvers' own is smaller."""


class Infeasible(RunError):
    """No weights on these completions meet the bounds; says which of them cannot hold together."""


@dataclass(frozen=True)
class Moved:
    """The nearest law on the given completions that meets the bounds: a certificate, too.

    Attributes:
        weights: of each completion, of mean 1, [N].
        multipliers: λ of each bound, nats; above 0 raises its share.
        shares: `E_z[f_m]`, which lie within the bounds.
        kl: `KL(z ‖ p)`, nats a completion: no law on them that meets the bounds is nearer.
    """

    weights: Float[np.ndarray, " N"]
    multipliers: tuple[float, ...]
    shares: tuple[float, ...]
    kl: float

    @property
    def effective_share(self) -> float:
        """Effective sample size of the weights, `(Σ w)² / Σ w²`, as a share of their number."""
        return float(1 / np.square(self.weights).mean())


def nearest(met: Bool[np.ndarray, "N M"], bounds: Sequence[Bound]) -> Moved:
    """The law z of the module's equation.

    Args:
        met: which bounds count each completion.
        bounds: one a column.

    Raises:
        Infeasible: no weights meet the bounds; says which.
        ConfigError: several bounds, and SciPy is not installed.
    """
    shares = met.mean(0)
    for bound, share in zip(bounds, shares.tolist(), strict=True):
        _refuse_one_kind(bound, share, len(met))
    aims = np.clip(shares, [each.low for each in bounds], [each.high for each in bounds])
    if np.array_equal(aims, shares):
        return _moved(met, np.zeros(len(bounds)), np.ones(len(met)))
    if len(bounds) == 1:
        return _one(met, float(shares[0]), float(aims[0]))
    return _several(met, bounds)


def _refuse_one_kind(bound: Bound, share: float, count: int) -> None:
    """Where all completions are of one kind, no weights change the share."""
    if (share == 0 and bound.low > 0) or (share == 1 and bound.high < 1):
        which = "none" if share == 0 else "each"
        raise Infeasible(
            f"{which} of {counted(count, 'completion')} of the reference is counted by "
            f"{bound.name}, whose share is to be {bound.told}: no weights on them reach it; raise "
            "sampler.samples_per_round, give data.prompts that bring both kinds, or state another "
            "bound"
        )


def _one(met: Bool[np.ndarray, "N 1"], share: float, aim: float) -> Moved:
    """In closed form: `w = τ/μ` where met, `(1-τ)/(1-μ)` where not; λ is their log-ratio."""
    up, down = aim / share, (1 - aim) / (1 - share)
    multiplier = (math.log(up) if up else -math.inf) - (math.log(down) if down else -math.inf)
    return _moved(met, np.array([multiplier]), np.where(met[:, 0], up, down))


def _several(met: Bool[np.ndarray, "N M"], bounds: Sequence[Bound]) -> Moved:
    """By the dual, over the patterns of bounds that occur:

    min over a, b >= 0 of    log Σ_k p_k e^{(a-b)·f_k} - a·low + b·high,    λ = a - b
    """
    optimize = require_solver()
    kinds, index, counts = np.unique(met, axis=0, return_inverse=True, return_counts=True)
    features, log_p = kinds.astype(float), np.log(counts / len(met))
    low = np.array([each.low for each in bounds])
    high = np.array([each.high for each in bounds])
    _refuse_conflict(optimize, features, bounds)

    def dual(parts: np.ndarray) -> tuple[float, np.ndarray]:
        up, down = np.split(parts, 2)
        scores = log_p + features @ (up - down)
        log_z = float(np.logaddexp.reduce(scores))
        reached = np.exp(scores - log_z) @ features
        value = float(log_z - up @ low + down @ high)
        return value, np.concatenate((reached - low, high - reached))

    found = optimize.minimize(
        dual,
        np.zeros(2 * len(bounds)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, MOST_MULTIPLIER)] * (2 * len(bounds)),
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 2000, "maxfun": 20_000},
    )
    up, down = np.split(found.x, 2)
    multipliers = up - down
    scores = features @ multipliers
    weights = np.exp(scores - np.logaddexp.reduce(log_p + scores))[index.reshape(-1)]
    moved = _moved(met, multipliers, weights)
    missed = [max(b.low - s, s - b.high) for b, s in zip(bounds, moved.shares, strict=True)]
    if max(missed) > TOLERANCE:
        raise RunError(
            f"the solver left a share {max(missed):.1e} outside its bounds, as if they could be "
            f"met by {counted(len(met), 'completion')} but barely; state wider bounds"
        )
    return moved


def _moved(met: np.ndarray, multipliers: np.ndarray, weights: np.ndarray) -> Moved:
    """With what the weights make of the shares, and how far they are from none."""
    weighed = np.where(weights > 0, weights * np.log(np.where(weights > 0, weights, 1.0)), 0.0)
    return Moved(
        weights,
        tuple(multipliers.tolist()),
        tuple((weights @ met / len(met)).tolist()),
        max(0.0, float(weighed.mean())),
    )


def _refuse_conflict(optimize: Any, features: np.ndarray, bounds: Sequence[Bound]) -> None:
    """A linear program: the least by which bounds must give way, and those that press against it.

    Raises:
        Infeasible: that is more than nothing.
    """
    kinds, count = features.shape
    slack = -np.eye(count)
    upper = np.block([[features.T, slack], [-features.T, slack]])
    limits = np.array([each.high for each in bounds] + [-each.low for each in bounds])
    cost = np.concatenate((np.zeros(kinds), np.ones(count)))
    whole = np.concatenate((np.ones(kinds), np.zeros(count)))[None]
    found = optimize.linprog(cost, upper, limits, whole, [1.0], method="highs")
    if found.fun <= TOLERANCE:
        return
    pressing = np.abs(found.ineqlin.marginals).reshape(2, count).max(0) > TOLERANCE
    told = " and ".join(
        f"{each.name}: {each.told}"
        for each, presses in zip(bounds, pressing, strict=True)
        if presses
    )
    raise Infeasible(
        f"the bounds contradict each other on the reference's completions ({told}): no weights "
        f"meet all of them, the nearest miss by {found.fun:.3f} together; widen one of them, or "
        "give data.prompts that bring completions of the kinds that they need"
    )


def require_solver() -> Any:
    """`scipy.optimize`; raises ConfigError where it is not installed."""
    try:
        return import_module("scipy.optimize")
    except ImportError as missing:
        raise ConfigError(
            f"several bounds at once are solved by SciPy ({missing}); "
            "run: pip install 'tiltune[population]'"
        ) from missing


def squared_targets(
    data: Float[np.ndarray, " N"],
    predictions: Float[np.ndarray, " N"],
    *,
    alpha: float,
    mean: float,
) -> Float[np.ndarray, " N"]:
    """`argmin_z Σ (z-y)² + (1/α) Σ (z-p)²` over the z of this mean: `(α y + p)/(1 + α)`, shifted.

    Args:
        data: y.
        predictions: p, of what is learning.
        alpha: how much the data weigh against the predictions.
        mean: what the targets' mean must be.
    """
    free = (alpha * data + predictions) / (1 + alpha)
    return free + (mean - free.mean())


def targets_within(
    data: Float[np.ndarray, " N"], predictions: Float[np.ndarray, " N"], *, beta: float
) -> Float[np.ndarray, " N"]:
    """`argmin_z Σ (z-y)²` over the z whose mean square from the predictions p is at most β.

    Args:
        data: y.
        predictions: p, which meet the constraint already.
        beta: squared units.
    """
    distance = float(np.square(data - predictions).mean())
    share = min(1.0, math.sqrt(beta / distance)) if distance else 1.0
    return predictions + share * (data - predictions)


def balanced_labels(labels: Int[np.ndarray, " N"], most: Sequence[int]) -> Int[np.ndarray, " N"]:
    """The labels with the fewest changed so that class c has at most `most[c]` of them.

    A linear program of transport, whose optimum is integral.

    Raises:
        Infeasible: there are more labels than the classes may have together.
    """
    if sum(most) < len(labels):
        raise Infeasible(
            f"{counted(len(labels), 'label')} do not fit into classes of at most "
            f"{', '.join(map(str, most))}, {sum(most)} together; raise a bound"
        )
    count, classes = len(labels), len(most)
    kept = np.eye(classes)[labels]
    each = np.kron(np.eye(count), np.ones(classes))
    of_class = np.kron(np.ones(count), np.eye(classes))
    found = require_solver().linprog(
        1 - kept.reshape(-1), of_class, most, each, np.ones(count), method="highs-ds"
    )
    return found.x.reshape(count, classes).argmax(1)
