"""What `tiltune check` says of a run before it starts."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tiny
from tiltune.assemble import Prepared, cap_told, plan, prepare
from tiltune.check import check_run, draws


def prepared_for(folder: Path, **tables: Any) -> Prepared:
    tables = {"data": {"violating": "keep"}} | tables
    return prepare(tiny.config(tiny.workplace(folder, **tables)))


def said(tree: tiny.Tree) -> str:
    console = Console(file=io.StringIO(), width=400)
    check_run(tiny.config(tree), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_cap_of_violating_rows_counts_in_sequences(tmp_path: Path) -> None:
    rows = [{"prompt": "the cat", "completion": " sat and ran and sat"}] * 30
    rows += [{"prompt": "the cat", "completion": " was rude and ran ."}] * 30
    tree = tiny.workplace(tmp_path, data={"violating": "keep", "valid": None}, method={"beta": 3.0})
    tiny.write_rows(tmp_path / "corpus.jsonl", rows)
    tree["data"]["valid"] = str(tiny.write_rows(tmp_path / "valid.jsonl", rows[:4]))
    prepared = prepare(tiny.config(tree))
    assert prepared.count.violating == 30 and prepared.count.rows == 60
    # six tokens a row, its end included; beta is per token: 3 · 6/4 = 4.5 and 3 · 6/18 = 1
    assert "above about 90.9%" in (cap_told(prepared, 4.0) or "")  # (.5 + 4.5) / 5.5
    assert "above about 75.0%" in (cap_told(prepared, 18.0) or "")


def test_there_is_no_cap_where_nothing_caps(tmp_path: Path) -> None:
    assert cap_told(prepared_for(tmp_path, data={"violating": "drop"}), 4.0) is None
    assert cap_told(prepared_for(tmp_path, method={"kind": "sft"}), 4.0) is None
    assert cap_told(prepared_for(tmp_path, method={"beta": 0}), 4.0) is None


def test_check_and_fit_say_the_cap_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tiny.workplace(tmp_path, data={"violating": "keep"})
    assert said(tree).count("cannot take the satisfaction rate above about") == 1
    toml = tiny.write_toml(tree, tmp_path / "run.toml")
    assert tiny.tiltune("fit", str(toml)) == 0
    assert capsys.readouterr().err.count("cannot take the satisfaction rate above about") == 1


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({}, 3 * 32 + 32),  # what is trained on, the final policy
        ({"anchor": "reference"}, 3 * 32 + 2 * 32 + 32),  # and versions 1 and 2
        ({"schedule": "fixed"}, 32 + 2 * 32 + 32),
        ({"kind": "sft"}, 3 * 32 + 32),
    ],
    ids=["sequential", "reference", "fixed", "sft"],
)
def test_the_estimate_counts_every_completion_that_a_run_draws(
    tmp_path: Path, method: dict[str, Any], expected: int
) -> None:
    tree = tiny.workplace(tmp_path, method={"rounds": 3} | method)
    counted = draws(plan(prepare(tiny.config(tree)).config), 3)
    assert counted == expected + 2 * 16  # the fixed prompts, before and after
    with tiny.Nth("tiltune.sampler.draw", -1, lambda: None) as batches:
        tiny.finish(tree)
    assert batches.calls * 16 + 2 * 16 == counted


def test_the_estimate_names_every_phase(tmp_path: Path) -> None:
    told = said(tiny.workplace(tmp_path, method={"anchor": "reference"}))
    line = told[told.index("estimated minutes") :].splitlines()[0]
    for phase in ("sampling", "scoring", "values", "policy", "measuring"):
        assert phase in line
