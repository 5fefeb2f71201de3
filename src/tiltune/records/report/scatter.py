"""Pictures on two measured axes: control against utility, and rates against what they cost."""

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
    roomy_axis,
    upright,
)
from tiltune.records.report.figure import Figure, LegendKey, Narrow
from tiltune.records.report.formats import number
from tiltune.records.report.labels import Box, Label, Placed, placed
from tiltune.records.report.svg import element, path, title, together

WIDE = Frame(484, 360, left=42, right=22, top=14, bottom=28)
NARROW = Frame(316, 320, left=42, right=16, top=14, bottom=28)
"""For a phone. Neither is ever scaled, so that axis text has one size."""
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
    """A named line through its spots in their order; `place` picks colour and shape.

    `base` is the untuned model, which is drawn hollow: what the others are seen against.
    """

    label: str
    place: int
    spots: tuple[Spot, ...]
    base: bool = False

    @property
    def colour(self) -> str:
        return COLOURS[self.place % len(COLOURS)]

    @property
    def shape(self) -> str:
        return SHAPES[self.place // len(COLOURS) % len(SHAPES)]

    @property
    def css(self) -> str:
        return "base circle" if self.base else f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class AxisLimits:
    """Levels of the horizontal and the vertical axis that nothing can beat, where known."""

    across: ReferenceLine | None = None
    upward: ReferenceLine | None = None

    @property
    def known(self) -> list[ReferenceLine]:
        return [each for each in (self.across, self.upward) if each is not None]


NO_LIMITS = AxisLimits()


def scatter(
    heading: str,
    axes: tuple[str, str],
    lines: Sequence[Line],
    limits: AxisLimits = NO_LIMITS,
    *,
    named: bool = False,
) -> Figure | None:
    """A figure; None without a spot.

    Args:
        heading: what is drawn.
        axes: names with units of the horizontal and the vertical axis.
        lines: see there.
        limits: see there.
        named: each line's name stands at its chosen spots; else in a legend.
    """
    spots = [spot for line in lines for spot in line.spots]
    if not spots:
        return None
    shown = [] if named else [line for line in lines if line.spots]
    legend = [LegendKey(each.css, each.label) for each in shown]
    legend += [LegendKey("rule", each.label, number(each.value)) for each in limits.known]
    chosen = "; ".join(spot.told for spot in spots if spot.chosen)
    told = f"{heading}: {axes[1]} against {axes[0]}. {chosen}"
    frame, marks = _drawn(WIDE, lines, limits, named=named)
    narrow = Narrow(*_drawn(NARROW, lines, limits, named=named))
    return Figure(heading, "", told, legend, frame, marks, axes, narrow)


def _drawn(
    frame: Frame, lines: Sequence[Line], limits: AxisLimits, *, named: bool
) -> tuple[Frame, Markup]:
    spots = [spot for line in lines for spot in line.spots]
    y = roomy_axis(frame.upward, _values(spots, "y", limits.upward))
    frame = fitted(frame, y)
    x = roomy_axis(frame.across, _values(spots, "x", limits.across))
    marks = [grid(frame, x, y, vertical=True)]
    marks += [upright(frame, x, limits.across)] if limits.across else []
    marks += [level(frame, y, limits.upward)] if limits.upward else []
    marks += [_line(line, x, y) for line in lines]
    marks += _names(lines, x, y, frame) if named else []
    return frame, together(marks)


def _values(spots: Sequence[Spot], side: str, limit: ReferenceLine | None) -> list[float]:
    """Of spots, their intervals, and the limit."""
    values = [limit.value] if limit else []
    for spot in spots:
        values += [getattr(spot, side), *(getattr(spot, f"{side}_interval") or ())]
    return values


def _line(line: Line, x: Axis, y: Axis) -> Markup:
    places = [(x.at(spot.x), y.at(spot.y)) for spot in line.spots]
    colour = "base" if line.base else line.colour
    marks = [path(places, f"line {colour}")] if len(places) > 1 else []
    for spot, (at_x, at_y) in zip(line.spots, places, strict=True):
        if spot.x_interval:
            ends = [(x.at(end), at_y) for end in spot.x_interval]
            marks.append(path(ends, f"error {colour}"))
        if spot.y_interval:
            ends = [(at_x, y.at(end)) for end in spot.y_interval]
            marks.append(path(ends, f"error {colour}"))
    marks += [_mark(line, spot, *place) for spot, place in zip(line.spots, places, strict=True)]
    return together(marks)


def _mark(line: Line, spot: Spot, x: float, y: float) -> Markup:
    size = _reach(spot)
    small = "" if spot.chosen else " small"
    css = {"class": "dot base" if line.base else f"dot {line.colour}{small}"}
    told = title(spot.told)
    if line.base or line.shape == "circle":
        return element("circle", {**css, "cx": x, "cy": y, "r": size}, told)
    corner = {"x": x - size, "y": y - size, "width": 2 * size, "height": 2 * size}
    turned = {"transform": f"rotate(45 {x:.1f} {y:.1f})"} if line.shape == "diamond" else {}
    return element("rect", {**css, **corner, **turned}, told)


def _reach(spot: Spot) -> float:
    """Pixels from the middle of a spot's mark to its edge."""
    return 6.0 if spot.chosen else 3.4


def _names(lines: Sequence[Line], x: Axis, y: Axis, frame: Frame) -> list[Markup]:
    """Of each line at its chosen spots."""
    labels: list[Label] = []
    css: list[str] = []
    covered: list[Box] = []
    for line in lines:
        for spot in line.spots:
            at, reach = (x.at(spot.x), y.at(spot.y)), _reach(spot) + 1
            covered.append(Box(at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach))
            covered += _whiskers(spot, x, y)
            if spot.chosen:
                labels.append(Label(line.label, *at, _reach(spot)))
                css.append("base" if line.base else line.colour)
    every = placed(labels, covered, frame)
    return [part for one, colour in zip(every, css, strict=True) for part in _name(one, colour)]


def _whiskers(spot: Spot, x: Axis, y: Axis) -> list[Box]:
    """What its intervals cover."""
    at_x, at_y = x.at(spot.x), y.at(spot.y)
    across = sorted(x.at(end) for end in spot.x_interval or (spot.x,))
    upward = sorted(y.at(end) for end in spot.y_interval or (spot.y,))
    return [
        Box(across[0], at_y - 1, across[-1], at_y + 1),
        Box(at_x - 1, upward[0], at_x + 1, upward[-1]),
    ]


def _name(name: Placed, colour: str) -> list[Markup]:
    box, label = name.box, name.label
    middle = (box.left + box.right) / 2
    text = {"class": f"name {colour}", "x": middle, "y": box.bottom - 4}
    near = (
        min(max(label.x, box.left), box.right),
        box.bottom if label.y > box.bottom else min(max(label.y, box.top), box.bottom),
    )
    leader = [path([(label.x, label.y), near], f"leader {colour}")] if name.apart else []
    return [*leader, element("text", text, name.text)]
