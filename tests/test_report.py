"""The report: complete, self-contained, honest about what was not measured, safe from its texts."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tiltune.errors import RunError
from tiltune.records import (
    AutomatonRecord,
    CalibrationBin,
    ConstraintRecord,
    RoundRecord,
    write_json,
    write_records,
)
from tiltune.report import write_report
from tiltune.report.charts import Point, Series, line_chart, stacked_bars
from tiltune.report.markup import number
from tiltune.report.page import verdict
from tiltune.report.rounds import GROUPS
from tiltune.report.script import SCRIPT
from tiltune.report.texts import HIDDEN, LOWEST, heat

HOSTILE = (
    '<script>alert(1)</script><img src=http://evil.example/x onerror="a">&amp;\u202e"\x1b\ud800'
)


@dataclass
class Node:
    """An element, its attributes, and what is inside it, texts and elements in order."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    inside: list["Node | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.inside)

    def all(self, tag: str = "", css: str = "") -> list["Node"]:
        """Descendants by tag and class, in document order."""
        return [
            node
            for node in self.walk()
            if (not tag or node.tag == tag)
            and (not css or css in node.attributes.get("class", "").split())
        ]

    def walk(self) -> Iterator["Node"]:
        for part in self.inside:
            if isinstance(part, Node):
                yield part
                yield from part.walk()

    def section(self, name: str) -> "Node":
        return next(node for node in self.walk() if node.attributes.get("id") == name)


