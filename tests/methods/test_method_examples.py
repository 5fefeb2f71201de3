"""Every file of `examples/methods/` is a run that trains as it stands; here it is shorter."""

from pathlib import Path

import pytest

import tiny
from conftest import ROOT
from tiltune.config import load_config
from tiltune.records.rounds import read_records

SHORT = (
    "method.rounds=2",
    "sampler.samples_per_round=32",
    "sampler.max_new_tokens=12",
    "learner.steps_per_round=2",
    "learner.batch_size=16",
    "value_model.steps_per_round=2",
    "value_model.batch_size=16",
    "value_model.warm_start=0",
)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "methods").glob("*.toml")), ids=lambda path: path.stem
)
def test_it_trains(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    settings = (*SHORT, f"run.dir={tmp_path / 'run'}")
    method = load_config(path).method
    switches = [name for name in ("coordinate", "shaping") if getattr(method, name, None)]
    assert [path.stem] == (switches or [method.kind])
    options = [part for each in settings for part in ("--set", each)]
    assert tiny.tiltune("fit", str(path), *options) == 0
    records = read_records(tmp_path / "run" / "records.jsonl")
    assert [record.closing for record in records] == [False, False, True]
    assert (tmp_path / "run" / "report.html").exists()
