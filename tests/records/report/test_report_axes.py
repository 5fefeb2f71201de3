"""The axes that charts and pictures share: proportion, edges, ticks, the grid."""

import re
from itertools import pairwise

import pytest

from tiltune.records.report.axes import (
    Axis,
    Frame,
    fitted,
    grid,
    logarithmic_axis,
    roomy_axis,
    round_axis,
    share_axis,
    snapped_axis,
)

FRAME = Frame(320, 190, left=42, right=10, top=9, bottom=25)


def test_values_lie_in_proportion_and_those_outside_at_the_edge() -> None:
    axis = Axis((200.0, 100.0), 0.0, 2.0, ticks=())
    assert [axis.at(value) for value in (0.0, 0.5, 2.0)] == [200.0, 175.0, 100.0]
    assert axis.at(-1.0) == 200.0 and axis.at(9.0) == 100.0


def test_equal_ratios_are_equal_distances_on_a_logarithmic_axis() -> None:
    axis = logarithmic_axis((100.0, 400.0), 1.0, 100.0)
    assert axis.at(1) == 100 and axis.at(10) == pytest.approx(250) and axis.at(1000) == 400
    assert [value for value, _ in axis.ticks] == [1, 2, 5, 10, 20, 50, 100]


def test_ticks_lie_where_their_labels_say() -> None:
    axes = [
        share_axis(FRAME.upward),
        snapped_axis(FRAME.upward, [3.7, 5.2, 8.1]),
        snapped_axis(FRAME.upward, [-0.013, 0.02]),
        roomy_axis(FRAME.across, [0.31, 0.97]),
        round_axis(FRAME.across, range(3, 40)),
    ]
    for axis in axes:
        values = [value for value, _ in axis.ticks]
        assert [float(text.replace("−", "-")) for _, text in axis.ticks] == pytest.approx(values)
        assert all(axis.low - 1e-9 <= value <= axis.high + 1e-9 for value in values)
        steps = [b - a for a, b in pairwise(values)]
        assert 3 <= len(values) <= 8 and min(steps) == pytest.approx(max(steps))


def test_an_axis_starts_at_zero_where_zero_is_near() -> None:
    assert snapped_axis((0, 1), [2.0, 9.0]).low == 0.0
    assert snapped_axis((0, 1), [7.0, 9.0]).low > 0.0


def test_a_lonely_round_stands_in_the_middle() -> None:
    axis = round_axis((0.0, 100.0), [7])
    assert axis.at(7) == 50.0 and axis.ticks == ((7.0, "7"),)


def test_the_grid_has_a_line_a_tick_and_their_labels() -> None:
    x, y = share_axis(FRAME.across), share_axis(FRAME.upward)
    drawn = [grid(FRAME, x, y, vertical=vertical) for vertical in (False, True)]
    assert [marks.count('class="grid"') for marks in drawn] == [6, 12]
    labels = re.findall(r">([\d.]+)</text>", drawn[0])
    assert labels == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"] * 2


@pytest.mark.parametrize(
    "values", [[1.75, 2.65], [1.6, 2.75], [0.31, 0.47], [7.0, 11.3], [-3.1, 4.2], [96, 171]]
)
def test_a_snapped_axis_ends_at_ticks_that_are_multiples_of_its_step(values: list[float]) -> None:
    axis = snapped_axis(FRAME.upward, values)
    ticks = [value for value, _ in axis.ticks]
    step = ticks[1] - ticks[0]
    assert (ticks[0], ticks[-1]) == pytest.approx((axis.low, axis.high))
    assert axis.low <= min(values) and axis.high >= max(values) - 1e-9
    assert [value / step for value in ticks] == pytest.approx([round(v / step) for v in ticks])
    assert f"{step:.0e}"[0] in "125" and 3 <= len(ticks) <= 6


def test_rounds_are_named_at_even_steps() -> None:
    assert [text for _, text in round_axis((0, 1), range(3, 40)).ticks] == [
        *("5", "10", "15", "20", "25", "30", "35")
    ]
    assert [text for _, text in round_axis((0, 1), range(200)).ticks] == ["0", "50", "100", "150"]
    assert len(round_axis((0, 1), range(8)).ticks) == 8


def test_labels_of_a_logarithmic_axis_do_not_touch() -> None:
    tall = logarithmic_axis((300.0, 0.0), 0.004, 20.0)
    assert [text for _, text in tall.ticks][:3] == ["0.005", "0.01", "0.02"]
    wide = logarithmic_axis((0.0, 300.0), 1.0, 100_000.0)
    assert [text for _, text in wide.ticks] == ["1", "10", "100", "1,000", "10,000", "100,000"]


def test_a_frame_has_room_for_the_longest_label() -> None:
    small = snapped_axis(FRAME.upward, [0.1, 0.2])
    large = snapped_axis(FRAME.upward, [1_000_000.0, 2_400_000.0])
    assert fitted(FRAME, small).left == FRAME.left
    assert fitted(FRAME, large).left > 9 * 6.5 and fitted(FRAME, large).width == FRAME.width
