"""The notebook of the first run: its cells run, one after another, in a process of their own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

NOTEBOOK = ROOT / "examples" / "first_run.ipynb"
RUN_CELLS = """
import json, sys
cells = json.loads(sys.stdin.read())
for number, cell in enumerate(cells):
    exec(compile(cell, f"cell {number}", "exec"), globals())
print(json.dumps([before, after, [record.round for record in run.records]]))
"""


def read() -> dict[str, Any]:
    return json.loads(NOTEBOOK.read_text("utf-8"))


def sources(kind: str) -> list[str]:
    return ["".join(c["source"]) for c in read()["cells"] if c["cell_type"] == kind]


def test_it_is_kept_without_outputs() -> None:
    book = read()
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    cells = book["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert NOTEBOOK.read_text("utf-8") == json.dumps(book, indent=1, ensure_ascii=False) + "\n"


def test_the_page_says_the_same_as_the_notebook() -> None:
    """What docs/python.md shows is run here."""
    page = (ROOT / "docs" / "python.md").read_text("utf-8")
    shown = [line.strip() for line in page.splitlines()]
    for line in ("for record in run.fit():", "run = tiltune.Run("):
        assert line in shown
        assert any(line in source.splitlines() for source in sources("code"))


@pytest.mark.slow
def test_its_cells_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_CELLS],
        input=json.dumps(sources("code")),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after, rounds = json.loads(done.stdout.splitlines()[-1])
    assert rounds == [0, 1, 2]
    assert after > before + 0.1, "the model is not seen to move"
    assert not list(tmp_path.iterdir())  # what it writes goes with it
