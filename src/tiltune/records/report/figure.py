"""A drawing with its title and legend, as a template frames it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tiltune.records.report.axes import Frame


@dataclass(frozen=True)
class LegendKey:
    """`css` is the class of its colour and shape; `value` stands out beside the label."""

    css: str
    label: str
    value: str = ""


@dataclass(frozen=True)
class Narrow:
    """The same drawing for a phone: drawn anew, since one that is scaled has text too small."""

    frame: Frame
    marks: Markup


@dataclass(frozen=True)
class Figure:
    """`told` is for a reader who does not see the marks; `axes` name the horizontal and the
    vertical axis where `unit` does not."""

    title: str
    unit: str
    told: str
    legend: Sequence[LegendKey]
    frame: Frame
    marks: Markup
    axes: tuple[str, str] = ("", "")
    narrow: Narrow | None = None
