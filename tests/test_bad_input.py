"""A mistake of the user's ends in one message and exit code 2, and harms nothing that was there."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import tiny
from tiltune.records.rounds import read_records

SCORERS = """
import os

def raises(completions):
    return [len(c.text) / 0 for c in completions]

def nan(completions):
    return [float("nan") for c in completions]

def above(completions):
    return [1.5 for c in completions]

def below(completions):
    return [-0.1 for c in completions]

def too_few(completions):
    return [1.0 for c in completions][1:]

def words(completions):
    return ["good" for c in completions]

def exits(completions):
    raise SystemExit(0)

def later(completions):
    if os.path.exists("break"):
        raise LookupError("the service is gone")
    return [float("rude" not in c.text) for c in completions]

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

def unsayable(completions):
    raise Mute

number = 3
"""

Change = Callable[[Path, tiny.Tree], tiny.Tree]


def python(attribute: str) -> Change:
    """A python constraint; no corpus, so that the model's own samples are the first texts."""

    def change(folder: Path, tree: tiny.Tree) -> tiny.Tree:
        (folder / "own_scorers.py").write_text(SCORERS, "utf-8")
        path = attribute if ":" in attribute else f"own_scorers:{attribute}"
        tree = tiny.changed(tree, data={"corpus": None})
        return tree | {"constraint": {"kind": "python", "path": path}}

    return change


def setting(**tables: dict[str, object]) -> Change:
    return lambda folder, tree: tiny.changed(tree, **tables)


def corpus(*lines: str) -> Change:
    def change(folder: Path, tree: tiny.Tree) -> tiny.Tree:
        good = json.dumps({"text": "the cat sat ."})
        (folder / "corpus.jsonl").write_text("\n".join([good, *lines]) + "\n", "utf-8")
        return tree

    return change


def prompts(row: object) -> Change:
    def change(folder: Path, tree: tiny.Tree) -> tiny.Tree:
        tiny.write_rows(folder / "prompts.jsonl", [{"prompt": "the cat"}, row])
        return tiny.changed(tree, data={"prompts": str(folder / "prompts.jsonl")})

    return change


def empty_folder(folder: Path, tree: tiny.Tree) -> tiny.Tree:
    (folder / "hollow").mkdir()
    (folder / "hollow" / "notes.txt").write_text("", "utf-8")
    return tiny.changed(tree, model={"path": str(folder / "hollow")})


def no_language_model(folder: Path, tree: tiny.Tree) -> tiny.Tree:
    (folder / "model" / "config.json").write_text('{"model_type": "vit"}', "utf-8")
    return tree


def cut_weights(folder: Path, tree: tiny.Tree) -> tiny.Tree:
    path = folder / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])
    return tree


def pickled_weights(folder: Path, tree: tiny.Tree) -> tiny.Tree:
    (folder / "model" / "model.safetensors").unlink()
    torch.save({"lm_head.weight": torch.ones(2)}, folder / "model" / "pytorch_model.bin")
    return tree


def no_eos(folder: Path, tree: tiny.Tree) -> tiny.Tree:
    tiny.make_model(folder / "model", eos=None)
    return tree


def classifier(folder: Path, tree: tiny.Tree) -> tiny.Tree:
    tiny.make_model(folder / "judge", pad="</s>")
    shape = BertConfig(
        vocab_size=12,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        id2label={0: "polite", 1: "toxic"},
        label2id={"polite": 0, "toxic": 1},
    )
    BertForSequenceClassification(shape).save_pretrained(folder / "judge")
    constraint = {"kind": "classifier", "path": str(folder / "judge"), "label": "toxik"}
    return tree | {"constraint": constraint}


