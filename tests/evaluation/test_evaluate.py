"""An evaluation from prompts to numbers: resumed, cached, refused."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluations import WORDS, config, files, number, run, settings

import tiny
from tiltune.errors import ConfigError, DataError, RunError, TiltuneError
from tiltune.evaluation import evaluate as evaluate_module
from tiltune.evaluation.contender import open_contender
from tiltune.evaluation.evaluate import evaluate, refuse
from tiltune.evaluation.folder import alone
from tiltune.evaluation.generations import read_lines
from tiltune.evaluation.rescore import rescore
from tiltune.records.measurements import read_evaluation


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A model and a corpus."""
    tiny.workplace(tmp_path)
    return tmp_path


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
        ("tiltune.evaluation.generations._batch", 2),
        ("tiltune.evaluation.judging.judge", 1),
        ("tiltune.evaluation.evaluate.measured_once", 1),
        ("tiltune.records.measurements.write_atomically", 0),
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


def test_damaged_files_are_named(place: Path) -> None:
    run(place)
    (path,) = (place / "out" / "scores").glob("words-toxic-*")
    path.write_text("5\n" + path.read_text("utf-8"), "utf-8")
    with pytest.raises(DataError, match=r"jsonl:1: damaged \(a JSON int, not an object\)"):
        run(place)
    (place / "out" / "manifest.json").write_bytes(b"\xff")
    with pytest.raises(RunError, match=r"manifest.json: damaged"):
        rescore(place / "out", ())
    path.unlink()
    run(place)  # which writes it anew
    rescore(place / "out", ())
    (place / "out" / "evaluation.json").write_bytes(b"\xff")
    with pytest.raises(RunError, match=r"evaluation.json: damaged"):
        read_evaluation(place / "out" / "evaluation.json")


def test_progress_ends_at_the_total(place: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    lines: list[str] = []
    evaluate(
        open_contender(place / "model"), config(place), place / "out",
        say=lines.append, progress=lambda *step, **_: steps.append(step),
    )  # fmt: skip
    drawn = [step for step in steps if step[0] == "completions"]
    assert drawn[-1] == ("completions", 15, 15) and len({*drawn}) in (3 + 2, 3 + 2 + 1)
    scored: list[tuple[str, int, int]] = []
    again = config(place, scorer=[{"name": "dogs", "kind": "lexicon", "words": ["dog"]}]).scorer
    rescore(place / "out", again, progress=lambda *step, **_: scored.append(step))
    assert scored[-1] == ("scores", 30, 30)
    assert lines[0] == (
        "toxic: 2 prompts, 5 completions each; 1 row without a number in `toxic` left out"
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
        tiny.Nth(
            "tiltune.evaluation.generations._batch",
            0,
            lambda: pytest.fail("completions were drawn"),
        ),
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


def test_two_processes_are_not_at_work_on_one_evaluation(place: Path) -> None:
    first = run(place)
    with alone(place / "out"):
        with pytest.raises(RunError, match=r"out: another process is at work there .*--out"):
            run(place)
        with pytest.raises(RunError, match="another process"):
            rescore(place / "out", ())
    assert run(place).measurements == first.measurements
    rescore(place / "out", ())
