"""A finite automaton as SVG: states in layers by their distance from the start, arrows with labels.

A line around a state is doubled where a text may end in it; a dead state is grey.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

from tiltune.errors import counted
from tiltune.records.report.svg import element, path, title, together
from tiltune.records.rounds import AutomatonRecord

RADIUS = 17.0
ACROSS, DOWN = 165.0, 108.0
MARGIN_X, MARGIN_Y = 64.0, 78.0
MOST_BEND, TIP = 120.0, 8.0
LONGEST_LABEL = 26
LETTER = 6.2
"""Width of a label's character, about."""

Place = tuple[float, float]


def draw(automaton: AutomatonRecord) -> Markup:
    """The drawing of an automaton that has edges."""
    widest = LETTER * max(len(_short(label)) for _, _, label in automaton.edges)
    across, margin = max(ACROSS, widest + 4 * RADIUS), max(MARGIN_X, widest / 2 + RADIUS)
    places = _places(automaton, across, margin)
    apexes = [
        _apex(places[source], places[target], across)
        for source, target, _ in automaton.edges
        if source != target and source in places
    ]
    width = max(x for x, _ in [*places.values(), *apexes]) + margin
    top = min(y for _, y in [*places.values(), *apexes]) - MARGIN_Y
    height = max(y for _, y in [*places.values(), *apexes]) + MARGIN_Y / 2 - top
    arrows, labels = zip(*[_edge(edge, places, across) for edge in automaton.edges], strict=True)
    marks = [*arrows, *labels, _start(places[automaton.start])]  # no arrow crosses a label
    marks += [_state(state, place, automaton) for state, place in places.items()]
    told = (
        f"automaton of {counted(automaton.states, 'state')}, {len(automaton.accepting)} accepting"
    )
    size = {"width": f"{width:.0f}", "height": f"{height:.0f}"}
    view = {"viewBox": f"0 {top:.0f} {width:.0f} {height:.0f}", **size}
    return element("svg", {**view, "role": "img", "aria-label": told}, together(marks))


def layers(automaton: AutomatonRecord) -> list[list[int]]:
    """States by their distance from the start; those that nothing reaches are left out."""
    found: list[list[int]] = [[automaton.start]]
    met = {automaton.start}
    while True:
        ahead = {t for s, t, _ in automaton.edges if s in found[-1]} - met
        if not ahead:
            return found
        met |= ahead
        # dead states stand lowest, out of the way of the others
        found.append(sorted(ahead, key=lambda state: (state in automaton.dead, state)))


def _places(automaton: AutomatonRecord, across: float, margin: float) -> dict[int, Place]:
    rows = layers(automaton)
    tallest = max(map(len, rows))
    return {
        state: (
            margin + column * across,
            MARGIN_Y + (row + (tallest - len(states)) / 2) * DOWN,
        )
        for column, states in enumerate(rows)
        for row, state in enumerate(states)
    }


def _state(state: int, place: Place, automaton: AutomatonRecord) -> Markup:
    css = "state dead" if state in automaton.dead else "state"
    accepting = state in automaton.accepting
    ends = "a text may end here" if accepting else "a text that ends here violates"
    told = "no text satisfies from here" if state in automaton.dead else ends
    centre = {"cx": place[0], "cy": place[1]}
    marks = [title(f"state {state}: {told}"), element("circle", {**centre, "r": RADIUS})]
    inner = {"class": "inner", **centre, "r": RADIUS - 4}
    marks += [element("circle", inner)] if accepting else []
    marks.append(element("text", {"x": place[0], "y": place[1] + 4}, str(state)))
    return element("g", {"class": css}, together(marks))


def _start(place: Place) -> Markup:
    x, y = place
    end = (x - RADIUS - 1, y)
    return _path(f"M{end[0] - 30:.1f} {y:.1f}L{end[0]:.1f} {y:.1f}", (end[0] - 30, y), end)


def _edge(
    edge: tuple[int, int, str], places: dict[int, Place], across: float
) -> tuple[Markup, Markup]:
    """The arrow and its label; nothing where no text comes."""
    source, target, label = edge
    if source not in places:
        return Markup(), Markup()
    if source == target:
        return _loop(places[source], label)
    return _arrow(places[source], places[target], label, across)


def _loop(place: Place, label: str) -> tuple[Markup, Markup]:
    x, y = place
    top, side = y - RADIUS + 2, 8.0
    curve = (
        f"M{x - side:.1f} {top:.1f}C{x - 22:.1f} {top - 34:.1f} {x + 22:.1f} {top - 34:.1f} "
        f"{x + side:.1f} {top:.1f}"
    )
    return _path(curve, (x + 22, top - 34), (x + side, top)), _label((x, top - 30), label)


def _arrow(source: Place, target: Place, label: str, across: float) -> tuple[Markup, Markup]:
    top = _apex(source, target, across)
    # a quadratic curve passes half-way between its control point and the middle of its ends
    control = (2 * top[0] - (source[0] + target[0]) / 2, 2 * top[1] - (source[1] + target[1]) / 2)
    start, end = _towards(source, control), _towards(target, control)
    curve = (
        f"M{start[0]:.1f} {start[1]:.1f}Q{control[0]:.1f} {control[1]:.1f} "
        f"{end[0]:.1f} {end[1]:.1f}"
    )
    return _path(curve, control, end), _label(top, label)


def _apex(source: Place, target: Place, across: float) -> Place:
    """Where an arrow is furthest from the straight way; back and within a layer it bends more.

    It bends to the left of the way, so that an edge and the one back lie on two sides.
    """
    dx, dy = target[0] - source[0], target[1] - source[1]
    length = math.hypot(dx, dy)
    share = 0.5 if not dx else 0.12 if 0 < dx < 1.5 * across else 0.28
    bend = min(share * length, MOST_BEND)
    return (
        (source[0] + target[0]) / 2 + bend * dy / length,
        (source[1] + target[1]) / 2 - bend * dx / length,
    )


def _towards(place: Place, control: Place) -> Place:
    """The point on a state's border in the direction of the control point."""
    dx, dy = control[0] - place[0], control[1] - place[1]
    length = math.hypot(dx, dy) or 1.0
    return place[0] + dx / length * (RADIUS + 1), place[1] + dy / length * (RADIUS + 1)


def _path(curve: str, before: Place, end: Place) -> Markup:
    """A line with its tip, which points from `before` to `end`."""
    dx, dy = end[0] - before[0], end[1] - before[1]
    length = math.hypot(dx, dy) or 1.0
    along, across = (dx / length * TIP, dy / length * TIP), (dy / length * 4, -dx / length * 4)
    corners = [
        end,
        (end[0] - along[0] + across[0], end[1] - along[1] + across[1]),
        (end[0] - along[0] - across[0], end[1] - along[1] - across[1]),
    ]
    return element("path", {"class": "edge", "d": curve}) + path(corners, "tip", close=True)


def _label(place: Place, label: str) -> Markup:
    attributes = {"class": "label", "x": place[0], "y": place[1] - 3}
    return element("text", attributes, title(label) + _short(label))


def _short(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"


def legend(automaton: AutomatonRecord) -> str:
    """What the marks mean; only those that the drawing holds."""
    told: Sequence[tuple[bool, str]] = (
        (automaton.reads != "character", f"each arrow reads one {automaton.reads}"),
        (bool(automaton.accepting), "double line: a text may end there"),
        (bool(automaton.dead), "grey: no text satisfies from there on"),
    )
    return "; ".join(text for holds, text in told if holds)