class Tree(HTMLParser):
    """Builds nodes, and fails where a tag is not closed in its order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("root")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {key: value or "" for key, value in attrs})
        self.open[-1].inside.append(node)
        if tag not in {"meta", "link", "img", "br", "input"}:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Node(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def parse(page: Path) -> Node:
    tree = Tree()
    tree.feed(page.read_text("utf-8"))
    tree.close()
    assert [node.tag for node in tree.open] == ["root"]
    return tree.open[0]


def record(number: int, **changes: Any) -> RoundRecord:
    """A plausible row; the later the round, the better the rate."""
    rate = 0.51 + 0.48 * (1 - 0.35**number)
    fields: dict[str, Any] = {
        "round": number,
        "policy_version": number,
        "method": "tilt",
        "schedule": "sequential",
        "samples": 4096,
        "satisfaction_rate": rate,
        "satisfaction_rate_interval": (rate - 0.02, min(1.0, rate + 0.015)),
        "score_mean": rate,
        "completion_tokens_mean": 11.42 - 0.1 * number,
        "clipped_share": 0.031,
        "distinct_share": 0.874,
        "empty_share": 0.0,
        "kl_policy_reference_nats_per_token": 0.053 * number,
        "kl_policy_reference_nats_per_completion": 0.61 * number,
        "kl_policy_reference_nats_per_completion_interval": (0.57 * number, 0.66 * number),
        "validation_satisfying_nats_per_token": 3.211 - 0.04 * number,
        "validation_satisfying_interval": (3.15 - 0.04 * number, 3.27 - 0.04 * number),
        "validation_violating_nats_per_token": 3.402 + 0.21 * number,
        "validation_violating_interval": (3.31 + 0.21 * number, 3.49 + 0.21 * number),
        "value_loss_nats_per_token": 0.4127,
        "consistency_loss_nats_per_token": 0.0021,
        "brier_score": 0.1316,
        "brier_score_constant": 0.2499,
        "calibration_error": 0.018,
        "calibration": tuple(
            CalibrationBin(
                low=k / 10,
                high=(k + 1) / 10,
                count=120 + 90 * abs(5 - k),
                predicted_mean=k / 10 + 0.05,
                observed_rate=min(1.0, max(0.0, k / 10 + 0.04 + 0.03 * math.sin(3 * k))),
            )
            for k in range(10)
        ),
        "beta": 2.0,
        "corpus_loss_nats_per_token": 3.105 - 0.05 * number,
        "kl_target_policy_nats_per_token": 0.0612 / (1 + number),
        "effective_sample_size_share": 0.47 + 0.1 * number,
        "weight_clipped_share": 0.004,
        "prompts_without_target": 0,
        "logprob_gap_nats": 0.00001,
        "sampling_seconds": 12.31,
        "sampled_tokens": 46776,
        "scoring_seconds": 0.42,
        "value_seconds": 21.7,
        "value_tokens": 182736,
        "learning_seconds": 17.9,
        "learner_tokens": 91368,
        "measuring_seconds": 3.25,
        "waiting_for_actor_seconds": 0.0,
    }
    return RoundRecord.model_validate(fields | changes)


def sample(prompt: str, text: str, **changes: Any) -> dict[str, Any]:
    tokens = [f" {word}" for word in text.split()]
    values = [-3.0 / (place + 1) for place in range(len(tokens))]
    return {
        "prompt": prompt,
        "text": text,
        "score": 1.0,
        "satisfied": True,
        "reason": "",
        "ended": True,
        "tokens": tokens,
        "log_values": values,
    } | changes


def make_run(
    run: Path,
    records: list[RoundRecord],
    *,
    before: list[dict[str, Any]] | None = None,
    after: list[dict[str, Any]] | None = None,
    method: dict[str, Any] | None = None,
) -> Path:
    (run / "samples").mkdir(parents=True)
    config = {
        "run": {"dir": str(run), "seed": 0, "overwrite": False},
        "model": {"path": "models/tiny", "dtype": "float32", "adapter": "none"},
        "constraint": {"kind": "lexicon", "words": ["idiot", "rubbish"], "mode": "forbid"},
        "method": {"kind": "tilt", "schedule": "sequential", "rounds": 3, "beta": 2.0}
        | (method or {}),
    }
    write_json(run / "config.json", config)
    if records:
        write_records(run / "records.jsonl", records)
    for name, rows in (("before", before), ("after", after)):
        if rows is not None:
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (run / "samples" / f"{name}.jsonl").write_text(lines, "utf-8")
    return run


def report(run: Path) -> Node:
    page = write_report(run)
    assert page == run / "report.html"
    return parse(page)


def rows_of(node: Node, caption: str) -> list[dict[str, str]]:
    """The table of this caption, a dictionary a row."""
    found = next(
        t for t in node.all("table") if [c.text for c in t.all("caption")] in ([caption], [])
    )
    head, *body = [
        [cell.text for cell in row.all() if cell.tag in ("th", "td")] for row in found.all("tr")
    ]
    return [dict(zip(head, row, strict=True)) for row in body]


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A finished run with everything a run folder can hold."""
    records = [
        record(0, alarms=("the value model is not calibrated: <b>look</b>",)),
        record(1),
        record(2, alarms=("the value model is not calibrated: <b>look</b>",)),
        RoundRecord(
            round=3,
            policy_version=3,
            method="tilt",
            schedule="sequential",
            closing=True,
            samples=4096,
            satisfaction_rate=0.9712,
            satisfaction_rate_interval=(0.9656, 0.9759),
        ),
    ]
    before = [
        sample("hello there", "you are an idiot sir", satisfied=False, score=0.0, reason="idiot"),
        sample("again", "fine thanks"),
        sample("again", "second draw"),
    ]
    after = [sample("again", "good day"), sample("again", "well met"), sample("hello there", "hi")]
    run = make_run(
        tmp_path / "run", records, before=before, after=after, method={"target_rate": 0.95}
    )
    write_json(run / "manifest.json", {"versions": {"torch": "2.6.0"}, "seed": 0, "model": "ab12"})
    table = {"title": "Base against tilt", "note": "exact", "columns": ["model", "KL, nats", "ok"]}
    rows = [["base", 0.79123, False], ["tilt <i>", None, True]]
    write_json(run / "tables.json", [{**table, "rows": rows}])
    kept = run / "samples" / "round-000.jsonl"
    kept.write_text(json.dumps(sample("why", "because")) + "\n", "utf-8")
    return run


def test_page_asks_the_network_for_nothing(full: Path) -> None:
    root = report(full)
    assert [node.text for node in root.all("script")] == [SCRIPT]  # the policy holds its hash
    assert not root.all("img") and not root.all("iframe")
    for node in root.walk():
        for key in ("src", "href", "srcset", "action", "data"):
            assert node.attributes.get(key, "data:").startswith("data:")
        assert not any(key.startswith("on") for key in node.attributes)
    source = (full / "report.html").read_text("utf-8")
    assert "http:" not in source and "https:" not in source
    assert "url(" not in source and "@import" not in source
    policy = next(n for n in root.all("meta") if "http-equiv" in n.attributes)
    assert policy.attributes["content"].startswith("default-src 'none'")


