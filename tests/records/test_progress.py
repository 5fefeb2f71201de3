"""Which steps become rows, and what they say."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltune.records.progress import ROWS, StepRows, silent, told_again, within
from tiltune.records.steps import StepRecord

pytestmark = pytest.mark.quick


def rows_of(losses: list[float], phase: str = "value fit") -> list[StepRecord]:
    kept: list[StepRecord] = []
    tell = StepRows(kept.append, round=lambda: 3, shown=silent)
    tell(phase, 0, len(losses))
    for step, loss in enumerate(losses, start=1):
        tell(phase, step, len(losses), numbers={"loss": loss})
    return kept


@given(st.integers(1, 400))
def test_few_rows_that_cover_all_steps(steps: int) -> None:
    """Losses 1, 2, 3, …: a row's mean says which steps it is of."""
    rows = rows_of([float(step) for step in range(1, steps + 1)])
    assert len(rows) == min(steps, ROWS)
    ends = [0, *(row.step for row in rows)]
    assert ends == sorted(set(ends)) and ends[-1] == steps
    for before, row in zip(ends[:-1], rows, strict=True):
        assert row.numbers["loss"] == pytest.approx((before + 1 + row.step) / 2)
        assert (row.round, row.steps, row.phase) == (3, steps, "value fit")


def test_a_number_s_mean_is_over_the_steps_that_had_it() -> None:
    kept: list[StepRecord] = []
    tell = StepRows(kept.append, round=lambda: 0, shown=silent)
    tell("policy update", 0, 100)
    for step in range(1, 5):  # two steps a row
        rare = {"corpus": float(step)} if step == 1 else {}
        odd = {"odd": math.nan if step == 3 else 7.0}
        tell("policy update", step, 100, numbers={"each": float(step)} | rare | odd)
    assert [row.numbers for row in kept] == [
        {"each": 1.5, "corpus": 1.0, "odd": 7.0},
        {"each": 3.5, "odd": 7.0},
    ]


def test_an_abandoned_phase_leaves_nothing_to_the_next() -> None:
    kept: list[StepRecord] = []
    tell = StepRows(kept.append, round=lambda: 0, shown=silent)
    tell("value fit", 1, 100, numbers={"loss": 100.0})  # half a row
    tell("value fit", 0, 2)
    tell("value fit", 1, 2, numbers={"loss": 1.0})
    assert [row.numbers for row in kept] == [{"loss": 1.0}]


def test_other_phases_leave_no_rows_and_all_are_shown() -> None:
    kept: list[StepRecord] = []
    seen: list[Any] = []

    def show(phase: str, done: int, total: int, **named: Any) -> None:
        seen.append((phase, done, total, named))

    tell = StepRows(kept.append, round=lambda: 0, shown=within(lambda: "round 0", show))
    tell("scoring", 2, 2, tokens=5, numbers={"satisfaction_rate": 0.5})
    assert kept == []
    numbers = {"satisfaction_rate": 0.5}
    assert seen == [("round 0: scoring", 2, 2, {"tokens": 5, "numbers": numbers})]


@pytest.mark.parametrize("steps", [1, 7, 50, 51, 120, 999])
def test_rows_that_are_told_again_come_out_as_they_went_in(steps: int) -> None:
    rows = rows_of([1 / step for step in range(1, steps + 1)])
    again: list[StepRecord] = []
    told_again(rows, StepRows(again.append, round=lambda: 3, shown=silent))
    assert again == rows
