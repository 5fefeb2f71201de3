"""Settings reach the objects that act on them."""

from pathlib import Path
from typing import Any

import pytest

import tiny
from tiltune.config import RunConfig
from tiltune.errors import ConfigError, ConstraintError
from tiltune.methods.kinds import make_method
from tiltune.methods.refusals import refuse
from tiltune.methods.tilt import Tilt
from tiltune.training.assemble import make_actor, make_learner, prepare
from tiltune.training.learner import BetaRule


def refused_by(config: RunConfig) -> None:
    refuse(config, make_method(config.method))


def rule(folder: Path, **tables: Any) -> BetaRule:
    return make_learner(prepare(tiny.config(tiny.workplace(folder, **tables)))).rule


def test_beta_s_rule_is_the_method_s(tmp_path: Path) -> None:
    method = {"beta": 3.0, "beta_min": 0.5, "beta_max": 7.0, "target_rate": 0.9}
    assert rule(tmp_path, method=method) == BetaRule(3.0, 0.5, 7.0, 0.9)


@pytest.mark.parametrize("tables", [{"data": {"corpus": None}}, {"method": {"kind": "sft"}}])
def test_beta_is_steered_with_a_corpus_alone(tmp_path: Path, tables: dict[str, Any]) -> None:
    tables = tables | {"method": {"target_rate": 0.9} | tables.get("method", {})}
    assert rule(tmp_path, **tables).target_rate is None


@pytest.mark.parametrize(("violating", "kept"), [("drop", 0), ("keep", 7)])
def test_violating_rows_are_dropped_or_kept(tmp_path: Path, violating: str, kept: int) -> None:
    prepared = prepare(tiny.config(tiny.workplace(tmp_path, data={"violating": violating})))
    bad = [row for row in prepared.corpus if set(row.text.split()) & set(tiny.FORBIDDEN)]
    assert len(bad) == kept and len(prepared.corpus) == prepared.count.rows == 29 + kept
    assert (prepared.count.violating, prepared.count.dropped) == (7, 7 - kept)


def test_weights_and_steps_reach_both_sides(tmp_path: Path) -> None:
    tree = tiny.workplace(
        tmp_path,
        method={"prefix_weight_clip": 4.0},
        value_model={"consistency": 0.25},
        learner={"accumulation": 3},
    )
    prepared = prepare(tiny.config(tree))
    learner, fitter = make_learner(prepared), make_actor(prepared).value_learner
    settings = learner.settings
    assert prepared.method == Tilt(4.0)
    assert (settings.accumulation, settings.steps) == (3, 3)
    assert (settings.batch_size, settings.learning_rate) == (4, 3e-3)
    assert fitter is not None
    assert (fitter.settings.consistency, fitter.settings.steps) == (0.25, 4)
    assert (fitter.settings.batch_size, fitter.settings.learning_rate) == (8, 3e-3)


@pytest.mark.parametrize(
    ("method", "refused"),
    [
        ({}, True),
        ({"schedule": "parallel"}, True),
        ({"schedule": "fixed"}, False),
        ({"anchor": "reference"}, False),
        ({"kind": "sft"}, False),
    ],
)
def test_soft_scores_compound_where_each_round_tilts_its_own_law(
    tmp_path: Path, method: dict[str, Any], refused: bool
) -> None:
    soft = tiny.workplace(tmp_path, constraint={"threshold": "none"}, method=method)
    if refused:
        with pytest.raises(ConfigError, match="soft scores"):
            refused_by(tiny.config(soft))
    else:
        refused_by(tiny.config(soft))


def test_without_a_corpus_one_prompt_is_scored_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd.py").write_text(
        "def judge(batch): return [each.row['tests'] for each in batch]"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows = [{"prompt": "the cat", "tests": 1}, {"prompt": "the dog", "tests": 0}]
    prompts = str(tiny.write_rows(tmp_path / "prompts.jsonl", rows))
    tree = tiny.workplace(tmp_path, data={"corpus": None, "prompts": prompts})
    tree["constraint"] = {"kind": "python", "path": "odd:judge"}
    assert prepare(tiny.config(tree)).corpus == []
    tiny.write_rows(tmp_path / "prompts.jsonl", [{"prompt": "the cat"}])
    with pytest.raises(ConstraintError, match=r"'odd:judge' raised KeyError: 'tests'.*text.*: ''"):
        prepare(tiny.config(tree))