def test_page_has_both_palettes_and_a_viewport(full: Path) -> None:
    root = report(full)
    style = root.all("style")[0].text
    assert "prefers-color-scheme:dark" in style
    assert any(node.attributes.get("name") == "viewport" for node in root.all("meta"))
    light, dark = style.split("@media (prefers-color-scheme:dark)")[:2]
    names = {word.split(":")[0] for word in dark.split("}")[0].replace("{", ";").split(";")}
    for name in ("--paper", "--ink", "--s1", "--s6", "--high", "--low"):
        assert any(part.strip().endswith(name) for part in names), name
        assert f"{name}:" in light


@pytest.mark.parametrize("place", ["text", "prompt", "reason", "tokens"])
def test_hostile_text_stays_text(tmp_path: Path, place: str) -> None:
    changes: dict[str, Any] = {place: [HOSTILE] if place == "tokens" else HOSTILE}
    if place in ("text", "prompt"):
        changes |= {"tokens": [], "log_values": []}
    row = sample("p", "t") | changes
    root = report(make_run(tmp_path / "run", [record(0)], before=[row], after=[row]))
    assert [node.text for node in root.all("script")] == [SCRIPT] and not root.all("img")
    shown = HOSTILE.replace("\x1b", "\u241b").replace("\ud800", "?")
    assert shown in root.section("samples").text


def test_hostile_settings_tables_and_alarms_stay_text(full: Path) -> None:
    config = json.loads((full / "config.json").read_text())
    config["model"]["path"] = config["constraint"]["mode"] = config["run"]["dir"] = "<script>x"
    write_json(full / "config.json", config)
    write_json(full / "manifest.json", {"<script>": "<script>"})
    root = report(full)
    assert [node.text for node in root.all("script")] == [SCRIPT] and not root.all("b", "look")
    assert "tilt <i>" in root.section("further-0").text
    assert "<b>look</b>" in root.section("warnings").text
    assert root.all("header")[0].text.count("<script>x") == 2


def test_headline_goes_from_the_first_rate_to_the_last(full: Path) -> None:
    header = report(full).all("header")[0]
    assert header.all("span", "rate")[0].text == "0.510→0.971"
    assert "[0.490, 0.525] → [0.966, 0.976]" in header.text
    assert "models/tiny" in header.text and "lexicon · 2 words · mode forbid" in header.text
    assert "tilt · sequential · 3 of 3 rounds, finished" in header.text
    assert header.all("p", "verdict")[0].text.startswith("pass target 0.950")


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [
        ((0.95, 0.99), "pass"),
        ((0.9499, 0.99), "undecided"),
        ((0.90, 0.95), "undecided"),
        ((0.90, 0.9499), "fail"),
        (None, "undecided"),
    ],
)
def test_verdict_is_by_interval(
    tmp_path: Path, interval: tuple[float, float] | None, outcome: str
) -> None:
    assert verdict(interval, 0.95) == outcome
    for rate in (0.5, 0.951):  # the point estimate has no say
        row = record(0, satisfaction_rate=rate, satisfaction_rate_interval=interval)
        run = make_run(tmp_path / str(rate), [row], method={"target_rate": 0.95})
        assert report(run).all("p", "verdict")[0].all("b")[0].text == outcome


def test_no_target_no_verdict(tmp_path: Path) -> None:
    assert not report(make_run(tmp_path / "run", [record(0)])).all("p", "verdict")


def test_tables_show_every_number_of_a_record() -> None:
    shown = {column.key for _, columns in GROUPS for column in columns}
    told_elsewhere = {"round", "method", "schedule", "closing", "calibration", "alarms"}
    intervals = {name for name in RoundRecord.model_fields if name.endswith("_interval")}
    assert shown == RoundRecord.model_fields.keys() - told_elsewhere - intervals


def test_tables_show_the_records_numbers_with_units_and_intervals(full: Path) -> None:
    rounds = report(full).section("rounds")
    samples = rows_of(rounds, "Fresh samples of this policy version")
    assert [row["round"] for row in samples] == ["0", "1", "2", "3 (closing)"]
    assert samples[0]["samples"] == "4,096"
    assert samples[0]["satisfaction rate"] == "0.510 [0.490, 0.525]"
    assert samples[1]["length, tokens a completion"] == "11.32"
    distance = rows_of(rounds, "Distance to the reference, and validation text")
    assert distance[2]["KL(policy ‖ reference), nats a completion"] == "1.220 [1.140, 1.320]"
    assert distance[1]["satisfying rows, nats a token"] == "3.171 [3.110, 3.230]"
    update = rows_of(rounds, "Policy update")
    assert update[0]["log-probability gap, nats"] == "0.00001"
    assert update[1]["KL(target ‖ policy), nats a token"] == "0.0306"
    assert rows_of(rounds, "Time and tokens")[0]["value model, s"] == "21.7"


