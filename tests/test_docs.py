"""What the documents promise is there: links lead somewhere, runs they show are runs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from tiltune.config import RunConfig, load_compare_config, load_config, parse_config
from tiltune.config.evaluate import load_evaluate_config
from tiltune.errors import ConfigError
from tiltune.evaluation.compare.plan import plan_entries

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(text: str, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(text) if name == language]


def anchors(text: str) -> set[str]:
    """Headings the way a forge turns them into anchors."""
    titles = re.findall(r"^#+ +(.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def leads_somewhere(path: Path, link: str, root: Path) -> bool:
    """Whether a relative link of the document at `path` has its file, and its anchor if any."""
    name, _, anchor = link.partition("#")
    target = (path.parent / name).resolve() if name else path
    if not target.is_relative_to(root) or not target.exists():
        return False
    return not anchor or anchor in anchors(target.read_text("utf-8"))


def broken_links(path: Path, root: Path = ROOT) -> list[str]:
    links = LINK.findall(FENCE.sub("", path.read_text("utf-8")))
    return [
        link
        for link in links
        if not re.match(r"[a-z]+:", link) and not leads_somewhere(path, link, root)
    ]


def runs(text: str) -> list[dict[str, Any]]:
    """The TOML blocks that describe a whole run."""
    tables = [tomllib.loads(block) for block in blocks(text, "toml")]
    return [table for table in tables if "run" in table]


def test_there_are_documents() -> None:
    names = {path.name for path in DOCUMENTS}
    assert names >= {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LOG.md"}
    assert names >= {"concepts.md", "architecture.md"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_resolve(path: Path) -> None:
    assert not broken_links(path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_runs_in_documents_are_runs(path: Path) -> None:
    for table in runs(path.read_text("utf-8")):
        parse_config(RunConfig, table, source=path.name)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_what_they_say(path: Path) -> None:
    tables = tomllib.loads(path.read_text("utf-8"))
    if "method" in tables and "base" in tables:
        plan_entries(load_compare_config(path), source=path.name)
    else:
        load_config(path) if "run" in tables else load_evaluate_config(path)


def test_the_rooms_are_drawn_as_they_are() -> None:
    """`ls src/tiltune`, in the order in which imports point down."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    drawn = re.findall(
        r"^ {4}(\w+)(?:/|\.py) ", page.split("## The rooms")[1].split("\n## ")[0], re.M
    )
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    assert ["__main__", *drawn] == contracts["contracts"][0]["layers"]
    names = {path.stem for path in (ROOT / "src" / "tiltune").iterdir() if path.name[0] not in "_."}
    assert set(drawn) == names - {"py"}  # py.typed


@pytest.mark.parametrize("name", ["docs/architecture.md", "docs/methods.md", "CONTRIBUTING.md"])
def test_files_that_are_named_are_there(name: str) -> None:
    named = re.findall(r"`([\w/]+\.(?:py|toml|md))`", (ROOT / name).read_text("utf-8"))
    assert named
    assert not [
        each
        for each in named
        if not any((at / each).is_file() for at in (ROOT, ROOT / "src/tiltune"))
    ]


def test_there_are_examples() -> None:
    assert {"detox.toml", "compare_world.toml", "compare_detox.toml"} <= {p.name for p in EXAMPLES}


def test_concepts_show_a_run() -> None:
    assert runs((ROOT / "docs" / "concepts.md").read_text("utf-8"))


def test_broken_links_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title: here\n[a](no.md) [b](#a-title-here) [c](#gone) [d](page.md#gone)")
    assert broken_links(page, tmp_path) == ["no.md", "#gone", "page.md#gone"]


def test_a_run_that_is_none_would_be_found() -> None:
    (table,) = runs("```toml\n[run]\ndir = 'x'\nsede = 1\n```\n```toml\n[tool]\n```\n")
    with pytest.raises(ConfigError, match="sede"):
        parse_config(RunConfig, table, source="here")
