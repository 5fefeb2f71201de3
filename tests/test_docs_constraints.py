"""`docs/constraints.md` is what it says: every constraint gives its rows the scores shown there."""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from services import Asked, Reply, ScoringService
from tiltune.config import load_constraint_config
from tiltune.constraints.build import BUILDERS, build_constraint
from tiltune.constraints.score_file import score_file
from tiltune.errors import ConstraintError

PAGE = (ROOT / "docs" / "constraints.md").read_text("utf-8")
PIECE = re.compile(r"^##+ (?P<title>[^\n]+)$|^```(?P<info>[^\n]+)\n(?P<body>.*?)^```", re.M | re.S)
ADDRESS = "http://127.0.0.1:8000/score"
VERDICTS = ("score", "satisfied", "reason")


@dataclass
class Example:
    """A constraint of the page, the files it needs and the rows that it scores."""

    title: str
    toml: str
    rows: list[dict[str, Any]]
    modules: dict[str, str] = field(default_factory=dict[str, str])


def examples(page: str) -> Iterator[Example]:
    """Each TOML block with the rows that come after it, and the modules since the heading."""
    title, toml, modules = "", "", dict[str, str]()
    for piece in PIECE.finditer(page):
        language, _, name = (piece["info"] or "").partition(" ")
        if piece["title"]:
            title, toml, modules = piece["title"], "", {}
        elif language == "python":
            modules[name] = piece["body"]
        elif language == "toml":
            toml = piece["body"]
        elif language == "jsonl":
            rows = [json.loads(line) for line in piece["body"].splitlines()]
            yield Example(title, toml, rows, modules)


def scored(example: Example, folder: Path) -> list[dict[str, Any]]:
    """The rows as `tiltune score` writes them."""
    for name, source in example.modules.items():
        (folder / name).write_text(source, "utf-8")
    (folder / "constraint.toml").write_text(example.toml, "utf-8")
    given = [{k: v for k, v in row.items() if k not in VERDICTS} for row in example.rows]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, given)), "utf-8")
    lines: list[str] = []
    constraint = build_constraint(load_constraint_config(folder / "constraint.toml"))
    score_file(constraint, folder / "rows.jsonl", lines.append)
    return [json.loads(line) for line in lines]


def exclamations(asked: Asked) -> Reply:
    """The service that the page describes."""
    return Reply({"rude": 0.75 if "!" in asked.body["text"] else 0.25})


ALL = list(examples(PAGE))


@pytest.mark.parametrize("example", ALL, ids=[f"{n}-{each.title}" for n, each in enumerate(ALL)])
def test_the_page_shows_what_score_writes(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in example.modules:
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    if 'kind = "grammar"' in example.toml:
        pytest.importorskip("llguidance")
    if 'kind = "execution"' in example.toml and "execution" not in BUILDERS:
        pytest.skip("this version runs no code")
    service = ScoringService(exclamations)
    example.toml = example.toml.replace(ADDRESS, service.url)
    try:
        found = scored(example, tmp_path)
    except ConstraintError as error:
        if "isolation" not in str(error):
            raise
        pytest.skip(f"no sandbox here: {error}")
    finally:
        service.close()
    for row, shown in zip(found, example.rows, strict=True):
        assert "score" in shown and "satisfied" in shown
        assert {name: row[name] for name in shown} == shown


def test_there_are_ten_examples_and_every_kind_is_listed() -> None:
    numbers = [each.title.split(".")[0] for each in ALL if each.title[0].isdigit()]
    assert sorted(set(numbers), key=int) == [str(n) for n in range(1, 11)]
    table = PAGE.split("## All kinds")[1].split("## Reward")[0]
    listed = {name for line in table.splitlines() for name in re.findall("`(\\w+)`", line[:30])}
    assert listed >= set(BUILDERS)


def test_the_examples_show_both_verdicts() -> None:
    for each in ALL:
        assert {row["satisfied"] for row in each.rows} == {True, False}, each.title


def test_a_wrong_statement_would_be_found(tmp_path: Path) -> None:
    (wrong,) = examples(
        '## T\n```toml\nkind = "lexicon"\nwords = ["a"]\n```\n```jsonl\n'
        '{"text": "a", "score": 1.0, "satisfied": true}\n```\n'
    )
    assert scored(wrong, tmp_path)[0]["score"] == 0.0
