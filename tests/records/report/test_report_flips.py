"""What the page tells first of a run: what was gained and lost, which verdicts turned, by what."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
from run_folders import make_run, record, report, sample

from tiltune.records.report.folder import read_folder
from tiltune.records.report.heat import lost, shades
from tiltune.records.report.samples import pairs, text_pieces, tokens_shown, turned
from tiltune.records.rounds import RoundRecord


def trade(tmp_path: Path, *records: RoundRecord) -> list[str]:
    run = make_run(tmp_path / "run", list(records))
    return [each.text.replace("\u00a0", " ") for each in report(run).all("p", "trade")]


def test_the_trade_is_points_of_the_rate_and_percent_of_the_validation_loss(tmp_path: Path) -> None:
    first = record(0, satisfaction_rate=0.5, validation_satisfying_nats_per_token=2.0)
    middle = record(1, satisfaction_rate=0.9, validation_satisfying_nats_per_token=None)
    last = record(2, satisfaction_rate=0.674, validation_satisfying_nats_per_token=2.16)
    assert trade(tmp_path, first, middle, last) == ["+17 points, validation loss +8 %"]


@pytest.mark.parametrize(
    ("rate", "loss", "told"),
    [
        (0.49, 1.9, "−1 point, validation loss −5 %"),
        (0.503, 2.004, "+0.3 points, validation loss +0.2 %"),
        (0.8, None, "+30 points, 0.610 nats from the reference"),
    ],
)
def test_a_trade_may_be_a_loss_or_small_or_without_validation_text(
    tmp_path: Path, rate: float, loss: float | None, told: str
) -> None:
    first = record(0, satisfaction_rate=0.5, validation_satisfying_nats_per_token=loss and 2.0)
    last = record(1, satisfaction_rate=rate, validation_satisfying_nats_per_token=loss)
    assert trade(tmp_path, first, last) == [told]


def test_one_rate_is_no_trade(tmp_path: Path) -> None:
    assert trade(tmp_path, record(0)) == []


def test_flips_come_first_then_what_was_lost(tmp_path: Path) -> None:
    verdicts = {"same": (1, 1), "lost": (1, 0), "won": (0, 1), "bad": (0, 0), "won too": (0, 1)}
    rows = [
        [sample(prompt, "x", satisfied=bool(both[side])) for prompt, both in verdicts.items()]
        for side in (0, 1)
    ]
    run = make_run(tmp_path / "run", [], before=rows[0], after=rows[1])
    found = read_folder(run)
    shown = pairs(found.before, found.after)
    assert [each.prompt for each in shown] == ["won", "won too", "lost", "same", "bad"]
    assert [each.change for each in shown] == ["better", "better", "worse", "", ""]
    told = "Of 5 prompts 2 went from violating to satisfying, 1 the other way."
    part = report(run).section("samples")
    assert turned(shown) == told and told in part.text
    assert len(part.all("article", "better")) == 2 and len(part.all("article", "worse")) == 1


def test_what_was_judged_on_one_side_only_did_not_turn(tmp_path: Path) -> None:
    run = read_folder(make_run(tmp_path / "run", [], before=[sample("p", "x", satisfied=False)]))
    assert turned(pairs(run.before, run.after)) == ""
    assert [each.change for each in pairs(run.before, run.after)] == [""]


def test_the_deciding_word_is_marked_in_tokens_and_in_plain_text(tmp_path: Path) -> None:
    rows = [
        sample(
            "p", "you fool, sir", satisfied=False, span=[4, 8], tokens=["you", " fo", "ol,", " sir"]
        )
        | {"log_values": [-0.1, -4.0, -4.0, -4.0]},
        sample("q", "well met", span=[0, 4], tokens=[], log_values=[]),
    ]
    part = report(make_run(tmp_path / "run", [], before=rows)).section("samples")
    assert [(m.text, m.attributes["class"]) for m in part.all("mark")] == [
        ("fo", "no"),
        ("ol", "no"),
        ("well", "yes"),
    ]
    assert part.all("p", "tokens")[0].text == "you fool, sir"
    assert not [each for each in part.all("details") if "well" in each.text]


@pytest.mark.parametrize("span", [None, [3, 3], [2, 99], [-1, 2], ["a", 2], [0.0, 2], 7, [1]])
def test_what_is_no_span_of_the_text_marks_nothing(tmp_path: Path, span: object) -> None:
    run = make_run(tmp_path / "run", [], before=[sample("p", "you fool", span=span)])
    assert not report(run).section("samples").all("mark")


@pytest.mark.parametrize(
    ("text", "tokens", "shown"),
    [
        (
            "a bad day",
            ["a", "bad", "day", "</s>"],
            ["a", " bad", " day", "</s>"],
        ),  # joined by blanks
        ("\na  bad", ["\n", "a", " ", " bad"], ["\n", "a", " ", " bad"]),
        ("aé bad", ["a", "\ufffd", "\ufffd", " bad"], ["a", "\ufffd", "\ufffd", " bad"]),
        ("bad", ["<s>", "bad"], ["<s>", "bad"]),
        ("", ["</s>"], ["</s>"]),
    ],
)
def test_tokens_read_as_the_text_does(
    tmp_path: Path, text: str, tokens: list[str], shown: list[str]
) -> None:
    at = text.find("bad")
    span = [at, at + 3] if at >= 0 else None
    row = sample("p", text, tokens=tokens, log_values=[None] * len(tokens), span=span)
    (found,) = read_folder(make_run(tmp_path / "run", [], before=[row])).before
    pieces = [each.pieces for each in tokens_shown(found)]
    assert ["".join(text for text, _ in token) for token in pieces] == shown
    marked = [text for token in pieces for text, decides in token if decides]
    assert marked == (["bad"] if span else [])
    assert "".join(piece for piece, _ in text_pieces(found)) == text


def test_a_token_is_coloured_by_the_share_of_the_chance_that_it_lost() -> None:
    values = [math.log(each) for each in (0.5, 0.8, 0.2, 0.2, 0.19)]
    assert [lost(*each) for each in pairwise(values)] == pytest.approx([0.0, 0.75, 0.0, 0.05])
    found = shades([*values, -math.inf, -math.inf])
    assert [each.css for each in found] == ["", "", "drop", "", "drop", "drop", ""]
    assert found[2].told == "log R −1.609 nats, R = 0.200: lost 75 % of the chance"
    # of 0.19 all but the hundredth that counts as lost
    assert found[5].strength == pytest.approx(1 - 0.01 / 0.19)


def test_a_chance_below_a_hundredth_is_lost_and_moves_without_colour() -> None:
    values = [math.log(each) for each in (0.009, 0.0001, 0.008, 0.002)]
    assert [each.css for each in shades(values)] == [""] * 4
    assert shades([None, math.log(0.5), None])[1].css == ""  # after what was not measured
    assert [each.css for each in shades([None])] == ["none"]
