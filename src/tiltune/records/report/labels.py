"""Names beside the points of a picture, each at the nearest place where it covers nothing."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tiltune.records.report.axes import LETTER, LINE, Frame

LONGEST = 24
"""Letters of a name; of a longer one the rest is cut off, and its point tells the whole."""
RINGS = (0.0, 14.0, 28.0, 44.0, 62.0, 84.0, 110.0, 140.0)
"""Pixels that a name may be off from its point, the near ones first."""
DIRECTIONS = tuple(
    (round(math.cos(turn), 6), round(math.sin(turn), 6))
    for turn in (math.pi * eighth / 8 for eighth in (0, 8, 12, 4, 14, 2, 10, 6, 13, 11, 3, 5))
)
"""Unit steps from a point: right, left, up, down, then between."""


@dataclass(frozen=True)
class Box:
    """Pixels of a picture that something covers."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def within(self, other: "Box") -> bool:
        across = other.left <= self.left and self.right <= other.right
        return across and other.top <= self.top and self.bottom <= other.bottom


@dataclass(frozen=True)
class Label:
    """A name to be placed: its point, and how far the point's own mark reaches."""

    text: str
    x: float
    y: float
    reach: float


@dataclass(frozen=True)
class Placed:
    """A name in its box; `apart` if a line has to lead from its point to it."""

    label: Label
    text: str
    box: Box
    apart: bool


def placed(labels: Sequence[Label], covered: Sequence[Box], frame: Frame) -> list[Placed]:
    """Each name at the first place that is free, or at the right of its point if none is.

    Args:
        labels: in the order in which they choose.
        covered: what no name may lie on, such as the points.
        frame: what names must lie within, with the margin above.
    """
    (left, right), (foot, top) = frame.across, frame.upward
    inside = Box(left + 1, top - 8, right + frame.right - 1, foot - 1)
    taken, found = list(covered), list[Placed]()
    for label in labels:
        text = label.text if len(label.text) <= LONGEST else label.text[: LONGEST - 1] + "…"
        free = (
            (box, ring)
            for ring, box in _places(label, len(text) * LETTER)
            if box.within(inside) and not any(box.meets(each) for each in taken)
        )
        box, ring = next(free, (next(_places(label, len(text) * LETTER))[1], 0.0))
        taken.append(box)
        found.append(Placed(label, text, box, apart=ring > 0))
    return found


def _places(label: Label, width: float) -> Iterator[tuple[float, Box]]:
    """(pixels off, box), the nearest first."""
    for ring in RINGS:
        for across, down in DIRECTIONS:
            far = label.reach + 3 + ring
            # The box touches the ring: its near side or corner, not its middle.
            middle = label.x + across * (far + width / 2), label.y + down * (far + LINE / 2)
            half = width / 2, LINE / 2
            yield (
                ring,
                Box(
                    middle[0] - half[0],
                    middle[1] - half[1],
                    middle[0] + half[0],
                    middle[1] + half[1],
                ),
            )
