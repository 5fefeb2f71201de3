"""A run interrupted from the keyboard stops soon and names the round that it goes on at."""

import multiprocessing
import signal
from pathlib import Path

import pytest
import torch

import tiny


@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_sigint_stops_within_a_step_and_names_the_round(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    schedule: str,
) -> None:
    monkeypatch.setattr(torch.multiprocessing, "get_context", lambda _: tiny.FORK.context)
    tree = tiny.workplace(tmp_path, method={"schedule": schedule, "beta": 2.0})
    toml = tiny.write_toml(tree, tmp_path / "run.toml")
    step = "tiltune.training.learner.part_rows"
    with tiny.Nth(step, 4, lambda: signal.raise_signal(signal.SIGINT)) as steps:
        assert tiny.tiltune("fit", str(toml)) == 130
    assert steps.calls == 5
    said = capsys.readouterr().err
    assert f"tiltune fit {toml} --resume" in said and "goes on at round 1" in said
    assert not multiprocessing.active_children()
    assert tiny.tiltune("fit", str(toml), "--resume") == 0
    assert "starting at round 1" in capsys.readouterr().err


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_sigint_while_saving_names_the_round_that_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tiny.write_toml(tiny.workplace(tmp_path), tmp_path / "run.toml")
    with tiny.Nth("tiltune.models.checkpoint._write", 20, _interrupt):  # round 1's checkpoint
        assert tiny.tiltune("fit", str(toml)) == 130
    assert "goes on at round 1" in capsys.readouterr().err
    assert tiny.tiltune("fit", str(toml), "--resume") == 0
    assert "starting at round 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "number"),
    [
        ("tiltune.training.run.prepare", 0),
        ("tiltune.training.run.write_json", 1),
        ("tiltune.training.sampler.draw", 0),
    ],
)
def test_sigint_before_the_first_round_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, number: int
) -> None:
    toml = tiny.write_toml(tiny.workplace(tmp_path), tmp_path / "run.toml")
    with tiny.Nth(target, number, _interrupt):
        assert tiny.tiltune("fit", str(toml), "--set", "method.beta=3") == 130
    said = capsys.readouterr().err
    assert "stopped before anything was saved" in said
    assert f"`tiltune fit {toml} --set method.beta=3` starts again" in said
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_extended_and_stopped_is_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tiny.write_toml(tiny.workplace(tmp_path, method={"rounds": None}), tmp_path / "run.toml")
    assert tiny.tiltune("fit", str(toml), "--set", "method.rounds=1") == 0
    longer = ("--resume", "--set", "method.rounds=2")
    with tiny.Nth("tiltune.training.run.write_records", 0, _interrupt):
        assert tiny.tiltune("fit", str(toml), *longer) == 130
    said = capsys.readouterr().err
    assert f"`tiltune fit {toml} {' '.join(longer)}` goes on at round 1" in said
    assert not (tmp_path / "run" / "finished.json").exists()
    assert tiny.tiltune("fit", str(toml), "--resume") == 0
    said = capsys.readouterr().err
    assert "finished already" not in said and "starting at round 1" in said
    assert [row["round"] for row in tiny.outcome(tmp_path / "run")["records"]] == [0, 1, 2]
