"""The report: complete, self-contained, honest about what was not measured, safe from its texts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import rows_of
from run_folders import HOSTILE, finished, make_run, record, report, sample

from tiltune.errors import RunError
from tiltune.records.files import write_json
from tiltune.records.report.formats import number
from tiltune.records.report.headline import verdict
from tiltune.records.report.page import write_report
from tiltune.records.report.rendering import static
from tiltune.records.report.rounds import GROUPS, round_tables
from tiltune.records.rounds import RoundRecord, read_records

SCRIPT = static("report.js")


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return finished(tmp_path / "run")


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
    for name in ("--paper", "--ink", "--s1", "--s6", "--low"):
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
    told_elsewhere |= {"method_numbers", "shares"}  # in a table of their own
    told_elsewhere |= {"brier_skill_by_fifth"}  # beside the calibration
    told_elsewhere |= {"satisfaction_rate_by_turn"}  # a line a turn
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


def test_a_method_s_own_numbers_have_a_table(full: Path) -> None:
    caption = "The method's own numbers"
    records = read_records(full / "records.jsonl")
    assert caption not in [table.caption for table in round_tables(records)]
    told = [{"mine_nats": 0.25}, {"mine_nats": 0.5, "kept_share": 1.0}, {}, {}]
    changed = [
        record.model_copy(update={"method_numbers": numbers})
        for record, numbers in zip(records, told, strict=True)
    ]
    table = next(each for each in round_tables(changed) if each.caption == caption)
    assert table.columns == ["round", "mine_nats", "kept_share"]
    assert table.rows[:2] == [["0", "0.2500", "–"], ["1", "0.5000", "1.0000"]]
    assert table.rows[3] == ["3 (closing)", "–", "–"]


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
    told = root.section("curves").text
    assert "Not measured: Satisfaction rate" in told
    assert "log Z" not in told and "turn" not in told  # other methods' curves


def test_alarms_are_collected_with_their_rounds(full: Path) -> None:
    items = report(full).section("warnings").all("li")
    assert len(items) == 1
    assert items[0].text.startswith("round 0, 2")


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
        ("config.json", "{", "config.json:1: damaged"),
        ("config.json", "[]", "holds list, not a JSON object"),
        ("config.json", '{"model_type": "llama"}', "its config.json is not that of a run"),
        ("records.jsonl", '{"round": 0}\n', "records.jsonl:1: damaged"),
        ("tables.json", '[{"title": "t"}]', "table 0 lacks"),
        ("samples/before.jsonl", "{}\n", r"before.jsonl:1: expected an object"),
        ("samples/after.jsonl", '{"prompt": "", "text": ""}\n{\n', r"after.jsonl:2: damaged"),
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
        "import sys; from pathlib import Path; "
        "from tiltune.records.report.page import write_report; "
        f"write_report(Path({str(full)!r})); heavy = {{'torch', 'numpy', 'transformers'}}; "
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
