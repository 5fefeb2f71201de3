"""95 % intervals of rates, means and ratios of means."""

import math

Interval = tuple[float, float]
"""95 % interval, (low, high)."""


def wilson_interval(successes: int, count: int, z: float = 1.959964) -> Interval:
    """95 % Wilson score interval of a rate (E. B. Wilson, JASA 1927).

    `(p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)` with `p = successes / count`.
    """
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(f"{successes} of {count} is not a rate")
    rate, spread = successes / count, z * z / count
    half = z * math.sqrt(rate * (1 - rate) / count + spread / (4 * count))
    low, high = (rate + spread / 2 - half) / (1 + spread), (rate + spread / 2 + half) / (1 + spread)
    return (max(0.0, low) if successes else 0.0), (min(1.0, high) if successes < count else 1.0)


def mean_interval(values: list[float], z: float = 1.959964) -> tuple[float, Interval] | None:
    """Mean and its 95 % normal interval; None where there is nothing to average."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
    half = z * math.sqrt(variance / len(values))
    return mean, (mean - half, mean + half)


def ratio_interval(totals: list[float], counts: list[float]) -> tuple[float, Interval] | None:
    """`Σ totals / Σ counts` with its 95 % interval over the items; None where counts are all 0.

    By linearisation: the mean of `(total_i - ratio · count_i) / mean count` has the standard error
    of the ratio (W. G. Cochran, Sampling Techniques, 1977, section 6.4).
    """
    if not any(counts):
        return None
    ratio, mean_count = math.fsum(totals) / math.fsum(counts), math.fsum(counts) / len(counts)
    spread = mean_interval(
        [(total - ratio * n) / mean_count for total, n in zip(totals, counts, strict=True)]
    )
    assert spread is not None
    return ratio, (ratio + spread[1][0] - spread[0], ratio + spread[1][1] - spread[0])
