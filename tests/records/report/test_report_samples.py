"""The report's samples: side by side, with values, and what violates hidden."""

import json
import math
from pathlib import Path

import pytest
from run_folders import finished, make_run, report, sample

from tiltune.records.report.heat import LOWEST, heat


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


def test_heat_rises_with_log_value() -> None:
    values = [-math.inf, -9.0, LOWEST, -3.0, -1.0, math.log(0.5), -0.5, -0.1, -1e-6, 0.0]
    heats = [heat(value) for value in values]
    assert heats == sorted(heats)
    assert heats[0] == heats[2] == -1 and heats[5] == 0 and heats[-1] == 1
    assert len(set(heats[2:])) == len(heats[2:])


def test_heat_map_shows_the_values(tmp_path: Path) -> None:
    values = [-9.0, -3.0, None, -0.8, -0.5, 0.0]
    row = sample("p", "a b c d e f", log_values=values)
    tokens = report(make_run(tmp_path / "run", [], before=[row])).all("p", "tokens")[0].all("span")
    assert [token.text for token in tokens] == row["tokens"]
    shown: list[float] = []
    for token, value in zip(tokens, values, strict=True):
        if value is None:
            assert token.attributes == {"class": "none", "title": "log R not measured"}
            continue
        sign = {"high": 1, "low": -1}[token.attributes["class"]]
        strength = float(token.attributes["style"].removeprefix("--h:"))
        assert sign * strength == pytest.approx(heat(value), abs=0.006)
        shown.append(sign * strength)
        assert f"log R {value:.3f} nats".replace("-", "−") in token.attributes["title"]
    assert shown == sorted(shown) and len(set(shown)) == 5


def test_samples_without_values_have_no_legend(tmp_path: Path) -> None:
    row = sample("p", "plain words") | {"log_values": []}
    del row["tokens"], row["log_values"]
    part = report(make_run(tmp_path / "run", [], before=[row])).section("samples")
    assert not part.all("figure", "scale") and "plain words" in part.text


def test_legend_stands_where_values_are(full: Path) -> None:
    legend = report(full).section("samples").all("figure", "scale")[0]
    assert [node.text for node in legend.all("small")][::7] == ["0.01", "1"]
    assert [node.text for node in legend.all("b")][1] == "−4.6"


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
