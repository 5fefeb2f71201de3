"""Timing that a busy machine cannot bend far: two sides in turn, the median of their ratios.

Seconds are CPU seconds of this process: on one thread they are the wall seconds of an idle machine.
On a GPU they are those of the clock, read when all that was asked of it is done.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

Clock = Callable[[], float]
"""Seconds since some moment."""


class Ratio(NamedTuple):
    """A median of ratios and its 95 % bootstrap interval."""

    value: float
    interval: tuple[float, float]


def clock_of(device: torch.device) -> Clock:
    """What times work there."""
    if device.type != "cuda":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def seconds_in_turn(
    first: Callable[[], Any],
    second: Callable[[], Any],
    *,
    repeats: int,
    clock: Clock | None = None,
) -> list[tuple[float, float]]:
    """Seconds of both sides, `repeats` times after one warm-up, the order reversed each time.

    Args:
        first, second: the sides.
        repeats: turns that count.
        clock: None: CPU seconds of this process.
    """
    clock = clock or time.process_time
    pairs: list[tuple[float, float]] = []
    for turn in range(repeats + 1):
        order = (first, second) if turn % 2 else (second, first)
        times = [seconds_of(side, clock) for side in order]
        pairs.append((times[0], times[1]) if turn % 2 else (times[1], times[0]))
    return pairs[1:]


def median_ratio(ratios: list[float], *, resamples: int = 2000) -> Ratio:
    """The median, with the interval that resampling the ratios gives it."""
    values = np.array(ratios)
    picks = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(np.median(values[picks], axis=1), (0.025, 0.975))
    return Ratio(float(np.median(values)), (float(low), float(high)))


def result(name: str, ratio: Ratio, target: str, *, passed: bool, **further: Any) -> dict[str, Any]:
    """The last line of a benchmark."""
    return {
        "name": name,
        "value": round(ratio.value, 3),
        "interval": [round(bound, 3) for bound in ratio.interval],
        "target": target,
        "passed": passed,
        **further,
    }


def seconds_of(side: Callable[[], Any], clock: Clock) -> float:
    """Of one call."""
    started = clock()
    side()
    return clock() - started
