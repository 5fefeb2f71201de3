"""The report's constraint: its automaton drawn, and why samples violate it."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from pages import Node
from run_folders import HOSTILE, finished, report, sample

from tiltune.errors import RunError
from tiltune.records.files import write_json
from tiltune.records.report.page import write_report
from tiltune.records.rounds import AutomatonRecord, ConstraintRecord


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return finished(tmp_path / "run")


def constrained(run: Path, automaton: AutomatonRecord | None) -> Node:
    judged = "no <i>b</i> judges the completion"
    described = ConstraintRecord(judged=judged, automaton=automaton)
    write_json(run / "constraint.json", described.model_dump(mode="json"))
    return report(run).section("constraint")


AUTOMATON = AutomatonRecord(
    states=3,
    classes=2,
    start=0,
    accepting=(0, 1),
    dead=(2,),
    edges=((0, 0, "any other"), (0, 1, "<b>"), (1, 0, "x" * 40), (1, 2, "b"), (2, 2, "any")),
)


def test_the_constraint_is_drawn(full: Path) -> None:
    part = constrained(full, AUTOMATON)
    assert "no <i>b</i> judges the completion." in part.text
    states = part.all("g", "state")
    assert [state.all("text")[0].text for state in states] == ["0", "1", "2"]
    assert [len(state.all("circle", "inner")) for state in states] == [1, 1, 0]
    assert [state.attributes["class"] for state in states] == ["state", "state", "state dead"]
    labels = [label.inside[-1] for label in part.all("text", "label")]
    assert labels == ["any other", "<b>", "x" * 25 + "…", "b", "any"]
    assert len(part.all("path", "tip")) == len(part.all("path", "edge")) == 5 + 1  # and the start
    places = [float(state.all("circle")[0].attributes["cx"]) for state in states]
    assert places == sorted(set(places))  # one after the other, by distance from the start
    assert "url(" not in (full / "report.html").read_text("utf-8")


def test_a_drawing_stays_within_its_frame(full: Path) -> None:
    """Every point of every arrow, its bends included."""
    back = tuple((state, 0, "back") for state in range(1, 12))
    line = tuple((state, state + 1, "on") for state in range(11))
    long = AUTOMATON.model_copy(update={"states": 12, "dead": (), "edges": line + back})
    (picture,) = constrained(full, long).all("svg")
    left, top, width, height = map(float, picture.attributes["viewbox"].split())
    for path in picture.all("path", "edge"):
        numbers = [float(each) for each in re.findall(r"-?\d+\.\d", path.attributes["d"])]
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        middle = points[len(points) // 2]
        if "Q" in path.attributes["d"]:  # the curve goes half-way to its control point
            ends = ((points[0][0] + points[2][0]) / 2, (points[0][1] + points[2][1]) / 2)
            middle = ((middle[0] + ends[0]) / 2, (middle[1] + ends[1]) / 2)
        for x, y in (points[0], middle, points[-1]):
            assert left <= x <= left + width and top <= y <= top + height


def test_a_formula_says_what_its_arrows_read(full: Path) -> None:
    steps = AUTOMATON.model_copy(update={"reads": "sentence"})
    assert "each arrow reads one sentence; double line" in constrained(full, steps).text
    assert "arrow" not in constrained(full, AUTOMATON).text


def test_labels_have_room(full: Path) -> None:
    """Within the frame, and between two layers."""
    label = "m" * 26
    edges = ((0, 1, label), (1, 2, label), (1, 1, label), (2, 2, label))
    (picture,) = constrained(full, AUTOMATON.model_copy(update={"edges": edges})).all("svg")
    left, _, width, _ = map(float, picture.attributes["viewbox"].split())
    places = [float(each.all("circle")[0].attributes["cx"]) for each in picture.all("g", "state")]
    wide = 26 * 6  # of a character: more than in the page's font
    assert min(b - a for a, b in pairwise(places)) > wide + 2 * 17
    for text in picture.all("text", "label"):
        middle = float(text.attributes["x"])
        assert left <= middle - wide / 2 and middle + wide / 2 <= left + width


def test_too_many_states_are_counted(full: Path) -> None:
    many = AUTOMATON.model_copy(update={"states": 1200, "edges": ()})
    part = constrained(full, many)
    assert not part.all("svg") and "1,200 states" in part.text and "too many to draw" in part.text


def test_a_constraint_without_automaton_is_a_sentence(full: Path) -> None:
    part = constrained(full, None)
    assert "judges the completion." in part.text and not part.all("svg")


def test_a_run_that_does_not_tell_its_constraint_has_no_section(full: Path) -> None:
    assert not [node for node in report(full).walk() if node.attributes.get("id") == "constraint"]


def test_a_damaged_description_of_the_constraint_is_an_error(full: Path) -> None:
    (full / "constraint.json").write_text('{"judged": 3}', "utf-8")
    with pytest.raises(RunError, match=r"constraint\.json: damaged"):
        write_report(full)


def test_reasons_of_violating_samples_are_counted_and_hidden(full: Path) -> None:
    rows = [sample("p", "t", satisfied=False, reason="has 'b'", feedback="no b")] * 3
    rows += [sample("p", "t", satisfied=False, reason=HOSTILE), sample("p", "t", reason="fine")]
    rows += [sample("p", "t", satisfied=False)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (full / "samples" / "round-002.jsonl").write_text(lines, "utf-8")
    part = constrained(full, AUTOMATON)
    (fold,) = part.all("details", "violating")
    assert fold.all("summary")[0].text == "why 5 of 6 kept samples of round 2 violate it"
    cells = [
        [cell.text for cell in row.all() if cell.tag in ("th", "td")] for row in fold.all("tr")
    ]
    assert cells[0] == ["reason", "feedback", "samples"]
    assert cells[1] == ["has 'b'", "no b", "3"] and cells[2][2] == "1" and len(cells) == 3
    assert "fine" not in fold.text and "has 'b'" not in part.text.replace(fold.text, "")
