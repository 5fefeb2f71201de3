"""Kinds of constraint are listed once, and what is known of a kind stands with its table."""

import ast
import inspect
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_args

import pytest

from conftest import ROOT
from tiltune.config import ConstraintConfig
from tiltune.constraints.build import BUILDERS
from tiltune.constraints.classifier import LOADERS
from tiltune.constraints.linear_model import DESCRIPTION_FILE
from tiltune.data.rows import PIPED, READERS

SOURCE = ROOT / "src" / "tiltune"
SECTIONS: dict[str, Any] = {
    get_args(section.model_fields["kind"].annotation)[0]: section
    for section in get_args(get_args(ConstraintConfig)[0])
}
AMBIGUOUS = {"all", "any", "grammar", "length", "mean", "not", "python", "regex"}
"""Kinds whose names are other things' too."""


def test_every_table_has_a_builder_and_every_builder_a_table() -> None:
    assert BUILDERS.keys() == SECTIONS.keys()


@pytest.mark.parametrize("name", sorted({*BUILDERS.values(), *LOADERS.values(), *READERS.values()}))
def test_what_is_named_is_there(name: str) -> None:
    found = resolve_name(name)
    assert callable(found)
    asked = inspect.signature(found).parameters.values()
    assert [each.name for each in asked if each.default is each.empty] in (["config"], ["path"])


def test_names_that_are_written_twice_agree() -> None:
    assert DESCRIPTION_FILE in LOADERS
    assert PIPED in READERS.values()


def test_what_is_known_of_kinds() -> None:
    """By fact, the kinds of which it holds."""
    found = {
        fact: {kind for kind, section in SECTIONS.items() if getattr(section, fact)}
        for fact in ("whole_texts_alone", "toxicity", "remote", "mendable", "packages")
    }
    assert found == {
        "whole_texts_alone": {
            *("classifier", "execution", "http", "profanity", "python", "python_syntax"),
        },
        "toxicity": {"classifier", "http", "profanity"},
        "remote": {"http"},
        "mendable": {"python"},
        "packages": {"grammar", "profanity"},
    }
    costs = {kind: section.cost for kind, section in SECTIONS.items() if section.cost}
    assert costs == {
        **{"python": 1, "python_syntax": 1, "grammar": 1, "classifier": 2, "profanity": 2},
        **{"execution": 3, "http": 3},
    }


@pytest.mark.parametrize("kind", ["grammar", "profanity"])
def test_a_kind_s_packages_have_versions(kind: str) -> None:
    for name in SECTIONS[kind].packages:
        assert version(name)


def test_no_other_room_knows_a_kind_by_name() -> None:
    """Adding one changes nothing in what records, evaluates or guides."""
    rooms = ("decoding", "evaluation", "records", "serving", "values")
    faults = [
        f"{path.relative_to(SOURCE)}:{node.lineno}: {node.value!r}"
        for room in rooms
        for path in sorted((SOURCE / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and node.value in BUILDERS.keys() - AMBIGUOUS
    ]
    # before a table is parsed it has nothing but its name
    assert [fault for fault in faults if not fault.startswith("evaluation/compare/plan.py")] == []


def test_sources_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def made(kind: str, **settings: Any) -> tuple[str | None, list[Path]]:
        section = SECTIONS[kind].model_construct(kind=kind, **settings)
        return section.source, section.files()

    assert made("lexicon", file="words.txt") == (str(tmp_path / "words.txt"), [Path("words.txt")])
    assert made("lexicon", file=None) == (None, [])
    assert made("classifier", path="folder") == (str(tmp_path / "folder"), [Path("folder")])
    assert made("http", url="http://x/") == ("http://x/", [])
    name, (file,) = made("python", path="json:loads")
    assert name == "json:loads" and file.name == "__init__.py" and file.parent.name == "json"
    assert made("all", parts=()) == (None, [])
