"""Charts over rounds and of calibration: lines with interval bands, stacked bars, reliability.

Colours come from the page's style (`s1` … `s8`), so that they follow light and dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tiltune.records.intervals import Interval
from tiltune.records.report.axes import (
    Axis,
    Frame,
    ReferenceLine,
    fitted,
    grid,
    level,
    round_axis,
    round_title,
    share_axis,
    snapped_axis,
)
from tiltune.records.report.figure import Figure, LegendKey
from tiltune.records.report.formats import MISSING, estimate, number
from tiltune.records.report.svg import element, path, title, together
from tiltune.records.rounds import CalibrationBin

FRAME = Frame(300, 184, left=42, right=12, top=9, bottom=25)
"""Never scaled, so that axis text has one size: a column of charts is at least as wide."""
QUARTERS = tuple((share, f"{share:g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0))
WIDEST_BAR = 36.0
"""Pixels: no bar is wider than a finger."""


@dataclass(frozen=True)
class Point:
    """A measurement of one round, or within one; `value` None breaks the line.

    `round` is the round's number, plus the share of it that has passed; `step` says which step that
    is, for a person.
    """

    round: float
    value: float | None
    interval: Interval | None = None
    step: str = ""


@dataclass(frozen=True)
class Series:
    """A named line; `css` is its colour's class, `radius` that of its dots in pixels."""

    label: str
    css: str
    points: tuple[Point, ...]
    radius: float = 3.2

    @property
    def measured(self) -> list[Point]:
        return [point for point in self.points if point.value is not None]


def line_chart(
    heading: str,
    unit: str,
    series: Sequence[Series],
    *,
    levels: Sequence[ReferenceLine] = (),
    share: bool = False,
) -> Figure | None:
    """Lines over rounds; None if nothing of them was measured.

    Args:
        heading: what is drawn.
        unit: of the vertical axis.
        series: lines, each with its own gaps.
        levels: dashed.
        share: the axis is [0, 1], whatever the values.
    """
    drawn = [line for line in series if line.measured]
    if not drawn:
        return None
    y = share_axis(FRAME.upward) if share else snapped_axis(FRAME.upward, _extent(drawn, levels))
    frame = fitted(FRAME, y)
    x = round_axis(frame.across, _rounds(series))
    marks = [grid(frame, x, y), round_title(frame)]
    marks += [level(frame, y, each) for each in levels]
    marks += [_band(line, x, y) for line in drawn]
    marks += [_line(line, x, y) for line in drawn]
    legend = [LegendKey(line.css, line.label, number(line.measured[-1].value)) for line in drawn]
    legend += [LegendKey("rule", each.label, number(each.value)) for each in levels]
    return _figure(heading, unit, marks, legend)


def stacked_bars(heading: str, unit: str, parts: Sequence[Series]) -> Figure | None:
    """Bars over rounds, each the sum of its measured parts; None if there are none."""
    drawn = [part for part in parts if part.measured]
    if not drawn:
        return None
    totals: dict[float, float] = {}
    for part in drawn:
        for point in part.measured:
            totals[point.round] = totals.get(point.round, 0.0) + (point.value or 0.0)
    y = snapped_axis(FRAME.upward, [0.0, *totals.values()])
    frame = fitted(FRAME, y)
    x = round_axis(frame.across, _rounds(drawn), room=0.6)
    marks = [grid(frame, x, y), round_title(frame), *_bars(drawn, unit, x, y)]
    legend = [
        LegendKey(part.css, part.label, number(sum(p.value or 0 for p in part.measured), 1))
        for part in drawn
    ]
    return _figure(heading, f"{unit}; in all:", marks, legend)


