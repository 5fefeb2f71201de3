"""The report's curves, bars and calibration: in proportion, broken where nothing was measured."""

from itertools import pairwise
from pathlib import Path

import pytest
from pages import Node, Tree, rows_of
from run_folders import finished, make_run, record, report

from tiltune.records.report.charts import Point, Series, line_chart, stacked_bars
from tiltune.records.report.curves import round_figures
from tiltune.records.report.figure import Figure
from tiltune.records.report.folder import read_folder
from tiltune.records.rounds import write_records
from tiltune.records.steps import StepRecord


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return finished(tmp_path / "run")


def test_one_row_has_points_and_whiskers(tmp_path: Path) -> None:
    root = report(make_run(tmp_path / "run", [record(0)]))
    figure = root.section("curves").all("figure")[0]
    assert len(figure.all("circle")) == len(figure.all("path", "whisker")) == 1
    assert not figure.all("path", "line")
    assert root.all("span", "rate")[0].text == "0.510"


def test_many_rows(tmp_path: Path) -> None:
    root = report(make_run(tmp_path / "run", [record(k) for k in range(200)]))
    figure = root.section("curves").all("figure")[0]
    assert len(figure.all("circle")) == 200
    assert len(figure.all("text", "x")) <= 8
    rates = rows_of(root.section("rounds"), "Fresh samples of this policy version")
    assert len(rates) == 200


def test_steps_are_drawn_within_their_rounds(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [record(0), record(1)])
    plain = {each.text.split(",")[0] for each in report(run).section("curves").all("figcaption")}
    key, own = "corpus_loss_nats_per_token", "mine"
    steps = [
        StepRecord(
            round=round, phase="policy update", step=step, steps=4, numbers={key: loss, own: 0.5}
        )
        for round, step, loss in ((0, 2, 4.0), (0, 4, 3.0), (1, 2, 3.5), (1, 4, 2.5), (2, 2, 2.0))
    ]
    write_records(run / "records.jsonl", [record(0), record(1)], steps)
    figures = round_figures(read_folder(run))
    chart = draw(figures["Corpus loss"])
    told = [each.text for each in chart.all("title")]
    assert told == [
        "round 0, step 2 of 4: in training 4.000",
        "round 0, step 4 of 4: in training 3.000",
        "round 1, step 2 of 4: in training 3.500",
        "round 1, step 4 of 4: in training 2.500",
        "round 2, step 2 of 4: in training 2.000",  # of a round under way
    ]
    x = [float(each.attributes["cx"]) for each in chart.all("circle")]
    assert x[1] - x[0] == pytest.approx((x[2] - x[0]) / 2, abs=0.2)
    assert x[4] - x[2] == pytest.approx(x[2] - x[0], abs=0.2)
    assert len(chart.all("path", "line")) == 2  # a round is a stretch of its own
    assert [each.text for each in chart.all("text", "x")][:4] == ["0", "1", "2", "3"]
    assert len(draw(figures["mine"]).all("circle")) == 5
    # what no step has is drawn by round, and fits without steps are not missed
    assert len(draw(figures["KL(target ‖ policy)"]).all("circle")) == 2
    assert "Fit of the value model" not in figures and "mine" not in plain


def draw(figure: Figure | None) -> Node:
    assert figure is not None
    tree = Tree()
    tree.feed(figure.marks)
    return tree.open[0]


def test_line_breaks_where_a_round_was_not_measured() -> None:
    points = [Point(0, 0.1), Point(1, 0.2), Point(2, None), Point(3, 0.4), Point(4, 0.8)]
    chart = draw(line_chart("t", "share", [Series("a", "s1", tuple(points))], share=True))
    assert len(chart.all("path", "line")) == 2
    places = [(float(c.attributes["cx"]), float(c.attributes["cy"])) for c in chart.all("circle")]
    assert len(places) == 4
    # Higher on the page is more, in proportion; a round's place is its number.
    (x0, y0), (x1, y1), (x3, y3), (_, y4) = places
    assert y0 > y4
    assert (x3 - x0) == pytest.approx(3 * (x1 - x0), abs=0.2)
    assert (y0 - y3) == pytest.approx(3 * (y0 - y1), abs=0.2)
    assert (y0 - y4) == pytest.approx(7 * (y0 - y1), abs=0.4)
    assert chart.all("title")[-1].text == "round 4: a 0.800"


def test_bars_stack_without_gap_or_overlap() -> None:
    parts = [
        Series("a", "s1", (Point(0, 1.0), Point(1, 4.0))),
        Series("b", "s2", (Point(0, 3.0), Point(1, None))),
    ]
    bars = draw(stacked_bars("t", "seconds", parts)).all("rect")
    places = [(float(b.attributes["y"]), float(b.attributes["height"])) for b in bars]
    (y_a, h_a), (y_a1, h_a1), (y_b, h_b) = places
    assert h_b == pytest.approx(3 * h_a, abs=0.2) and h_a1 == pytest.approx(4 * h_a, abs=0.2)
    assert y_b + h_b == pytest.approx(y_a, abs=0.2)
    assert y_b == pytest.approx(y_a1, abs=0.2)


def test_calibration_of_the_last_fit_with_counts(full: Path) -> None:
    part = report(full).section("calibration")
    assert "Reliability in round 2" in part.text
    bins = record(2).calibration
    dots = part.all("circle")
    assert len(dots) == len(bins)
    for dot, told in zip(dots, bins, strict=True):
        assert f"{told.count:,} tokens" in dot.text
    x = [float(dot.attributes["cx"]) for dot in dots]
    steps = [b - a for a, b in pairwise(x)]
    assert min(steps) == pytest.approx(max(steps), abs=0.2)
    areas = [
        (float(dot.attributes["r"]) - 2) ** 2 / b.count for dot, b in zip(dots, bins, strict=True)
    ]
    assert min(areas) == pytest.approx(max(areas), rel=0.1)
    by_round = rows_of(part, "")
    assert [row["round"] for row in by_round] == ["0", "1", "2"]
    assert by_round[0]["Brier score"] == "0.1316"
    assert by_round[0]["Brier score of a constant"] == "0.2499"
    assert by_round[0]["held-out tokens"] == f"{sum(b.count for b in bins):,}"
