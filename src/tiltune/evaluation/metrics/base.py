"""What every metric is made of: the data it sees, means and shares with intervals over prompts.

Prompts are the independent items; the completions of one prompt are not, so intervals resample
whole prompts. What could not be measured is None: left out, counted, never zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tiltune.records.intervals import Interval, wilson_interval
from tiltune.records.measurements import Aspect, Better, Measurement

Array = NDArray[np.float64]
Value = TypeVar("Value")

RESAMPLES = 1000
_DRAWN_AT_ONCE = 2_000_000  # resampled items held at a time: 48 MB


@dataclass(frozen=True)
class Generated:
    """Completions of one group of prompts, k a prompt (k may differ between prompts).

    Attributes:
        group: the prompts' name.
        prompts: P texts.
        texts: P lists of k completions.
        tokens: P lists of k numbers of tokens.
        ended: P lists of k; False where a completion was cut at the token limit.
        turns: P lists of k numbers of answers, of which the last one is the text; none: one each.

    Raises:
        ValueError: the lists are not parallel.
    """

    group: str
    prompts: list[str]
    texts: list[list[str]]
    tokens: list[list[int]]
    ended: list[list[bool]]
    turns: list[list[int]] = field(default_factory=list[list[int]])

    def __post_init__(self) -> None:
        check_parallel("Generated.texts", self.texts, "Generated.tokens", self.tokens)
        check_parallel("Generated.texts", self.texts, "Generated.ended", self.ended)
        if len(self.prompts) != len(self.texts):
            raise ValueError(f"{len(self.prompts)} prompts, but texts of {len(self.texts)}")


@dataclass(frozen=True)
class Scores:
    """What one scorer said about generated texts, parallel to `Generated.texts`.

    Attributes:
        scorer: its name.
        values: scores in [0, 1], 1 = satisfied; None where scoring failed.
        satisfied: whether the score reaches the constraint's threshold; None where it failed.
        spans: the characters [start, end) that decided, where the constraint names them.

    Raises:
        ValueError: the lists are not parallel.
    """

    scorer: str
    values: list[list[float | None]]
    satisfied: list[list[bool | None]]
    spans: list[list[tuple[int, int] | None]]

    def __post_init__(self) -> None:
        check_parallel("Scores.values", self.values, "Scores.satisfied", self.satisfied)
        check_parallel("Scores.values", self.values, "Scores.spans", self.spans)


@dataclass(frozen=True)
class Quantity:
    """What is measured: everything of a `Measurement` but the numbers."""

    key: str
    aspect: Aspect
    unit: str
    better: Better
    definition: str

    def of(
        self,
        group: str,
        estimate: tuple[float, Interval | None] | None,
        *,
        count: int,
        missing: int = 0,
    ) -> Measurement:
        """The measurement; an estimate of None is a value that is missing."""
        value, interval = estimate or (None, None)
        return Measurement(
            key=self.key,
            aspect=self.aspect,
            group=group,
            value=value,
            interval=interval,
            unit=self.unit,
            better=self.better,
            count=count,
            missing=missing,
            definition=self.definition,
        )

    def mean(self, group: str, values: Sequence[float | None], *, seed: int) -> Measurement:
        """Mean over items, bootstrap interval; items that are None are missing."""
        there = known(values)
        estimate = bootstrap_mean(there, seed=seed)
        return self.of(group, estimate, count=len(there), missing=len(values) - len(there))

    def completions_mean(
        self, group: str, rows: Sequence[Sequence[float | None]], *, seed: int
    ) -> Measurement:
        """Mean over completions, one row of them a prompt; bootstrap over prompts."""
        kept = [there for row in rows if (there := known(row))]
        count = sum(map(len, kept))
        estimate = bootstrap_ratio(
            [math.fsum(row) for row in kept], [len(row) for row in kept], seed=seed
        )
        return self.of(group, estimate, count=count, missing=sum(map(len, rows)) - count)

    def completions_share(
        self, group: str, rows: Sequence[Sequence[bool | None]], *, seed: int
    ) -> Measurement:
        """Share of completions that are True, one row of them a prompt; see `bootstrap_share`."""
        kept = [there for row in rows if (there := known(row))]
        count = sum(map(len, kept))
        estimate = bootstrap_share(
            [sum(row) for row in kept], [len(row) for row in kept], seed=seed
        )
        return self.of(group, estimate, count=count, missing=sum(map(len, rows)) - count)

    def rate(self, group: str, successes: int, count: int, *, missing: int = 0) -> Measurement:
        """`successes / count`, Wilson interval."""
        return self.of(group, rate(successes, count), count=count, missing=missing)


def bootstrap_mean(
    values: Sequence[float], *, seed: int, resamples: int = RESAMPLES
) -> tuple[float, Interval | None] | None:
    """Mean of the items and its 95 % percentile bootstrap interval.

    The items are sorted first, so that their order cannot move the interval.

    Args:
        values: one finite number an item (a prompt, a row).
        seed: of the resampling.

    Returns:
        (mean, interval); the interval is None for a single item, whose spread is unknown; None
        for no items.

    Raises:
        ValueError: a value is not finite.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    return bootstrap_ratio(values, [1.0] * len(values), seed=seed, resamples=resamples)


