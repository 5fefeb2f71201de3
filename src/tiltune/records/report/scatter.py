"""Pictures on two measured axes: control against utility, and rates against what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tiltune.records.intervals import Interval
from tiltune.records.report.axes import (
    Axis,
    Frame,
    ReferenceLine,
    grid,
    level,
    roomy_axis,
    titles,
    upright,
)
from tiltune.records.report.figure import Figure, LegendKey
from tiltune.records.report.formats import number
from tiltune.records.report.svg import element, path, title, together

FRAME = Frame(560, 400, left=58, right=16, top=14, bottom=46)
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

    @property
    def colour(self) -> str:
        return COLOURS[self.place % len(COLOURS)]

    @property
    def shape(self) -> str:
        return SHAPES[self.place // len(COLOURS) % len(SHAPES)]


def scatter(
    heading: str,
    axes: tuple[str, str],
    lines: Sequence[Line],
    limits: tuple[ReferenceLine | None, ReferenceLine | None] = (None, None),
) -> Figure | None:
    """A figure; None without a spot.

    Args:
        heading: what is drawn.
        axes: names with units of the horizontal and the vertical axis.
        lines: see there.
        limits: of the horizontal and the vertical axis; None: none is known.
    """
    spots = [spot for line in lines for spot in line.spots]
    if not spots:
        return None
    across, upward = limits
    x = roomy_axis(FRAME.across, _values(spots, "x", across))
    y = roomy_axis(FRAME.upward, _values(spots, "y", upward))
    marks = [grid(FRAME, x, y, vertical=True), titles(FRAME, *axes)]
    marks += [upright(FRAME, x, across)] if across else []
    marks += [level(FRAME, y, upward)] if upward else []
    marks += [_line(line, x, y) for line in lines]
    legend = [LegendKey(f"{each.colour} {each.shape}", each.label) for each in lines if each.spots]
    legend += [LegendKey("rule", each.label, number(each.value)) for each in limits if each]
    chosen = "; ".join(spot.told for spot in spots if spot.chosen)
    told = f"{heading}: {axes[1]} against {axes[0]}. {chosen}"
    return Figure(heading, "", told, legend, FRAME, together(marks))


def _values(spots: Sequence[Spot], side: str, limit: ReferenceLine | None) -> list[float]:
    """Of spots, their intervals, and the limit."""
    values = [limit.value] if limit else []
    for spot in spots:
        values += [getattr(spot, side), *(getattr(spot, f"{side}_interval") or ())]
    return values


def _line(line: Line, x: Axis, y: Axis) -> Markup:
    places = [(x.at(spot.x), y.at(spot.y)) for spot in line.spots]
    marks = [path(places, f"line {line.colour}")] if len(places) > 1 else []
    for spot, (at_x, at_y) in zip(line.spots, places, strict=True):
        if spot.x_interval:
            ends = [(x.at(end), at_y) for end in spot.x_interval]
            marks.append(path(ends, f"error {line.colour}"))
        if spot.y_interval:
            ends = [(at_x, y.at(end)) for end in spot.y_interval]
            marks.append(path(ends, f"error {line.colour}"))
    marks += [_mark(line, spot, *place) for spot, place in zip(line.spots, places, strict=True)]
    return together(marks)


def _mark(line: Line, spot: Spot, x: float, y: float) -> Markup:
    size = 6.0 if spot.chosen else 3.4
    css = {"class": f"dot {line.colour}" + ("" if spot.chosen else " small")}
    told = title(spot.told)
    if line.shape == "circle":
        return element("circle", {**css, "cx": x, "cy": y, "r": size}, told)
    corner = {"x": x - size, "y": y - size, "width": 2 * size, "height": 2 * size}
    turned = {"transform": f"rotate(45 {x:.1f} {y:.1f})"} if line.shape == "diamond" else {}
    return element("rect", {**css, **corner, **turned}, told)