CASES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "misspelt key": (
        setting(method={"beat": 2}),
        ("unknown key `method.beat`", "did you mean `beta`?", "allowed: anchor, beta,"),
    ),
    "a number that is none": (setting(method={"beta": float("inf")}), ("`method.beta`", "finite")),
    "a seed too large": (setting(run={"seed": 2**60}), ("`run.seed`", "less than")),
    "a rate that diverges": (
        setting(learner={"learning_rate": 1e30}),
        ("the policy diverged", "(peak 1e+30)", "lower learner.learning_rate or method.beta"),
    ),
    "a rate of values that diverges": (
        setting(value_model={"learning_rate": 1e30}),
        (
            *("value fit 1 of this run diverged: the gradient of step 2 of 4", "(peak 1e+30)"),
            *("lower value_model.learning_rate", "--resume"),
        ),
    ),
    "values that their last step breaks": (
        setting(
            value_model={"kind": "head", "automaton": "none", "warm_start": 0}
            | {"learning_rate": 1e30, "steps_per_round": 1}
        ),
        ("value fit 1 of this run diverged: 1 step left what is not finite",),
    ),
    "a rate of state values that diverges": (
        setting(value_model={"learning_rate": 1e30}, method={"kind": "ppo", "rounds": 1}),
        (
            "the fit of the state values diverged: the gradient of step 2 of 3",
            *("(peak 1e+30)", "lower value_model.learning_rate"),
        ),
    ),
    "unknown table": (setting(trainer={"x": 1}), ("unknown key `trainer`", "allowed: actor,")),
    "missing model": (
        setting(model={"path": "./nowhere"}),
        ("model.path = ./nowhere: no such folder", "or a hub id"),
    ),
    "folder without a model": (empty_folder, ("hollow holds no config.json", "notes.txt")),
    "no language model": (no_language_model, ("model", "cannot be loaded")),
    "weights cut short": (cut_weights, ("model", "cannot be loaded")),
    "pickled weights": (pickled_weights, ("model", "cannot be loaded", "safetensors")),
    "tokenizer without EOS": (no_eos, ("has no EOS token", "`eos_token`")),
    "missing value model": (
        setting(value_model={"kind": "separate", "path": "./nowhere"}),
        ("value_model.path = ./nowhere: no such folder",),
    ),
    "corpus missing": (
        setting(data={"corpus": "absent.jsonl"}),
        ("data.corpus", "absent.jsonl", "no such file"),
    ),
    "corpus not JSON": (corpus("{text: 1}"), ("data.corpus", "corpus.jsonl:2", "not JSON")),
    "corpus lacks field": (
        corpus('{"body": "x"}'),
        ("data.corpus", "corpus.jsonl:2", "body", "text"),
    ),
    "corpus empty text": (
        corpus('{"text": "the dog"}', '{"text": " "}'),
        ("data.corpus", "corpus.jsonl:3", "must not be empty"),
    ),
    "corpus with a blank line": (
        corpus("", '{"text": "the dog"}'),
        ("data.corpus", "corpus.jsonl:2", "the line is empty"),
    ),
    "corpus nested too deeply": (corpus("[" * 100_000), ("corpus.jsonl:2", "not JSON")),
    "corpus of a wrong type": (corpus('{"text": 7}'), ("data.corpus", "corpus.jsonl:2", "`text`")),
    "prompt too long": (
        prompts({"prompt": "the cat " * 12}),
        ("data.prompts", "prompts.jsonl:2", "24 tokens", "at most 18", "`sampler.max_new_tokens`"),
    ),
    "prompt lacks field": (prompts({"x": 1}), ("data.prompts", "prompts.jsonl:2")),
    "no module": (python("absent_module:score"), ("constraint.path", "no module 'absent_module'")),
    "no attribute": (python("raise"), ("constraint.path", "no attribute 'raise'", "'raises'")),
    "not callable": (python("number"), ("cannot be called",)),
    "scorer raises": (
        python("raises"),
        (
            "constraint.path",
            "ZeroDivisionError: division by zero",
            "own_scorers.py, line 5",
            "text",
        ),
    ),
    "scorer exits": (python("exits"), ("SystemExit", "own_scorers.py, line 23")),
    "scorer raises the unsayable": (python("unsayable"), ("Mute", "own_scorers.py, line")),
    "scorer gives NaN": (python("nan"), ("returned nan", "[0, 1]", "the text:")),
    "scorer above 1": (python("above"), ("returned 1.5", "[0, 1]", "the text:")),
    "scorer below 0": (python("below"), ("returned -0.1", "[0, 1]", "the text:")),
    "scorer gives too few": (python("too_few"), ("0 scores for 1 completion;", "one score for")),
    "scorer gives words": (python("words"), ("returned 'good'", "[0, 1]")),
    "unknown label": (classifier, ("toxik", "polite", "toxic", "constraint.label")),
    "bad pattern": (
        lambda folder, tree: tree | {"constraint": {"kind": "regex", "pattern": "("}},
        ("constraint.pattern", "'('"),
    ),
    "no words": (setting(constraint={"words": []}), ("lexicon needs at least one word", "`words`")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    change, expected = CASES[case]
    toml = tiny.write_toml(change(tmp_path, tiny.workplace(tmp_path)), tmp_path / "run.toml")
    assert tiny.tiltune("fit", str(toml)) == 2
    captured = capsys.readouterr()
    for words in expected:
        assert words in captured.err
    assert captured.err.count("error: ") == 1 and "Traceback" not in captured.err
    assert captured.out == ""
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = python("raises")(tmp_path, tiny.workplace(tmp_path))
    toml = tiny.write_toml(tree, tmp_path / "run.toml")
    assert tiny.tiltune("--debug", "fit", str(toml)) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and "in raises" in said and "ZeroDivisionError" in said
    assert said.rstrip().splitlines()[-1].startswith("error: constraint.path")


def test_a_folder_in_the_way_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = tiny.write_toml(tiny.workplace(tmp_path), tmp_path / "run.toml")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine", "utf-8")
    for further in ((), ("--set", "run.overwrite=true"), ("--resume",)):
        assert tiny.tiltune("fit", str(toml), *further) == 2
        said = capsys.readouterr().err
        assert "run.dir" in said and str(tmp_path / "run") in said
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]
    assert (tmp_path / "run" / "thesis.txt").read_text("utf-8") == "mine"


