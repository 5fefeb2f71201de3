"""What is wrong with a comparison is found before its first method trains or a model is loaded."""

from pathlib import Path
from typing import Any

import pytest
from test_compare import METHODS, StandIn, config, tree

import tiny
from tiltune.errors import RunError, TiltuneError
from tiltune.evaluation.compare.before import names
from tiltune.evaluation.compare.comparison import compare

SHARE = {
    "kind": "population",
    "at_least": 0.4,
    "parts": [{"kind": "lexicon", "words": ["ran"], "mode": "require"}],
}
RATE = "attribute.words.satisfaction_rate@g"


def compared(tables: dict[str, Any]) -> list[str]:
    """What an evaluator was asked for; none is, where the comparison is refused."""
    evaluator = StandIn()
    compare(config(tables), evaluator, source="here", say=lambda _: None)
    return evaluator.asked


def sound(folder: Path, **changes: Any) -> dict[str, Any]:
    """A comparison that nothing is wrong with, changed by tables."""
    tables = tree(folder, method=[METHODS[3], METHODS[4]])
    tables["table"] |= {"control": RATE, "utility": "utility.perplexity"}
    tables["evaluate"] |= {
        "scorer": [{"name": "words", "kind": "lexicon", "words": ["ran"]}],
        "utility": [{"kind": "perplexity", "name": "c", "path": str(folder / "corpus.jsonl")}],
    }
    for name, table in changes.items():
        tables[name] = table if isinstance(table, list) else tables[name] | table
    return tables


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"table": {"control": "attribute.words.satisfaction_rat@g"}},
            rf"here: table.control = .* is not measured; did you mean '{RATE}'\? \(measured: ",
        ),
        ({"table": {"utility": "utility.nats"}}, r"table.utility = 'utility.nats' is not measured"),
        ({"table": {"columns": ["cost.decoding", "cost.x"]}}, r"table.columns\[1\] = 'cost.x'"),
        (
            {
                "evaluate": {"scorer": [{"name": "words", **SHARE}]},
                "table": {"control": "attribute.words.satisfaction_rate@g"},
            },
            r"table.control = .*: scorer 'words' bounds a share .* name it in table.columns",
        ),
        (
            {"evaluate": {"scorer": [{"name": "s", "kind": "lexicon", "file": "no.txt"}]}},
            r"scorer 's': .*no.txt",
        ),
        (
            {"evaluate": {"prompts": [{"name": "g", "path": "{corpus}", "field": "toxic"}]}},
            r"none of its 40 rows has a `toxic` within the bounds of group 'g'",
        ),
        (
            {"method": [METHODS[3], METHODS[4] | {"overrides": {"data.corpus": "no.jsonl"}}]},
            r"method 'tilt': data.corpus = no.jsonl: no such file",
        ),
        (
            {"method": [METHODS[3], METHODS[4] | {"overrides": {"constraint.kind": "regex"}}]},
            r"\[\[method\]\] 'tilt'.*`constraint.pattern` is required",
        ),
        (
            {"method": [METHODS[3], METHODS[4] | {"overrides": {"model.path": "./no"}}]},
            r"method 'tilt': model.path = ./no: no such folder",
        ),
        (
            {"method": [METHODS[3], METHODS[4] | {"grid": {"method.beta": [0.0, 1.0]}}]},
            None,  # beside a corpus it may be 0
        ),
        (
            {"method": [METHODS[3], METHODS[4] | {"overrides": {"method.beta_min": 99.0}}]},
            r"method 'tilt': method.beta_min = 99.0 is above beta_max",
        ),
        (
            {"method": [METHODS[3], {"name": "own", "kind": "python"}]},
            r"\[\[method\]\] 'own'.*`method.path` is required",
        ),
        (
            {"method": [METHODS[3], METHODS[4] | {"overrides": {"learner.device": "tpu"}}]},
            r"method 'tilt': .*learner.device",
        ),
    ],
)
def test_a_fault_of_any_method_is_found_first(
    tmp_path: Path, changes: dict[str, Any], told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiltune.evaluation.compare.comparison.make_dir", lambda *_: 1 / 0)
    tables = sound(tmp_path, **changes)
    for prompts in tables["evaluate"]["prompts"]:
        prompts["path"] = prompts["path"].format(corpus=tmp_path / "corpus.jsonl")
    if told is None:
        with pytest.raises(ZeroDivisionError):  # as far as the folder, which is made next
            compared(tables)
        return
    with pytest.raises(TiltuneError, match=told):
        compared(tables)


def test_a_folder_that_is_in_the_way_is_found_first(tmp_path: Path) -> None:
    tables = sound(tmp_path, method=[METHODS[3], METHODS[0]])
    taken = tmp_path / "out" / "runs" / "base"
    taken.mkdir(parents=True)
    (taken / "mine.txt").write_text("mine", "utf-8")
    with pytest.raises(RunError, match=r"method 'base': .* so it is no run folder"):
        compared(tables)
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("kind", "refused"), [("sft", False), ("base", False), ("filter", True), ("best_of_n", True)]
)
def test_a_scorer_that_trains_is_refused_for_whom_it_trains(
    tmp_path: Path, kind: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tiltune.evaluation.compare.comparison.make_dir", lambda *_: 1 / 0)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    (tmp_path / "judge_of_all.py").write_text("def score(c):\n    return [1.0 for _ in c]\n")
    tables = sound(tmp_path, method=[{"name": "m", "kind": kind}])
    judge = {"kind": "python", "path": "judge_of_all:score"}
    tables["base"]["constraint"] = judge
    tables["evaluate"]["scorer"] = [{"name": "words", **judge}]
    error = TiltuneError if refused else ZeroDivisionError
    told = "method 'm': scorer 'words' is the constraint that trained" if refused else "division"
    with pytest.raises(error, match=told):
        compared(tables)


def test_tasks_are_known_by_their_names_and_worlds_by_their_numbers(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "t.yaml").write_text("task: tiny\ndataset_path: json\n", "utf-8")
    tables = sound(tmp_path, evaluate={"utility": [{"kind": "tasks", "path": str(folder)}]})
    known = names(config(tables))
    assert known.may_be("task.acc@tiny") and known.may_be("task.acc")
    assert not known.may_be("task.acc@other") and not known.may_be("utility.perplexity")
    world = config(tables | {"world": "tiltune.worlds.support_desk:support_desk"})
    assert "world.satisfaction_rate" in names(world).names
    assert "world.satisfaction_rate" not in known.names


def test_what_is_foreseen_is_what_is_measured(tmp_path: Path) -> None:
    """Each kind of measurement that needs no further model, by the evaluation itself."""
    tiny.write_rows(tmp_path / "l.jsonl", [{"text": "the", "label": n % 2} for n in range(8)])
    tables = sound(tmp_path, method=METHODS[:1])
    model = str(tmp_path / "model")
    tables["evaluate"]["protocol"] = {"k": 2, "max_new_tokens": 4, "reference": model}
    tables["evaluate"]["prompts"] = [
        {"name": "g", "path": str(tmp_path / "corpus.jsonl"), "limit": 3}
    ]
    tables["evaluate"]["scorer"].append({"name": "bad", "kind": "profanity"})
    tables["evaluate"]["utility"] += [
        {"kind": "divergence", "name": "d", "path": str(tmp_path / "corpus.jsonl"), "limit": 2,
         "reference": model},
        {"kind": "detector", "name": "t", "path": str(tmp_path / "l.jsonl"), "label": "label",
         "template": "{text}", "positive": " bad", "negative": " sat"},
    ]  # fmt: skip
    pytest.importorskip("profanity_check")
    from tiltune.evaluation.contender import open_contender
    from tiltune.evaluation.evaluate import evaluate
    from tiltune.records.measurements import named

    given = config(tables)
    done = evaluate(open_contender(Path(model)), given.evaluate, tmp_path / "evaluation")
    measured = [named(each) for each in done.measurements]
    known = names(given).names
    assert set(measured) <= set(known)
    spans = {name for name in known if ".first_violation_characters@" in name}
    assert set(known) - set(measured) <= spans