def bootstrap_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> tuple[float, Interval | None] | None:
    """`Σ numerators / Σ denominators` over items, with its percentile bootstrap interval.

    For a share of completions whose prompts have unequally many of them: items are prompts.

    Args:
        numerators, denominators: one pair an item; denominators are positive.

    Returns:
        As `bootstrap_mean`.
    """
    pairs = np.array(sorted(zip(numerators, denominators, strict=True)), dtype=np.float64)
    if not len(pairs):
        return None
    if not np.isfinite(pairs).all() or not (pairs[:, 1] > 0).all():
        raise ValueError("a mean needs finite values and positive weights")
    ratio = math.fsum(pairs[:, 0]) / math.fsum(pairs[:, 1])
    if len(pairs) == 1:
        return ratio, None
    low, high = np.quantile(_resampled_ratios(pairs, seed, resamples), (0.025, 0.975))
    # items without spread leave rounding: their interval may lie beside the ratio by 1e-14
    return ratio, (min(ratio, float(low)), max(ratio, float(high)))


def bootstrap_share(
    successes: Sequence[float], counts: Sequence[int], *, seed: int, resamples: int = RESAMPLES
) -> tuple[float, Interval | None] | None:
    """Share `Σ successes / Σ counts` of completions, interval over prompts.

    Where all completions agree, resampling sees no spread at all; the interval then is Wilson's
    with one observation a prompt, which is wider than the truth and never empty.

    Args:
        successes, counts: one pair a prompt; prompts with no completions are left out.
    """
    kept = [pair for pair in zip(successes, counts, strict=True) if pair[1]]
    if kept and all(hits == 0 for hits, _ in kept):
        return rate(0, len(kept))
    if kept and all(hits == count for hits, count in kept):
        return rate(len(kept), len(kept))
    hits, sizes = [hits for hits, _ in kept], [count for _, count in kept]
    return bootstrap_ratio(hits, sizes, seed=seed, resamples=resamples)


def rate(successes: int, count: int) -> tuple[float, Interval] | None:
    """`successes / count` and its 95 % Wilson interval; None where count is 0."""
    return (successes / count, wilson_interval(successes, count)) if count else None


def known(values: Sequence[Value | None]) -> list[Value]:
    """The values without those that are missing."""
    return [value for value in values if value is not None]


def check_parallel(
    name: str, left: Sequence[Sequence[object]], other: str, right: Sequence[Sequence[object]]
) -> None:
    """Raises ValueError unless both hold equally many prompts, and each prompt equally many."""
    if [len(row) for row in left] != [len(row) for row in right]:
        raise ValueError(f"{name} and {other} are not parallel: prompts or their k differ")


def _resampled_ratios(pairs: Array, seed: int, resamples: int) -> Array:
    generator = np.random.default_rng(seed)
    step = max(1, _DRAWN_AT_ONCE // len(pairs))
    parts: list[Array] = []
    for start in range(0, resamples, step):
        size = (min(step, resamples - start), len(pairs))
        sums = pairs[generator.integers(0, len(pairs), size)].sum(axis=1)
        parts.append(sums[:, 0] / sums[:, 1])
    return np.concatenate(parts)
