"""The detector's odds, area and interval by hand."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chains import chain
from tiltune.config.evaluate import DetectorConfig
from tiltune.errors import ConfigError, DataError
from tiltune.evaluation.metrics.detector import auc, detector, log_odds
from tiltune.records.intervals import wilson_interval


def section(path: Path | str = "", **changes: Any) -> DetectorConfig:
    settings = {"template": "{text}", "positive": "b", "negative": "a", "label": "toxic"} | changes
    return DetectorConfig(kind="detector", name="toxicity", path=str(path), **settings)


def write(path: Path, rows: list[tuple[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps({"text": text, "toxic": label}) for text, label in rows))
    return path


def test_odds_are_those_of_whole_completions(tmp_path: Path) -> None:
    loaded = chain(tmp_path)
    assert log_odds(loaded, ["a", "b", "a b"], section()) == pytest.approx(
        [math.log(0.25 / 0.5), math.log(0.5 / 0.125), math.log(0.5 / 0.125)]
    )
    longer = section(positive="a b", negative="b a")  # p(ab|a) = .5 · .25, p(ba|a) = .25 · .125
    assert log_odds(loaded, ["a"], longer) == pytest.approx([math.log(4)])
    wrapped = section(template="b {text}")
    assert log_odds(loaded, ["a"], wrapped) == pytest.approx([math.log(0.5)])


def test_area_and_interval_by_hand() -> None:
    """Placements of the positives 1, 1/4, 1 and of the negatives 2/3, 5/6."""
    found = auc(np.array([0.8, 0.4, 0.6]), np.array([0.5, 0.4]))
    assert found is not None and found[1] is not None
    area, (low, high) = found
    assert area == pytest.approx(0.75)
    over = ((1 - 0.75) ** 2 * 2 + (0.25 - 0.75) ** 2) / 2
    under = (2 / 3 - 0.75) ** 2 + (5 / 6 - 0.75) ** 2
    half = 1.959964 * math.sqrt(over / 3 + under / 2)
    assert (low, high) == pytest.approx((0.75 - half, 1.0))  # cut at 1
    assert 0.75 + half > 1


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Normal scores one apart: the area is Φ(1/√2)."""
    truth = 0.5 * (1 + math.erf(0.5))
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        found = auc(generator.normal(1, 1, 60), generator.normal(0, 1, 80))
        assert found is not None and found[1] is not None
        covered += found[1][0] <= truth <= found[1][1]
    assert 0.92 <= covered / 400 <= 0.98


def test_areas_without_an_interval_or_at_all() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == (1.0, None)
    assert auc(np.array([0.0]), np.array([0.0, 1.0])) == (0.25, None)
    assert auc(np.array([]), np.array([1.0])) is None


def test_measured_on_a_file(tmp_path: Path) -> None:
    """Odds are those of b after a (under 1) and b after b (over 1): two of three rows right."""
    path = write(tmp_path / "rows.jsonl", [("a", 0), ("b", 1), ("a b", 0), ("b", 0)])
    area, accuracy = detector(chain(tmp_path), section(path, limit=3))
    assert (area.key, accuracy.key) == ("detector.auc", "detector.accuracy")
    assert area.value == pytest.approx(0.75)  # above one negative, level with the other
    assert accuracy.value == pytest.approx(2 / 3)
    assert accuracy.interval == wilson_interval(2, 3)
    assert (area.count, area.group) == (3, "toxicity")
    assert "0.667" in accuracy.definition  # what the larger class alone would give


def test_rows_of_one_class_have_no_area(tmp_path: Path) -> None:
    area, accuracy = detector(
        chain(tmp_path), section(write(tmp_path / "rows.jsonl", [("b", 1), ("a", 1)]))
    )
    assert (area.value, area.interval) == (None, None)
    assert accuracy.value == pytest.approx(0.5)


@pytest.mark.parametrize(("text", "label"), [("", 1), (None, 1), ("a", 2), ("a", None), ("a", "1")])
def test_a_row_that_is_none(tmp_path: Path, text: Any, label: Any) -> None:
    path = write(tmp_path / "rows.jsonl", [("a", 0), (text, label)])
    told = r"(`toxic` is|`text` is|'text' must be a string)"
    with pytest.raises(DataError, match=rf"utility.path: .*rows.jsonl:2: {told}"):
        detector(chain(tmp_path), section(path))


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    loaded = chain(tmp_path)
    with pytest.raises(ConfigError, match=r"utility.template = 'text'"):
        log_odds(loaded, ["a"], section(template="text"))
    with pytest.raises(ConfigError, match=r"no tokens of ' '"):
        log_odds(loaded, ["a"], section(negative=" "))


def test_the_example_s_rows_teach_what_the_default_settings_ask(tmp_path: Path) -> None:
    path = write(tmp_path / "labelled.jsonl", [("you {text} twit", 1), ("hello", 0)])
    script = Path(__file__).parents[2] / "examples" / "detector_rows.py"
    command = [sys.executable, str(script), str(path), str(tmp_path / "rows.jsonl")]
    subprocess.run(command, check=True, timeout=60)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    asked = DetectorConfig(kind="detector", name="", path="", label="toxic")
    texts = [("you {text} twit", asked.positive), ("hello", asked.negative)]
    assert rows == [
        {"prompt": asked.template.replace("{text}", text), "completion": answer}
        for text, answer in texts
    ]
