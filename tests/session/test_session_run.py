"""`tiltune.Run`: what the command line does with files, with objects in their place, to the bit."""

import gc
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

import tiltune
import tiny
from tiltune.cli.app import app, main
from tiltune.errors import ConfigError, ConstraintError, RunError
from tiltune.models import hub
from tiltune.records.progress_lines import ProgressLines
from tiltune.serving.complete import Request, complete
from tiltune.session.run import Run

TABLES = ("method", "sampler", "value_model", "learner")
COLD = {"warm_start": 0}  # a warm start is recorded as cached, or not


def polite(completion: tiltune.Completion) -> bool:
    return not set(tiny.FORBIDDEN) & set(completion.text.split())


def scores(completions: list[tiltune.Completion]) -> list[float]:
    """The same, as a file names it."""
    return [float(polite(each)) for each in completions]


def small(folder: Path, **tables: Any) -> dict[str, Any]:
    """The settings of `tiny.workplace`, whose files are there then."""
    tree = tiny.workplace(folder, value_model=COLD, **tables)
    return {name: tree[name] for name in TABLES} | {"run": {"seed": 3}}


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on objects alone, by a lambda."""
    folder = tmp_path_factory.mktemp("objects")
    settings = small(folder)
    model = hub.load_module(str(folder / "model"), dtype=torch.float32)
    run = Run(
        model=(model, AutoTokenizer.from_pretrained(folder / "model")),
        data=tiny.corpus_rows(),
        constraint=lambda completion: polite(completion),
        dir=folder / "mine",
        **settings,
    )
    assert not run.folder.exists() and run.records == []
    assert list(run.fit(say=quiet)) == run.records
    return run


def test_objects_give_what_files_give(finished: Run, tmp_path: Path) -> None:
    path = f"{__name__}:scores"
    constraint = {"kind": "python", "path": path, "words": None}
    tree = tiny.workplace(tmp_path, constraint=constraint, value_model=COLD)
    tiny.finish(tree)
    ours, theirs = tiny.outcome(finished.folder), tiny.outcome(tmp_path / "run")
    assert ours == theirs and len(ours["records"]) == 3


def test_it_goes_on_where_it_stopped(finished: Run, tmp_path: Path) -> None:
    run = Run(
        model=finished.config.model.path,
        data=tiny.corpus_rows(),
        constraint=lambda c: polite(c) and True,
        dir=tmp_path / "run",
        **small(tmp_path),
    )
    rounds = run.fit(say=quiet)
    next(rounds)
    rounds.close()
    with pytest.raises(RunError, match="exists"):
        next(run.fit(say=quiet))
    again = Run.load(run.folder, constraint=lambda c: polite(c) or False)
    told: list[str] = []
    phases: set[str] = set()

    def progress(phase: str, *_: Any, **__: Any) -> None:
        phases.add(phase)

    assert len(list(again.fit(resume=True, say=told.append, progress=progress))) == 2
    assert "round 1: policy update" in phases and "round 0: policy update" not in phases
    assert any("the constraint has changed" in line for line in told)
    assert tiny.outcome(run.folder) == tiny.outcome(finished.folder)
    manifest = json.loads((run.folder / "manifest.json").read_text("utf-8"))
    assert manifest["constraint_changed_at_rounds"] == [1]


def test_of_a_finished_run_there_is_no_round_to_come(finished: Run) -> None:
    before = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    told: list[str] = []
    assert list(finished.fit(resume=True, say=told.append)) == []
    assert told == [
        f"{finished.folder}: finished already, nothing to do; a higher method.rounds goes on"
    ]
    assert before == {p: p.read_bytes() for p in finished.folder.rglob("*") if p.is_file()}


def test_a_check_says_what_the_command_says_and_touches_no_run(tmp_path: Path) -> None:
    run = Run(
        model=tmp_path / "model",
        data=tiny.corpus_rows(),
        constraint=lambda completion: polite(completion),
        dir=tmp_path / "mine",
        **small(tmp_path),
    )
    told: list[str] = []
    run.check(say=told.append)
    notes = ("loading", "drawing")
    verdict = [line.split()[0] for line in told if line and not line.startswith(notes)]
    assert verdict[:5] == ["meets", "costs", "exact", "wrong", "next"]
    assert any(line.startswith("next") and line.endswith("run.fit()") for line in told)
    assert not run.folder.exists()


def test_another_process_is_told_that_the_function_is_not_there(
    finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = Run.load(finished.folder)
    with pytest.raises(ConstraintError, match="no file names it"):
        next(elsewhere.fit(resume=True))
    told: list[str] = []
    (row,) = elsewhere.sample("the cat", say=told.append)
    assert row["score"] is row["satisfied"] is None and "no file names it" in told[0]
    with pytest.raises(SystemExit, match="0"):
        main(lambda: app(["sample", str(finished.folder), "--prompt", "the cat"]))
    assert "no file names it" in capsys.readouterr().err.replace("\n", " ")


def test_samples_are_those_of_the_command_line_and_scored(finished: Run) -> None:
    rows = finished.sample("the cat", n=5, seed=2, say=quiet)
    given = Request("the cat", n=5, seed=2)
    for row, plain in zip(rows, complete(finished.folder, given, quiet), strict=True):
        assert row["text"] == plain["text"]
        assert row["satisfied"] == polite(tiltune.Completion("", row["text"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number": 2}, "sample: unknown key `number`"),
        ({"n": 0}, "sample: `n` is 0: .*greater than or equal to 1"),
        ({"temperature": 0}, "sample: `temperature` is 0: .*greater than 0"),
        ({"temperature": float("nan")}, "sample: `temperature` is nan"),
        ({"top_p": 0}, "sample: `top_p` is 0: .*greater than 0"),
        ({"top_p": 1.5}, "sample: `top_p` is 1.5: .*less than or equal to 1"),
        ({"max_new_tokens": 0}, "sample: `max_new_tokens` is 0"),
        ({"round": -1}, "sample: `round` is -1"),
        ({"prompt": ["the", "cat"]}, "sample: `prompt` is .*valid string"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    finished: Run, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        finished.sample(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best_of": 0}, "evaluate: `best_of` is 0: .*greater than or equal to 1"),
        ({"round": -1}, "evaluate: `round` is -1"),
        ({"k": 0}, "evaluate: `protocol.k` is 0"),
        ({"temperature": 0}, "evaluate: `protocol.temperature` is 0"),
        ({"top_p": 0}, "evaluate: `protocol.top_p` is 0"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    finished: Run, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        finished.evaluate(["the cat"], **options)


def test_an_evaluation_scores_by_what_it_is_given(finished: Run) -> None:
    options: Any = {"k": 4, "max_new_tokens": 6, "say": quiet}

    def rates(word: str) -> tuple[float | None, float]:
        def judge(completion: tiltune.Completion) -> bool:
            return word not in completion.text.split()

        done = finished.evaluate({"few": ["the cat", "the dog"]}, {"mine": judge}, **options)
        shown = [polite_of(each.text, word) == each.satisfied for each in done.examples]
        assert len(shown) == 2 and all(shown)
        found = {each.key: each.value for each in done.measurements}
        rows = [json.loads(line) for line in stored(finished.folder / "evaluation")]
        texts = [text for row in rows for text in row.get("texts", [row.get("text")])]
        return found["attribute.mine.satisfaction_rate"], sum(
            polite_of(text, word) for text in texts
        ) / len(texts)

    for word in ("bad", "sat"):  # the second is not read from what the first has left
        told, counted = rates(word)
        assert told == pytest.approx(counted)
    with pytest.raises(ConfigError, match="is the constraint that trained this model"):
        finished.evaluate(["the cat"], {"own": finished.constraint}, **options)
    with pytest.raises(ConfigError, match=r"unknown key `protocol\.kk`"):
        finished.evaluate(["the cat"], **{"kk": 4})


def polite_of(text: str, word: str) -> bool:
    return word not in text.split()


def stored(folder: Path) -> list[str]:
    (path,) = (folder / "generations").glob("*.jsonl")
    return path.read_text("utf-8").splitlines()


def test_a_folder_of_its_own_goes_with_the_run(tmp_path: Path) -> None:
    run = Run(model="m", data=["a"], constraint=polite)
    folder = run.folder.parent
    assert folder.is_dir()
    del run
    gc.collect()
    assert not folder.exists()
    kept = Run(model="m", data=["a"], constraint=polite, dir=tmp_path / "kept")
    assert kept.folder == tmp_path / "kept"


def test_a_function_of_a_session_cannot_go_to_another_process(finished: Run) -> None:
    run = Run(
        model=finished.config.model.path,
        data=["the cat"],
        constraint=lambda c: True,
        method={"schedule": "parallel"},
    )
    with pytest.raises(ConfigError, match=r"method\.schedule = 'parallel'"):
        next(run.fit())
    named = Run(model="m", data=["a"], constraint=polite, method={"schedule": "parallel"})
    assert named.config.constraint.files() == [Path(__file__)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metod": {}}, "unknown key `metod`; did you mean `method`"),
        ({"method": {"bta": 2}}, "unknown key `method.bta`; did you mean `beta`"),
        ({"method": 2}, "method = 2: give a table"),
        ({"data": []}, "data.corpus: there are no rows"),
        ({"run": {"dir": "x"}, "dir": "y"}, "both given"),
        ({"model": {"pth": "x"}}, "did you mean `path`"),
        ({"constraint": 3}, "constraint = 3"),
        ({"dir": "."}, "tiltune.Run: `dir`.*'.' names no folder of the run's own; give one"),
        ({"dir": ""}, "'' names no folder"),
        ({"dir": Path("a/..")}, "names no folder"),
        ({"run": {"dir": "/"}}, "'/' names no folder"),
        ({"dir": 5}, "`dir` is 5: .*valid string"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(given: Any, message: str) -> None:
    with pytest.raises(tiltune.TiltuneError, match=message):
        Run(**{"model": "m", "data": ["a"], "constraint": polite} | given)


def test_a_run_is_loaded_from_within_its_folder(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.folder)
    assert Run.load(".").folder == finished.folder.resolve()


def test_a_run_is_loaded_from_its_file(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path)
    run = Run.load(tiny.write_toml(tree, tmp_path / "run.toml"))
    assert run.config == tiny.config(tree)
    assert run.constraint.score([tiltune.Completion("", "rude")])[0].value == 0
    with pytest.raises(RunError, match="nothing there yet"):
        run.sample("x")


def test_of_a_long_phase_a_line_is_said_now_and_then(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    finished.check(say=told.append)
    assert not any("%)" in line for line in told)
    monkeypatch.setattr("tiltune.session.run.ProgressLines", partial(ProgressLines, seconds=0))
    finished.check(say=told.append)
    assert any(line.startswith("drawing: ") and "%)" in line for line in told)
