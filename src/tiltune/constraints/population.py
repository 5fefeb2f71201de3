"""A bound on the share of all completions that satisfy a constraint: a type of its own.

It is stated and measured here. No method of this version trains under it: each completion is judged
by itself there, and one completion has no share.
"""

from dataclasses import replace
from typing import Literal

from tiltune.config import PopulationConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.combined import build_parts
from tiltune.records.intervals import wilson_interval

Verdict = Literal["met", "not met", "cannot be told from so few"]


def build_population(config: PopulationConfig) -> TextConstraint:
    """The part, which judges each completion, under the bounds on its share.

    Raises:
        ConstraintError: the part cannot be built.
    """
    (part,) = build_parts(config.parts)
    share = (config.at_least or 0.0, 1.0 if config.at_most is None else config.at_most)
    name = f"population constraint ({_bounds(share)} of: {part.name})"
    return replace(part, name=name, share=share, make_rule=None, within=())


def verdict(share: tuple[float, float], satisfied: int, count: int) -> Verdict:
    """Whether the share of all completions lies within the bounds, by a sample of them.

    Met where the whole 95 % Wilson interval lies within, not met where it lies outside as a whole.

    Args:
        share: lowest and highest share.
        satisfied, count: of the sample, one or more.
    """
    low, high = wilson_interval(satisfied, count)
    if share[0] <= low and high <= share[1]:
        return "met"
    return "not met" if high < share[0] or low > share[1] else "cannot be told from so few"


def share_told(share: tuple[float, float], satisfied: int, count: int) -> str:
    """The share of a sample, its interval, the bounds and the verdict, in a line."""
    if count == 0:
        return f"share: no rows; bounds {_bounds(share)}: cannot be told from so few"
    low, high = wilson_interval(satisfied, count)
    return (
        f"share {satisfied / count:.3f} [{low:.3f}, {high:.3f}]; bounds {_bounds(share)}: "
        f"{verdict(share, satisfied, count)}"
    )


def _bounds(share: tuple[float, float]) -> str:
    low, high = share
    if low == high:
        return f"exactly {low:g}"
    if high == 1:
        return f"at least {low:g}"
    return f"at most {high:g}" if low == 0 else f"{low:g} to {high:g}"
