"""The command line: what goes to stdout and what to stderr, and what each verb leaves."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import tiny
from tiltune.cli.terminal import describe
from tiltune.records.measurements import read_evaluation
from tiltune.records.rounds import RoundRecord, read_records


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    tiny.finish(tiny.workplace(folder))
    return folder / "run"


def test_fit_says_what_it_does_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tiny.write_toml(tiny.workplace(tmp_path), tmp_path / "run.toml")
    assert (
        tiny.tiltune("fit", str(toml), "--set", "method.rounds=1", "--set", "method.beta=0.5") == 0
    )
    captured = capsys.readouterr()
    assert captured.out == ""
    records = read_records(tmp_path / "run" / "records.jsonl")
    assert records[0].beta == 0.5 and len(records) == 2
    for record in records:
        assert describe(record) in captured.err
        assert all(alarm in captured.err for alarm in record.alarms)
    assert f"model: {tmp_path / 'run' / 'model'}" in captured.err


@pytest.mark.quick
def test_a_record_in_one_line() -> None:
    record = RoundRecord(
        round=4,
        policy_version=3,
        method="tilt",
        schedule="sequential",
        satisfaction_rate=0.5,
        satisfaction_rate_interval=(0.4, 0.6),
        kl_policy_reference_nats_per_completion=0.25,
        beta=2.0,
    )
    assert describe(record) == (
        "round 4, version 3 satisfies 0.500 [0.400, 0.600], "
        "KL to reference 0.250 nats a completion, beta 2"
    )
    closing = RoundRecord(round=5, policy_version=4, method="sft", schedule="fixed", closing=True)
    assert describe(closing) == "round 5 (closing)"


def test_sample_writes_json_lines(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("sample", str(finished), "--prompt", "the cat", "--n", "3", "--seed", "4")
    assert tiny.tiltune(*command) == 0
    captured = capsys.readouterr()
    plain = rows(captured.out)
    assert len(plain) == 3 and captured.err == ""
    assert all(row["prompt"] == "the cat" and 0 <= row["score"] <= 1 for row in plain)
    assert tiny.tiltune(*command, "--guided", "--round", "0", "--max-new-tokens", "2") == 0
    captured = capsys.readouterr()
    assert "warning: the values were learnt with sampler.max_new_tokens = 6" in captured.err
    assert all(len(row["text"].split()) <= 2 for row in rows(captured.out))


def test_sample_writes_text_to_a_terminal(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("sample", str(finished), "--prompt", "the cat", "--seed", "4")
    assert tiny.tiltune(*command) == 0
    (row,) = rows(capsys.readouterr().out)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert tiny.tiltune(*command) == 0
    shown = capsys.readouterr().out
    verdict = "satisfies" if row["satisfied"] else "violates"
    assert shown.startswith(f"{row['text']}\n[{verdict}") and "> " not in shown
    assert tiny.tiltune(*command, "--json") == 0
    assert rows(capsys.readouterr().out) == [row]


def test_sample_reads_several_prompts(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = [{"prompt": "the cat"}, {"prompt": "the"}]
    path = str(tiny.write_rows(tmp_path / "prompts.jsonl", asked))
    assert tiny.tiltune("sample", str(finished), "--prompts", path, "--n", "40") == 0
    found = rows(capsys.readouterr().out)
    assert [row["prompt"] for row in found] == ["the cat"] * 40 + ["the"] * 40
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert tiny.tiltune("sample", str(finished), "--prompts", path) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("> the cat\n") and "\n\n> the\n" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--chat",), "--chat: the model has no chat template, so it knows no turns"),
        (("--chat", "--prompt", "the"), "--chat: the model has no chat template"),
        (("--chat", "--n", "2"), "is a dialogue, with one answer a turn"),
        (("--prompt", "a", "--prompts", "b"), "--prompt and --prompts: give one of them"),
        (("--prompts", "none.jsonl"), "--prompts = none.jsonl: no such file"),
        (("--round", "9", "--guided"), "values are kept of rounds 0, 1 only"),
        (("--prompt", "the " * 30), "30 tokens; at most 18 are allowed"),
    ],
)
def test_sample_explains_mistakes(
    finished: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert tiny.tiltune("sample", str(finished), *arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == "" and "Traceback" not in captured.err


def test_score_keeps_rows_and_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = tmp_path / "constraint.toml"
    toml.write_text("kind = 'lexicon'\nwords = ['rude']\n", "utf-8")
    given = [
        {"prompt": "you are", "text": " rude", "id": 7},
        {"prompt": "rude", "text": " not at all", "id": 8},
    ]
    path = tiny.write_rows(tmp_path / "completions.jsonl", given)
    assert tiny.tiltune("score", str(toml), str(path)) == 0
    captured = capsys.readouterr()
    found = rows(captured.out)
    assert [row["id"] for row in found] == [7, 8]
    assert [row["satisfied"] for row in found] == [False, True]
    assert [row["score"] for row in found] == [0.0, 1.0]
    assert "rude" in found[0]["reason"] and "1 of 2 satisfy" in captured.err


def test_stdout_holds_rows_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talkative.py").write_text(
        "print('hello')\ndef score(completions):\n    print('scoring')\n"
        "    return [1.0 for _ in completions]\n",
        "utf-8",
    )
    (tmp_path / "constraint.toml").write_text(
        "kind = 'python'\npath = 'talkative:score'\n", "utf-8"
    )
    path = tiny.write_rows(tmp_path / "completions.jsonl", [{"text": "a"}])
    assert tiny.tiltune("score", "constraint.toml", str(path)) == 0
    captured = capsys.readouterr()
    assert [row["score"] for row in rows(captured.out)] == [1.0]
    assert "hello" in captured.err and "scoring" in captured.err


def test_score_refuses_what_is_no_table_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tmp_path / "constraint.toml"
    toml.write_text("threshhold = 0.3\n[constraint]\nkind = 'lexicon'\nwords = ['x']\n", "utf-8")
    path = tiny.write_rows(tmp_path / "completions.jsonl", [{"text": "a"}])
    assert tiny.tiltune("score", str(toml), str(path)) == 2
    assert "unknown key `threshhold`" in capsys.readouterr().err
    toml.write_text("[run]\ndir = 'x'\n[constraint]\nkind = 'lexicon'\nwords = ['x']\n", "utf-8")
    assert tiny.tiltune("score", str(toml), str(path)) == 0


def test_a_classifier_is_trained_and_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled = [
        {
            "text": f"{word} {'rude bad' if i % 2 else 'sorry sat'} {word}",
            "label": ["no", "yes"][i % 2],
        }
        for i in range(60)
        for word in ("cat", "dog")
    ]
    data = tiny.write_rows(tmp_path / "labels.jsonl", labelled)
    out = tmp_path / "judge"
    assert tiny.tiltune("classifier", "train", str(data), "--out", str(out)) == 0
    written = capsys.readouterr()
    assert written.out == "" and re.search(r"accuracy: 1\.0000 \[0\.\d{4}, 1\.0000\]", written.err)
    assert "warning: so few held-out rows" in written.err
    toml = tmp_path / "constraint.toml"
    toml.write_text(f"kind = 'classifier'\npath = '{out}'\nlabel = 'yes'\n", "utf-8")
    texts = [{"prompt": "", "text": "dog rude bad"}, {"prompt": "", "text": "dog sorry sat"}]
    path = tiny.write_rows(tmp_path / "texts.jsonl", texts)
    assert tiny.tiltune("score", str(toml), str(path)) == 0
    assert [row["satisfied"] for row in rows(capsys.readouterr().out)] == [False, True]


def test_report_is_remade_from_records(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = finished / "report.html"
    before = page.read_text("utf-8")
    page.unlink()
    assert tiny.tiltune("report", str(finished)) == 0
    assert str(page) in capsys.readouterr().err
    assert page.read_text("utf-8") == before


def test_check_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = tiny.write_toml(tiny.workplace(tmp_path), tmp_path / "run.toml")
    before = sorted(path for path in tmp_path.rglob("*"))
    assert tiny.tiltune("check", str(toml)) == 0
    said = capsys.readouterr().err
    assert "of 256 satisfy" in said and "estimated minutes" in said and "method.beta" in said
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_text_with_brackets_is_shown_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paths and messages are no markup, and no line of them is broken."""
    name = "x" * 90 + "[red]y[/]"
    assert tiny.tiltune("fit", f"{tmp_path}/{name}.toml") == 2
    assert f"error: {tmp_path}/{name}.toml: no such file" in capsys.readouterr().err


