"""Charts as inline SVG: lines with interval bands, stacked bars, a reliability diagram.

Colours come from the page's style (`s1` … `s6`), so that they follow light and dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tiltune.records.intervals import Interval
from tiltune.records.report.markup import MISSING, escape, estimate, number
from tiltune.records.rounds import CalibrationBin

WIDTH, HEIGHT = 320, 190
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 9, 25
MOST_LABELS = 8


@dataclass(frozen=True)
class Point:
    """A measurement of one round; `value` None breaks the line."""

    round: int
    value: float | None
    interval: Interval | None = None


@dataclass(frozen=True)
class Series:
    """A named line; `css` is its colour's class."""

    label: str
    css: str
    points: tuple[Point, ...]

    @property
    def measured(self) -> list[Point]:
        return [point for point in self.points if point.value is not None]


@dataclass(frozen=True)
class Rule:
    """A level to compare with, such as a target."""

    label: str
    value: float


@dataclass(frozen=True)
class Axes:
    """Data to pixels."""

    x: tuple[float, float]
    y: tuple[float, float]

    def px(self, value: float) -> float:
        return _scale(value, self.x, (LEFT, WIDTH - RIGHT))

    def py(self, value: float) -> float:
        return _scale(value, self.y, (HEIGHT - BOTTOM, TOP))


def line_chart(
    title: str,
    unit: str,
    series: Sequence[Series],
    *,
    rules: Sequence[Rule] = (),
    share: bool = False,
) -> str:
    """A figure of lines over rounds; empty if nothing of it was measured.

    Args:
        title: what is drawn.
        unit: of the vertical axis.
        series: lines, each with its own gaps.
        rules: dashed levels.
        share: the axis is [0, 1], whatever the values.
    """
    drawn = [line for line in series if line.measured]
    if not drawn:
        return ""
    rounds = [point.round for line in series for point in line.points]
    y = (0.0, 1.0) if share else _range(_extent(drawn, rules))
    axes = Axes(_widened(min(rounds), max(rounds)), y)
    marks = "".join(_rule(rule, axes) for rule in rules)
    marks += "".join(_band(line, axes) for line in drawn) + "".join(
        _line(line, axes) for line in drawn
    )
    frame = _grid(axes, sorted(set(rounds)))
    keys = [(line.css, line.label, number(line.measured[-1].value)) for line in drawn]
    keys += [("rule", rule.label, number(rule.value)) for rule in rules]
    return _figure(title, unit, frame + marks, keys)


def stacked_bars(title: str, unit: str, parts: Sequence[Series]) -> str:
    """A figure of bars over rounds, each the sum of its measured parts; empty if there are none."""
    drawn = [part for part in parts if part.measured]
    if not drawn:
        return ""
    totals: dict[int, float] = {}
    for part in drawn:
        for point in part.measured:
            totals[point.round] = totals.get(point.round, 0.0) + (point.value or 0.0)
    rounds = sorted({point.round for part in drawn for point in part.points})
    axes = Axes((rounds[0] - 0.6, rounds[-1] + 0.6), _range([0.0, *totals.values()]))
    # Half a unit between neighbours, but no bar wider than a finger.
    width = min(36.0, 0.7 * (axes.px(1) - axes.px(0)))
    heights = dict.fromkeys(rounds, 0.0)
    marks = ""
    for part in drawn:
        for point in part.measured:
            low, high = heights[point.round], heights[point.round] + (point.value or 0.0)
            heights[point.round] = high
            top, foot = axes.py(high), axes.py(low)
            marks += (
                f'<rect class="bar {part.css}" x="{axes.px(point.round) - width / 2:.1f}" '
                f'y="{top:.1f}" width="{width:.1f}" height="{foot - top:.1f}">'
                f"<title>{_told(part.label, point, unit)}</title></rect>"
            )
    keys = [
        (part.css, part.label, number(sum(p.value or 0 for p in part.measured), 1))
        for part in drawn
    ]
    return _figure(title, f"{unit}; in all:", _grid(axes, rounds) + marks, keys)


def reliability_diagram(title: str, unit: str, bins: Sequence[CalibrationBin]) -> str:
    """Predicted against observed, a dot grows with its count; empty without bins."""
    if not bins:
        return ""
    axes = Axes((0.0, 1.0), (0.0, 1.0))
    most = max(part.count for part in bins)
    diagonal = path([(axes.px(0), axes.py(0)), (axes.px(1), axes.py(1))], "rule")
    line = path([(axes.px(b.predicted_mean), axes.py(b.observed_rate)) for b in bins], "line s1")
    dots = "".join(
        f'<circle class="dot s1" cx="{axes.px(b.predicted_mean):.1f}" '
        f'cy="{axes.py(b.observed_rate):.1f}" r="{2 + 7 * math.sqrt(b.count / most):.1f}"><title>'
        f"predicted {number(b.predicted_mean)}, observed {number(b.observed_rate)}, "
        f"{b.count:,} tokens</title></circle>"
        for b in bins
    )
    keys = [("s1", "held-out tokens", f"{sum(b.count for b in bins):,}")]
    frame = _horizontal(axes) + _labels([(axes.px(v), f"{v:g}") for v in (0, 0.25, 0.5, 0.75, 1)])
    return _figure(title, unit, frame + diagonal + line + dots, [*keys, ("rule", "perfect", "")])


