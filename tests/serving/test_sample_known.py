"""`tiltune sample MODEL --constraint`: no run, no training, and nothing that violates."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import tiny
from tiltune.config import ConstraintConfig, load_constraint_config
from tiltune.config.decoding import SearchSection
from tiltune.data.rows import Row
from tiltune.errors import ConfigError, ConstraintError, DataError
from tiltune.serving.complete import Answers, Request
from tiltune.serving.known import opened_model

CHAT = "{% for m in messages %}cat {{ m.content }} {% endfor %}dog"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.make_model(tmp_path_factory.mktemp("known") / "model")
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def rule(folder: Path, **table: Any) -> ConstraintConfig:
    """Of a file with a `[constraint]` table, as `tiltune score` reads it."""
    stated = {"kind": "lexicon", "words": ["sorry"], "mode": "require"} | table
    return load_constraint_config(tiny.write_toml({"constraint": stated}, folder / "rule.toml"))


def answers(model: Path, stated: ConstraintConfig, **request: Any) -> tuple[Answers, list[str]]:
    said: list[str] = []
    asked = Request(**({"max_new_tokens": 6} | request))
    opened = opened_model(model, stated, asked, said.append)
    return Answers(model, asked, said.append, opened=opened), said


def prompt(text: str) -> Row:
    return Row("--prompt", {"prompt": text})


def test_every_completion_satisfies_within_the_limit(model: Path, tmp_path: Path) -> None:
    asked, said = answers(model, rule(tmp_path), n=100)
    rows = list(asked.complete([asked.prompt(prompt("the cat"))]))
    assert len(rows) == 100 and all(row["satisfied"] for row in rows)
    assert all("sorry" in row["text"].split() for row in rows)
    assert all(0 < len(row["text"].split()) <= 6 for row in rows)
    assert "by an automaton of" in said[0] and "never violate" in said[0]
    assert len({row["text"] for row in rows}) > 50
    again, _ = answers(model, rule(tmp_path), n=100)
    assert rows == list(again.complete([again.prompt(prompt("the cat"))]))


def test_the_command_needs_no_run(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    rule(tmp_path)
    command = ["tiltune", "sample", str(model), "--constraint", str(tmp_path / "rule.toml")]
    monkeypatch.setattr("sys.argv", [*command, "--prompt", "the", "--n", "3"])
    from tiltune.cli.app import app

    app(standalone_mode=False)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3 and all(row["satisfied"] for row in rows)
    monkeypatch.setattr("sys.argv", [*sys.argv, "--max-new-tokens", "24"])
    with pytest.raises(DataError, match="`--max-new-tokens` leaves no room for a prompt"):
        app(standalone_mode=False)


def test_a_prompt_is_a_turn_only_where_that_is_asked_for(model: Path, tmp_path: Path) -> None:
    plain, said = answers(model, rule(tmp_path))
    assert plain.prompt(prompt("the")).text == "the"
    assert "--chat" in said[-1]
    turn, said = answers(model, rule(tmp_path), chat=True)
    assert turn.prompt(prompt("the")).text == "cat the dog" and "--chat" not in said[-1]


def test_a_prompt_that_cannot_be_met_is_named(model: Path, tmp_path: Path) -> None:
    stated = rule(tmp_path, words=["rude"], mode="forbid", text="prompt+completion")
    asked, _ = answers(model, stated, n=3)
    rows = [asked.prompt(prompt(text)) for text in ("the", "the rude dog", "cat")]
    with pytest.raises(ConstraintError, match="prompt 2: no token is allowed of the prompt alone"):
        list(asked.complete(rows))
    assert len(list(asked.complete(rows[:1]))) == 3


@pytest.mark.parametrize(
    ("table", "request_", "kind", "told"),
    [
        ({"kind": "python", "path": "builtins:len", "words": None, "mode": None}, {},
         ConstraintError, "fit first"),
        ({"kind": "regex", "pattern": "", "words": None, "mode": "forbid"}, {},
         ConstraintError, "no text can satisfy it"),
        ({"threshold": "none"}, {}, ConstraintError, "'none' asks for raw scores"),
        ({}, {"guided": True}, ConfigError, "--guided: it is about values that a run has learnt"),
        ({}, {"round": 1}, ConfigError, "--round: it is about values that a run has learnt"),
        ({}, {"search": SearchSection()}, ConfigError, "--search: it is about values that a run"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_words(
    model: Path,
    tmp_path: Path,
    table: dict[str, Any],
    request_: dict[str, Any],
    kind: type[Exception],
    told: str,
) -> None:
    stated = {"kind": "lexicon", "words": ["sorry"], "mode": "require"} | table
    kept = {name: value for name, value in stated.items() if value is not None}
    path = tiny.write_toml({"constraint": kept}, tmp_path / "rule.toml")
    with pytest.raises(kind, match=told):
        answers(model, load_constraint_config(path), **request_)
