"""How far a long phase is, in words: a line now and then."""

import time
from collections.abc import Callable, Mapping
from itertools import islice

from tiltune.records.progress import NOTHING

EVERY_SECONDS, PARTS = 10.0, 100
"""Seconds and parts in a hundred; a line is said where both have passed since the last."""
MOST_NUMBERS = 2
"""Numbers of a step that are told."""
Clock = Callable[[], float]


class Speed:
    """How fast the phase under way goes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._phase, self._done = "", 0
        self._start, self._start_done, self._start_tokens = 0.0, 0, 0
        self._at, self._heard = 0.0, 0.0  # when it got so far, and when that was told last

    def begins(self, phase: str, done: int, tokens: int) -> bool:
        """Whether this is another phase than the one told of last, or the same once more."""
        begun = phase != self._phase or done < self._done
        self._heard = self._clock()
        if begun or done != self._done:
            self._at = self._heard
        if begun:
            self._start, self._start_done, self._start_tokens = self._at, done, tokens
        self._phase, self._done = phase, done
        return begun

    def told(self, total: int, tokens: int, numbers: Mapping[str, float]) -> str:
        """What is left by the clock, tokens a second, and the last step's numbers.

        What is left counts down until the next step is told of, and is not said once it would be
        below 0.
        """
        seconds, done = self._at - self._start, self._done - self._start_done
        parts: list[str] = []
        if done > 0 and self._done < total:
            left = seconds / done * (total - self._done) - (self._clock() - self._at)
            parts += [f"{duration(left)} left"] if left >= 0 else []
        heard = self._heard - self._start
        if tokens > self._start_tokens and heard > 0:
            parts.append(f"{(tokens - self._start_tokens) / heard:,.0f} tokens/s")
        for name, value in islice(numbers.items(), MOST_NUMBERS):
            parts.append(f"{words(name)} {rounded(value)}")
        return ", ".join(parts)


class ProgressLines:
    """A line every so many seconds or every per cent, whichever is rarer; within a part that takes
    longer, as long as its tokens come.

    Args:
        say: takes a line.
        seconds: between two at least.
        clock: now, in seconds from any time.
    """

    def __init__(
        self,
        say: Callable[[str], object],
        *,
        seconds: float = EVERY_SECONDS,
        clock: Clock = time.monotonic,
    ) -> None:
        self._say, self._seconds, self._clock = say, seconds, clock
        self._speed = Speed(clock)
        self._last, self._done, self._tokens = clock(), 0, 0

    def __call__(
        self,
        phase: str,
        done: int,
        total: int,
        *,
        tokens: int = 0,
        numbers: Mapping[str, float] = NOTHING,
    ) -> None:
        """See `Progress`."""
        if self._speed.begins(phase, done, tokens):
            self._done = done
            self._tokens = tokens
        now, more = self._clock(), done - self._done
        enough = more * PARTS >= total if more else tokens > self._tokens
        if now - self._last < self._seconds or not enough:
            return
        self._last, self._done, self._tokens = now, done, tokens
        told = self._speed.told(total, tokens, numbers)
        line = f"{phase}: {done:,} of {total:,} ({done / total:.0%})"
        self._say(", ".join(filter(None, (line, told))))


def words(name: str) -> str:
    """The name of a record's field, without its unit."""
    return name.split("_nats_")[0].replace("_", " ").replace("kl ", "KL ")


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def rounded(value: float) -> str:
    """Three places, or two digits of what these would make nothing of."""
    return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