def _figure(title: str, unit: str, marks: str, keys: Sequence[tuple[str, str, str]]) -> str:
    legend = "".join(
        f'<li><i class="{css}"></i>{escape(label)} <b>{escape(value)}</b></li>'
        for css, label, value in keys
    )
    told = "; ".join(f"{label} {value}" for _, label, value in keys)
    return (
        f'<figure class="chart"><figcaption><h3>{escape(title)}</h3>'
        f'<span class="unit">{escape(unit)}</span></figcaption><ul class="legend">{legend}</ul>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"{title}, {unit}: {told}")}">{marks}</svg></figure>'
    )


def _grid(axes: Axes, rounds: Sequence[int]) -> str:
    step = math.ceil(len(rounds) / MOST_LABELS)
    return _horizontal(axes) + _labels([(axes.px(r), str(r)) for r in rounds[::step]], "round")


def _horizontal(axes: Axes) -> str:
    lines = ""
    for value, text in _ticks(axes.y):
        y = axes.py(value)
        lines += f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        lines += f'<text class="tick y" x="{LEFT - 7}" y="{y + 4:.1f}">{text}</text>'
    return lines


def _labels(places: Sequence[tuple[float, str]], name: str = "") -> str:
    y = HEIGHT - BOTTOM + 18
    texts = "".join(f'<text class="tick x" x="{x:.1f}" y="{y}">{text}</text>' for x, text in places)
    return texts + (f'<text class="tick y" x="{LEFT - 7}" y="{y}">{name}</text>' if name else "")


def _rule(rule: Rule, axes: Axes) -> str:
    y = axes.py(rule.value)
    told = f"<title>{escape(rule.label)} {number(rule.value)}</title>"
    ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
    return f'<line class="rule" {ends}>{told}</line>'


def _band(line: Series, axes: Axes) -> str:
    """Intervals of neighbouring rounds as an area, of a lonely one as a whisker."""
    marks = ""
    for run in _runs(line, with_interval=True):
        sides = [(axes.px(p.round), p.interval) for p in run if p.interval is not None]
        if len(sides) == 1:
            x, (low, high) = sides[0]
            marks += path([(x, axes.py(low)), (x, axes.py(high))], f"whisker {line.css}")
            continue
        upper = [(x, axes.py(high)) for x, (_, high) in sides]
        lower = [(x, axes.py(low)) for x, (low, _) in reversed(sides)]
        marks += path([*upper, *lower], f"band {line.css}", close=True)
    return marks


def _line(line: Series, axes: Axes) -> str:
    marks = ""
    for run in _runs(line, with_interval=False):
        places = [(axes.px(p.round), axes.py(p.value)) for p in run if p.value is not None]
        marks += path(places, f"line {line.css}") if len(places) > 1 else ""
    for point in line.measured:
        if point.value is not None:
            marks += (
                f'<circle class="dot {line.css}" cx="{axes.px(point.round):.1f}" '
                f'cy="{axes.py(point.value):.1f}" r="3.2">'
                f"<title>{_told(line.label, point, '')}</title></circle>"
            )
    return marks


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
    return escape(f"round {point.round}: {label} {shown} {unit}".rstrip())


def path(places: Sequence[tuple[float, float]], css: str, *, close: bool = False) -> str:
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return f'<path class="{css}" d="M{steps}{"Z" if close else ""}"/>'


def _extent(series: Sequence[Series], rules: Sequence[Rule]) -> list[float]:
    values = [rule.value for rule in rules]
    for line in series:
        for point in line.measured:
            values += [point.value or 0.0, *(point.interval or ())]
    return values


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From tick to tick around the values; from 0 where 0 is near."""
    low, high = min(values), max(values)
    low = 0.0 if 0 <= low < 0.5 * high else low
    if high == low:
        low, high = _widened(low, high)
    step = step_of(high - low)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _ticks(y: tuple[float, float]) -> list[tuple[float, str]]:
    step = step_of(y[1] - y[0])
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    count = round((y[1] - y[0]) / step)
    # Rounded, and + 0.0, lest zero be -1e-17 or -0.
    values = [round(y[0] + i * step, digits) + 0.0 for i in range(count + 1)]
    return [(value, number(value, digits)) for value in values]


def step_of(span: float) -> float:
    """1, 2 or 5 times a power of ten, for four or five steps in the span."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(m * power for m in (1, 2, 5, 10) if m * power * 5 >= span)


def _widened(low: float, high: float) -> tuple[float, float]:
    """A range of at least some width, so that one point stands in its middle."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _scale(value: float, source: tuple[float, float], goal: tuple[float, float]) -> float:
    share = (value - source[0]) / (source[1] - source[0])
    return goal[0] + share * (goal[1] - goal[0])
