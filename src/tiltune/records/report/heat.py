"""The colour of a token that lost some of the chance to satisfy, and the scale that explains it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tiltune.records.report.formats import number

LOWEST = math.log(0.01)
"""`log R` at or below it counts as lost: what a value model says of it moves without meaning."""
LEAST_LOST = 0.05
"""A smaller share lost is not coloured."""
SWATCHES = (0.1, 0.25, 0.5, 0.75, 1.0)
"""The shares lost of the scale's patches."""


@dataclass(frozen=True)
class Shade:
    """`css` is the colour's class, `strength` how much of it; None where there is no colour."""

    css: str
    strength: float | None
    told: str


def lost(before: float | None, after: float | None) -> float:
    """Share of the chance to satisfy that a token lost: `max(0, 1 - R_t / R_(t-1))`.

    Args:
        before: `log R` before the token, nats; None: not known, as before the first.
        after: `log R` after it.
    """
    if before is None or after is None:
        return 0.0
    return max(0.0, 1.0 - math.exp(max(LOWEST, after) - max(LOWEST, before)))


def shades(log_values: Sequence[float | None]) -> list[Shade]:
    """How each token of a completion is drawn, and what a pointer that rests on it reads.

    Args:
        log_values: `log R` after each token, nats.
    """
    return [
        _shade(before, after)
        for before, after in zip([None, *log_values], log_values, strict=False)
    ]


def _shade(before: float | None, after: float | None) -> Shade:
    if after is None:
        return Shade("none", None, "log R not measured")
    told = f"log R {number(after)} nats, R = {number(math.exp(min(0.0, after)))}"
    share = lost(before, after)
    if share < LEAST_LOST:
        return Shade("", None, told)
    return Shade("drop", share, f"{told}: lost {share:.0%} of the chance".replace("%", " %"))


def scale() -> list[Shade]:
    """The patches."""
    return [Shade("drop", share, f"{share:.0%}".replace("%", " %")) for share in SWATCHES]
