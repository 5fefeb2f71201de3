"""A run that is stopped at any moment and resumed is the run that was not."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

import tiny
from tiltune.errors import RunError, TiltuneError
from tiltune.training.run import open_run

# Where SIGKILL strikes: a function and the number of its call, from 0. With two rounds there are
# 2 batches a draw, 4 value steps, 3 policy steps and 6 to 7 files a checkpoint in each round.
MOMENTS = [
    ("tiltune.training.run.make_manifest", 0),  # nothing saved: the start
    ("tiltune.training.sampler.draw", 1),  # round 0's sampling
    ("tiltune.models.checkpoint._write", 1),  # round 0's values
    ("tiltune.models.checkpoint._write", 7),  # round 0's checkpoint
    ("tiltune.training.sampler.draw", 3),  # round 1's sampling
    ("tiltune.values.fit.label_loss", 6),
    ("tiltune.training.learner.part_rows", 4),
    ("tiltune.training.run.write_records", 1),
    ("tiltune.training.run.write_folder", 1),  # round 1's values
    ("tiltune.training.run.write_folder", 2),  # the best version
    (
        "tiltune.models.checkpoint.publish",
        4,
    ),  # round 1's checkpoint, all written and not yet in place
    ("tiltune.training.run.save_checkpoint", 1),
    ("tiltune.training.run.close", 0),
    ("tiltune.models.hub.save_model", 0),
    ("tiltune.training.run.write_report", 0),
    ("tiltune.training.run.append_step", 9),  # a step of round 1
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[tiny.Tree, dict[str, Any]]:
    """A run that nothing stopped: its settings, and what it left."""
    folder = tmp_path_factory.mktemp("whole")
    tree = tiny.workplace(folder)
    tiny.finish(tree)
    return tree, tiny.outcome(folder / "run")


def elsewhere(tree: tiny.Tree, folder: Path, **tables: dict[str, Any]) -> tiny.Tree:
    return tiny.changed(tree, **{"run": {"dir": str(folder / "run")}, **tables})


@pytest.mark.parametrize(("target", "number"), MOMENTS)
def test_sigkill_at_any_moment_changes_nothing(
    tmp_path: Path, whole: tuple[tiny.Tree, dict[str, Any]], target: str, number: int
) -> None:
    tree, expected = whole
    tree = elsewhere(tree, tmp_path)
    code = tiny.FORK.run(_killed, tree, target, number)
    assert code == -signal.SIGKILL  # it did strike
    tiny.finish(tree, resume=True)
    assert tiny.outcome(tmp_path / "run") == expected


def test_sigkill_again_and_again(tmp_path: Path, whole: tuple[tiny.Tree, dict[str, Any]]) -> None:
    tree, expected = whole
    tree = elsewhere(tree, tmp_path)
    for target, number in MOMENTS[2:12:3]:
        tiny.FORK.run(_killed, tree, target, number, True)
    tiny.finish(tree, resume=True)
    assert tiny.outcome(tmp_path / "run") == expected


@pytest.mark.parametrize("seconds", [0.15, 0.45, 0.75])
def test_sigkill_at_some_time(
    tmp_path: Path, whole: tuple[tiny.Tree, dict[str, Any]], seconds: float
) -> None:
    tree, expected = whole
    tree = elsewhere(tree, tmp_path)
    assert tiny.FORK.run(tiny.run_and_kill_later, tree, seconds) in (-signal.SIGKILL, 0)
    tiny.finish(tree, resume=True)
    assert tiny.outcome(tmp_path / "run") == expected


@pytest.mark.parametrize(
    "tables",
    [
        {"method": {"schedule": "fixed", "rounds": 3}},
        {"method": {"anchor": "reference"}, "value_model": {"kind": "head"}},
        {"method": {"target_rate": 0.9}, "learner": {"accumulation": 2}},
        {"method": {"kind": "filter"}},
        {"method": {"kind": "sft"}},
        {"method": {"kind": "ppo", "rounds": 3}},
        {"method": {"kind": "grpo", "group_size": 4}},
        {"method": {"kind": "gfn", "rounds": 3}},
        {"method": {"kind": "etpo"}},
        {"method": {"kind": "rce", "group_size": 4, "rounds": 3}},
        {"method": {"anchor": "reference"}, "value_model": {"members": 2}},
        {"method": {"kind": "rlef", "turns": 2, "feedback_tokens": 5, "rounds": 3}},
        {"method": {"kind": "gfn", "objective": "subtb", "schedule": "fixed"}},
        {"method": {"kind": "gfn", "objective": "db"}, "model": {"adapter": "lora", "rank": 2}},
        {"method": {"kind": "ppo"}, "model": {"adapter": "lora", "rank": 2}},
        {"model": {"adapter": "lora", "rank": 2}},
    ],
    ids=lambda tables: "-".join(f"{v}" for table in tables.values() for v in table.values()),
)
def test_every_method_resumes_to_the_bit(tmp_path: Path, tables: dict[str, Any]) -> None:
    tree = tiny.workplace(tmp_path, **tables)
    tiny.finish(tree)
    expected = tiny.outcome(tmp_path / "run")
    stopped = elsewhere(tree, tmp_path / "stopped")
    rounds = open_run(tiny.config(stopped), resume=False).rounds()
    next(rounds)
    rounds.close()
    tiny.finish(stopped, resume=True)
    assert tiny.outcome(tmp_path / "stopped" / "run") == expected


def test_parallel_goes_on_from_the_last_published_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.multiprocessing, "get_context", lambda _: tiny.FORK.context)
    tree = tiny.workplace(tmp_path, method={"schedule": "parallel", "rounds": 3})
    tiny.finish(tree)
    expected = tiny.outcome(tmp_path / "run")
    assert [row["policy_version"] for row in expected["records"]] == [0, 0, 1, 3]
    stopped = elsewhere(tree, tmp_path / "stopped")
    rounds = open_run(tiny.config(stopped), resume=False).rounds()
    next(rounds), next(rounds)
    rounds.close()
    assert not multiprocessing.active_children()
    tiny.finish(stopped, resume=True)
    assert tiny.outcome(tmp_path / "stopped" / "run") == expected


def test_a_finished_parallel_run_goes_on_from_its_last_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.multiprocessing, "get_context", lambda _: tiny.FORK.context)
    tree = tiny.workplace(tmp_path, method={"schedule": "parallel", "rounds": 2})
    tiny.finish(tree)
    tiny.finish(tiny.changed(tree, method={"rounds": 4}), resume=True)
    rows = tiny.outcome(tmp_path / "run")["records"]
    assert [row["policy_version"] for row in rows] == [0, 0, 2, 2, 4]


def test_more_rounds_are_the_longer_run(
    tmp_path: Path, whole: tuple[tiny.Tree, dict[str, Any]]
) -> None:
    tree, expected = whole
    short = elsewhere(tree, tmp_path, method={"rounds": 1})
    assert [r.closing for r in tiny.finish(short)] == [False, True]
    longer = tiny.changed(short, method={"rounds": 2})
    assert [r.round for r in tiny.finish(longer, resume=True)] == [1, 2]
    found = tiny.outcome(tmp_path / "run")
    for name in ("records", "model/model.safetensors", "value/round-001/values.safetensors"):
        assert found[name] == expected[name]
    with pytest.raises(RunError, match=r"method.rounds is 1, where the run has 2 by now"):
        open_run(tiny.config(short), resume=True)


def test_nothing_saved_starts_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tiny.write_toml(tiny.workplace(tmp_path, method={"rounds": 1}), tmp_path / "run.toml")
    assert tiny.tiltune("fit", str(toml), "--resume") == 0
    assert "starting at round 0" in capsys.readouterr().err
    before = tiny.outcome(tmp_path / "run")

    assert tiny.tiltune("fit", str(toml), "--resume") == 0
    assert "finished already" in capsys.readouterr().err
    assert tiny.outcome(tmp_path / "run") == before


def test_a_run_that_met_its_target_early_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tiny.workplace(
        tmp_path, data={"corpus": None}, method={"rounds": 3, "target_rate": 0.01}
    )
    toml = tiny.write_toml(tree, tmp_path / "run.toml")
    assert tiny.tiltune("fit", str(toml)) == 0
    rows = tiny.outcome(tmp_path / "run")["records"]
    assert [row["round"] for row in rows] == [0, 1, 2] and rows[-1]["closing"]
    capsys.readouterr()
    assert tiny.tiltune("fit", str(toml), "--resume") == 0
    assert "finished already" in capsys.readouterr().err


def test_a_finished_run_refuses_a_changed_setting_too(
    tmp_path: Path, whole: tuple[tiny.Tree, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tiny.write_toml(whole[0], tmp_path / "run.toml")
    assert tiny.tiltune("fit", str(toml), "--resume", "--set", "method.beta=9") == 2
    assert "method.beta is 9.0, the run left it open" in capsys.readouterr().err


def _no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _no_space_for_tensors() -> None:
    raise SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )


@pytest.mark.parametrize(
    ("target", "number", "act"),
    [
        ("tiltune.training.run.write_lines", 2, _no_space),
        ("tiltune.training.run.write_records", 1, _no_space),
        ("tiltune.training.run.append_step", 9, _no_space),
        ("tiltune.models.checkpoint._write", 11, _no_space),  # round 1's values
        ("tiltune.models.checkpoint._write", 20, _no_space),  # round 1's checkpoint
        ("tiltune.models.hub.save_model", 0, _no_space_for_tensors),
        ("tiltune.training.run.write_report", 0, _no_space),
    ],
)
def test_a_full_disk_leaves_the_earlier_checkpoint(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    whole: tuple[tiny.Tree, dict[str, Any]],
    target: str,
    number: int,
    act: Any,
) -> None:
    tree, expected = whole
    tree = elsewhere(tree, tmp_path)
    toml = tiny.write_toml(tree, tmp_path / "run.toml")
    with tiny.Nth(target, number, act):
        assert tiny.tiltune("fit", str(toml)) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said and "Traceback" not in said
    assert "checkpoint round-00" in said and "stands" in said and "--resume" in said
    assert tiny.tiltune("fit", str(toml), "--resume") == 0
    assert tiny.outcome(tmp_path / "run") == expected


def test_a_full_disk_before_the_first_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path)
    with (
        tiny.Nth("tiltune.models.checkpoint._write", 6, _no_space),
        pytest.raises(RunError, match="there is no earlier checkpoint"),
    ):
        tiny.finish(tree)
    assert not (tmp_path / "run").exists()


def test_resume_never_touches_a_folder_that_is_no_run(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine", "utf-8")
    with pytest.raises(RunError, match=r"holds no config.json of a run, so it is no run"):
        tiny.finish(tree, resume=True)
    assert (tmp_path / "run" / "thesis.txt").read_text("utf-8") == "mine"


def test_a_replacement_cut_short_is_undone(
    tmp_path: Path, whole: tuple[tiny.Tree, dict[str, Any]]
) -> None:
    """Killed between the two renames of `publish`: the old folder is away, the new not in place."""
    tree, expected = whole
    shutil.copytree(tree["run"]["dir"], tmp_path / "run")
    tree = elsewhere(tree, tmp_path)
    (tmp_path / "run" / "finished.json").unlink()
    (tmp_path / "run" / "best").rename(tmp_path / "run" / "best.old")
    (tmp_path / "run" / "value" / "round-001").rename(tmp_path / "run" / "value" / "round-001.old")
    tiny.finish(tree, resume=True)
    assert tiny.outcome(tmp_path / "run") == expected
    assert json.loads((tmp_path / "run" / "finished.json").read_text("utf-8"))["rounds"] == 2


def test_a_constraint_that_fails_later_leaves_the_last_checkpoint(
    tmp_path: Path, whole: tuple[tiny.Tree, dict[str, Any]]
) -> None:
    tree, expected = whole
    tree = elsewhere(tree, tmp_path)

    def fail() -> None:
        raise TiltuneError("the scorer is broken")

    with (
        tiny.Nth("tiltune.training.sampler.texts", 1, fail),
        pytest.raises(TiltuneError, match="broken"),
    ):
        tiny.finish(tree)
    assert (tmp_path / "run" / "checkpoints" / "round-000").is_dir()
    tiny.finish(tree, resume=True)
    assert tiny.outcome(tmp_path / "run") == expected


def _killed(tree: tiny.Tree, target: str, number: int, resume: bool = False) -> None:
    tiny.run_to_kill(tree, target, number, resume=resume)
