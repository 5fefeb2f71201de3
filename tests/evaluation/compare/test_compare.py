"""A whole comparison of tiny models: budgets reach the runs, a kill loses nothing finished."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tiltune.config import CompareConfig, EvaluateConfig, parse_config
from tiltune.errors import ConfigError, RunError, TiltuneError
from tiltune.evaluation.compare import evaluator as evaluating
from tiltune.evaluation.compare.comparison import compare
from tiltune.evaluation.compare.evaluator import open_planned
from tiltune.evaluation.compare.plan import Planned, plan_entries
from tiltune.evaluation.foreseen import Foreseen
from tiltune.records.measurements import (
    Comparison,
    Evaluation,
    Excerpt,
    Measurement,
    find_measurement,
    read_comparison,
    read_evaluation,
    write_evaluation,
)
from tiltune.records.rounds import read_records

METHODS: list[dict[str, Any]] = [
    {"name": "base", "kind": "base"},
    {"name": "best", "kind": "best_of_n", "n": 3},
    {"name": "guided", "kind": "guided"},
    {"name": "filter", "kind": "filter"},
    {"name": "tilt", "kind": "tilt", "grid": {"method.beta": [1.0, 4.0]}},
]


class StandIn:
    """An evaluator that measures nothing and remembers who asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(
        self, planned: Planned, config: EvaluateConfig, folder: Path, *, say: Any
    ) -> Evaluation:
        self.asked.append(planned.name)
        beta = float(planned.knobs.get("method.beta", 0))
        numbers = {"control": 0.5 + beta / 10, "utility": 3.0 - beta / 10}
        measurements = [
            Measurement(key=key, aspect=key, value=value, unit="", better="higher", count=1)  # type: ignore[arg-type]
            for key, value in numbers.items()
        ]
        made = Evaluation(
            name=planned.method.name,
            model=planned.config.run.dir,
            digest="",
            protocol={},
            measurements=tuple(measurements),
            examples=(Excerpt(group="g", prompt="the", text=planned.name),),
        )
        (folder / "evaluation.json").write_text(made.model_dump_json(), "utf-8")
        return made


def tree(folder: Path, **changes: Any) -> dict[str, Any]:
    base = tiny.workplace(folder)
    del base["run"]["dir"], base["method"]
    tables: dict[str, Any] = {
        "table": {"dir": str(folder / "out"), "control": "control", "utility": "utility"},
        "base": base,
        "method": METHODS,
        "budget": {"samples": 64},
        "evaluate": {"prompts": [{"name": "g", "path": str(folder / "corpus.jsonl")}]},
    }
    return tables | changes


def config(tables: dict[str, Any]) -> CompareConfig:
    return parse_config(CompareConfig, tables, source="here")


def run(tables: dict[str, Any], evaluator: StandIn | None = None) -> Comparison:
    lines: list[str] = []
    return compare(
        config(tables),
        evaluator or StandIn(),
        source="here",
        say=lines.append,
        foresee=lambda _: Foreseen(("control", "utility")),
    )


