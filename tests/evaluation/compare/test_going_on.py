"""A comparison that is started again: numbers on other contents never stand beside the earlier."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_compare import METHODS, StandIn, config, tree

import tiny
from tiltune.errors import RunError
from tiltune.evaluation.compare.comparison import compare
from tiltune.evaluation.foreseen import Foreseen
from tiltune.records.files import write_json
from tiltune.records.rounds import RoundRecord, read_records

SCORER = "def score(completions):\n    return [1.0 for _ in completions]\n"


def again(tables: dict[str, Any]) -> tuple[list[str], str]:
    """Who was evaluated, and what was said."""
    told: list[str] = []
    evaluator = StandIn()
    compare(
        config(tables),
        evaluator,
        source="here",
        say=told.append,
        foresee=lambda _: Foreseen(("control", "utility")),
    )
    return evaluator.asked, "\n".join(told)


def lines_more(path: Path) -> None:
    path.write_text(path.read_text("utf-8") + path.read_text("utf-8"), "utf-8")


def everything(folder: Path) -> dict[str, Any]:
    """The base alone, by files of every kind."""
    tables = tree(folder, method=METHODS[:1])
    for name in ("prompts", "texts"):
        tiny.write_rows(folder / f"{name}.jsonl", tiny.corpus_rows(4))
    (folder / "words.txt").write_text("ran\n", "utf-8")
    (folder / "my_judge.py").write_text(SCORER, "utf-8")
    tables["evaluate"] = {
        "prompts": [{"name": "g", "path": str(folder / "prompts.jsonl")}],
        "scorer": [
            {"name": "words", "kind": "lexicon", "file": str(folder / "words.txt")},
            {"name": "own", "kind": "python", "path": "my_judge:score"},
        ],
        "utility": [{"kind": "perplexity", "name": "c", "path": str(folder / "texts.jsonl")}],
        "protocol": {"reference": str(folder / "model")},
    }
    return tables


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("prompts.jsonl", "prompts 'g'"),
        ("words.txt", "scorer 'words'"),
        ("my_judge.py", "scorer 'own'"),
        ("texts.jsonl", "utility perplexity 'c'"),
        ("model/tokenizer.json", "protocol.reference, model.path"),
    ],
)
def test_what_was_evaluated_on_other_contents_is_evaluated_again(
    tmp_path: Path, file: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_judge", raising=False)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    tables = everything(tmp_path)
    assert again(tables)[0] == ["base"]
    assert again(tables) == ([], "base: entry 1 of 1")
    (tmp_path / file).write_text((tmp_path / file).read_text("utf-8") + "\n", "utf-8")
    asked, told = again(tables)
    assert asked == ["base"]
    assert f"base: {named} changed since it was evaluated; it is evaluated again" in told
    assert again(tables) == ([], "base: entry 1 of 1")


def test_the_chooser_s_word_list_counts_and_another_s_does_not(tmp_path: Path) -> None:
    tables = tree(tmp_path, method=METHODS[:2])
    words = tmp_path / "rude.txt"
    words.write_text("rude\n", "utf-8")
    tables["base"]["constraint"] = {"kind": "lexicon", "file": str(words)}
    assert again(tables)[0] == ["base", "best"]
    words.write_text("bad\n", "utf-8")
    asked, told = again(tables)
    assert asked == ["best"] and "best: constraint changed since it was evaluated" in told


def no_digests_of_the_evaluation(out: Path) -> None:
    path = out / "evaluations" / "filter-samples" / "asked.json"
    kept = json.loads(path.read_text("utf-8"))
    write_json(path, {name: each for name, each in kept.items() if name != "sha256"})


def no_hashes_of_the_run(out: Path) -> None:
    path = out / "runs" / "filter-samples" / "manifest.json"
    kept = json.loads(path.read_text("utf-8"))
    write_json(path, {name: each for name, each in kept.items() if name != "sha256"})


def no_manifest(out: Path) -> None:
    (out / "runs" / "filter-samples" / "manifest.json").unlink()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished comparison of the base and filter."""
    tables = tree(tmp_path_factory.mktemp("trained"), method=METHODS[3:4])
    told = again(tables)[1]
    assert "filter-samples: starting at round 0" in told
    return tables


@pytest.fixture
def kept(trained: dict[str, Any]) -> Any:
    """Its folder, which is afterwards what it was."""
    out = Path(trained["table"]["dir"])
    places = [p for p in (out.parent / "corpus.jsonl", *out.rglob("*.json*")) if p.is_file()]
    contents = {path: path.read_bytes() for path in places}
    yield out
    for path, content in contents.items():
        path.write_bytes(content)


def test_a_finished_run_on_other_rows_is_refused_before_anything(
    trained: dict[str, Any], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiltune.evaluation.compare.comparison.make_dir", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # as far as the folder, which is made next
        again(trained)
    lines_more(kept.parent / "corpus.jsonl")
    with pytest.raises(RunError, match=r"method 'filter': .*: data.corpus changed since this run"):
        again(trained)


@pytest.mark.parametrize(
    ("earlier", "told_of"),
    [
        (no_digests_of_the_evaluation, "of a version that kept no digests of the files"),
        (no_hashes_of_the_run, "it kept no hashes of what it read"),
        (no_manifest, "it kept no hashes of what it read"),
    ],
)
def test_an_earlier_version_s_goes_on_with_a_word(
    trained: dict[str, Any], kept: Path, earlier: Callable[[Path], None], told_of: str
) -> None:
    assert told_of not in again(trained)[1]
    earlier(kept)
    asked, told = again(trained)
    assert asked == [] and f"filter-samples: {told_of}" in told.replace("its evaluation is ", "")


def test_what_was_asked_for_is_asked_again_where_it_is_damaged(
    trained: dict[str, Any], kept: Path
) -> None:
    (kept / "evaluations" / "filter-samples" / "asked.json").write_text("{", "utf-8")
    assert again(trained)[0] == ["filter-samples"]


def test_a_closing_row_that_was_cut_short_is_measured_again(
    trained: dict[str, Any], kept: Path
) -> None:
    records = kept / "runs" / "filter-samples" / "records.jsonl"
    before = read_records(records)
    records.write_bytes(records.read_bytes()[:-20])
    asked, told = again(trained)
    assert "the last line was cut short" in told and asked == ["filter-samples"]
    after = read_records(records)
    assert [each.round for each in after] == [each.round for each in before]
    assert numbers(after[-1]) == numbers(before[-1])


def numbers(record: RoundRecord) -> dict[str, Any]:
    """All but what clocks said."""
    return {k: v for k, v in record.model_dump().items() if not k.endswith("_seconds")}


def test_alarms_and_choices_of_a_run_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiltune.training.run.find_alarms", lambda *_, **__: ("look at this",))
    monkeypatch.setattr("tiltune.training.run.OpenRun.told", lambda _: ["chosen: all"])
    monkeypatch.setattr("tiltune.training.run.OpenRun.cap", lambda _, r: f"cap of {r.round}")
    told = again(tree(tmp_path, method=METHODS[3:4]))[1].splitlines()
    assert "filter-samples: chosen: all" in told and "filter-samples: cap of 0" in told
    assert told.count("filter-samples: alarm: look at this") == 3
