"""What is told of a long phase while it runs, and the few rows of it that are kept."""

import math
from collections.abc import Callable, Mapping
from typing import Protocol

from tiltune.records.steps import STEP_PHASES, StepRecord

ROWS = 50
"""Rows kept of one phase of a round at most: a curve of 320 pixels shows no more."""
NOTHING: Mapping[str, float] = {}


class Progress(Protocol):
    """Told how far a phase is; what it does with that changes nothing of the work."""

    def __call__(
        self,
        phase: str,
        done: int,
        total: int,
        *,
        tokens: int = 0,
        numbers: Mapping[str, float] = NOTHING,
    ) -> None:
        """After each step of a phase, and with `done` 0 before its first.

        Args:
            phase: its name for a person.
            done: steps, rows or parts of it that are done.
            total: of them there are.
            tokens: that this phase has read or written so far; 0: they are not counted.
            numbers: of the last step, under the names that a record has for them.
        """
        ...


def silent(
    phase: str, done: int, total: int, *, tokens: int = 0, numbers: Mapping[str, float] = NOTHING
) -> None:
    """Tells nobody."""


class StepRows:
    """Passes on what it is told, and keeps of steps with numbers `ROWS` rows a phase.

    A row is the mean over the steps since the row before, each number's over those steps that had
    it. The steps at which rows are made depend on their number alone, so that rows which are told
    again, as those of another process are, come out as they went in.

    Args:
        keep: takes a row.
        round: the one under way.
        shown: told everything too.
    """

    def __init__(
        self, keep: Callable[[StepRecord], None], *, round: Callable[[], int], shown: Progress
    ) -> None:
        self._round = round
        self._keep = keep
        self._shown = shown
        self._sums: dict[str, tuple[float, int]] = {}

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
        self._shown(phase, done, total, tokens=tokens, numbers=numbers)
        if phase not in STEP_PHASES:
            return
        if done == 0:
            self._sums = {}
            return
        for name, value in numbers.items():
            if math.isfinite(value):  # else it is no number, and a mean of it would be none either
                before, count = self._sums.get(name, (0.0, 0))
                self._sums[name] = (before + value, count + 1)
        if done * ROWS // total > (done - 1) * ROWS // total and self._sums:
            means = {name: value / count for name, (value, count) in self._sums.items()}
            self._sums = {}
            told = {"round": self._round(), "phase": phase, "step": done, "steps": total}
            self._keep(StepRecord.model_validate(told | {"numbers": means}))


def within(name: Callable[[], str], progress: Progress) -> Progress:
    """The same, told of each phase under the name of what it is a part of."""

    def told(
        phase: str,
        done: int,
        total: int,
        *,
        tokens: int = 0,
        numbers: Mapping[str, float] = NOTHING,
    ) -> None:
        progress(f"{name()}: {phase}", done, total, tokens=tokens, numbers=numbers)

    return told


def told_again(rows: list[StepRecord], progress: Progress) -> None:
    """Tell of steps that were taken elsewhere, by the rows that were kept of them there."""
    for row in rows:
        progress(row.phase, row.step, row.steps, numbers=row.numbers)
