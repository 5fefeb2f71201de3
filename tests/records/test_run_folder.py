"""Whose folder it is: a run's alone is replaced, and only when the new one has saved a round."""

import copy
import errno
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny
from tiltune.config import RunConfig
from tiltune.errors import ConfigError, RunError, TiltuneError
from tiltune.records.manifest import constraint_digest
from tiltune.records.resume import check_early, stored_config
from tiltune.records.run_folder import is_run_folder, read_config, set_aside_evaluation
from tiltune.training.run import open_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tiny.Tree:
    folder = tmp_path_factory.mktemp("finished")
    tree = tiny.workplace(folder, method={"rounds": 1})
    tiny.finish(tree)
    return tree


@pytest.fixture
def over(tmp_path: Path, finished: tiny.Tree) -> tiny.Tree:
    """A finished run in `run`, and the settings of one that is to replace it."""
    shutil.copytree(finished["run"]["dir"], tmp_path / "run")
    run = {"dir": str(tmp_path / "run"), "overwrite": True, "seed": 9}
    return tiny.changed(finished, run=run)


def test_the_evaluation_of_a_finished_run_that_goes_on_is_set_aside(tmp_path: Path) -> None:
    def evaluated(text: str) -> None:
        (tmp_path / "evaluation").mkdir(exist_ok=True)
        (tmp_path / "evaluation" / "evaluation.json").write_text(text, "utf-8")

    evaluated("first")
    set_aside_evaluation(tmp_path)
    assert (tmp_path / "evaluation").exists()  # the run has not finished
    (tmp_path / "finished.json").write_text('{"policy_version": 3}', "utf-8")
    set_aside_evaluation(tmp_path)
    evaluated("second")
    set_aside_evaluation(tmp_path)
    assert not (tmp_path / "evaluation").exists()
    names = ("evaluation-version-3", "evaluation-version-3-2")
    kept = [(tmp_path / name / "evaluation.json").read_text("utf-8") for name in names]
    assert kept == ["first", "second"]


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_folder_has_the_configuration_of_a_run(finished: tiny.Tree, tmp_path: Path) -> None:
    run, model = Path(finished["run"]["dir"]), Path(finished["model"]["path"])
    assert is_run_folder(run) and read_config(run).run.seed == 3
    for other in (model, run / "model", tmp_path, tmp_path / "absent"):
        assert not is_run_folder(other)
        with pytest.raises(RunError, match=r"so it is no run folder; give a folder of `tiltune"):
            read_config(other)


@pytest.mark.parametrize("content", ["model", "{", "[]"])
@pytest.mark.parametrize("way", ["overwrite", "resume"])
def test_a_folder_that_is_no_run_s_is_left_alone(tmp_path: Path, content: str, way: str) -> None:
    tree = tiny.workplace(tmp_path, run={"overwrite": way == "overwrite"})
    if content == "model":
        tiny.make_model(tmp_path / "run")
    else:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.json").write_text(content, "utf-8")
    before = names(tmp_path / "run")
    with pytest.raises(RunError, match=r"run.dir = .* no run folder, and is neither"):
        open_run(tiny.config(tree), resume=way == "resume")
    assert names(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("table", "key", "inside"),
    [
        ("model", "path", "model"),
        ("data", "corpus", "records.jsonl"),
        ("data", "prompts", "records.jsonl"),
        ("data", "valid", "records.jsonl"),
        ("constraint", "file", "records.jsonl"),
        ("value_model", "path", "model"),
    ],
)
def test_what_a_run_reads_may_not_lie_in_what_it_replaces(
    over: tiny.Tree, table: str, key: str, inside: str
) -> None:
    run = Path(over["run"]["dir"])
    before = names(run)
    tables: Any = {table: {key: str(run / "samples" / ".." / inside)}}
    if table == "value_model":
        tables[table]["kind"] = "separate"
    with pytest.raises(ConfigError, match=rf"{table}.{key} = .*{inside}: lies in run.dir = "):
        open_run(tiny.config(tiny.changed(over, **tables)), resume=False)
    assert names(run) == before