def compare_to_kill(tables: dict[str, Any], target: str, number: int) -> None:
    """For a process of its own: SIGKILL strikes at the target's n-th call."""
    torch.set_num_threads(1)
    with tiny.Nth(target, number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        run(tables)


def test_a_comparison_from_its_runs_to_its_page(tmp_path: Path) -> None:
    tables = tree(tmp_path)
    evaluator = StandIn()
    comparison = run(tables, evaluator)
    names = ["base", "best", "guided-samples", "filter-samples", "tilt-beta=1.0-samples"]
    assert evaluator.asked == [*names, "tilt-beta=4.0-samples"]
    assert [entry.chosen for entry in comparison.entries] == [True] * 4 + [False, True]
    for name in names[2:]:  # the budget is reached exactly and not passed
        records = read_records(tmp_path / "out" / "runs" / name / "records.jsonl")
        assert sum(r.samples_drawn or 0 for r in records) == 64
        assert [r.round for r in records] == [0, 1, 2] and records[-1].closing
    assert comparison.entries[3].cost[0].value == 64
    # guided: what a round measures is the base model, and no curve of what decodes
    guided, filtered = comparison.entries[2:4]
    assert guided.cost[0].value == 64 and guided.curve == ()
    assert [point.samples for point in filtered.curve] == [0, 32, 64]
    assert comparison == read_comparison(tmp_path / "out" / "comparison.json")
    for suffix in ("md", "csv", "html"):
        assert "tilt" in (tmp_path / "out" / f"comparison.{suffix}").read_text("utf-8")


@pytest.mark.parametrize("place", range(3))
def test_likelihoods_are_missing_only_where_the_law_has_none(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of guidance they are the guided law's, see `table.pieces`; the best of n has no law."""
    fields: dict[str, Any] = {"value": 0.5, "unit": "share", "better": "higher"}
    given = tuple(
        Measurement(key=key, aspect="utility", count=7, missing=2, **fields)
        for key in ("utility.perplexity", "task.acc", "detector.auc", "diversity.dist_1")
    )
    made = Evaluation(name="x", model="m", digest="", protocol={}, measurements=given)
    monkeypatch.setattr(evaluating, "open_planned", lambda planned: None)
    monkeypatch.setattr(evaluating, "evaluate", lambda *_, **__: made)
    planned = plan_entries(config(tree(tmp_path)), source="")[place]
    found = evaluating.evaluate_entry(planned, EvaluateConfig(), tmp_path, say=print).measurements
    lost = [each.key for each in found if each.value is None]
    if planned.method.kind == "best_of_n":
        assert lost == [each.key for each in given[:3]]
        assert [(each.count, each.missing) for each in found[:3]] == [(0, 9)] * 3
    else:
        assert planned.method.kind in ("base", "guided") and found == given


def test_guided_decoding_leaves_the_policy_and_learns_values(tmp_path: Path) -> None:
    tables = tree(tmp_path, method=[METHODS[0], METHODS[2]])
    run(tables)
    base, guided = (open_planned(each) for each in plan_entries(config(tables), source=""))
    assert guided.values is not None and base.values is None
    ids = torch.tensor([[0, 2, 3]])
    there = torch.ones_like(ids, dtype=torch.bool)
    laws = [each.loaded.policy.log_probs(ids, there) for each in (base, guided)]
    assert torch.equal(*laws)
    logits = guided.values.logits(ids, there)
    assert float(logits.detach().std()) > 0  # no constant any more


def test_best_of_n_has_the_training_constraint_choose(tmp_path: Path) -> None:
    tables = tree(tmp_path, method=[METHODS[1]])
    run(tables)
    (planned,) = plan_entries(config(tables), source="")
    contender = open_planned(planned)
    assert contender.best_of == 3 and contender.chooser is not None
    assert contender.trained_by == planned.config.constraint


def test_started_again_it_does_nothing_twice(tmp_path: Path) -> None:
    tables = tree(tmp_path, method=METHODS[3:])
    first = run(tables)
    again = StandIn()
    with tiny.Nth(
        "tiltune.evaluation.compare.training.open_run", 0, lambda: pytest.fail("a run was opened")
    ):
        assert run(tables, again) == first
    assert again.asked == []


def test_a_changed_evaluation_is_made_anew(tmp_path: Path) -> None:
    tables = tree(tmp_path, method=METHODS[3:4])
    run(tables)
    again = StandIn()
    run(tables | {"evaluate": tables["evaluate"] | {"protocol": {"k": 2}}}, again)
    assert again.asked == ["base", "filter-samples"]


@pytest.mark.parametrize(
    ("target", "number"),
    [
        ("tiltune.training.run.save_checkpoint", 1),  # within the first run, after a round
        (
            "tiltune.evaluation.compare.comparison.check_axes",
            1,
        ),  # after the second entry's evaluation
    ],
)
def test_killed_and_started_again_it_goes_on(target: str, number: int, tmp_path: Path) -> None:
    tables = tree(tmp_path, method=METHODS[3:])
    assert tiny.FORK.run(compare_to_kill, tables, target, number) == -signal.SIGKILL
    resumed = run(tables)
    (tmp_path / "whole").mkdir()
    expected = run(tree(tmp_path / "whole", method=METHODS[3:]))
    trained = [made.entries[1:] for made in (resumed, expected)]  # the base has no run
    for one, other in zip(*trained, strict=True):
        name = Path(one.evaluation.model).name
        runs = [tmp_path / "out" / "runs" / name, tmp_path / "whole" / "out" / "runs" / name]
        assert tiny.outcome(runs[0]) == tiny.outcome(runs[1])
        assert one.knobs == other.knobs and one.chosen == other.chosen


def test_what_stops_a_method_names_it(tmp_path: Path) -> None:
    method = {"name": "mine", "kind": "tilt", "overrides": {"method.anchor": "reference"}}
    tables = tree(tmp_path, method=[method])
    tables["base"]["constraint"] = {"kind": "python", "path": "nowhere:nothing"}
    with pytest.raises(TiltuneError, match=r"method 'base': .*nowhere"):
        run(tables)


def test_another_budget_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    tables = tree(tmp_path, method=METHODS[3:4])
    run(tables)
    with pytest.raises(RunError, match=r"method 'filter'.*samples_max is 128.*with 64"):
        run(tables | {"budget": {"samples": 128}})


def test_seconds_end_a_run_too(tmp_path: Path) -> None:
    tables = tree(tmp_path, method=METHODS[3:4], budget={"seconds": 1e-9})
    comparison = run(tables)
    base, entry = comparison.entries
    assert base.kind == "base" and base.budget == "none"  # measured though it is no method here
    assert entry.budget == "seconds" and len(entry.curve) == 2  # one round, and the closing row


def test_nothing_to_measure_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to measure"):
        run(tree(tmp_path, evaluate={}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"prompts": [{"name": "g", "path": "no.jsonl"}]}, r"prompts.path = no.jsonl: no such"),
        (
            {"scorer": [{"name": "own", "kind": "python", "path": "tiltune.worlds:none"}]},
            r"scorer 'own': constraint.path .*no attribute 'none'",
        ),
    ],
)
def test_what_ends_the_evaluation_is_found_before_a_run(
    tmp_path: Path, evaluation: dict[str, Any], message: str
) -> None:
    tables = tree(tmp_path, method=METHODS[3:4])
    tables["evaluate"] |= evaluation
    with pytest.raises(TiltuneError, match=message):
        run(tables)
    assert not (tmp_path / "out").exists()


