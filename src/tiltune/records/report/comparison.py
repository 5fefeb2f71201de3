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
from tiltune.records.report.columns import (
    ARROWS,
    BUDGET_NOTES,
    BUDGETS,
    Column,
    cell,
    columns_of,
    csv_text,
    knobs_of,
    markdown,
    rows_of,
    tables_of,
)
from tiltune.records.report.generations import generations
from tiltune.records.report.markup import MISSING, document, escape, folded, number, section, table
from tiltune.records.report.scatter import Line, Spot, scatter

PARETO_NOTE = (
    "One line a method as its knobs vary, in the order of its grid's control; the large mark is "
    "the setting chosen for the table. Whiskers are 95 % intervals."
)
CURVES_NOTE = (
    "Satisfaction of fresh completions, judged by the constraint that trains, against what had "
    "been spent by then. Chosen settings only; none of guided decoding, whose rounds measure the "
    "base model."
)
GENERATIONS_NOTE = (
    "Completions of the chosen settings for the same prompts. Text that violates, or on which a "
    "scorer failed, is shown after a click only, and a search does not look into what is not shown."
)


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
    body = (
        _header(comparison)
        + "".join(
            section(
                f"table-{budget}",
                BUDGETS[budget],
                table(_head(columns), rows_of(entries, columns)),
                BUDGET_NOTES[budget],
            )
            for budget, entries in tables_of(comparison).items()
        )
        + section("pareto", "Control against utility", _pareto(comparison, places), PARETO_NOTE)
        + section("curves", "Learning curves", _curves(comparison, places), CURVES_NOTE)
        + section("generations", "Side by side", generations(comparison), GENERATIONS_NOTE)
        + section("alarms", "Warnings", _alarms(comparison))
        + section("entries", "Every entry", _every(comparison, columns))
        + section("definitions", "Definitions", _definitions(columns))
    )
    return document(comparison.title, body)


def _head(columns: Sequence[Column]) -> list[str]:
    return ["method", "chosen knobs", *(column.header for column in columns)]


def _header(comparison: Comparison) -> str:
    methods = len({entry.method for entry in comparison.entries})
    facts = [("methods", str(methods)), ("entries", str(len(comparison.entries)))]
    for axis in ("control", "utility"):
        shown = _axis_column(comparison, getattr(comparison, axis))
        facts.append((axis, shown.header if shown else MISSING))
    for key, (name, value) in comparison.limit.items():
        shown = _axis_column(comparison, key)
        facts.append((f"limit: {name}", f"{number(value)} · {shown.header if shown else key}"))
    items = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts)
    return (
        '<header><p class="eyebrow">Tiltune · comparison</p>'
        f'<h1 class="title">{escape(comparison.title)}</h1><dl class="facts">{items}</dl></header>'
    )


def _axis_column(comparison: Comparison, name: str) -> Column | None:
    for entry in comparison.entries:
        found = find_measurement(entry.evaluation.measurements, name)
        if found is not None:
            return Column(name, found)
    return None


def _pareto(comparison: Comparison, places: dict[str, int]) -> str:
    """A picture a budget."""
    control = _axis_column(comparison, comparison.control)
    utility = _axis_column(comparison, comparison.utility)
    if control is None or utility is None:
        return ""
    figures = ""
    for budget in tables_of(comparison):
        under = [e for e in comparison.entries if e.budget in (budget, "none")]
        lines = [
            Line(name, place, _spots([e for e in under if e.method == name], control, utility))
            for name, place in places.items()
        ]
        limits = [_limit(comparison, column) for column in (control, utility)]
        axes = (_axis_title(control), _axis_title(utility))
        figures += scatter(BUDGETS[budget], axes, lines, limits)
    return f'<div class="charts pictures">{figures}</div>' if figures else ""


def _axis_title(column: Column) -> str:
    better = {"higher": " is better", "lower": " is better", "neither": ""}[column.like.better]
    return f"{column.header}{better}" if ARROWS[column.like.better] else column.header


def _limit(comparison: Comparison, column: Column) -> tuple[str, float] | None:
    return comparison.limit.get(column.name) or comparison.limit.get(column.like.key)


def _spots(entries: Sequence[Entry], control: Column, utility: Column) -> tuple[Spot, ...]:
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


def _curves(comparison: Comparison, places: dict[str, int]) -> str:
    """Against completions and against seconds, under each budget."""
    figures = ""
    for budget, entries in tables_of(comparison).items():
        for unit, name in (("samples", "completions"), ("seconds", "seconds")):
            lines = [
                Line(entry.method, places[entry.method], _curve(entry.curve, unit))
                for entry in entries
                if len(entry.curve) > 1
            ]
            title = f"{BUDGETS[budget]}: against {name}"
            axes = (f"{name} spent in training", "satisfaction rate")
            figures += scatter(title, axes, lines, (None, None))
    return f'<div class="charts pictures">{figures}</div>' if figures else ""


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


def _alarms(comparison: Comparison) -> str:
    items = "".join(
        f'<li><span class="round">{escape(entry.method)}</span>{escape(alarm)}</li>'
        for entry in comparison.entries
        if entry.chosen
        for alarm in entry.evaluation.alarms
    )
    return f"<ul>{items}</ul>" if items else ""


def _every(comparison: Comparison, columns: Sequence[Column]) -> str:
    """Grids included; folded away, for it is long."""
    rows = [
        [row[0], entry.budget, "yes" if entry.chosen else "no", *row[1:]]
        for entry, row in zip(comparison.entries, rows_of(comparison.entries, columns), strict=True)
    ]
    head = ["method", "budget", "chosen", "knobs", *(column.header for column in columns)]
    return folded(
        f"{counted(len(rows), 'entry', 'entries')}, every point of every grid", table(head, rows)
    )


def _definitions(columns: Sequence[Column]) -> str:
    rows = [
        [column.header, column.like.aspect, column.like.definition or MISSING, column.name]
        for column in columns
    ]
    shown = table(["measurement", "aspect", "definition", "key"], rows)
    return folded("what each column is", shown)
