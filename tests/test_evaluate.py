"""An evaluation from prompts to numbers: resumed, cached, refused, rescored."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

import tiny
from tiltune import evaluate as evaluate_module
from tiltune.config import ConstraintConfig, EvaluateConfig, parse_config
from tiltune.contender import open_contender
from tiltune.errors import ConfigError, DataError, RunError, TiltuneError
from tiltune.evaluate import evaluate, refuse, same, shared_scorer
from tiltune.generations import read_lines
from tiltune.measurements import Evaluation, Measurement, read_evaluation
from tiltune.rescore import rescore
from tiltune.stored import read_manifest

PROMPTS = [
    {"prompt": f"the {word}", "toxic": toxic}
    for word, toxic in [("cat", 0.9), ("dog", 0.1), ("cat and", None), ("dog and", 0.6)]
]
WORDS = {"kind": "lexicon", "words": ["ran", "sorry"]}


def rude(completions: Any) -> list[float]:
    """Fails on nothing; 0 where a forbidden word occurs."""
    return [float(not set(tiny.FORBIDDEN) & set(each.text.split())) for each in completions]


def settings(folder: Path, **tables: Any) -> dict[str, Any]:
    path = str(tiny.write_rows(folder / "prompts.jsonl", PROMPTS))
    return {
        "prompts": [
            {"name": "toxic", "path": path, "field": "toxic", "at_least": 0.5},
            {"name": "other", "path": path, "field": "toxic", "below": 0.5},
        ],
        "scorer": [{"name": "words", **WORDS}],
        "utility": [{"kind": "perplexity", "name": "corpus", "path": str(folder / "corpus.jsonl")}],
        "protocol": {"k": 5, "max_new_tokens": 6, "batch_size": 4, "seed": 1},
    } | tables


def config(folder: Path, **tables: Any) -> EvaluateConfig:
    return parse_config(EvaluateConfig, settings(folder, **tables), source="test")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A model and a corpus."""
    tiny.workplace(tmp_path)
    return tmp_path


def run(place: Path, out: str = "out", **tables: Any) -> Evaluation:
    return evaluate(open_contender(place / "model"), config(place, **tables), place / out)


def number(evaluation: Evaluation, key: str, group: str = "toxic") -> Measurement:
    return next(m for m in evaluation.measurements if (m.key, m.group) == (key, group))


def files(folder: Path) -> dict[str, bytes]:
    """What a kill must not change: all but seconds."""
    kept = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    contents = {name: path.read_bytes() for name, path in kept.items()}
    result = json.loads(contents.pop("evaluation.json"))
    result.pop("seconds")
    return contents | {"evaluation": json.dumps(result).encode()}


def test_numbers_are_those_of_the_texts(place: Path) -> None:
    done = run(place)
    folder = place / "out"
    assert read_evaluation(folder / "evaluation.json") == done
    (path,) = (folder / "generations").glob("toxic-*.jsonl")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len(rows) == 2 * 5
    met = [not {"ran", "sorry"} & set(row["text"].split()) for row in rows]
    rate = number(done, "attribute.words.satisfaction_rate")
    assert rate.value == sum(met) / 10 and rate.count == 10 and rate.missing == 0
    prompts = number(done, "prompts")
    assert prompts.value == 2 and prompts.missing == 1  # a row without the number
    length = number(done, "diversity.length_tokens")
    assert length.value == pytest.approx(sum(row["tokens"] for row in rows) / 10)
    assert any(m.aspect == "utility" and m.group == "corpus" for m in done.measurements)
    assert done.digest == open_contender(place / "model").digest
    assert done.protocol["k"] == 5 and done.seconds.keys() == {
        "generating", "scoring", "waiting_for_scores", "utility",
    }  # fmt: skip
    first = [example for example in done.examples if example.group == "toxic"]
    assert [(e.prompt, e.text) for e in first] == [
        (row["prompt"], row["text"]) for row in rows if row["sample"] == 0
    ]
    assert [e.satisfied for e in first] == met[::5]


