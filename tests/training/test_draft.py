"""`tiltune init`: what it asks for becomes a run that `check` passes; what cannot be is told."""

import io
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import tiny
from conftest import ROOT
from tiltune.cli.app import app, main
from tiltune.config import load_config
from tiltune.errors import ConfigError, DataError, TiltuneError
from tiltune.training.assemble import prepare
from tiltune.training.draft import Model, draft, read_constraint, read_data
from tiltune.training.held import KINDS, read_held

SCORERS = """
def each(completion):
    return "rude" not in completion.text

def batch(completions):
    return [1.0 for _ in completions]

number = 3
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scorers").mkdir()
    (tmp_path / "scorers" / "ours.py").write_text(SCORERS, "utf-8")
    (tmp_path / "rude.txt").write_text("rude\n", "utf-8")
    (tmp_path / "schema.json").write_text('{"type": "string"}', "utf-8")
    return tmp_path


def write(path: Path, rows: list[Any]) -> str:
    return str(tiny.write_rows(path, rows))


@pytest.mark.parametrize(
    ("held", "table"),
    [
        ("no-words=rude, shut up", {"kind": "lexicon", "words": ["rude", "shut up"]}),
        ("words = please", {"kind": "lexicon", "words": ["please"], "mode": "require"}),
        ("no-words=rude.txt", {"kind": "lexicon", "file": "rude.txt", "mode": "forbid"}),
        ("length=20 words", {"kind": "length", "unit": "words", "at_most": 20}),
        ("length=1 - 2 Sentences", {"unit": "sentences", "at_least": 1, "at_most": 2}),
        ("length=3- lines", {"unit": "lines", "at_least": 3}),
        (r"regex=\AYes|No\Z", {"kind": "regex", "pattern": r"\AYes|No\Z", "mode": "require"}),
        (r"no-regex=a=\d", {"pattern": r"a=\d", "mode": "forbid"}),
        (" regex= a ", {"pattern": " a "}),  # of a pattern every blank counts
        ("no-regex= ", {"pattern": " "}),
        ("length=-5 words", {"at_most": 5}),
        ("json=schema.json", {"kind": "grammar", "format": "json_schema", "file": "schema.json"}),
        ("function=scorers/ours.py:each", {"path": "scorers.ours:each", "takes": "completion"}),
        ("function=scorers.ours:batch", {"path": "scorers.ours:batch", "takes": "batch"}),
        ("python-syntax", {"kind": "python_syntax"}),
        ("service=http://127.0.0.1:1/", {"kind": "http", "url": "http://127.0.0.1:1/"}),
    ],
)
def test_what_must_hold_is_a_table(held: str, table: dict[str, Any], place: Path) -> None:
    found = read_held(held)
    assert found == found | table


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ("no-word=a", "did you mean `no-words`"),
        ("words", "words needs more, such as words=please"),
        ("no-words=lacking.txt", "no such file"),
        ("length=20", "and what is counted"),
        ("length=words", "and what is counted"),
        ("length=- words", "and what is counted"),
        ("length=1 000 words", "in digits alone.*'20 words' at most"),
        ("length=1,000 words", "in digits alone"),
        ("length=1 2-3 words", "in digits alone"),
        ("length==5 words", "in digits alone"),
        ("length=5 words, 2 lines", "in digits alone"),
        ("profanity=damn", "takes nothing; give profanity alone"),
        ("code-tests=", "takes nothing"),
        ("no-words=damn,, hell", "a comma with no word beside it"),
        ("words=please,", "a comma with no word beside it"),
        ("function=scorers/ours.py", "after a colon: function=path.py:name"),
        ("function=scorers/ours.py:", "after a colon"),
        ("classifier=lacking", "'lacking' is no folder"),
        ("json=lacking.json", "no such file"),
        ("classifier=scorers", "holds neither"),
        ("function=lacking.py:f", "no such file: lacking.py"),
        ("function=scorers/ours.py:eech", "each"),
        ("function=scorers/ours.py:number", "cannot be called"),
        ("regex=(", "constraint.pattern"),
        ("length=5-2 words", "at_least"),
    ],
)
def test_what_cannot_hold_is_told(held: str, message: str, place: Path) -> None:
    with pytest.raises(TiltuneError, match=message):
        read_constraint(held)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_an_example_of_itself(kind: str) -> None:
    assert KINDS[kind].example.partition("=")[0] == kind


CHAT = (
    "{% for m in messages %}{{ m.role }} {{ m.content }} </s>{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
TOKENIZER, TALKING = tiny.make_tokenizer(), tiny.make_tokenizer()
TALKING.chat_template = CHAT

ASKED = {"role": "user", "content": "a"}
SAID = {"role": "assistant", "content": "b " * 50}
HUMAN, GPT = {"from": "human", "value": "a"}, {"from": "gpt", "value": "b " * 30}
INSTRUCTION = {"instruction": "a", "input": "c"}


@pytest.mark.parametrize(
    ("row", "chat", "prompts", "tokens"),
    [
        ({"text": "a " * 1000}, False, False, 64),
        ({"text": "a " * 1000}, True, False, 64),
        ({"prompt": "a " * 1000, "completion": "b"}, False, False, 24),
        ({"prompt": "a"}, False, True, 48),
        ({"prompt": "a", "completion": ""}, False, True, 48),
        ({"messages": [ASKED, SAID]}, True, False, 56),
        ({"messages": [ASKED]}, True, True, 48),
        ({"conversations": [HUMAN, GPT]}, True, False, 32),
        ({"conversations": [HUMAN]}, True, True, 48),
        ({**INSTRUCTION, "output": "b " * 30}, True, False, 32),
        ({**INSTRUCTION, "output": "b " * 30}, False, False, 32),
        ({**INSTRUCTION, "output": None}, True, True, 48),
        (INSTRUCTION, False, True, 48),
        ({"prompt": "a", "chosen": "b " * 30, "rejected": "c"}, False, False, 32),
        ({"chosen": [ASKED, SAID], "rejected": [ASKED, ASKED]}, True, False, 56),
        ({"prompt": "a", "chosen": [SAID], "rejected": [SAID]}, True, False, 56),
    ],
)
def test_rows_tell_what_they_are(
    row: Any, chat: bool, prompts: bool, tokens: int, tmp_path: Path
) -> None:
    data = read_data(write(tmp_path / "rows.jsonl", [row] * 3), TALKING if chat else TOKENIZER)
    assert (data.count, data.prompts, data.tokens) == (3, prompts, tokens)
    text = draft(model_of(10), data, {"kind": "python_syntax"}, out=tmp_path / "run.toml")
    section = tomllib.loads(text)["data"]
    assert list(section) == ["prompts" if prompts else "corpus"]
    turned = chat and "text" not in row and not prompts
    assert ("what stands before the last answers" in text) == turned


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": " "}], "rows.jsonl:1: `text` is ' '"),
        ([{"question": "a", "answer": "b"}], "found the fields question, answer"),
        ([{"prompt": "a", "completion": "b"}, {"prompt": "a"}], "rows.jsonl:2: found the fields"),
        ([{"prompt": "a"}, {"messages": [ASKED, SAID]}], "rows.jsonl:1: found the fields prompt"),
        ([{"conversations": [{"from": "me", "value": "a"}]}], "is from 'me'"),
    ],
)
def test_rows_that_fit_would_refuse_are_named(rows: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_data(write(tmp_path / "rows.jsonl", rows), TALKING)


def test_the_length_is_of_all_rows(tmp_path: Path) -> None:
    rows = [{"text": "b " * 30}] * 90 + [{"text": "a " * 1000}] * 10
    assert read_data(write(tmp_path / "rows.jsonl", rows), TOKENIZER).tokens == 32
    assert read_data(write(tmp_path / "rows.jsonl", rows[10:]), TOKENIZER).tokens == 64


TABLE: dict[str, tuple[str, str]] = {
    "csv": ("rows.csv", 'prompt,completion\nthe cat,"sat, the ran"\n'),
    "tsv": ("rows.tsv", "text\nthe cat sat\n"),
    "alpaca": ("rows.jsonl", json.dumps({"instruction": "the", "output": "cat sat"}) + "\n"),
    "alpaca csv": ("rows.csv", "instruction,input,output\nthe,cat,sat\n"),
    "instructions": ("rows.csv", "instruction\nthe cat\n"),
    "sharegpt": ("rows.jsonl", json.dumps({"conversations": [HUMAN, GPT]}) + "\n"),
    "preferences": ("rows.csv", "prompt,chosen,rejected\nthe,cat sat,ran\n"),
    "messages": (
        "rows.jsonl",
        json.dumps({"chosen": [ASKED, SAID], "rejected": [ASKED, ASKED]}) + "\n",
    ),
}
"""Of docs/data.md; a header and a row, or a row."""


@pytest.mark.parametrize(
    ("name", "chat"),
    [*((name, True) for name in TABLE), ("csv", False), ("alpaca", False), ("preferences", False)],
)
def test_data_of_every_shape_become_a_run(name: str, chat: bool, place: Path) -> None:
    file, lines = TABLE[name]
    *head, row = lines.splitlines(keepends=True)
    (place / file).write_text("".join(head) + row * 60, "utf-8")
    make_roomy_model(place / "model", chat=chat)
    given = ("--model", "model", "--data", file, "--hold", "no-words=rude")
    assert command("init", "run.toml", *given) == 0
    config = load_config("run.toml", ("learner.threads=1", "actor.threads=1"))
    prepared = prepare(config, to_train=False)
    assert bool(prepared.corpus) == (name != "instructions")


def make_roomy_model(folder: Path, *, chat: bool) -> None:
    """A model whose context holds what Alpaca's rows begin with."""
    tiny.make_model(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["max_position_embeddings"] = 256
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    if chat:
        (folder / "chat_template.jinja").write_text(CHAT, "utf-8")


def model_of(parameters: int, path: str = "m") -> Model:
    return Model(path, parameters, TOKENIZER)


def test_a_large_model_gets_an_adapter(tmp_path: Path) -> None:
    data = read_data(write(tmp_path / "rows.jsonl", [{"text": "a"}]), TOKENIZER)

    def adapter(parameters: int) -> str:
        given = model_of(parameters)
        text = draft(given, data, {"kind": "python_syntax"}, out=Path("a.toml"))
        return tomllib.loads(text)["model"]["adapter"]

    assert [adapter(n) for n in (49_999_999, 50_000_000)] == ["none", "lora"]


@pytest.mark.parametrize("text", ['a"b', "a'b", "a\\b", "a\\'b\n", "\x7f\x00é"])
def test_every_text_survives_toml(text: str, tmp_path: Path) -> None:
    data = read_data(write(tmp_path / "rows.jsonl", [{"text": "a"}]), TOKENIZER)
    table = {"kind": "lexicon", "words": [text]}
    read = tomllib.loads(draft(model_of(1, text), data, table, out=Path("a.toml")))
    assert read["constraint"] == table and read["model"]["path"] == text


def test_a_folder_that_is_taken_is_not_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    data = read_data(write(tmp_path / "rows.jsonl", [{"text": "a"}]), TOKENIZER)
    for name in ("first", "first-2", "first-3"):
        text = draft(model_of(1), data, {"kind": "python_syntax"}, out=tmp_path / "first.toml")
        assert tomllib.loads(text)["run"]["dir"] == f"runs/{name}"
        (tmp_path / "runs" / name).mkdir(parents=True)


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(lambda: app(list(words)))
    return int(ended.value.code or 0)


def test_what_init_writes_passes_check(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.make_model(place / "model")
    data = write(place / "rows.jsonl", tiny.corpus_rows())
    given = ("--model", "model", "--data", data, "--hold", "function=scorers/ours.py:each")
    assert command("init", "new/mine.toml", *given) == 0
    assert "next: tiltune check new/mine.toml" in capsys.readouterr().err
    (place / "model" / "config.json").read_text("utf-8")
    few = ("--set", "sampler.max_new_tokens=6", "--set", "sampler.samples_per_round=32")
    assert command("check", "new/mine.toml", *few) == 0
    before = (place / "new" / "mine.toml").read_bytes()
    assert command("init", "new/mine.toml", *given) == 2
    assert "exists, and is not overwritten" in capsys.readouterr().err.replace("\n", " ")
    assert (place / "new" / "mine.toml").read_bytes() == before


def test_init_asks_again_until_it_can_be(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.make_model(place / "model")
    data = write(place / "rows.jsonl", tiny.corpus_rows())
    answers = io.StringIO(f"nowhere/at/all\nmodel\n{data}\nno-word=a\nno-words=rude, bad\n")
    monkeypatch.setattr("sys.stdin", answers)
    assert command("init", "--data", data) == 2
    assert "give --model, --hold" in capsys.readouterr().err.replace("\n", " ")
    monkeypatch.setattr(answers, "isatty", lambda: True, raising=False)
    assert command("init") == 0
    told = capsys.readouterr().err
    assert told.count("error:") == 2 and "did you mean `no-words`" in told.replace("\n", " ")
    config = load_config("run.toml")
    assert json.loads(config.constraint.model_dump_json())["words"] == ["rude", "bad"]
    assert config.model.path == "model"


def test_a_wrong_answer_that_was_given_ends_it(place: Path) -> None:
    with pytest.raises(ConfigError, match="no kind 'x'"):
        read_held("x")
    assert command("init", "--model", "nowhere", "--data", "x", "--hold", "x") == 2


@pytest.mark.parametrize("option", ["out", "--model", "--data", "--hold"])
def test_a_name_that_is_no_text_is_refused_before_anything(
    place: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the command line gives it: a byte that is no UTF-8 is half a surrogate pair."""
    tiny.make_model(place / "model")
    data = write(place / "rows.jsonl", tiny.corpus_rows())
    given = {"--model": "model", "--data": data, "--hold": "no-words=a", "out": "x.toml"}
    given[option] += "caf\udce9"
    out = given.pop("out")
    assert command("init", out, *(word for pair in given.items() for word in pair)) == 2
    assert r"caf\xe9: it is not UTF-8" in capsys.readouterr().err.replace("\n", " ")
    assert not list(place.glob("*.toml*"))
    assert command("fit", "x.toml", "--set", "run.dir=caf\udce9") == 2


def test_the_page_lists_every_kind() -> None:
    page = (ROOT / "docs" / "init.md").read_text("utf-8")
    listed = re.findall(r"^\| `([\w-]+)", page, re.M)
    assert sorted(listed) == sorted(KINDS)
