"""The verdict on each method of a comparison: what it reaches, what it costs, what beats it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tiltune.records.intervals import Interval
from tiltune.records.measurements import (
    Comparison,
    Entry,
    Measurement,
    directed,
    find_measurement,
    named,
)
from tiltune.records.report.columns import MeasurementColumn, columns_of, measured, tables_of
from tiltune.records.report.formats import number

DEFAULT_COLUMNS = 7
"""Of a table before a click, its method and verdict among them."""
DECODING = "cost.decoding"
"""The cost that every completion pays for ever."""

Reached = Literal["pass", "fail", "undecided", ""]


@dataclass(frozen=True)
class MethodVerdict:
    """An entry, what its table says of it, and of which columns it is among the best."""

    entry: Entry
    outcome: Reached
    words: str
    best: frozenset[str]

    def of(self, column: MeasurementColumn) -> Measurement | None:
        return find_measurement(measured(self.entry), column.name)


@dataclass(frozen=True)
class Verdicts:
    """Of one budget, the best first; `shown` of the columns stand there before a click."""

    columns: Sequence[MeasurementColumn]
    shown: int
    rows: Sequence[MethodVerdict]


def verdicts(comparison: Comparison) -> dict[str, Verdicts]:
    """Budget -> its verdicts.

    Those whose control has the value that was asked for come first, by utility; then, or where none
    is asked for, the others by control. The words of each go by its interval, see `outcome`.
    """
    columns, shown = verdict_columns(comparison)
    return {
        budget: Verdicts(columns, shown, _ranked(entries, comparison, columns))
        for budget, entries in tables_of(comparison).items()
    }


def verdict_columns(comparison: Comparison) -> tuple[list[MeasurementColumn], int]:
    """Control, utility, seconds, then a quality and what decoding costs, then the rest; and how
    many stand in the table before a click. Columns that were asked for keep their order."""
    every = {column.name: column for column in columns_of(comparison, everything=True)}
    seconds = [c.name for c in every.values() if c.like.unit == "seconds"]
    axes = (
        axis_column(comparison, comparison.control),
        axis_column(comparison, comparison.utility),
    )
    lead = [named(each.like) for each in axes if each] + seconds[:1]
    rest = [column.name for column in columns_of(comparison)]
    if not comparison.columns:
        quality = [name for name in rest if every[name].like.aspect == "quality"]
        rest = [*quality[:1], *(name for name in rest if name == DECODING), *rest]
    order = list(dict.fromkeys([*lead, *rest]))
    return [every[name] for name in order], min(len(order), DEFAULT_COLUMNS - 2)


def axis_column(comparison: Comparison, name: str) -> MeasurementColumn | None:
    """The measurement of this name as a column; None where no entry has it."""
    for entry in comparison.entries:
        found = find_measurement(entry.evaluation.measurements, name)
        if found is not None:
            return MeasurementColumn(name, found)
    return None


def _ranked(
    entries: Sequence[Entry], comparison: Comparison, columns: Sequence[MeasurementColumn]
) -> list[MethodVerdict]:
    def rank(entry: Entry) -> tuple[bool, float, float]:
        control, utility = (_good(entry, name) for name in (comparison.control, comparison.utility))
        reached = _reaches(entry, comparison)
        return (reached, *((utility, control) if reached else (control, utility)))

    ordered = sorted(entries, key=rank, reverse=True)
    trained = [entry for entry in ordered if entry.kind != "base"]
    rivals = [entry for entry in trained if _reaches(entry, comparison)] or trained
    best = {column.name: _best(rivals, column) for column in columns}
    return [
        MethodVerdict(
            entry,
            outcome(find_measurement(measured(entry), comparison.control), comparison),
            _words(entry, ordered, comparison),
            frozenset(name for name, winners in best.items() if id(entry) in winners),
        )
        for entry in ordered
    ]


def outcome(control: Measurement | None, comparison: Comparison) -> Reached:
    """Whether the control reaches the least that was asked for, by its interval: a point estimate
    decides only where there is no interval."""
    least = comparison.least_control
    if least is None or control is None or control.value is None:
        return ""
    low, high = _ends(control)
    asked = directed(least, control.better)
    return "pass" if low >= asked else "fail" if high < asked else "undecided"


def _words(entry: Entry, others: Sequence[Entry], comparison: Comparison) -> str:
    control = find_measurement(measured(entry), comparison.control)
    words = ["the base"] if entry.kind == "base" else []
    if control is None or control.value is None:
        return " · ".join([*words, "not measured"])
    least = number(comparison.least_control)
    below = "above" if control.better == "lower" else "below"
    told: dict[Reached, str] = {
        "pass": f"reaches {least}",
        "fail": f"{below} {least}",
        "undecided": f"{least} within its interval",
    }
    decided = outcome(control, comparison)
    words += [told[decided]] if decided else []
    beaten = next((other.method for other in others if _beats(other, entry, comparison)), None)
    words += [f"beaten by {beaten}"] if beaten is not None else []
    return " · ".join(words or ["not beaten"])


def _beats(other: Entry, entry: Entry, comparison: Comparison) -> bool:
    """Whether on both axes the other's whole interval is better than this one's."""
    for name in (comparison.control, comparison.utility):
        theirs = find_measurement(measured(other), name)
        ours = find_measurement(measured(entry), name)
        if theirs is None or ours is None or theirs.value is None or ours.value is None:
            return False
        if _ends(theirs)[0] <= _ends(ours)[1]:
            return False
    return True


def _best(rivals: Sequence[Entry], column: MeasurementColumn) -> set[int]:
    """Identities of the best in a column, and of those whose interval meets its; none where
    nothing is better."""
    if column.like.better == "neither":
        return set()
    found = [(entry, find_measurement(measured(entry), column.name)) for entry in rivals]
    known = [(entry, _ends(each)) for entry, each in found if each and each.value is not None]
    if len(known) < 2:
        return set()
    top = max(known, key=lambda each: _good(each[0], column.name))[1]
    winners = {id(entry) for entry, (_, high) in known if high >= top[0]}
    return winners if len(winners) < len(known) else set()


def _ends(measurement: Measurement) -> Interval:
    """(worst, best) end of the interval, directed; the value twice where there is none."""
    value = measurement.value
    assert value is not None
    ends = measurement.interval or (value, value)
    low, high = sorted(directed(end, measurement.better) for end in ends)
    return low, high


def _good(entry: Entry, name: str) -> float:
    """Of a measurement, higher is better; -inf where it is missing."""
    found = find_measurement(measured(entry), name)
    if found is None or found.value is None:
        return -math.inf
    return directed(found.value, found.better)


def _reaches(entry: Entry, comparison: Comparison) -> bool:
    control = find_measurement(measured(entry), comparison.control)
    if comparison.least_control is None or control is None or control.value is None:
        return False
    asked = directed(comparison.least_control, control.better)
    return directed(control.value, control.better) >= asked
