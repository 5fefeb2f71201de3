"""Other scorers for stored completions."""

from pathlib import Path
from typing import Any

import pytest
from evaluations import config, number, run

import tiny
from tiltune.errors import RunError
from tiltune.evaluation.folder import read_manifest
from tiltune.evaluation.rescore import rescore
from tiltune.records.measurements import read_evaluation


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A model and a corpus."""
    tiny.workplace(tmp_path)
    return tmp_path


def rude(completions: Any) -> list[float]:
    """Fails on nothing; 0 where a forbidden word occurs."""
    return [float(not set(tiny.FORBIDDEN) & set(each.text.split())) for each in completions]


def test_rescoring_generates_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(place)
    folder = place / "out"
    generations = {p.name: p.read_bytes() for p in (folder / "generations").iterdir()}
    monkeypatch.setattr("tiltune.models.hub.load", None)
    monkeypatch.setattr("tiltune.evaluation.contender.draw", None)
    (place / "model" / "model.safetensors").unlink()
    scorer = config(place, scorer=[{"name": "rude", "kind": "python", "path": "test_rescore:rude"}])
    done = rescore(folder, scorer.scorer)
    assert {p.name: p.read_bytes() for p in (folder / "generations").iterdir()} == generations
    assert read_evaluation(folder / "evaluation.json") == done
    for each in first.measurements:
        assert each in done.measurements
    assert number(done, "attribute.rude.satisfaction_rate").count == 10
    assert done.examples[0].scores.keys() == {"words", "rude"}
    # the same name takes the place
    other = config(place, scorer=[{"name": "words", "kind": "lexicon", "words": ["and", "dog"]}])
    renewed = rescore(folder, other.scorer)
    old, new = (number(e, "attribute.words.satisfaction_rate").value for e in (done, renewed))
    assert old != new
    assert len(read_manifest(folder).config.scorer) == 2


def test_rescoring_what_is_no_finished_evaluation(place: Path) -> None:
    scorers = config(place).scorer
    with pytest.raises(RunError, match=r"no manifest.json there, so it is no evaluation"):
        rescore(place, scorers)
    run(place)
    (path,) = (place / "out" / "generations").glob("toxic-*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:7]))
    with pytest.raises(RunError, match=r"holds 7 of 10 completions; finish it with"):
        rescore(place / "out", scorers)


def test_rescoring_within_an_evaluation_keeps_what_was_measured(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(place)
    scorers = config(place, scorer=[{"name": "dogs", "kind": "lexicon", "words": ["dog"]}]).scorer
    for call in (0, 2):
        with (
            tiny.Nth("tiltune.evaluation.evaluate.measured_once", call, interrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            run(place)
        assert set(first.measurements) < set(rescore(place / "out", scorers).measurements)
    with (
        tiny.Nth("tiltune.evaluation.evaluate.measured_once", 2, interrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        run(place, "new")
    kept = rescore(place / "new", scorers).measurements
    assert any(each.key == "diversity.dist_1" for each in kept)


def interrupt() -> None:
    raise KeyboardInterrupt
