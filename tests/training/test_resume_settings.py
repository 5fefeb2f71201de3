"""A run resumed with other settings or files: refused, or told, or no change at all."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from tiltune.errors import RunError
from tiltune.training.run import open_run


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        (
            {"learner": {"learning_rate": 0.1}},
            r"learner.learning_rate is 0.1, .* started with 0.003",
        ),
        ({"constraint": {"words": ["rude"]}}, r"constraint.words is .*'rude'.* 'bad'"),
        ({"constraint": {"kind": "regex", "pattern": "x", "words": None}}, r"constraint.kind"),
        ({"run": {"seed": 4}}, r"run.seed is 4, .* 3"),
    ],
)
def test_a_changed_setting_is_refused(tmp_path: Path, tables: dict[str, Any], named: str) -> None:
    tree = tiny.workplace(tmp_path, method={"rounds": 1})
    tiny.finish(tree)
    before = tiny.outcome(tmp_path / "run")
    with pytest.raises(RunError, match=named):
        open_run(tiny.config(tiny.changed(tree, **tables)), resume=True)
    assert tiny.outcome(tmp_path / "run") == before


def test_what_is_left_to_its_default_is_no_change(tmp_path: Path) -> None:
    """A run started with `--set` is resumed by the command that its message names, without it."""
    tree = tiny.workplace(tmp_path, method={"rounds": 1, "beta": 7.0})
    tiny.finish(tree)
    run = open_run(
        tiny.config(tiny.changed(tree, method={"beta": None, "rounds": None})), resume=True
    )
    assert (run.config.method.beta, run.config.method.rounds) == (7.0, 1)


@pytest.mark.parametrize(
    ("file", "named"), [("corpus.jsonl", "data.corpus"), ("words.txt", "constraint")]
)
def test_changed_files_are_refused(tmp_path: Path, file: str, named: str) -> None:
    (tmp_path / "words.txt").write_text("rude\nbad\n", "utf-8")
    tree = tiny.workplace(
        tmp_path,
        constraint={"words": None, "file": str(tmp_path / "words.txt")},
        method={"rounds": 1},
    )
    tiny.finish(tree)
    path = tmp_path / file
    path.write_text(path.read_text("utf-8").replace("rude", "dog"), "utf-8")
    with pytest.raises(RunError, match=f"{named} changed since the run was started"):
        open_run(tiny.config(tiny.changed(tree, method={"rounds": 2})), resume=True)


def test_a_scorer_that_stopped_the_run_can_be_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "mended.py"
    source = "calls = 0\ndef score(completions):\n{}    return [0.5 for _ in completions]\n"
    # the corpus, its validation rows, round 0's samples and probes, then round 1's samples
    fault = "    global calls\n    calls += 1\n    assert calls < 5, 'a fifth call'\n"
    module.write_text(source.format(fault), "utf-8")
    constraint = {"kind": "python", "path": "mended:score", "words": None}
    toml = tiny.write_toml(
        tiny.workplace(tmp_path, constraint=constraint, value_model={"warm_start": 0}),
        Path("run.toml"),
    )
    assert tiny.tiltune("fit", str(toml)) == 2
    assert "a fifth call" in capsys.readouterr().err

    module.write_text(source.format(""), "utf-8")
    monkeypatch.delitem(sys.modules, "mended")
    assert tiny.tiltune("fit", str(toml), "--resume") == 0
    said = capsys.readouterr().err
    assert "starting at round 1" in said and "the constraint has changed" in said
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text("utf-8"))
    assert manifest["constraint_changed_at_rounds"] == [1]


def test_micro_batches_of_another_size_move_nothing_but_the_last_digits(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, method={"rounds": 1})
    tiny.finish(tree)
    weights: list[dict[str, torch.Tensor]] = []
    for name, rows in (("as it was", None), ("in parts", 2)):
        folder = tmp_path / name
        shutil.copytree(tmp_path / "run", folder)  # a run may be moved
        more = tiny.changed(tree, run={"dir": str(folder)}, method={"rounds": 2})
        if rows is not None:
            more = tiny.changed(more, learner={"batch_size": rows})
        run = open_run(tiny.config(more), resume=True)
        settings = run.learner.settings
        told = [each for each in run.changes if each.startswith("learner.batch_size")]
        assert told == ([] if rows is None else ["learner.batch_size is 2 from here on, it was 4"])
        assert settings.rows == 4 and settings.batch_size == (rows or 4)
        assert "method.rounds is 2 from here on, it was 1" in run.changes
        list(run.rounds())
        weights.append(load_file(folder / "model" / "model.safetensors"))
    one, other = weights
    assert all(torch.allclose(one[key], other[key], atol=1e-5) for key in one)
