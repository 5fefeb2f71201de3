"""The colour of a token by `log R` after it, and the scale that explains the colours."""

import math
from dataclasses import dataclass

from tiltune.records.report.formats import number

LOWEST = math.log(0.01)
"""`log R` at or below it has the strongest colour: one completion in a hundred still satisfies."""
EVEN = math.log(0.5)
"""`log R` without colour: as likely to satisfy as not."""
SWATCHES = (0.01, 0.03, 0.1, 0.25, 0.5, 0.7, 0.85, 1.0)
"""The `R` of the scale's patches."""


@dataclass(frozen=True)
class Shade:
    """`css` is the colour's class, `strength` how much of it; None where nothing was measured."""

    css: str
    strength: float | None
    told: str


def heat(log_value: float) -> float:
    """Signed strength of a token's colour in [-1, 1]: -1 at `R <= .01`, 0 at .5, 1 at 1.

    Linear in `log R` on either side of `EVEN`, so it rises with `log R` throughout.
    """
    value = min(0.0, max(LOWEST, log_value))
    return (value - EVEN) / (EVEN - LOWEST if value < EVEN else -EVEN)


def shade(log_value: float | None) -> Shade:
    """How a token is drawn, and what a pointer that rests on it reads."""
    if log_value is None:
        return Shade("none", None, "log R not measured")
    strength = heat(log_value)
    told = f"log R {number(log_value)} nats, R = {number(math.exp(min(0.0, log_value)))}"
    return Shade("high" if strength >= 0 else "low", abs(strength), told)


def scale() -> list[tuple[float, float, Shade]]:
    """(R, log R, its shade) of each patch."""
    return [(share, math.log(share), shade(math.log(share))) for share in SWATCHES]