def reliability_diagram(heading: str, unit: str, bins: Sequence[CalibrationBin]) -> Figure | None:
    """Predicted against observed, a dot grows with its count; None without bins."""
    if not bins:
        return None
    x, y = share_axis(FRAME.across, QUARTERS), share_axis(FRAME.upward)
    places = [(x.at(each.predicted_mean), y.at(each.observed_rate)) for each in bins]
    most = max(each.count for each in bins)
    marks = [
        grid(FRAME, x, y),
        path([(x.at(0), y.at(0)), (x.at(1), y.at(1))], "rule"),
        path(places, "line s1"),
    ]
    for each, place in zip(bins, places, strict=True):
        told = (
            f"predicted {number(each.predicted_mean)}, observed {number(each.observed_rate)}, "
            f"{each.count:,} tokens"
        )
        marks.append(_dot(place, "s1", 2 + 7 * math.sqrt(each.count / most), told))
    counted = LegendKey("s1", "held-out tokens", f"{sum(each.count for each in bins):,}")
    return _figure(heading, unit, marks, [counted, LegendKey("rule", "perfect")])


def _figure(
    heading: str, unit: str, marks: Sequence[Markup], legend: Sequence[LegendKey]
) -> Figure:
    told = "; ".join(f"{key.label} {key.value}" for key in legend)
    return Figure(heading, unit, f"{heading}, {unit}: {told}", legend, FRAME, together(marks))


def _bars(parts: Sequence[Series], unit: str, x: Axis, y: Axis) -> list[Markup]:
    a_round = (x.pixels[1] - x.pixels[0]) / (x.high - x.low)
    width = min(WIDEST_BAR, 0.7 * a_round)
    heights: dict[float, float] = {}
    marks: list[Markup] = []
    for part in parts:
        for point in part.measured:
            low = heights.get(point.round, 0.0)
            high = heights[point.round] = low + (point.value or 0.0)
            top, foot = y.at(high), y.at(low)
            corner = {"x": x.at(point.round) - width / 2, "y": top}
            attributes = {"class": f"bar {part.css}", **corner}
            attributes |= {"width": width, "height": foot - top}
            marks.append(element("rect", attributes, title(_told(part.label, point, unit))))
    return marks


def _band(line: Series, x: Axis, y: Axis) -> Markup:
    """Intervals of neighbouring rounds as an area, of a lonely one as a whisker."""
    marks: list[Markup] = []
    for run in _runs(line, with_interval=True):
        sides = [(x.at(p.round), p.interval) for p in run if p.interval is not None]
        lower = [(at, y.at(low)) for at, (low, _) in sides]
        upper = [(at, y.at(high)) for at, (_, high) in sides]
        if len(sides) == 1:
            marks.append(path([*lower, *upper], f"whisker {line.css}"))
        else:
            marks.append(path([*upper, *reversed(lower)], f"band {line.css}", close=True))
    return together(marks)


def _line(line: Series, x: Axis, y: Axis) -> Markup:
    marks: list[Markup] = []
    for run in _runs(line, with_interval=False):
        places = [(x.at(p.round), y.at(p.value)) for p in run if p.value is not None]
        marks += [path(places, f"line {line.css}")] if len(places) > 1 else []
    for point in line.measured:
        if point.value is not None:
            place = (x.at(point.round), y.at(point.value))
            marks.append(_dot(place, line.css, line.radius, _told(line.label, point, "")))
    return together(marks)


def _dot(place: tuple[float, float], css: str, radius: float, told: str) -> Markup:
    attributes = {"class": f"dot {css}", "cx": place[0], "cy": place[1], "r": radius}
    return element("circle", attributes, title(told))


def _runs(line: Series, *, with_interval: bool) -> list[list[Point]]:
    """Stretches of points without a gap."""
    runs: list[list[Point]] = [[]]
    for point in line.points:
        if point.value is None or (with_interval and point.interval is None):
            runs.append([])
        else:
            runs[-1].append(point)
    return [run for run in runs if run]


def _told(label: str, point: Point, unit: str) -> str:
    shown = estimate(point.value, point.interval) if point.value is not None else MISSING
    where = f"round {math.floor(point.round)}" if not point.step else point.step
    return f"{where}: {label} {shown} {unit}".rstrip()


def _rounds(series: Sequence[Series]) -> list[int]:
    """Every round with a point, and those around a point within one."""
    places = [point.round for line in series for point in line.points]
    return sorted({whole(place) for place in places for whole in (math.floor, math.ceil)})


def _extent(series: Sequence[Series], levels: Sequence[ReferenceLine]) -> list[float]:
    values = [each.value for each in levels]
    for line in series:
        for point in line.measured:
            values += [point.value or 0.0, *(point.interval or ())]
    return values