def test_what_was_not_measured_is_a_dash_and_never_zero(full: Path) -> None:
    rounds = report(full).section("rounds")
    closing = rows_of(rounds, "Policy update")[-1]
    assert set(closing.values()) == {"3 (closing)", "–"}
    first = rows_of(rounds, "Fresh samples of this policy version")[0]
    assert first["empty, share"] == "0.000"  # measured, and zero


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.0, "0.000"),
        (0.0005, "0.001"),
        (0.00049, "4.9e−04"),
        (-1.5, "−1.500"),
        (12345.6789, "12,345.679"),
    ],
)
def test_numbers_keep_what_they_say(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_bare_configuration_is_a_page(tmp_path: Path) -> None:
    root = report(make_run(tmp_path / "run", []))
    assert root.all("span", "rate")[0].text == "–"
    assert "0 of 3 rounds, not finished" in root.all("header")[0].text
    assert not root.all("svg")
    assert "Not measured: Satisfaction rate" in root.section("curves").text


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


def draw(chart: str) -> Node:
    tree = Tree()
    tree.feed(chart)
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


def test_alarms_are_collected_with_their_rounds(full: Path) -> None:
    items = report(full).section("warnings").all("li")
    assert len(items) == 1
    assert items[0].text.startswith("round 0, 2")


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
    assert folded[0].all("summary")[0].text == HIDDEN
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


def test_further_tables_settings_and_manifest(full: Path) -> None:
    root = report(full)
    table = rows_of(root.section("further-0"), "")
    assert table[0] == {"model": "base", "KL, nats": "0.791", "ok": "no"}
    assert table[1]["KL, nats"] == "–"
    settings = root.section("configuration")
    assert {"beta", "2.0", "target_rate", "0.95"} <= {
        n.text for n in settings.all() if n.tag in ("th", "td")
    }
    assert "versions.torch" in root.section("manifest").text
    order = [node.attributes["id"] for node in root.all("section")]
    assert order.index("further-0") < order.index("curves")


def test_a_column_with_sentences_is_set_as_prose(full: Path) -> None:
    sentence = "the order never came and the invoice was wrong <b>too</b>"
    rows = [[0.5, sentence], [0.75, "short"]]
    write_json(full / "tables.json", [{"title": "t", "columns": ["rate", "said"], "rows": rows}])
    table = report(full).section("further-0")
    assert [cell.text for cell in table.all(css="prose")] == ["said", sentence, "short"]


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


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_no_run_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run"
    if kind == "file":
        path.write_text("x")
    if kind == "empty":
        path.mkdir()
        (path / "notes.txt").write_text("x")
    found = {"missing": "found nothing", "file": "found a file", "empty": "found: notes.txt"}[kind]
    with pytest.raises(RunError, match=found) as caught:
        write_report(path)
    assert "records.jsonl" in str(caught.value)
    assert not (path / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "config.json: not JSON"),
        ("config.json", "[]", "holds list, not a JSON object"),
        ("config.json", '{"model_type": "llama"}', "its config.json is not that of a run"),
        ("records.jsonl", '{"round": 0}\n', "records.jsonl: not the records"),
        ("tables.json", '[{"title": "t"}]', "table 0 lacks"),
        ("samples/before.jsonl", "{}\n", r"before.jsonl:1: expected an object"),
        ("samples/after.jsonl", '{"prompt": "", "text": ""}\n{\n', r"after.jsonl:2: not JSON"),
        ("samples/round-x.jsonl", "", "round-000.jsonl"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    run = make_run(tmp_path / "run", [])
    (run / name).write_text(text, "utf-8")
    with pytest.raises(RunError, match=message):
        write_report(run)


def test_remaking_a_report_needs_no_torch(full: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tiltune.report import write_report; "
        f"write_report(Path({str(full)!r})); heavy = {{'torch', 'numpy', 'transformers'}}; "
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
    with pytest.raises(RunError, match=r"constraint\.json: not a constraint"):
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


def test_feedback_stands_below_the_reason_and_hidden_with_it(full: Path) -> None:
    rows = [sample("p", "t", satisfied=False, reason="idiot", feedback="leave out what is rude")]
    (full / "samples" / "before.jsonl").write_text(json.dumps(rows[0]) + "\n", "utf-8")
    (fold,) = report(full).section("samples").all("details", "violating")
    assert "reason: idiot" in fold.text and "feedback: leave out what is rude" in fold.text