@pytest.mark.parametrize(
    ("target", "number", "error"),
    [
        ("tiltune.training.run.write_json", 0, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
        ("tiltune.training.run.write_json", 1, KeyboardInterrupt()),
        ("tiltune.training.sampler.texts", 0, TiltuneError("the scorer is broken")),
        ("tiltune.training.learner.part_rows", 1, KeyboardInterrupt()),
        ("tiltune.models.checkpoint._write", 6, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    ],
)
@pytest.mark.parametrize("replaces", [True, False])
def test_a_run_that_saved_nothing_leaves_what_it_found(
    over: tiny.Tree, tmp_path: Path, replaces: bool, target: str, number: int, error: Exception
) -> None:
    run = tmp_path / "run"
    before = tiny.outcome(run)
    if not replaces:
        shutil.rmtree(run)
    with (
        tiny.Nth(target, number, raises(error)),
        pytest.raises((TiltuneError, KeyboardInterrupt)),
    ):
        tiny.finish(over)
    assert names(tmp_path) == ["run"] * replaces
    assert not replaces or tiny.outcome(run) == before


def test_the_replaced_run_goes_with_the_first_checkpoint(over: tiny.Tree, tmp_path: Path) -> None:
    with tiny.Nth("tiltune.training.run.save_checkpoint", 0, lambda: seen.extend(names(tmp_path))):
        seen: list[str] = []
        tiny.finish(over)
    assert seen == ["run", "run.lock", "run.replaced"]
    assert names(tmp_path) == ["run"] and read_config(tmp_path / "run").run.seed == 9


@pytest.mark.parametrize(
    ("target", "number"),
    [
        ("tiltune.training.run.write_json", 0),
        ("tiltune.training.run.write_json", 1),
        ("tiltune.training.sampler.draw", 1),
    ],
)
def test_a_replacement_that_was_killed_is_undone_or_resumed(
    over: tiny.Tree, tmp_path: Path, target: str, number: int
) -> None:
    run = tmp_path / "run"
    before = tiny.outcome(run)
    code = tiny.FORK.run(_killed, over, target, number)
    assert code == -signal.SIGKILL
    assert names(tmp_path) == ["run", "run.lock", "run.replaced"]  # the lock's file holds nobody
    if target == "tiltune.training.sampler.draw":
        shutil.copytree(tmp_path, tmp_path / "resumed")
        with pytest.raises(RunError, match="exists; choose another"):
            open_run(tiny.config(tiny.changed(over, run={"overwrite": None})), resume=False)
        assert tiny.outcome(run) == before and names(tmp_path) == ["resumed", "run"]
        tmp_path, run = tmp_path / "resumed", tmp_path / "resumed" / "run"
    resumed = tiny.changed(over, run={"dir": str(run)})
    tiny.finish(resumed, resume=True)
    assert names(tmp_path) == ["run"] and read_config(run).run.seed == 9
    assert tiny.outcome(run)["records"][0]["round"] == 0


def test_a_folder_named_alike_is_not_ours(over: tiny.Tree, tmp_path: Path) -> None:
    (tmp_path / "run.replaced").mkdir()
    (tmp_path / "run.replaced" / "thesis.txt").write_text("mine", "utf-8")
    before = tiny.outcome(tmp_path / "run")
    with pytest.raises(RunError, match="cannot be saved"):
        tiny.finish(over)
    assert names(tmp_path / "run.replaced") == ["thesis.txt"]
    assert tiny.outcome(tmp_path / "run") == before


def _killed(tree: tiny.Tree, target: str, number: int) -> None:
    tiny.run_to_kill(tree, target, number, resume=False)


SERVICE = {"kind": "http", "url": "http://localhost:1/", "retries": 2}
NESTED = {
    "kind": "all",
    "parts": [
        {"kind": "lexicon", "words": ["a"], "threshold": 0.5},
        {"kind": "not", "parts": [SERVICE]},
        {"kind": "temporal", "formula": "G(x -> y)", "atoms": {"x": SERVICE, "y": ["w"]}},
    ],
}


def resumed(folder: Path, change: Callable[[Any], object]) -> RunConfig:
    """The configuration of a run under NESTED that goes on with a changed one."""
    tree: dict[str, Any] = {"run": {"dir": str(folder)}, "model": {"path": "m"}}
    started = tiny.config(tree | {"constraint": copy.deepcopy(NESTED)})
    (folder / "config.json").write_text(started.model_dump_json(), "utf-8")
    constraint = copy.deepcopy(NESTED)
    change(constraint["parts"])
    given = tiny.config(tree | {"constraint": constraint})
    again = stored_config(folder, given)
    assert constraint_digest(again.constraint) == constraint_digest(started.constraint)
    return again


def test_how_scores_are_fetched_may_change_at_any_depth(tmp_path: Path) -> None:
    def change(parts: Any) -> None:
        parts[0].pop("threshold")  # left to its default: no change
        parts[1]["parts"][0] |= {"timeout_seconds": 3.0}
        parts[2]["atoms"]["x"] |= {"parallel": 9}
        parts[2]["atoms"]["x"].pop("retries")

    _, negated, temporal = resumed(tmp_path, change).constraint.parts  # type: ignore[union-attr]
    assert (negated.parts[0].timeout_seconds, negated.parts[0].retries) == (3.0, 2)  # type: ignore
    service = temporal.atoms["x"]  # type: ignore[union-attr]
    assert (service.parallel, service.retries) == (9, 2)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda p: p[0].update(words=["b"]), r"constraint.parts.0.words is \('b',\), .*\('a',\)"),
        (lambda p: p[1]["parts"][0].update(mode="require"), r"parts.1.parts.0.mode is 'require'"),
        (lambda p: p[2]["atoms"]["x"].update(url="http://b/"), r"parts.2.atoms.x.url is"),
        (lambda p: p[2]["atoms"].update(y=["v"]), r"constraint.parts.2.atoms is .*'y': \('v',\)"),
        (lambda p: p.pop(), r"constraint.parts is \('lexicon', 'not'\), the run was started with"),
        (lambda p: p[1].update(kind="all"), r"parts is \('lexicon', 'all', 'temporal'\), the run"),
    ],
)
def test_what_decides_scores_may_not(
    tmp_path: Path, change: Callable[[Any], object], told: str
) -> None:
    with pytest.raises(RunError, match=told):
        resumed(tmp_path, change)


def test_where_nothing_can_be_written_no_run_begins(tmp_path: Path) -> None:
    """Told before anything is loaded, not when a run of hours is to be saved."""
    (tmp_path / "file").write_text("mine", "utf-8")
    tree = tiny.workplace(tmp_path, run={"dir": str(tmp_path / "file" / "deeper" / "run")})
    with pytest.raises(RunError, match=r"run\.dir = .*: nothing can be written into .*deeper: Not"):
        check_early(tiny.config(tree), resume=False)
