"""A long phase on a terminal: one line that lives; in a file or a pipe, a line now and then."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Mapping
from datetime import datetime
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from tiltune.cli.terminal import log
from tiltune.records.progress import NOTHING, Progress
from tiltune.records.progress_lines import Clock, ProgressLines, Speed


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
        yield plain_lines(console, clock, stamp)
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


def plain_lines(console: Console, clock: Clock, stamp: Callable[[], str]) -> Progress:
    """A line with a time stamp now and then."""
    return ProgressLines(
        lambda line: console.print(Text(f"{stamp()} {line}"), soft_wrap=True), clock=clock
    )


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
