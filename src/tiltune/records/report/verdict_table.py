"""Verdicts as a page's tables: whiskers in the cells, and most columns behind a switch."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tiltune.records.measurements import Comparison
from tiltune.records.report.columns import (
    BUDGET_NOTES,
    BUDGETS,
    MeasurementColumn,
    knobs_of,
    short_cell,
)
from tiltune.records.report.formats import number
from tiltune.records.report.verdicts import MethodVerdict, Reached, Verdicts, verdicts
from tiltune.records.report.whiskers import whisker, whisker_axis

LEAD = 3
"""Control, utility, seconds."""


@dataclass(frozen=True)
class CellShown:
    """A number, its interval as a drawing, and whether it is among the best of its column."""

    text: str
    interval: Markup
    best: bool


@dataclass(frozen=True)
class RowShown:
    """A method's row; cells as many as the table has headers."""

    method: str
    knobs: str
    outcome: Reached
    words: str
    cells: Sequence[CellShown]


@dataclass(frozen=True)
class VerdictTable:
    """`shown` of the headers stand there before the switch is turned; the verdict in words comes
    after `lead` of them."""

    budget: str
    title: str
    note: str
    headers: Sequence[str]
    shown: int
    lead: int
    rows: Sequence[RowShown]


def verdict_tables(comparison: Comparison) -> list[VerdictTable]:
    """One a budget."""
    return [
        VerdictTable(
            budget,
            BUDGETS[budget],
            BUDGET_NOTES[budget],
            [column.header for column in _measured(found)],
            min(found.shown, len(_measured(found))),
            min(LEAD, len(_measured(found))),
            _rows(found, comparison),
        )
        for budget, found in verdicts(comparison).items()
    ]


def sorted_by(comparison: Comparison) -> str:
    """The order of the rows, in words."""
    if comparison.least_control is None:
        return "Sorted by control."
    return (
        f"Those whose control is {number(comparison.least_control)} or better come first, sorted "
        "by utility; then the others by control. Whether one reaches it is told by its interval."
    )


def _measured(found: Verdicts) -> list[MeasurementColumn]:
    """The columns in which a row has a number."""
    return [
        column
        for column in found.columns
        if any((each := row.of(column)) and each.value is not None for row in found.rows)
    ]


def _rows(found: Verdicts, comparison: Comparison) -> list[RowShown]:
    columns = [_column(found.rows, column, comparison) for column in _measured(found)]
    return [
        RowShown(
            row.entry.method,
            knobs_of(row.entry),
            row.outcome,
            row.words,
            [cells[place] for cells in columns],
        )
        for place, row in enumerate(found.rows)
    ]


def _column(
    rows: Sequence[MethodVerdict], column: MeasurementColumn, comparison: Comparison
) -> list[CellShown]:
    asked = column.name == comparison.control or column.like.key == comparison.control
    level = comparison.least_control if asked else None
    found = [row.of(column) for row in rows]
    # The base is far from all others, as a rule: with it on the scale they would be one dot.
    rivals = [row for row in rows if row.entry.kind != "base"] or rows
    axis = whisker_axis([each for row in rivals if (each := row.of(column))], level)
    return [
        CellShown(
            short_cell(each),
            whisker(each, axis, level) if each is not None and axis is not None else Markup(),
            column.name in row.best,
        )
        for row, each in zip(rows, found, strict=True)
    ]
