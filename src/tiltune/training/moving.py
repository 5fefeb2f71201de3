"""Moving targets, a round at a time: where the policy came to, where the target goes, the weights.

The master aims within the bounds, so far from their edges that the interval of what is measured
lies within them, too. Where the policy's share is another than its targets so far let expect, since
its prompts differ, or its values err, the aim gives way by as much, in logits. What is expected
lags behind the targets a little, as a policy does: else its lag would be taken for an error, and
the next target would go too far.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiltune.constraints.scores import Bound
from tiltune.data.samples import Samples
from tiltune.methods.master import Infeasible, Moved, nearest
from tiltune.records.intervals import wilson_interval
from tiltune.records.rounds import ShareRecord

WIDTHS = 2.0
"""Half-widths of the interval between aim and edge: its own, and one for where it falls."""
HALF_WIDTH = 1.96
"""Standard errors that half a 95 % interval is wide."""
PACE = 0.9
"""Share of its way to a target, in logits, that a policy is expected to come in a round."""


@dataclass
class Mover:
    """Owns the targets so far, which are all that it remembers.

    Attributes:
        bounds: on shares of all completions.
        measured: completions that the final policy is measured on.
        targets: the shares of each round's target, a bound each.
    """

    bounds: Sequence[Bound]
    measured: int
    targets: list[tuple[float, ...]] = field(default_factory=list[tuple[float, ...]])

    def move(self, pool: Samples, measured: Samples) -> tuple[Samples, dict[str, Any]]:
        """The reference's completions with their weights as labels, and fields of the record.

        A label is the weight as a share of the largest, so that it lies in [0, 1].

        Args:
            pool: completions of the reference.
            measured: fresh ones of the policy.

        Raises:
            Infeasible: no weights on the pool meet the bounds.
        """
        assert pool.met is not None
        met = pool.met.cpu().numpy()
        least = nearest(met, self.bounds)
        moved = self._aimed(met, self._misses(pool, measured)) or least
        self.targets.append(moved.shares)
        labels = torch.from_numpy(moved.weights / moved.weights.max()).float()
        return replace(pool, labels=labels.to(pool.labels.device)), {
            "shares": self.told(measured, moved),
            "kl_target_reference_nats_per_completion": moved.kl,
            "kl_least_nats_per_completion": least.kl,
            "target_effective_sample_share": moved.effective_share,
        }

    def told(self, measured: Samples, moved: Moved | None = None) -> tuple[ShareRecord, ...]:
        """The shares of fresh completions of the policy, beside their bounds and the target's."""
        assert measured.met is not None
        counts = measured.met.sum(0).tolist()
        return tuple(
            ShareRecord(
                of=bound.name,
                low=bound.low,
                high=bound.high,
                share=count / len(measured),
                interval=wilson_interval(count, len(measured)),
                target=moved.shares[place] if moved else None,
                multiplier_nats=_finite(moved.multipliers[place]) if moved else None,
            )
            for place, (bound, count) in enumerate(zip(self.bounds, counts, strict=True))
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"targets": [list(each) for each in self.targets]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Undo `state`."""
        self.targets = [tuple(each) for each in state["targets"]]

    def _misses(self, pool: Samples, measured: Samples) -> list[float]:
        """How far each share of the policy is from what its targets let expect, logits.

        A policy of version n has been trained on the targets of the first n rounds.
        """
        seen = self.targets[: int(measured.policy_version[0])]
        misses: list[float] = []
        for place, (share, base) in enumerate(zip(_shares(measured), _shares(pool), strict=True)):
            expected = _logit(base, len(pool))
            for target in seen:
                expected += PACE * (_logit(target[place], len(pool)) - expected)
            misses.append(_logit(share, len(measured)) - expected)
        return misses

    def _aimed(self, met: np.ndarray, misses: Sequence[float]) -> Moved | None:
        """At the drawn-in bounds, less the misses; None where no weights meet those."""
        aims = [
            Bound(bound.name, *(_shifted(edge, -miss) for edge in drawn_in(bound, self.measured)))
            for bound, miss in zip(self.bounds, misses, strict=True)
        ]
        try:
            return nearest(met, aims)
        except Infeasible:
            return None


def drawn_in(bound: Bound, count: int) -> tuple[float, float]:
    """Bounds within which a share must lie so that the interval of so many lies within the stated.

    `low + 2h(low)` and `high - 2h(high)`, `h(s) = 1.96 √(s(1-s)/n)`; their middle where they cross.
    """
    low, high = (
        edge + side * WIDTHS * HALF_WIDTH * math.sqrt(edge * (1 - edge) / count)
        for edge, side in ((bound.low, 1), (bound.high, -1))
    )
    if low <= high:
        return low, high
    middle = (bound.low + bound.high) / 2
    return middle, middle


def _shares(samples: Samples) -> list[float]:
    assert samples.met is not None
    shares: Tensor = samples.met.double().mean(0)
    return shares.tolist()


def _logit(share: float, count: int) -> float:
    """Of so many; none of them is not none of all."""
    share = (share * count + 0.5) / (count + 1)
    return math.log(share) - math.log1p(-share)


def _shifted(share: float, logits: float) -> float:
    """None and all stay what they are."""
    if not 0 < share < 1:
        return share
    return 1 / (1 + (1 - share) / share * math.exp(-logits))


def _finite(multiplier: float) -> float | None:
    """None for one beyond all numbers, as of 'all of them'."""
    return multiplier if math.isfinite(multiplier) else None
