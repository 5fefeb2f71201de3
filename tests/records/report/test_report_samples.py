"""The report's samples: side by side, with values, and what violates hidden."""

import json
import math
from pathlib import Path

import pytest
from run_folders import finished, make_run, report, sample


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return finished(tmp_path / "run")


def test_before_and_after_stand_side_by_side_by_prompt(full: Path) -> None:
    blocks = report(full).section("samples").all("article")
    told = []
    for block in blocks:
        prompt = block.all("p", "prompt")[0].all("span", "text")[0].text
        sides = [side.all("p", "text")[0].text.strip() for side in block.all("div", "side")]
        told.append((prompt, *sides))
    assert told == [
        ("hello there", "you are an idiot sir", "hi"),
        ("again", "fine thanks", "good day"),
        ("again", "second draw", "well met"),
    ]


def test_a_pair_may_lack_a_side(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [], before=[sample("a", "x")], after=[sample("b", "y")])
    blocks = report(run).section("samples").all("article")
    assert [b.all("div", "before")[0].text.strip().endswith("–") for b in blocks] == [False, True]
    assert [b.all("div", "after")[0].text.strip().endswith("–") for b in blocks] == [True, False]


def test_violating_text_is_behind_a_click(full: Path) -> None:
    part = report(full).section("samples")
    folded = part.all("details", "violating")
    assert len(folded) == 1 and "open" not in folded[0].attributes
    assert folded[0].all("summary")[0].text == "show text that violates the constraint"
    assert "you are an idiot sir" in folded[0].text
    assert "reason: idiot" in folded[0].text
    assert part.text.count("idiot") == 2  # neither text nor reason stands outside the fold


def test_heat_map_is_coloured_where_the_chance_drops(tmp_path: Path) -> None:
    values = [-0.5, -0.5, None, -0.1, -2.0, -0.7]
    row = sample("p", "a b c d e f", log_values=values)
    (tokens,) = report(make_run(tmp_path / "run", [], before=[row])).all("p", "tokens")
    shown = tokens.all("span")
    assert tokens.text == "a b c d e f"
    assert [token.attributes.get("class") for token in shown] == [
        *(None, None, "none", None, "drop", None)
    ]
    assert shown[2].attributes == {"class": "none", "title": "log R not measured"}
    strength = float(shown[4].attributes["style"].removeprefix("--h:"))
    assert strength == pytest.approx(1 - math.exp(-1.9), abs=0.006)
    for token, value in zip(shown, values, strict=True):
        if value is not None:
            assert f"log R {value:.3f} nats".replace("-", "−") in token.attributes["title"]


def test_samples_without_values_have_no_legend(tmp_path: Path) -> None:
    row = sample("p", "plain words") | {"log_values": []}
    del row["tokens"], row["log_values"]
    part = report(make_run(tmp_path / "run", [], before=[row])).section("samples")
    assert not part.all("figure", "scale") and "plain words" in part.text


def test_legend_stands_where_values_are(full: Path) -> None:
    legend = report(full).section("samples").all("figure", "scale")[0]
    assert [node.text for node in legend.all("b")] == ["10 %", "25 %", "50 %", "75 %", "100 %"]


def test_fresh_samples_of_a_round_are_folded(full: Path) -> None:
    part = report(full).section("fresh")
    assert part.all("summary")[0].text == "round 0: 1 of 1 kept samples"
    assert "because" in part.text


def test_a_line_separator_in_a_text_ends_no_row(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [])
    row = sample("p", "x") | {"text": "a\u2028b\x85c", "tokens": []}
    text = json.dumps(row, ensure_ascii=False) + "\n"
    (run / "samples" / "before.jsonl").write_text(text, "utf-8")
    assert "a\u2028b" in report(run).section("samples").text


def test_feedback_stands_below_the_reason_and_hidden_with_it(full: Path) -> None:
    rows = [sample("p", "t", satisfied=False, reason="idiot", feedback="leave out what is rude")]
    (full / "samples" / "before.jsonl").write_text(json.dumps(rows[0]) + "\n", "utf-8")
    (fold,) = report(full).section("samples").all("details", "violating")
    assert "reason: idiot" in fold.text and "feedback: leave out what is rude" in fold.text


def test_earlier_answers_of_several_turns_are_shown_with_what_was_said(tmp_path: Path) -> None:
    """Folded, as what violates; what is no pair of an answer and words is left out."""
    row = sample("p", "last", earlier=[["first <b>", "say it"], ["", "again"], ["odd"], 3])
    alone = sample("p", "at once", earlier=[])
    run = make_run(tmp_path / "run", [])
    lines = "".join(json.dumps(each) + "\n" for each in (row, alone))
    (run / "samples" / "round-000.jsonl").write_text(lines, "utf-8")
    (folded,) = report(run).section("fresh").all("details", "turns")
    assert "open" not in folded.attributes
    assert folded.all("summary")[0].text == "show the 2 earlier answers and what was said of them"
    told = [" ".join(each.text.split()) for each in folded.all("p")]
    assert told == ["first <b>", "told: say it", "empty", "told: again"]
