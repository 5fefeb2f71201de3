"""`comparison.json` -> Markdown, CSV and one self-contained page; reads records only."""

from collections.abc import Sequence
from pathlib import Path

from tiltune.errors import counted
from tiltune.records.files import write_atomically
from tiltune.records.measurements import (
    Comparison,
    CurvePoint,
    Entry,
    find_measurement,
    read_comparison,
)
from tiltune.records.report.axes import ReferenceLine
from tiltune.records.report.columns import (
    ARROWS,
    BUDGETS,
    MeasurementColumn,
    cell,
    columns_of,
    csv_text,
    knobs_of,
    markdown,
    rows_of,
    tables_of,
)
from tiltune.records.report.figure import Figure
from tiltune.records.report.formats import MISSING, number
from tiltune.records.report.generations import generations_shown
from tiltune.records.report.rendering import render
from tiltune.records.report.scatter import AxisLimits, Line, Spot, scatter
from tiltune.records.report.text_table import TextTable
from tiltune.records.report.verdict_table import sorted_by, verdict_tables
from tiltune.records.report.verdicts import axis_column


def write_comparison_report(folder: Path) -> Path:
    """Remake comparison.md, comparison.csv and comparison.html from comparison.json.

    Returns:
        Path of the page.

    Raises:
        RunError: there is no comparison.json in the folder, or it is damaged.
    """
    comparison = read_comparison(folder / "comparison.json")
    write_atomically(folder / "comparison.md", markdown(comparison))
    write_atomically(folder / "comparison.csv", csv_text(comparison))
    page = folder / "comparison.html"
    write_atomically(page, comparison_page(comparison))
    return page


def comparison_page(comparison: Comparison) -> str:
    """The page's HTML."""
    columns = columns_of(comparison)
    places = {name: n for n, name in enumerate(dict.fromkeys(e.method for e in comparison.entries))}
    return render(
        "comparison.html",
        {
            "title": comparison.title,
            "facts": _facts(comparison),
            "lead": _lead(comparison),
            "tables": verdict_tables(comparison),
            "sorted_by": sorted_by(comparison),
            "pareto": _pareto(comparison, places),
            "curves": _curves(comparison, places),
            "generations": generations_shown(comparison),
            "alarms": _alarms(comparison),
            "every": _every(comparison, columns),
            "definitions": _definitions(columns),
        },
    )


def _lead(comparison: Comparison) -> str:
    """What is compared, in a line below the title."""
    methods = counted(len({entry.method for entry in comparison.entries}), "method")
    entries = counted(len(comparison.entries), "entry", "entries")
    return f"Tiltune · comparison · {methods}, {entries}"


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    for axis in ("control", "utility"):
        shown = axis_column(comparison, getattr(comparison, axis))
        facts.append((axis, shown.header if shown else MISSING))
    if comparison.least_control is not None:
        facts.append(("control to reach", number(comparison.least_control)))
    for key, (name, value) in comparison.limit.items():
        shown = axis_column(comparison, key)
        facts.append((f"limit: {name}", f"{number(value)} · {shown.header if shown else key}"))
    return facts


def _pareto(comparison: Comparison, places: dict[str, int]) -> list[Figure]:
    """A picture a budget."""
    control = axis_column(comparison, comparison.control)
    utility = axis_column(comparison, comparison.utility)
    if control is None or utility is None:
        return []
    axes = (_axis_title(control), _axis_title(utility))
    limits = AxisLimits(_limit(comparison, control), _limit(comparison, utility))
    base = {entry.method for entry in comparison.entries if entry.kind == "base"}
    figures: list[Figure | None] = []
    for budget in tables_of(comparison):
        under = [e for e in comparison.entries if e.budget in (budget, "none")]
        spots = {
            name: _spots([e for e in under if e.method == name], control, utility)
            for name in places
        }
        lines = [Line(name, place, spots[name], name in base) for name, place in places.items()]
        figures.append(scatter(BUDGETS[budget], axes, lines, limits, named=True))
    return [figure for figure in figures if figure is not None]


def _axis_title(column: MeasurementColumn) -> str:
    """In words, lest the direction's arrow be taken for the axis."""
    better = column.like.better
    header = column.header.removesuffix(f" {ARROWS[better]}")
    return header if better == "neither" else f"{header} ({better} is better)"


def _limit(comparison: Comparison, column: MeasurementColumn) -> ReferenceLine | None:
    found = comparison.limit.get(column.name) or comparison.limit.get(column.like.key)
    return ReferenceLine(*found) if found else None


def _spots(
    entries: Sequence[Entry], control: MeasurementColumn, utility: MeasurementColumn
) -> tuple[Spot, ...]:
    spots: list[Spot] = []
    for entry in entries:
        x = find_measurement(entry.evaluation.measurements, control.name)
        y = find_measurement(entry.evaluation.measurements, utility.name)
        if x is None or y is None or x.value is None or y.value is None:
            continue
        knobs = f" ({knobs_of(entry)})" if entry.knobs else ""
        told = f"{entry.method}{knobs}: {control.header} {cell(x)}, {utility.header} {cell(y)}"
        spots.append(Spot(x.value, y.value, told, x.interval, y.interval, entry.chosen))
    return tuple(sorted(spots, key=lambda spot: (spot.x, spot.y)))


def _curves(comparison: Comparison, places: dict[str, int]) -> list[Figure]:
    """Against completions and against seconds, under each budget."""
    figures: list[Figure | None] = []
    for budget, entries in tables_of(comparison).items():
        for unit, name in (("samples", "completions"), ("seconds", "seconds")):
            lines = [
                Line(entry.method, places[entry.method], _curve(entry.curve, unit))
                for entry in entries
                if len(entry.curve) > 1
            ]
            title = f"{BUDGETS[budget]}: against {name}"
            axes = (f"{name} spent in training", "satisfaction rate")
            figures.append(scatter(title, axes, lines))
    return [figure for figure in figures if figure is not None]


def _curve(points: Sequence[CurvePoint], unit: str) -> tuple[Spot, ...]:
    return tuple(
        Spot(
            float(getattr(point, unit)),
            point.satisfaction_rate,
            f"after {number(float(getattr(point, unit)), 0)} {unit}: "
            f"{number(point.satisfaction_rate)}",
            y_interval=point.satisfaction_rate_interval,
        )
        for point in points
        if point.satisfaction_rate is not None
    )


def _alarms(comparison: Comparison) -> list[tuple[str, str]]:
    """(method, alarm or note) of the chosen entries."""
    return [
        (entry.method, alarm)
        for entry in comparison.entries
        if entry.chosen
        for alarm in (*entry.evaluation.alarms, *entry.evaluation.notes)
    ]


def _every(comparison: Comparison, columns: Sequence[MeasurementColumn]) -> TextTable:
    """Grids included."""
    rows = [
        [row[0], entry.budget, "yes" if entry.chosen else "no", *row[1:]]
        for entry, row in zip(comparison.entries, rows_of(comparison.entries, columns), strict=True)
    ]
    head = ["method", "budget", "chosen", "knobs", *(column.header for column in columns)]
    return TextTable(head, rows)


def _definitions(columns: Sequence[MeasurementColumn]) -> TextTable:
    return TextTable(
        ["measurement", "aspect", "definition", "key"],
        [
            [column.header, column.like.aspect, column.like.definition or MISSING, column.name]
            for column in columns
        ],
    )
