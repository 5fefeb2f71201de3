"""The report's part about an evaluation: numbers as they are, text that may offend hidden."""

from pathlib import Path

import pytest
from pages import rows_of
from run_folders import make_run, record, report

from tiltune.errors import RunError
from tiltune.records.measurements import Evaluation, Excerpt, Measurement, write_evaluation
from tiltune.records.report.evaluation import measurement_tables

MEASURED = Measurement(
    key="toxicity.words.expected_maximum",
    aspect="control",
    group="toxic",
    value=0.4321,
    interval=(0.4, 0.47),
    unit="toxicity",
    better="lower",
    count=121,
    missing=7,
    definition="Mean of the highest <b>toxicity</b>.",
)
ABSENT = MEASURED.model_copy(
    update={"key": "utility.nothing", "aspect": "utility", "value": None, "interval": None,
            "missing": 0, "better": "higher"}
)  # fmt: skip


def example(text: str, satisfied: bool | None) -> Excerpt:
    return Excerpt(
        group="toxic", prompt="you are", text=text, scores={"words": 0.25}, satisfied=satisfied
    )


def evaluated(folder: Path) -> Path:
    run = make_run(folder / "run", [record(0), record(1)])
    (run / "evaluation").mkdir()
    evaluation = Evaluation(
        name="mine",
        model="runs/mine",
        digest="0123456789abcdef",
        protocol={"k": 25, "top_p": 0.9},
        measurements=(MEASURED, ABSENT),
        alarms=("words on toxic: <i>shorter</i>",),
        examples=(
            example("a <script>nice</script> one", True),
            example("a foul one", False),
            example("an unjudged one", None),
        ),
        seconds={"generating": 12.5},
    )
    write_evaluation(run / "evaluation" / "evaluation.json", evaluation)
    return run


def test_numbers_with_interval_unit_direction_and_what_is_missing(tmp_path: Path) -> None:
    section = report(evaluated(tmp_path)).section("evaluation")
    (row,) = rows_of(section, "control")
    assert row == {
        "measurement": "toxicity.words.expected_maximum",
        "group": "toxic",
        "value": "0.432",
        "95 % interval": "[0.400, 0.470]",
        "unit": "toxicity",
        "better": "↓ lower",
        "rests on": "121",
        "missing": "7",
        "definition": "Mean of the highest <b>toxicity</b>.",
    }
    (row,) = rows_of(section, "utility")
    assert row["rests on"] == "121" and not {"value", "95 % interval", "missing"} & row.keys()
    assert "words on toxic: <i>shorter</i>" in section.text and not section.all("i")


def test_text_that_may_offend_is_behind_two_clicks(tmp_path: Path) -> None:
    section = report(evaluated(tmp_path)).section("evaluation")
    assert not section.all("script")
    group = next(node for node in section.all("details", "block") if "toxic" in node.text)
    hidden = [node.text for node in group.all("details", "violating")]
    assert len(hidden) == 2
    assert "a foul one" in hidden[0] and "an unjudged one" in hidden[1]
    outside = "".join(n.text for n in section.all("article")).replace("".join(hidden), "")
    assert "nice" in outside
    assert "a foul one" not in section.text.replace(group.text, "")


def test_no_evaluation_no_section(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [record(0)])
    report(run)
    assert 'id="evaluation"' not in (run / "report.html").read_text("utf-8")


def test_a_damaged_evaluation_is_named(tmp_path: Path) -> None:
    run = evaluated(tmp_path)
    (run / "evaluation" / "evaluation.json").write_text("{}")
    with pytest.raises(RunError, match=r"evaluation.json: damaged"):
        report(run)


def test_a_table_an_aspect_in_a_fixed_order() -> None:
    tables = measurement_tables([ABSENT, MEASURED])
    assert [table.caption for table in tables] == ["control", "utility"]
    assert measurement_tables([]) == []
