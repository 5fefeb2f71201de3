"""What `tiltune` names for others: there, typed, documented, and loaded when asked for."""

import ast
import re
import subprocess
import sys
from pkgutil import resolve_name

import pytest

import tiltune
from conftest import ROOT
from tiltune import PUBLIC, Score
from tiltune.constraints import scores


def test_all_names_agree() -> None:
    assert sorted(PUBLIC) == sorted(tiltune.__all__)
    assert set(tiltune.__all__) <= set(dir(tiltune))


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_name_is_what_stands_there(name: str) -> None:
    assert getattr(tiltune, name) is resolve_name(PUBLIC[name])


def test_the_types_are_those_of_the_same_modules() -> None:
    """What pyright reads is what is imported."""
    tree = ast.parse((ROOT / "src" / "tiltune" / "__init__.py").read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.name: f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == PUBLIC


def test_the_documents_name_each() -> None:
    page = (ROOT / "docs" / "concepts.md").read_text("utf-8")
    table = page.split("## What you may import")[1].split("\n## ")[0]
    cells = re.findall(r"^\|(.*?)\|", table, re.M)
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert set(PUBLIC) - named == set()


def test_a_name_is_loaded_when_asked_for() -> None:
    code = (
        "import sys, tiltune\n"
        "names = lambda: [n for n in sys.modules if n.startswith('tiltune.')]\n"
        "assert not names(), names()\n"
        "from tiltune import Score\n"
        "assert 'tiltune.constraints.scores' in names() and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_refused() -> None:
    assert Score is scores.Score
    with pytest.raises(AttributeError, match="has no attribute 'Scoer'"):
        getattr(tiltune, "Scoer")  # noqa: B009
