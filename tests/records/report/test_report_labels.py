"""Names beside points: each within the picture, none over another or over a mark."""

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from tiltune.records.report.axes import Frame
from tiltune.records.report.labels import LONGEST, Box, Label, placed

FRAME = Frame(484, 360, left=42, right=22, top=14, bottom=28)
PLACES = st.tuples(st.floats(60, 440), st.floats(30, 320))


def mark(label: Label) -> Box:
    return Box(label.x - 6, label.y - 6, label.x + 6, label.y + 6)


@settings(max_examples=60, deadline=None)
@given(st.lists(PLACES, min_size=1, max_size=8))
def test_names_cover_neither_each_other_nor_a_mark_and_stay_inside(
    places: list[tuple[float, float]],
) -> None:
    labels = [Label(f"method {n}", x, y, 6.0) for n, (x, y) in enumerate(places)]
    marks = [mark(label) for label in labels]
    found = placed(labels, marks, FRAME)
    assert [each.label for each in found] == labels
    for each in found:
        assert each.box.within(Box(0, 0, FRAME.width, FRAME.height - FRAME.bottom))
        assert not any(each.box.meets(other) for other in marks)
    assert not any(a.box.meets(b.box) for a, b in combinations(found, 2))


def test_a_lonely_name_stands_at_the_right_of_its_point_and_needs_no_line() -> None:
    (found,) = placed([Label("tilt", 200, 100, 6.0)], [Box(194, 94, 206, 106)], FRAME)
    assert found.box.left == 209 and not found.apart
    assert (found.box.top + found.box.bottom) / 2 == 100


def test_at_the_right_edge_it_stands_at_the_left() -> None:
    (found,) = placed([Label("sequential", 455, 100, 6.0)], [], FRAME)
    assert found.box.right < 455


def test_of_two_at_one_place_the_second_is_led_to_by_a_line() -> None:
    labels = [Label(f"a rather long name {n}", 250, 100, 6.0) for n in range(9)]
    found = placed(labels, [mark(labels[0])], FRAME)
    assert not found[0].apart and found[-1].apart


def test_a_name_too_long_is_cut() -> None:
    (found,) = placed([Label("x" * 80, 100, 100, 6.0)], [], FRAME)
    assert found.text == "x" * (LONGEST - 1) + "…"