@pytest.mark.quick
def test_no_arguments_show_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.tiltune("--help") == 0
    said = capsys.readouterr().out
    verbs = ("demo", "check", "fit", "sample", "score", "evaluate", "rescore", "report")
    for verb in (*verbs, "selftest"):
        assert verb in said


@pytest.mark.quick
def test_version_help_and_completion(capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.tiltune("--version") == 0
    assert capsys.readouterr().out == f"tiltune {version('tiltune')}\n"
    assert tiny.tiltune("--help") == 0
    assert "--install-completion" in capsys.readouterr().out
    assert tiny.tiltune("demo", "--help") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "about two minutes" in told and "followed by an apology" in told
    words = {"COMP_WORDS": "tiltune ev", "COMP_CWORD": "1", "_TILTUNE_COMPLETE": "complete_bash"}
    code = "import sys; sys.argv[0] = 'tiltune'; from tiltune.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | words, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["evaluate"]


def test_fit_refuses_a_folder_in_the_way_before_it_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tiny.workplace(tmp_path)
    (tmp_path / "run").mkdir()
    tree["model"]["path"] = "./none"  # what loading would find
    toml = tiny.write_toml(tree, tmp_path / "run.toml")
    assert tiny.tiltune("fit", str(toml)) == 2
    said = capsys.readouterr().err
    assert "exists; choose another, set run.overwrite = true" in said and "loading" not in said


def evaluation_files(folder: Path, **protocol: Any) -> Path:
    """An eval.toml and its prompts."""
    prompts = tiny.write_rows(folder / "prompts.jsonl", [{"prompt": "the cat"}, {"prompt": "the"}])
    settings = {"k": 3, "max_new_tokens": 6, "batch_size": 4} | protocol
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    path = folder / "eval.toml"
    path.write_text(
        f"[[prompts]]\nname = 'mine'\npath = '{prompts}'\n"
        "[[scorer]]\nname = 'words'\nkind = 'lexicon'\nwords = ['ran']\n"
        "[protocol]\n" + "\n".join(lines) + "\n",
        "utf-8",
    )
    return path


def test_evaluate_prints_a_table_and_renews_the_report(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = evaluation_files(tmp_path)
    assert tiny.tiltune("evaluate", str(finished), str(toml)) == 0
    captured = capsys.readouterr()
    assert "attribute.words.satisfaction_rate" in captured.out and "mine" in captured.out
    path = finished / "evaluation" / "evaluation.json"
    assert f"evaluation: {path}" in captured.err
    assert f"report: {finished / 'report.html'}" in captured.err
    assert "attribute.words.satisfaction_rate" in (finished / "report.html").read_text("utf-8")
    before = read_evaluation(path)
    assert before.name == "run"
    scorer = tmp_path / "dogs.toml"
    scorer.write_text("[constraint]\nkind = 'lexicon'\nwords = ['dog']\n", "utf-8")
    assert tiny.tiltune("rescore", str(path.parent), "--scorer", str(scorer)) == 0
    captured = capsys.readouterr()
    assert "attribute.dogs.satisfaction_rate" in captured.out and "report: " in captured.err
    assert "attribute.dogs.satisfaction_rate" in (finished / "report.html").read_text("utf-8")
    assert set(before.measurements) < set(read_evaluation(path).measurements)


def test_the_base_stands_on_the_card_where_it_was_asked_the_same(
    finished: Path, tmp_path: Path
) -> None:
    toml = evaluation_files(tmp_path)
    dogs = tmp_path / "dogs.toml"
    dogs.write_text("[constraint]\nkind = 'lexicon'\nwords = ['dog']\n", "utf-8")
    own, base = (str(finished / name) for name in ("evaluation", "evaluation-base"))
    stands = "| measurement | base model | this model |"

    def there(*command: str) -> bool:
        assert tiny.tiltune(*command) == 0
        return stands in (finished / "model" / "README.md").read_text("utf-8")

    assert not there("evaluate", str(finished), str(toml))
    assert there("evaluate", str(finished), str(toml), "--base")
    assert not there("rescore", own, "--scorer", str(dogs))
    assert there("rescore", base, "--scorer", str(dogs))
    tiny.write_rows(tmp_path / "prompts.jsonl", [{"prompt": "the dog"}])
    assert not there("evaluate", str(finished), str(toml))
    shutil.rmtree(own)
    shutil.rmtree(base)


def test_evaluate_names_its_folder_after_the_way_of_decoding(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = str(evaluation_files(tmp_path, k=1))
    for way in (("--guided", "--round", "0"), ("--base", "--best-of", "2")):
        assert tiny.tiltune("evaluate", str(finished), toml, *way) == 0
    for name in ("evaluation-guided-round-0", "evaluation-base-best-of-2"):
        assert (finished / name / "evaluation.json").exists()
    monkeypatch.chdir(tmp_path)
    model = str(finished.parent / "model")
    assert tiny.tiltune("evaluate", model, toml, "--name", "theirs") == 0
    assert (tmp_path / "runs" / "evaluation-theirs" / "evaluation.json").exists()
    assert tiny.tiltune("evaluate", model, toml, "--out", str(tmp_path / "there")) == 0
    assert (tmp_path / "there" / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("evaluate", "{run}", "{tmp}/none.toml"), "none.toml: no such file"),
        (("evaluate", "{tmp}/none", "{eval}"), "none: no such folder"),
        (("evaluate", "{run}/../model", "{eval}", "--guided"), "so it is no run folder; --guided"),
        (("evaluate", "{run}", "{eval}", "--round", "9"), "values are kept of rounds 0, 1 only"),
        (("rescore", "{tmp}", "--scorer", "{scorer}"), "no manifest.json there, so it is no eval"),
        (("rescore", "{tmp}", "--scorer", "{eval}"), "`constraint.kind` is required"),
    ],
)
def test_evaluate_explains_mistakes(
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    scorer = tmp_path / "scorer.toml"
    scorer.write_text("kind = 'lexicon'\nwords = ['dog']\n", "utf-8")
    places = {
        "run": finished, "tmp": tmp_path, "eval": evaluation_files(tmp_path), "scorer": scorer,
    }  # fmt: skip
    assert tiny.tiltune(*(each.format(**places) for each in arguments)) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.out == "" and "Traceback" not in captured.err


def test_an_interrupted_evaluation_says_how_to_go_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml, out = str(evaluation_files(tmp_path)), tmp_path / "out"

    def interrupt() -> None:
        raise KeyboardInterrupt

    command = ("evaluate", str(finished), toml, "--out", str(out))
    with tiny.Nth("tiltune.evaluation.generations._batch", 1, interrupt):
        assert tiny.tiltune(*command) == 130
    said = capsys.readouterr().err
    assert f"stopped; what is done is kept in {out}, the same command goes on" in said
    (path,) = (out / "generations").iterdir()
    assert len(path.read_text("utf-8").splitlines()) == 4
    assert tiny.tiltune(*command) == 0
    assert len(path.read_text("utf-8").splitlines()) == 6
