"""An interval as a whisker within a table's cell: a column's stand on one scale."""

from collections.abc import Sequence

from markupsafe import Markup

from tiltune.records.measurements import Measurement
from tiltune.records.report.axes import Axis, roomy_axis
from tiltune.records.report.formats import bounds
from tiltune.records.report.svg import element, path, title, together

WIDTH, HEIGHT = 72, 14
SIDE = 4.0
"""Pixels left free on either side, for half a dot."""


def whisker_axis(measurements: Sequence[Measurement], level: float | None = None) -> Axis | None:
    """The scale of these, with a level that they are compared with; None without an interval."""
    values: list[float] = []
    for each in measurements:
        if each.value is not None and each.interval is not None:
            values += [each.value, *each.interval]
    if not values:
        return None
    values += [each.value for each in measurements if each.value is not None]
    return roomy_axis((SIDE, WIDTH - SIDE), values if level is None else [*values, level])


def whisker(measurement: Measurement, axis: Axis, level: float | None = None) -> Markup:
    """The level is a line from top to foot. Nothing where there is no interval; the interval as a
    text where it is off the scale."""
    if measurement.value is None or measurement.interval is None:
        return Markup()
    if not axis.low <= measurement.value <= axis.high:
        return element("small", {"class": "interval"}, bounds(measurement.interval))
    middle, told = HEIGHT / 2, f"95 % interval {bounds(measurement.interval)}"
    ends = [(axis.at(end), middle) for end in measurement.interval]
    marks = [title(told), path([(0.0, middle), (float(WIDTH), middle)], "grid")]
    if level is not None:
        marks.append(path([(axis.at(level), 0.0), (axis.at(level), float(HEIGHT))], "rule"))
    marks.append(path(ends, "span"))
    dot = {"class": "middle", "cx": axis.at(measurement.value), "cy": middle, "r": 2.5}
    marks.append(element("circle", dot))
    size = {"width": WIDTH, "height": HEIGHT, "viewBox": f"0 0 {WIDTH} {HEIGHT}"}
    told_to = {"role": "img", "aria-label": told}
    return element("svg", {"class": "interval", **size, **told_to}, together(marks))
