"""The site of docs/: every page is on it, it builds without a broken link, and asks no server."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from conftest import ROOT
from tiltune import PUBLIC, build_constraint, load_constraint_config
from tiltune.constraints.score_file import score_file

DOCS = ROOT / "docs"
FAQ = (DOCS / "faq.md").read_text("utf-8")
LEAST = 10
"""Letters of a string of the source that can be a part of a message; fewer say too little."""
GAP = "\N{HORIZONTAL ELLIPSIS}"
FORMATTED = rf"(?:[\w ]{{0,20}}{GAP})?"
"""What a quoted message shows where the program formats something in."""
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b(?![^>]*rel=["']?canonical)[^>]*\bhref=["']?(?:https?:)?//"""
    r"""|@import|url\(["']?(?:https?:)?//"""
)
"""What makes a browser fetch something from another server when a page is shown."""


def test_the_nav_names_every_page_and_no_other() -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1].split("\n\n")[0]
    named = re.findall(r": (\S+\.md)$", nav, re.M)
    assert sorted(named) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def build(folder: Path) -> Path:
    """The site as `make docs` builds it: strict, so that a broken link or anchor is an error.

    Never `--quiet`, which keeps mkdocs from counting its warnings.
    """
    if find_spec("mkdocs") is None:
        pytest.skip("needs mkdocs, which requirements.txt has")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("site"))


def test_every_page_is_built(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS).with_suffix(".html")).is_file()
    assert not list(site.rglob("*.py"))


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert pages
    assert not [str(page) for page in pages if FETCHED.search(page.read_text("utf-8"))]
    assert not [page for page in site.rglob("*.html") if "mermaid" in page.read_text("utf-8")]


def test_what_is_fetched_would_be_found() -> None:
    assert FETCHED.search('<link rel="stylesheet" href="https://fonts.example/css">')
    assert FETCHED.search("<script async src=//count.example/a.js>")
    assert not FETCHED.search('<a href="https://arxiv.org/abs/2410.05559">')


def test_the_search_knows_the_pages(site: Path) -> None:
    """The index lies beside the pages, as a file and as a script for pages from the disk."""
    index = (site / "search" / "search_index.json").read_text("utf-8")
    assert "first_run.html" in index and "taken_log_probs" in index
    assert (site / "search" / "search_index.js").read_text("utf-8").endswith(index)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_the_api_has_each_public_name(site: Path, name: str) -> None:
    """By its anchor and by the first sentence of what it says of itself, which griffe has read."""
    page = (site / "api.html").read_text("utf-8")
    begun = page.split(f'id="tiltune.{name}"')
    assert len(begun) == 2
    assert re.search(r"<p>\w", begun[1].split('id="tiltune.')[0])


def test_the_api_names_no_other() -> None:
    page = (DOCS / "api.md").read_text("utf-8")
    assert sorted(re.findall(r"^::: tiltune\.(\w+)$", page, re.M)) == sorted(PUBLIC)


def test_links_out_of_the_docs_lead_to_pages(site: Path) -> None:
    told = (site / "evaluation.html").read_text("utf-8")
    assert 'href="repository/examples/compare_world.toml.html"' in told
    shown = (site / "repository" / "examples" / "compare_world.toml.html").read_text("utf-8")
    assert "compare_world" in shown and "[[" in re.sub("<[^>]+>", "", shown)


def test_the_first_run_scores_as_it_shows(tmp_path: Path) -> None:
    """What the page says that `tiltune score run.toml lines.jsonl` writes."""
    page = (DOCS / "first_run.md").read_text("utf-8")
    files = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```", page, re.M | re.S))
    shown = page.split("tiltune score run.toml lines.jsonl\n")[1].split("```json\n")[1]
    for name, content in files.items():
        (tmp_path / name).write_text(content, "utf-8")
    config = load_constraint_config(tmp_path / "run.toml")
    written: list[str] = []
    score_file(build_constraint(config), tmp_path / "lines.jsonl", written.append)
    assert "".join(written) == shown.split("```")[0]


@cache
def templates() -> tuple[tuple[str, ...], ...]:
    """Every string of the source in pieces, the longest first; "" is what it is formatted with."""
    found: set[tuple[str, ...]] = set()
    for path in (ROOT / "src" / "tiltune").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add(tuple(constant(each) for each in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add((node.value,))
    long = [pieces for pieces in found if len("".join(pieces)) >= LEAST]
    return tuple(sorted(long, key=lambda pieces: -len("".join(pieces))))


def constant(part: ast.expr) -> str:
    """A part of a formatted string; "" for what is formatted."""
    return str(part.value) if isinstance(part, ast.Constant) else ""


def unsaid(message: str) -> str:
    """What is left of a message when all that the source can say is taken out, gaps included."""
    for pieces in templates():
        if all(piece in message for piece in pieces):
            pattern = "".join(re.escape(piece) or FORMATTED for piece in pieces)
            message = re.sub(pattern, "", message)
    return message.replace(GAP, "").strip(" :,;.()%")


def messages() -> list[str]:
    quoted = re.findall(r"^```console\n(.*?)\n```$", FAQ, re.M | re.S)
    return [" ".join(message.split()) for message in quoted]


@pytest.mark.parametrize("message", messages())
def test_the_messages_quoted_are_the_program_s(message: str) -> None:
    assert len(unsaid(message)) <= LEAST


def test_a_message_that_nobody_says_would_be_found() -> None:
    first = messages()[0]
    assert len(unsaid(first.replace("loosen it", "tighten it"))) > LEAST
    assert len(messages()) >= 25
