"""A long phase on a terminal: one line that lives; in a file or a pipe, a line now and then."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Mapping
from datetime import datetime
from functools import partial
from itertools import islice

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from tiltune.cli.terminal import log
from tiltune.records.progress import NOTHING, Progress

EVERY_SECONDS, PARTS = 10.0, 100
"""Seconds and parts in a hundred; a line is written where both have passed since the last."""
MOST_NUMBERS = 2
"""Numbers of a step that are told."""
Clock = Callable[[], float]


@contextlib.contextmanager
def shown(
    console: Console = log,
    *,
    clock: Clock = time.monotonic,
    stamp: Callable[[], str] = lambda: datetime.now().isoformat(" ", "seconds"),
) -> Generator[Progress]:
    """What shows the phases that it is told of, until the block ends.

    Args:
        console: of which it depends how.
        clock: now, in seconds from any time.
        stamp: now, for a person.
    """
    if not console.is_terminal:
        yield PlainLines(console, clock, stamp)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        ToldColumn(),
        TimeElapsedColumn(),
    )
    with Bar(
        *columns,
        console=console,
        transient=True,
        refresh_per_second=4,
        redirect_stdout=sys.stdout.isatty(),  # else it is somebody's file
        get_time=clock,
    ) as bar:
        yield LiveLine(bar, clock)


class Speed:
    """How fast the phase under way goes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._phase, self._done = "", 0
        self._start, self._start_done, self._start_tokens = 0.0, 0, 0
        self._at = 0.0

    def begins(self, phase: str, done: int, tokens: int) -> bool:
        """Whether this is another phase than the one told of last, or the same once more."""
        begun = phase != self._phase or done < self._done
        self._at = self._clock()
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
        if tokens > self._start_tokens and seconds > 0:
            parts.append(f"{(tokens - self._start_tokens) / seconds:,.0f} tokens/s")
        for name, value in islice(numbers.items(), MOST_NUMBERS):
            parts.append(f"{words(name)} {value:.3f}")
        return ", ".join(parts)


class PlainLines:
    """A line with a time stamp every ten seconds or every per cent, whichever is rarer."""

    def __init__(self, console: Console, clock: Clock, stamp: Callable[[], str]) -> None:
        self._console, self._clock, self._stamp = console, clock, stamp
        self._speed = Speed(clock)
        self._last, self._done = clock(), 0

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
        now, more = self._clock(), done - self._done
        if now - self._last < EVERY_SECONDS or more == 0 or more * PARTS < total:
            return
        self._last, self._done = now, done
        told = self._speed.told(total, tokens, numbers)
        line = f"{self._stamp()} {phase}: {done:,} of {total:,} ({done / total:.0%})"
        self._console.print(Text(", ".join(filter(None, (line, told)))), soft_wrap=True)


class ToldColumn(ProgressColumn):
    """What the task's `told` says whenever the line is drawn."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["told"](), no_wrap=True, overflow="ellipsis")


class LiveLine:
    """One bar, begun anew with each phase; it moves to and fro until a first step is done."""

    def __init__(self, bar: Bar, clock: Clock) -> None:
        self._bar = bar
        self._speed = Speed(clock)
        self._task: TaskID | None = None

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
        if self._speed.begins(phase, done, tokens) or self._task is None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(phase, total=None, told=str)
        told = partial(self._speed.told, total, tokens, numbers)
        self._bar.update(self._task, total=total if done else None, completed=done, told=told)


def words(name: str) -> str:
    """The name of a record's field, without its unit."""
    return name.split("_nats_")[0].replace("_", " ").replace("kl ", "KL ")


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