def evaluate_to_kill(place: Path, target: str, call: int) -> None:
    torch.set_num_threads(1)
    with tiny.Nth(target, call, lambda: os.kill(os.getpid(), 9)):
        run(place)


@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("tiltune.generations._batch", 2),
        ("tiltune.judging.judge", 1),
        ("tiltune.evaluate.measured_once", 1),
        ("tiltune.measurements.write_atomically", 0),
    ],
)
def test_a_kill_moves_no_byte(place: Path, target: str, call: int) -> None:
    run(place, "whole")
    assert tiny.FORK.run(evaluate_to_kill, place, target, call) == -9
    run(place)
    assert files(place / "out") == files(place / "whole")


def test_a_second_evaluation_makes_no_forward_pass(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contender = open_contender(place / "model")
    first = evaluate(contender, config(place), place / "out")

    def refuse_to(*_: Any, **__: Any) -> None:
        raise AssertionError("a forward pass")

    monkeypatch.setattr(type(contender.loaded.policy.module), "forward", refuse_to)
    again = evaluate(contender, config(place), place / "out")
    assert again.measurements == first.measurements
    more = settings(place)["scorer"] + [{"name": "no rude", "kind": "lexicon", "words": ["rude"]}]
    further = evaluate(contender, config(place, scorer=more), place / "out")
    assert number(further, "attribute.no rude.satisfaction_rate").count == 10
    with pytest.raises(AssertionError, match="a forward pass"):  # another seed is another text
        changed = settings(place)["protocol"] | {"seed": 2}
        evaluate(contender, config(place, protocol=changed), place / "out")


def test_missing_scores_are_counted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = {"name": "service", "kind": "python", "path": "test_judging:fails_on_odd"}
    path = tiny.write_rows(place / "n.jsonl", [{"prompt": "the", "n": n} for n in range(4)])
    prompts = [{"name": "n", "path": str(path)}]
    monkeypatch.setenv("ODD_FAILS", "1")
    done = run(place, prompts=prompts, scorer=[scorer], utility=[])
    rate = number(done, "attribute.service.satisfaction_rate", "n")
    assert (rate.count, rate.missing) == (10, 10)
    assert number(done, "attribute.service.score_mean", "n").value == pytest.approx(0.01)
    assert [each.satisfied for each in done.examples] == [False, None, False, None]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    tiny.finish(tiny.workplace(folder))
    return folder


def test_the_training_scorer_is_refused(trained: Path) -> None:
    own = {"name": "own", "kind": "lexicon", "words": list(tiny.FORBIDDEN)}
    protocol = settings(trained)["protocol"] | {"allow_training_scorer": True}
    for path in (trained / "run", trained / "run" / "model"):
        contender = open_contender(path)
        with pytest.raises(ConfigError, match=r"'own' is the constraint that trained.*allow_train"):
            evaluate(contender, config(trained, scorer=[own]), trained / "out")
    assert not (trained / "out").exists()
    insisted = config(trained, scorer=[own], protocol=protocol)
    done = evaluate(open_contender(trained / "run"), insisted, trained / "out")
    assert number(done, "attribute.own.satisfaction_rate").value is not None


def test_guided_and_best_of_n_control_more_than_the_base(trained: Path) -> None:
    own = {"name": "own", "kind": "lexicon", "words": list(tiny.FORBIDDEN)}
    protocol = settings(trained)["protocol"] | {"allow_training_scorer": True, "k": 25}
    rates = {
        name: number(
            evaluate(
                open_contender(trained / "run", **how),  # type: ignore[arg-type]
                config(trained, scorer=[own], protocol=protocol, utility=[]),
                trained / name,
            ),
            "attribute.own.satisfaction_rate",
        ).value
        for name, how in {
            "base": {"base": True},
            "guided": {"guided": True, "round": 0},
            "best": {"base": True, "best_of": 4},
        }.items()
    }
    base, guided, best = (rates[name] or 0.0 for name in ("base", "guided", "best"))
    assert best > base + 0.2 and guided > base


def test_utility_of_guidance_is_of_the_guided_law(trained: Path) -> None:
    found = {
        name: evaluate(
            open_contender(trained / "run", **how),  # type: ignore[arg-type]
            config(trained, prompts=[], scorer=[]),
            trained / f"utility-{name}",
        ).measurements[0]
        for name, how in {
            "base": {"base": True},
            "round 0": {"round": 0},
            "guided": {"guided": True, "round": 0},
            "best": {"base": True, "best_of": 3},
        }.items()
    }
    assert found["base"].value == pytest.approx(found["round 0"].value)
    assert found["guided"].value != pytest.approx(found["base"].value, rel=1e-3)
    assert found["best"].value == pytest.approx(found["base"].value)
    assert "choosing the best of 3 has no law" in found["best"].definition


def test_same_scorer_by_file_or_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def constraint(**table: Any) -> Any:
        parsed = parse_config(EvaluateConfig, {"scorer": [{"name": "s", **table}]}, source="test")
        return parsed.scorer[0].constraint

    monkeypatch.chdir(tmp_path)
    one = constraint(kind="classifier", path="folder", label="toxic")
    same_folder = constraint(kind="classifier", path=str(tmp_path / "folder"), label="insult")
    assert same(one, same_folder)
    assert not same(one, constraint(kind="classifier", path="other", label="toxic"))
    words = constraint(kind="lexicon", words=["a"])
    assert same(words, constraint(kind="lexicon", words=["a"]))
    assert not same(words, constraint(kind="lexicon", words=["b"]))
    assert not same(words, constraint(kind="regex", pattern="a"))
    assert same(constraint(kind="profanity"), constraint(kind="profanity", threshold=0.9))
    slow = constraint(kind="execution", parallel=8)
    assert same(slow, constraint(kind="execution"))  # fetched otherwise, judged alike


def test_a_scorer_shares_with_combinations_whatever_part_or_atom_judges() -> None:
    judge = {"kind": "python", "path": "m:judge"}
    short = {"kind": "length", "at_most": 9}
    rude = {"kind": "temporal", "formula": "G !rude", "atoms": {"rude": judge}}
    words = {"kind": "temporal", "formula": "G !rude", "atoms": {"rude": ["idiot"]}}
    trained = [
        *({"kind": "not", "parts": [judge]}, {"kind": "all", "parts": [short, judge]}),
        {"kind": "any", "parts": [{"kind": "mean", "parts": [short, rude]}]},
    ]
    for table in trained:
        for one, other in ((table, judge), (judge, table), (table, trained[0])):
            shared = shared_scorer(constraint_of(one), constraint_of(other))
            assert shared == constraint_of(judge)
    assert shared_scorer(constraint_of(trained[1]), constraint_of(words)) is None
    assert shared_scorer(constraint_of(words), constraint_of(words)) == constraint_of(words)
    scorer = {"name": "again", "kind": "population", "at_least": 0.5, "parts": [judge]}
    told = r"'again' is the constraint that trained this model \(python m:judge\)"
    tree = {"scorer": [scorer], "prompts": [{"name": "p", "path": "p.jsonl"}]}
    with pytest.raises(ConfigError, match=told):
        refuse(parse_config(EvaluateConfig, tree, source=""), constraint_of(trained[0]))


def constraint_of(table: dict[str, Any]) -> Any:
    return TypeAdapter[Any](ConstraintConfig).validate_python(table)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"prompts": [], "scorer": [], "utility": []}, "nothing to measure"),
        ({"prompts": []}, r"a \[\[scorer\]\] scores completions of \[\[prompts\]\]"),
        ({"scorer": [{"name": "a", **WORDS}] * 2}, r"two tables \[\[scorer\]\] are named 'a'"),
        (
            {"utility": [{"kind": "perplexity", "name": "a", "path": p} for p in ("x", "y")]},
            r"two tables \[\[utility\]\] of kind 'perplexity' are named 'a'",
        ),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        refuse(config(tmp_path, **tables), None)


