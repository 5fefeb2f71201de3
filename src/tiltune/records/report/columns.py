"""A comparison as rows and columns: the same for Markdown, CSV, the page and the terminal."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tiltune.records.measurements import Comparison, Entry, Measurement, find_measurement, named
from tiltune.records.report.formats import MISSING, bounds, number, setting

ASPECTS = ("control", "utility", "quality", "cost")
ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}
BUDGETS = {
    "samples": "Equal samples",
    "seconds": "Equal seconds",
    "none": "No budget",
}
BUDGET_NOTES = {
    "samples": "Every method may draw and score the same number of completions in training.",
    "seconds": "Every method may sample, score, fit values and train for the same time.",
    "none": "Every method runs as it is configured.",
}


@dataclass(frozen=True)
class MeasurementColumn:
    """A measurement as a column; `like` is the first entry's, for unit, direction, definition."""

    name: str
    like: Measurement

    @property
    def header(self) -> str:
        """`key · group, unit ↓`, the unit not twice."""
        group = f" · {self.like.group}" if self.like.group else ""
        word = self.like.unit.split(" ")[0]
        stem = self.like.key.removeprefix("cost.").removesuffix(f"_{word}")
        words = stem.replace("_", " ").replace(".", " · ")
        words = re.sub(r"\bkl (\w+) (\w+)", r"KL(\1 ‖ \2)", words)
        arrow = ARROWS[self.like.better]
        return f"{words}{group}, {self.like.unit}" + (f" {arrow}" if arrow else "")


def measured(entry: Entry) -> tuple[Measurement, ...]:
    """Everything measured of an entry, its cost included."""
    return (*entry.evaluation.measurements, *entry.cost)


def columns_of(comparison: Comparison, *, everything: bool = False) -> list[MeasurementColumn]:
    """The columns asked for, or all; by aspect, and within one in the order of their names' first
    appearance."""
    found: dict[str, Measurement] = {}
    for entry in comparison.entries:
        for measurement in measured(entry):
            found.setdefault(named(measurement), measurement)
    if comparison.columns and not everything:
        asked = [find_measurement(found.values(), name) for name in comparison.columns]
        return [MeasurementColumn(named(each), each) for each in asked if each is not None]
    every = [MeasurementColumn(name, each) for name, each in found.items()]
    return sorted(every, key=lambda column: ASPECTS.index(column.like.aspect))


def tables_of(comparison: Comparison) -> dict[str, list[Entry]]:
    """Budget -> the chosen entries under it; what has no budget stands in every table."""
    budgets = [e.budget for e in comparison.entries if e.budget != "none"]
    return {
        budget: [
            entry
            for entry in comparison.entries
            if entry.chosen and entry.budget in (budget, "none")
        ]
        for budget in dict.fromkeys(budgets or ["none"])
    }


def cell(measurement: Measurement | None) -> str:
    """`value [low, high]`, and how many items are missing."""
    if measurement is None:
        return MISSING
    known = measurement.interval is not None and measurement.value is not None
    interval = f" {bounds(measurement.interval)}" if known else ""
    return f"{value_shown(measurement)}{interval}{_missing(measurement)}"


def short_cell(measurement: Measurement | None) -> str:
    """A cell without its interval."""
    if measurement is None:
        return MISSING
    return f"{value_shown(measurement)}{_missing(measurement)}"


def value_shown(measurement: Measurement) -> str:
    """The value; what was counted without decimals, seconds with one."""
    value, estimated = measurement.value, measurement.interval is not None
    if value is not None and not estimated and value == int(value):
        return number(value, 0)
    return number(value, 1 if measurement.unit == "seconds" else 3)


def _missing(measurement: Measurement) -> str:
    return f" ({measurement.missing:,} missing)" if measurement.missing else ""


def knobs_of(entry: Entry) -> str:
    """`kl_weight = 0.1, learning_rate = 0.001`."""
    return ", ".join(
        f"{key.split('.')[-1]} = {setting(value)}" for key, value in entry.knobs.items()
    )


def rows_of(entries: Sequence[Entry], columns: Sequence[MeasurementColumn]) -> list[list[str]]:
    """A row an entry: method, its chosen knobs, and a cell a column."""
    return [
        [
            entry.method,
            knobs_of(entry) or MISSING,
            *(cell(find_measurement(measured(entry), column.name)) for column in columns),
        ]
        for entry in entries
    ]


def markdown(comparison: Comparison) -> str:
    """A table a budget."""
    columns = columns_of(comparison)
    parts = [f"# {_plain(comparison.title)}\n"]
    for budget, entries in tables_of(comparison).items():
        header = ["method", "chosen knobs", *(column.header for column in columns)]
        lines = [_line(header), "|" + " --- |" * len(header)]
        lines += [_line(row) for row in rows_of(entries, columns)]
        parts.append(
            f"## {BUDGETS[budget]}\n\n{BUDGET_NOTES[budget]}\n\n" + "\n".join(lines) + "\n"
        )
    limits = [f"{name}: {number(value)} ({key})" for key, (name, value) in comparison.limit.items()]
    if limits:
        parts.append("Limit: " + "; ".join(map(_plain, limits)) + ".\n")
    parts += [f"{_plain(note)}.\n" for note in notes_of(comparison.entries)]
    parts.append(f"Brackets are 95 % intervals; {MISSING} is not measured.\n")
    return "\n".join(parts)


def notes_of(entries: Sequence[Entry]) -> list[str]:
    """What a reader has to know of the entries' numbers: a sentence, and whose it is."""
    methods: dict[str, dict[str, None]] = {}
    for entry in entries:
        for note in entry.evaluation.notes:
            methods.setdefault(note, {})[entry.method] = None
    return [f"{', '.join(names)}: {note}" for note, names in methods.items()]


def csv_text(comparison: Comparison) -> str:
    """A row an entry, the points of grids that were not chosen included; missing is empty."""
    columns = columns_of(comparison.model_copy(update={"columns": ()}))
    header = ["method", "kind", "budget", "knobs", "chosen"]
    for column in columns:
        header += [column.name, *(f"{column.name}:{part}" for part in ("low", "high", "missing"))]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for entry in comparison.entries:
        row: list[object] = [entry.method, entry.kind, entry.budget, knobs_of(entry)]
        row.append("yes" if entry.chosen else "no")
        for column in columns:
            found = find_measurement(measured(entry), column.name)
            low, high = (found.interval if found else None) or (None, None)
            row += [found.value if found else None, low, high, found.missing if found else None]
        writer.writerow(row)
    return out.getvalue()


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_plain, cells)) + " |"


def _plain(text: str) -> str:
    """What would end a cell or begin markup is escaped."""
    flat = " ".join(text.split()).replace("](", "]\\(")
    return "".join(f"\\{letter}" if letter in "`*_|<>" else letter for letter in flat)
