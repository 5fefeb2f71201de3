"""Moving targets, a round at a time: where the policy came to, where the target goes, the weights.

The master aims within the bounds, so far from their edges that the interval of what is measured
lies within them, too. The learner comes near its target and not to it, and prompts differ; so what
the policy misses of an edge is added to the aim, in logits.
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
GAIN = 0.5
"""Share of what a policy misses that the next aim makes good: it may be on its way still."""


@dataclass
class Mover:
    """Owns the aims' offsets, which are all that it remembers.

    Attributes:
        bounds: on shares of all completions.
        measured: completions that the final policy is measured on.
        offsets: of each bound's aim, logits.
        signs: which edge of a bound the last target pressed against: 1 the low one, -1 the high
            one, 0 neither; empty before the first round.
    """

    bounds: Sequence[Bound]
    measured: int
    offsets: list[float] = field(default_factory=list[float])
    signs: list[int] = field(default_factory=list[int])

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
        shares = _shares(measured)
        self._follow(shares, len(measured))
        met = pool.met.cpu().numpy()
        least = nearest(met, self.bounds)
        moved = self._aimed(met) or least
        self.signs = [int(np.sign(each)) for each in moved.multipliers]
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
        return {"offsets": list(self.offsets), "signs": list(self.signs)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Undo `state`."""
        self.offsets, self.signs = list(state["offsets"]), list(state["signs"])

    def _follow(self, shares: Sequence[float], count: int) -> None:
        """Add what the policy misses of the edge that its target pressed against to the offsets."""
        if not self.signs:  # the reference itself, which followed nothing yet
            self.offsets = [0.0] * len(self.bounds)
            return
        for place, (bound, share) in enumerate(zip(self.bounds, shares, strict=True)):
            low, high = drawn_in(bound, self.measured)
            sign = self.signs[place]
            edge = low if sign > 0 else high if sign < 0 else min(max(share, low), high)
            if 0 < edge < 1:
                share = (share * count + 0.5) / (count + 1)  # none of a sample is not none of all
                if sign or not low <= share <= high:
                    self.offsets[place] += GAIN * (_logit(edge) - _logit(share))

    def _aimed(self, met: np.ndarray) -> Moved | None:
        """At the drawn-in and shifted bounds; None where no weights meet those."""
        aims = [
            Bound(bound.name, *(_shifted(edge, offset) for edge in drawn_in(bound, self.measured)))
            for bound, offset in zip(self.bounds, self.offsets, strict=True)
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


def _logit(share: float) -> float:
    return math.log(share) - math.log1p(-share)


def _shifted(share: float, offset: float) -> float:
    """By so many logits; none and all stay what they are."""
    return 1 / (1 + math.exp(-_logit(share) - offset)) if 0 < share < 1 else share


def _finite(multiplier: float) -> float | None:
    """None for one beyond all numbers, as of 'all of them'."""
    return multiplier if math.isfinite(multiplier) else None