def test_rescoring_generates_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(place)
    folder = place / "out"
    generations = {p.name: p.read_bytes() for p in (folder / "generations").iterdir()}
    monkeypatch.setattr("tiltune.hub.load", None)
    monkeypatch.setattr("tiltune.contender.draw", None)
    (place / "model" / "model.safetensors").unlink()
    scorer = config(
        place, scorer=[{"name": "rude", "kind": "python", "path": "test_evaluate:rude"}]
    )
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


def test_rescoring_by_the_training_scorer_is_refused(trained: Path) -> None:
    evaluate(open_contender(trained / "run"), config(trained), trained / "again")
    own = config(trained, scorer=[{"name": "o", "kind": "lexicon", "words": list(tiny.FORBIDDEN)}])
    with pytest.raises(ConfigError, match="is the constraint that trained this model"):
        rescore(trained / "again", own.scorer)
    rescore(trained / "again", own.scorer, allow_training_scorer=True)


def test_rescoring_what_is_no_finished_evaluation(place: Path) -> None:
    scorers = config(place).scorer
    with pytest.raises(RunError, match=r"no manifest.json there, so it is no evaluation"):
        rescore(place, scorers)
    run(place)
    (path,) = (place / "out" / "generations").glob("toxic-*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:7]))
    with pytest.raises(RunError, match=r"holds 7 of 10 completions; finish it with"):
        rescore(place / "out", scorers)


def test_models_with_different_tokenizers(place: Path, tmp_path: Path) -> None:
    """The reference has its own words; text goes between them."""
    from small_models import llama_module, write_folder

    other = place / "reference"
    words = ("<pad>", "<bos>", "<eos>", "<unk>", *reversed(tiny.WORDS[2:]))
    write_folder(other, llama_module(vocabulary=len(words)), words=words)
    protocol = settings(place)["protocol"] | {"reference": str(other)}
    done = run(place, protocol=protocol)
    value = number(done, "fluency.perplexity_exp_of_mean").value
    assert value is not None and 1 < value < 1e4


def test_rescoring_within_an_evaluation_keeps_what_was_measured(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(place)
    scorers = config(place, scorer=[{"name": "dogs", "kind": "lexicon", "words": ["dog"]}]).scorer
    for call in (0, 2):
        with (
            tiny.Nth("tiltune.evaluate.measured_once", call, interrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            run(place)
        assert set(first.measurements) < set(rescore(place / "out", scorers).measurements)
    with (
        tiny.Nth("tiltune.evaluate.measured_once", 2, interrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        run(place, "new")
    kept = rescore(place / "new", scorers).measurements
    assert any(each.key == "diversity.dist_1" for each in kept)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_damaged_files_are_named(place: Path) -> None:
    run(place)
    (path,) = (place / "out" / "scores").glob("words-toxic-*")
    path.write_text("5\n" + path.read_text("utf-8"), "utf-8")
    with pytest.raises(DataError, match=r"jsonl:1: damaged \(a JSON int, not an object\)"):
        run(place)
    (place / "out" / "manifest.json").write_bytes(b"\xff")
    with pytest.raises(RunError, match=r"manifest.json: not of this version"):
        rescore(place / "out", ())
    path.unlink()
    run(place)  # which writes it anew
    rescore(place / "out", ())
    (place / "out" / "evaluation.json").write_bytes(b"\xff")
    with pytest.raises(RunError, match=r"evaluation.json: not of this version"):
        read_evaluation(place / "out" / "evaluation.json")


def test_progress_ends_at_the_total(place: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    lines: list[str] = []
    evaluate(
        open_contender(place / "model"), config(place), place / "out",
        say=lines.append, progress=lambda *step: steps.append(step),
    )  # fmt: skip
    drawn = [step for step in steps if step[0] == "completions"]
    assert drawn[-1] == ("completions", 15, 15) and len(drawn) == 3 + 2
    scored: list[tuple[str, int, int]] = []
    again = config(place, scorer=[{"name": "dogs", "kind": "lexicon", "words": ["dog"]}]).scorer
    rescore(place / "out", again, progress=lambda *step: scored.append(step))
    assert scored[-1] == ("scores", 30, 30)
    assert lines[0] == (
        "toxic: 2 prompts, 5 completions each; 1 rows without a number in `toxic` left out"
    )


def test_alarms_compare_with_the_base(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(place, "before")
    seen: list[Any] = []
    monkeypatch.setattr(
        evaluate_module, "degeneration", lambda old, new: seen.append((old, new)) or ["alarm"]
    )
    protocol = settings(place)["protocol"] | {"before": str(place / "before" / "evaluation.json")}
    done = run(place, protocol=protocol)
    assert done.alarms == ("alarm",)
    assert seen[0][0] == read_evaluation(place / "before" / "evaluation.json").measurements


@pytest.mark.parametrize(
    ("tables", "protocol", "message"),
    [
        ({"kind": "perplexity", "name": "a", "path": "no.jsonl"}, {}, r"utility.path = no.jsonl"),
        (
            {"kind": "divergence", "name": "a", "path": "{here}", "reference": "no"},
            {},
            "utility.reference = no: no such folder",
        ),
        (
            {"kind": "preference", "name": "a", "judge": "no", "against": "no"},
            {},
            "utility.judge = no: no such folder",
        ),
        ({"kind": "tasks", "path": "{here}"}, {}, "no task to run|lm-evaluation-harness"),
        (None, {"reference": "no"}, "protocol.reference = no: no such folder"),
        (None, {"before": "no.json"}, "no.json: cannot be read"),
        (None, {"max_new_tokens": 10_000}, "`protocol.max_new_tokens` leaves no room"),
        (None, {"max_new_tokens": 23}, "less `protocol.max_new_tokens`"),
    ],
)
def test_nothing_is_drawn_before_every_path_is_found(
    place: Path, tables: dict[str, Any] | None, protocol: dict[str, Any], message: str
) -> None:
    where = {"here": str(place)}
    utility = [{key: value.format(**where) for key, value in tables.items()}] if tables else []
    changed = settings(place)["protocol"] | protocol
    with (
        tiny.Nth("tiltune.generations._batch", 0, lambda: pytest.fail("completions were drawn")),
        pytest.raises(TiltuneError, match=message),
    ):
        run(place, utility=utility, protocol=changed)


def test_rows_that_json_cannot_hold(place: Path) -> None:
    """Parquet's dates and bytes, and half a pair of surrogates, reach a scorer as they resume."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table
    columns = {"prompt": ["the cat"], "when": [datetime(2020, 1, 1)], "raw": [b"x"]}
    parquet.write_table(table(columns), place / "rows.parquet")
    (place / "half.jsonl").write_text('{"prompt": "the", "note": "\\ud83d"}\n', "utf-8")
    prompts = [{"name": name, "path": str(place / name)} for name in ("rows.parquet", "half.jsonl")]
    first = run(place, prompts=prompts, utility=[])
    assert run(place, prompts=prompts, utility=[]).measurements == first.measurements
    (path,) = (place / "out" / "generations").glob("rows*")
    assert read_lines(path)[0]["row"] == {"when": "2020-01-01 00:00:00", "raw": "b'x'"}
    (path,) = (place / "out" / "generations").glob("half*")
    assert read_lines(path)[0]["row"] == {"note": "\ud83d"}


def test_an_evaluation_stands_in_nobody_elses_folder(place: Path, trained: Path) -> None:
    kept = (trained / "run" / "manifest.json").read_bytes()
    for folder in (trained / "run", place / "model"):
        with pytest.raises(RunError, match=r"holds the config.json of a run or a model"):
            evaluate(open_contender(place / "model"), config(place), folder)
    assert (trained / "run" / "manifest.json").read_bytes() == kept
    with pytest.raises(RunError, match=r"cannot be made a folder .* --out"):
        run(place, "corpus.jsonl")
