"""What charts share: a frame, axes with their ticks, the grid, levels to compare with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from markupsafe import Markup

from tiltune.records.report.formats import number
from tiltune.records.report.svg import element, path, together

LOGARITHMIC_FROM = 15.0
"""Ratio of the largest to the smallest value from which equal distances are equal ratios."""
MOST_ROUNDS = 8
"""As many are named below a chart."""
LABEL_GAP = 7
"""Pixels between the frame and the label of a horizontal line."""
LETTER = 7.0
"""Pixels of a letter of the axis text, 12 pixels high, in a wide font."""
LINE = 16.0
"""Pixels of a line of it."""

Ticks = tuple[tuple[float, str], ...]
"""Values and what stands there."""


@dataclass(frozen=True)
class Frame:
    """A drawing's size and its margins, in pixels."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int

    @property
    def across(self) -> tuple[float, float]:
        """Pixels of a horizontal axis, from its low end to its high one."""
        return self.left, self.width - self.right

    @property
    def upward(self) -> tuple[float, float]:
        """Pixels of a vertical axis: the higher a value, the nearer to the top."""
        return self.height - self.bottom, self.top


@dataclass(frozen=True)
class Axis:
    """Values to pixels."""

    pixels: tuple[float, float]
    low: float
    high: float
    ticks: Ticks
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; what lies outside is drawn at the edge."""
        inside = min(max(value, self.low), self.high)
        ends = (self.low, self.high, inside)
        low, high, here = (math.log(v) for v in ends) if self.logarithmic else ends
        share = (here - low) / (high - low)
        return self.pixels[0] + share * (self.pixels[1] - self.pixels[0])


@dataclass(frozen=True)
class ReferenceLine:
    """A level to compare with, such as a target."""

    label: str
    value: float


def share_axis(pixels: tuple[float, float], ticks: Ticks = ()) -> Axis:
    """[0, 1], whatever the values."""
    return Axis(pixels, 0.0, 1.0, ticks or _ticks(0.0, 1.0, _step(1.0)))


def snapped_axis(pixels: tuple[float, float], values: Sequence[float]) -> Axis:
    """From tick to tick around the values; from 0 where 0 is near."""
    low, high = min(values), max(values)
    low = 0.0 if 0 <= low < 0.5 * high else low
    low, high = _widened(low, high)
    step = 0.0
    # Snapped ends may ask for a wider step, of which they need not be multiples: again, then.
    while step != (wanted := _step(high - low)):
        step = wanted
        low = math.floor(low / step + 1e-9) * step
        high = math.ceil(high / step - 1e-9) * step
    return Axis(pixels, low, high, _ticks(low, high, step))


def roomy_axis(pixels: tuple[float, float], values: Sequence[float]) -> Axis:
    """With some room around the values; logarithmic where they span decades."""
    low, high = min(values), max(values)
    if low > 0 and high / low > LOGARITHMIC_FROM:
        return logarithmic_axis(pixels, low * 0.85, high * 1.15)
    room = 0.06 * (high - low) or 0.5
    low, high = max(0.0, low - room) if low >= 0 else low - room, high + room
    step = _step(high - low, most=6)
    return Axis(pixels, low, high, _ticks(math.ceil(low / step - 1e-9) * step, high, step))


def logarithmic_axis(pixels: tuple[float, float], low: float, high: float) -> Axis:
    """Equal distances are equal ratios; ticks at 1, 2 and 5 times powers of ten, or at powers
    alone where the others' labels would touch."""
    ticks: Ticks = ()
    for each in ((1, 2, 5), (1,)):
        every = [times * 10.0**power for power in range(-6, 9) for times in each]
        ticks = tuple((value, f"{value:,g}") for value in every if low <= value <= high)
        axis = Axis(pixels, low, high, ticks, logarithmic=True)
        if _apart(axis):
            break
    return axis


