"""A bound on the share of all completions that satisfy a constraint: a type of its own.

It is stated and measured here; `methods/moving_targets.py` trains under it, and no other method,
since they judge each completion by itself, and one completion has no share.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from tiltune.config import PopulationConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.combined import build_parts
from tiltune.constraints.scores import Bound, Completion, Failure, Score
from tiltune.records.intervals import wilson_interval

Verdict = Literal["met", "not met", "cannot be told from so few"]


def build_population(config: PopulationConfig) -> TextConstraint:
    """The part, which judges each completion, under the bounds on its share.

    Raises:
        ConstraintError: the part cannot be built.
    """
    (part,) = build_parts(config.parts)
    high = 1.0 if config.at_most is None else config.at_most
    bound = Bound(part.name, config.at_least or 0.0, high)

    def counted(score: Score | Failure) -> Score | Failure:
        if isinstance(score, Failure):
            return score
        return replace(score, met=(part.satisfied(score),))

    def scores(completions: Sequence[Completion]) -> list[Score | Failure]:
        return [counted(each) for each in part.score(completions)]

    def scores_or_missing(completions: Sequence[Completion]) -> list[Score | Failure]:
        return [counted(each) for each in part.score_or_missing(completions)]

    return replace(
        part,
        name=f"population constraint ({bound.told} of: {part.name})",
        scorer=scores,
        forgiving=scores_or_missing,
        bounds=(bound,),
        make_rule=None,
        why_no_rule=lambda: "shares are bounded, no single text is judged",
        within=(),
    )


def verdict(bound: Bound, satisfied: int, count: int) -> Verdict:
    """Whether the share of all completions lies within the bounds, by a sample of them.

    Met where the whole 95 % Wilson interval lies within, not met where it lies outside as a whole.

    Args:
        bound: lowest and highest share.
        satisfied, count: of the sample, one or more.
    """
    low, high = wilson_interval(satisfied, count)
    if bound.low <= low and high <= bound.high:
        return "met"
    return "not met" if high < bound.low or low > bound.high else "cannot be told from so few"


def share_told(bound: Bound, satisfied: int, count: int) -> str:
    """The share of a sample, its interval, the bounds and the verdict, in a line."""
    if count == 0:
        return f"share: no rows; bounds {bound.told}: cannot be told from so few"
    low, high = wilson_interval(satisfied, count)
    return (
        f"share {satisfied / count:.3f} [{low:.3f}, {high:.3f}]; bounds {bound.told}: "
        f"{verdict(bound, satisfied, count)}"
    )