def test_an_entry_that_trains_nothing_takes_nobody_elses_folder(tmp_path: Path) -> None:
    tables = tree(tmp_path, method=METHODS[:1])
    theirs = tmp_path / "out" / "runs" / "base" / "config.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text('{"model_type": "llama"}', "utf-8")
    with pytest.raises(RunError, match=r"method 'base': .* so it is no run folder"):
        run(tables)
    assert theirs.read_text("utf-8") == '{"model_type": "llama"}'
    tables["table"]["dir"] = str(theirs)
    with pytest.raises(ConfigError, match=r"here: table.dir = .* cannot be made a folder"):
        run(tables)


def test_an_evaluation_of_what_is_no_more_there_is_made_anew(tmp_path: Path) -> None:
    """The run was made again, or the evaluation was scored again by other scorers."""
    tables = tree(tmp_path, method=METHODS[3:4])
    run(tables)
    shutil.rmtree(tmp_path / "out" / "runs")
    again = StandIn()
    run(tables, again)
    assert again.asked == ["filter-samples"]
    path = tmp_path / "out" / "evaluations" / "filter-samples" / "evaluation.json"
    lost = read_evaluation(path).model_copy(update={"measurements": ()})
    path.write_text(lost.model_dump_json(), "utf-8")
    run(tables, again)
    assert again.asked == ["filter-samples"] * 2
    run(tables, again)
    assert again.asked == ["filter-samples"] * 2


def test_scores_that_a_service_failed_to_give_are_asked_for_again(tmp_path: Path) -> None:
    class Failing(StandIn):
        def __call__(self, *arguments: Any, **settings: Any) -> Evaluation:
            made = super().__call__(*arguments, **settings)
            lacking = made.measurements[0].model_copy(
                update={"key": "attribute.words.score_mean", "missing": 2 - len(self.asked)}
            )
            made = made.model_copy(update={"measurements": (*made.measurements, lacking)})
            write_evaluation(arguments[2] / "evaluation.json", made)
            return made

    tables, evaluator = tree(tmp_path, method=METHODS[:1]), Failing()
    for _ in range(3):
        run(tables, evaluator)
    assert evaluator.asked == ["base", "base"]


def test_an_interrupted_comparison_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = tree(tmp_path, method=METHODS[:1])
    tables["table"] |= {"control": "diversity.dist_1", "utility": "diversity.dist_2"}
    path = tmp_path / "compare.toml"
    path.write_text(toml(tables), "utf-8")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with tiny.Nth("tiltune.evaluation.compare.comparison.check_axes", 0, interrupt):
        assert tiny.tiltune("compare", str(path)) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_rows(tmp_path / "prompts.jsonl", [{"prompt": "the cat"}, {"prompt": "the dog"}])
    tables = tree(tmp_path, method=METHODS[:2])
    tables["table"] |= {"control": "attribute.words.satisfaction_rate", "utility": "diversity.x"}
    prompts = [{"name": "g", "path": str(tmp_path / "prompts.jsonl")}]
    words = {"kind": "lexicon", "name": "words", "words": ["bad", "sat"]}
    protocol = {"k": 2, "max_new_tokens": 4}
    corpus = {"kind": "perplexity", "name": "corpus", "path": str(tmp_path / "corpus.jsonl")}
    tables["evaluate"] = {"prompts": prompts, "scorer": [words], "utility": [corpus]}
    tables["evaluate"]["protocol"] = protocol
    path = tmp_path / "compare.toml"
    path.write_text(toml(tables), "utf-8")
    assert tiny.tiltune("compare", str(path)) == 2
    told = capsys.readouterr().err
    assert "table.utility = 'diversity.x' is not measured" in told
    assert not (tmp_path / "out").exists()
    tables["table"]["utility"] = "utility.perplexity@corpus"
    path.write_text(toml(tables), "utf-8")
    assert tiny.tiltune("compare", str(path)) == 0
    out = capsys.readouterr()
    assert "best" in out.out and "comparison.html" in out.err
    base, best = read_comparison(tmp_path / "out" / "comparison.json").entries
    plain, lost = (
        find_measurement(each.evaluation.measurements, "utility.perplexity@corpus")
        for each in (base, best)
    )
    assert plain is not None and plain.value is not None
    assert lost is not None and lost.value is None and lost.missing == plain.count
    page = tmp_path / "out" / "comparison.html"
    page.unlink()
    assert tiny.tiltune("report", str(tmp_path / "out")) == 0 and page.exists()


def toml(tables: dict[str, Any]) -> str:
    """Nested tables as TOML: inline, below one key each."""
    return "".join(f"{key} = {_inline(value)}\n" for key, value in tables.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value)