def round_axis(pixels: tuple[float, float], rounds: Sequence[int], room: float = 0.0) -> Axis:
    """Rounds at their numbers, those at even steps named; a lonely one stands in the middle.

    Args:
        pixels: of the frame.
        rounds: in their order.
        room: rounds left free on either side.
    """
    low, high = _widened(rounds[0] - room, rounds[-1] + room)
    step = 1
    while step * MOST_ROUNDS < rounds[-1] - rounds[0] + 1:
        step = _next(step)
    named = [each for each in rounds if each % step == 0] or rounds[:1]
    return Axis(pixels, low, high, tuple((float(each), str(each)) for each in named))


def fitted(frame: Frame, y: Axis) -> Frame:
    """The frame with room on its left for the labels of the vertical axis."""
    widest = max((len(text) for _, text in y.ticks), default=0)
    return replace(frame, left=max(frame.left, math.ceil(widest * LETTER) + LABEL_GAP + 2))


def grid(frame: Frame, x: Axis, y: Axis, *, vertical: bool = False) -> Markup:
    """A line at each tick of `y`, at those of `x` if asked for, and what stands at all of them."""
    (left, right), (foot, top) = frame.across, frame.upward
    marks: list[Markup] = []
    for value, text in y.ticks:
        at = y.at(value)
        marks += [_grid_line((left, at), (right, at)), _left_label(frame, at + 4, text)]
    for value, text in x.ticks:
        at = x.at(value)
        marks += [_grid_line((at, top), (at, foot))] * vertical
        marks.append(element("text", {"class": "tick x", "x": at, "y": _below(frame)}, text))
    return together(marks)


def round_title(frame: Frame) -> Markup:
    """In front of the rounds' numbers."""
    return _left_label(frame, _below(frame), "round")


def level(frame: Frame, y: Axis, line: ReferenceLine) -> Markup:
    """A level of the vertical axis, dashed from side to side."""
    at = y.at(line.value)
    return path([(end, at) for end in frame.across], "rule", told=_told(line))


def upright(frame: Frame, x: Axis, line: ReferenceLine) -> Markup:
    """A level of the horizontal axis, dashed from the top to the foot."""
    at = x.at(line.value)
    return path([(at, end) for end in reversed(frame.upward)], "rule", told=_told(line))


def _told(line: ReferenceLine) -> str:
    return f"{line.label} {number(line.value)}"


def _grid_line(start: tuple[float, float], end: tuple[float, float]) -> Markup:
    ends = {"x1": start[0], "x2": end[0], "y1": start[1], "y2": end[1]}
    return element("line", {"class": "grid", **ends})


def _left_label(frame: Frame, y: float, text: str) -> Markup:
    return element("text", {"class": "tick y", "x": frame.left - LABEL_GAP, "y": y}, text)


def _below(frame: Frame) -> int:
    """Where the labels of the horizontal axis stand."""
    return frame.height - frame.bottom + 18


def _ticks(first: float, high: float, step: float) -> Ticks:
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    count = math.floor((high - first) / step + 1e-9) + 1
    # Rounded, and + 0.0, lest zero be -1e-17 or -0.
    values = [round(first + place * step, digits) + 0.0 for place in range(count)]
    return tuple((value, number(value, digits)) for value in values)


def _step(span: float, most: int = 5) -> float:
    """1, 2 or 5 times a power of ten: the least of which `most` steps fill the span."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(m * power for m in (1, 2, 5, 10) if m * power * most >= span)


def _next(step: int) -> int:
    """After 1, 2 or 5 times a power of ten, the next such number."""
    return step * 5 // 2 if str(step).startswith("2") else step * 2


def _apart(axis: Axis) -> bool:
    """Whether no label touches its neighbour."""
    places = [axis.at(value) for value, _ in axis.ticks]
    widths = [len(text) * LETTER + LABEL_GAP for _, text in axis.ticks]
    across = axis.pixels[0] < axis.pixels[1]
    needed = [(a + b) / 2 if across else LINE for a, b in pairwise(widths)]
    return all(abs(b - a) >= gap for (a, b), gap in zip(pairwise(places), needed, strict=True))


def _widened(low: float, high: float) -> tuple[float, float]:
    """A range of at least some width, so that one point stands in its middle."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)