def test_a_run_that_is_there_survives_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tiny.workplace(tmp_path, method={"rounds": 1})
    tiny.finish(tree)
    before = tiny.outcome(tmp_path / "run")
    bad = tiny.changed(tree, run={"overwrite": True}, model={"path": "./nowhere"})
    toml = tiny.write_toml(bad, tmp_path / "run.toml")
    assert tiny.tiltune("fit", str(toml)) == 2
    assert tiny.outcome(tmp_path / "run") == before


def test_a_scorer_that_breaks_later_leaves_the_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = python("later")(tmp_path, tiny.workplace(tmp_path))
    toml = tiny.write_toml(tree, tmp_path / "run.toml")
    with tiny.Nth("tiltune.training.run.save_checkpoint", 0, (tmp_path / "break").touch):
        assert tiny.tiltune("fit", str(toml)) == 2
    said = capsys.readouterr().err
    assert "LookupError: the service is gone" in said and "own_scorers.py, line 27" in said
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["round-000"]
    assert len(read_records(tmp_path / "run" / "records.jsonl")) == 1
    (tmp_path / "break").unlink()
    assert tiny.tiltune("fit", str(toml), "--resume") == 0
    assert "starting at round 1" in capsys.readouterr().err


def test_a_pad_that_is_the_eos_is_handled(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, method={"rounds": 1})
    tiny.make_model(tmp_path / "model", pad="</s>")
    with_pad = tiny.finish(tree)
    tiny.make_model(tmp_path / "model", pad="<s>")
    again = tiny.finish(tiny.changed(tree, run={"dir": str(tmp_path / "again")}))
    for one, other in zip(with_pad, again, strict=True):
        assert one.satisfaction_rate == other.satisfaction_rate
        assert one.validation_satisfying_nats_per_token == (
            other.validation_satisfying_nats_per_token
        )
        assert one.completion_tokens_mean == other.completion_tokens_mean


def test_nothing_but_safetensors_json_and_text_is_written(tmp_path: Path) -> None:
    tiny.finish(tiny.workplace(tmp_path, model={"adapter": "lora"}, method={"rounds": 1}))
    kinds = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".jsonl", ".html", ".md", ".jinja"}
