"""Pictures on two measured axes: control against utility, and rates against what they cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tiltune.records.intervals import Interval
from tiltune.records.report.charts import path, step_of
from tiltune.records.report.markup import escape, number

WIDTH, HEIGHT = 560, 400
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 46
LOGARITHMIC_FROM = 15.0
"""Ratio of the largest to the smallest value from which equal distances are equal ratios."""
COLOURS = ("s1", "s2", "s3", "s4", "s7", "s8", "s5", "s6")
SHAPES = ("circle", "square", "diamond")


@dataclass(frozen=True)
class Spot:
    """A point, its intervals, and what a pointer that rests on it reads."""

    x: float
    y: float
    told: str
    x_interval: Interval | None = None
    y_interval: Interval | None = None
    chosen: bool = False


@dataclass(frozen=True)
class Line:
    """A named line through its spots in their order; `place` picks colour and shape."""

    label: str
    place: int
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class Axis:
    """A name, the pixels it covers and the values there; `limit` is drawn with its name."""

    title: str
    pixels: tuple[float, float]
    low: float
    high: float
    logarithmic: bool = False
    limit: tuple[str, float] | None = None

    def at(self, value: float) -> float:
        """The pixel of a value; what lies outside is drawn at the edge."""
        inside = min(max(value, self.low), self.high)
        ends = (self.low, self.high, inside)
        low, high, here = (math.log(v) for v in ends) if self.logarithmic else ends
        share = (here - low) / (high - low)
        return self.pixels[0] + share * (self.pixels[1] - self.pixels[0])

    def ticks(self) -> list[tuple[float, str]]:
        """Where lines are drawn and what stands there."""
        if self.logarithmic:
            values = [m * 10.0**e for e in range(-6, 9) for m in (1, 2, 5)]
            return [(v, f"{v:,g}") for v in values if self.low <= v <= self.high]
        step = step_of(self.high - self.low)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first
        values = [round((first + n) * step, digits) + 0.0 for n in range(count + 1)]
        return [(v, number(v, digits)) for v in values]


def scatter(
    title: str,
    axes: tuple[str, str],
    lines: Sequence[Line],
    limits: Sequence[tuple[str, float] | None],
) -> str:
    """A figure; empty without a spot.

    Args:
        title: what is drawn.
        axes: names with units of the horizontal and the vertical axis.
        lines: see there.
        limits: of the horizontal and the vertical axis; None: none is known.
    """
    spots = [spot for line in lines for spot in line.spots]
    if not spots:
        return ""
    x = _axis(axes[0], (LEFT, WIDTH - RIGHT), _values(spots, "x"), limits[0])
    y = _axis(axes[1], (HEIGHT - BOTTOM, TOP), _values(spots, "y"), limits[1])
    marks = _frame(x, y) + "".join(_line(line, x, y) for line in lines)
    keys = "".join(
        f'<li><i class="{_css(line)}"></i>{escape(line.label)}</li>' for line in lines if line.spots
    )
    named = [limit for limit in limits if limit is not None]
    keys += "".join(
        f'<li><i class="rule"></i>{escape(name)} <b>{number(value)}</b></li>'
        for name, value in named
    )
    told = "; ".join(spot.told for spot in spots if spot.chosen)
    return (
        f'<figure class="chart wide"><figcaption><h3>{escape(title)}</h3></figcaption>'
        f'<ul class="legend">{keys}</ul><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"{title}: {axes[1]} against {axes[0]}. {told}")}">{marks}</svg>'
        "</figure>"
    )


def _values(spots: Sequence[Spot], side: str) -> list[float]:
    """Of spots and, where they do not dwarf them, of intervals."""
    values: list[float] = []
    for spot in spots:
        values += [getattr(spot, side), *(getattr(spot, f"{side}_interval") or ())]
    return values


def _axis(
    title: str, pixels: tuple[float, float], values: list[float], limit: tuple[str, float] | None
) -> Axis:
    every = values + ([limit[1]] if limit else [])
    low, high = min(every), max(every)
    if low > 0 and high / low > LOGARITHMIC_FROM:
        return Axis(title, pixels, low * 0.85, high * 1.15, logarithmic=True, limit=limit)
    room = 0.06 * (high - low) or 0.5
    lowest = max(0.0, low - room) if low >= 0 else low - room
    return Axis(title, pixels, lowest, high + room, limit=limit)


def _frame(x: Axis, y: Axis) -> str:
    marks = ""
    for value, text in y.ticks():
        at = y.at(value)
        marks += (
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="tick y" x="{LEFT - 8}" y="{at + 4:.1f}">{text}</text>'
        )
    for value, text in x.ticks():
        at = x.at(value)
        marks += (
            f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text class="tick x" x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}">{text}</text>'
        )
    marks += (
        f'<text class="tick x" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 7}">'
        f"{escape(x.title)}</text>"
        f'<text class="tick x" transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">'
        f"{escape(y.title)}</text>"
    )
    if x.limit:
        at = x.at(x.limit[1])
        marks += path([(at, TOP), (at, HEIGHT - BOTTOM)], "rule")
    if y.limit:
        at = y.at(y.limit[1])
        marks += path([(LEFT, at), (WIDTH - RIGHT, at)], "rule")
    return marks


def _line(line: Line, x: Axis, y: Axis) -> str:
    places = [(x.at(spot.x), y.at(spot.y)) for spot in line.spots]
    marks = path(places, f"line {_colour(line)}") if len(places) > 1 else ""
    for spot, (px, py) in zip(line.spots, places, strict=True):
        if spot.x_interval:
            ends = [(x.at(end), py) for end in spot.x_interval]
            marks += path(ends, f"error {_colour(line)}")
        if spot.y_interval:
            ends = [(px, y.at(end)) for end in spot.y_interval]
            marks += path(ends, f"error {_colour(line)}")
    for spot, (px, py) in zip(line.spots, places, strict=True):
        marks += _mark(line, spot, px, py)
    return marks


def _mark(line: Line, spot: Spot, x: float, y: float) -> str:
    size = 6.0 if spot.chosen else 3.4
    css = f"dot {_colour(line)}" + ("" if spot.chosen else " small")
    told = f"<title>{escape(spot.told)}</title>"
    shape = SHAPES[line.place // len(COLOURS) % len(SHAPES)]
    if shape == "circle":
        return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{size}">{told}</circle>'
    turn = f' transform="rotate(45 {x:.1f} {y:.1f})"' if shape == "diamond" else ""
    corner = f'x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size}" height="{2 * size}"'
    return f'<rect class="{css}" {corner}{turn}>{told}</rect>'


def _colour(line: Line) -> str:
    return COLOURS[line.place % len(COLOURS)]


def _css(line: Line) -> str:
    return f"{_colour(line)} {SHAPES[line.place // len(COLOURS) % len(SHAPES)]}"
