"""Populations: bounds on shares, measured by score, refused by what judges a text by itself."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

import tiny
from metric_worlds import generated, scored
from tiltune.config import CompareConfig, EvaluateConfig, load_constraint_config, parse_config
from tiltune.config.run import ConstraintFile
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.constraints.population import share_told, verdict
from tiltune.constraints.scores import Bound, Completion, Failure
from tiltune.errors import ConfigError, ConstraintError
from tiltune.evaluation.compare.plan import plan_entries
from tiltune.evaluation.table import control
from tiltune.methods.kinds import make_method
from tiltune.methods.refusals import refuse

pytestmark = pytest.mark.quick

HALF = """
kind = "population"
at_least = 0.4
at_most = 0.6
parts = [{ kind = "lexicon", words = ["she"], mode = "require" }]
"""


def population(tmp_path: Path, text: str = HALF) -> Any:
    (tmp_path / "c.toml").write_text(text, "utf-8")
    return load_constraint_config(tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("satisfied", "count", "said"),
    [
        (500, 1000, "met"),
        (10, 1000, "not met"),
        (990, 1000, "not met"),
        (5, 10, "cannot be told from so few"),
        (600, 1000, "cannot be told from so few"),
    ],
)
def test_the_verdict_goes_by_the_whole_interval(satisfied: int, count: int, said: str) -> None:
    assert verdict(Bound("x", 0.4, 0.6), satisfied, count) == said


def test_bounds_are_said_in_words() -> None:
    assert "bounds at least 0.4: met" in share_told(Bound("x", 0.4, 1.0), 90, 100)
    assert "bounds at most 0.4: not met" in share_told(Bound("x", 0.0, 0.4), 90, 100)
    assert "bounds exactly 0.5: cannot" in share_told(Bound("x", 0.5, 0.5), 50, 100)
    assert "no rows" in share_told(Bound("x", 0.5, 0.5), 0, 0)


def test_score_judges_rows_by_the_part_and_states_the_share(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    population(tmp_path)
    rows = [{"text": "she sang"}] * 90 + [{"text": "he sang"}] * 10
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    assert tiny.tiltune("score", str(tmp_path / "c.toml"), str(tmp_path / "rows.jsonl")) == 0
    said = capsys.readouterr()
    judged = [json.loads(line)["satisfied"] for line in said.out.splitlines()]
    assert judged == [True] * 90 + [False] * 10
    assert "share 0.900 [0.826, 0.945]; bounds 0.4 to 0.6: not met" in said.err


BOTH = f"""
kind = "all"
[[parts]]
{HALF}
[[parts]]
kind = "population"
at_most = 0.2
parts = [{{ kind = "length", at_most = 1 }}]
"""


def test_several_populations_are_an_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = build_constraint(population(tmp_path, BOTH))
    assert [(each.low, each.high) for each in built.bounds] == [(0.4, 0.6), (0.0, 0.2)]
    texts = ("she sang", "she", "he", "he sang")
    scores = built.score([Completion("", text) for text in texts])
    assert [each.met for each in scores] == [
        *((True, False), (True, True), (False, True), (False, False))
    ]
    assert [each.value for each in scores] == [0.0, 1.0, 0.0, 0.0]
    one, other = (build_constraint(part) for part in population(tmp_path, BOTH).parts)
    assert (one & other).bounds == built.bounds and built.rule() is None
    assert pickle.loads(pickle.dumps(built)).bounds == built.bounds
    rows = [{"text": text} for text in texts for _ in range(100)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    assert tiny.tiltune("score", str(tmp_path / "c.toml"), str(tmp_path / "rows.jsonl")) == 0
    said = capsys.readouterr().err
    assert "lexicon constraint (require, 1 entry): share 0.500 [0.451, 0.549]" in said
    assert "bounds at most 0.2: not met" in said


def test_a_stored_population_is_read_again(tmp_path: Path) -> None:
    """As a resume reads it, with every setting stated."""
    given = population(tmp_path, BOTH)
    stored = json.loads(given.model_dump_json())
    assert parse_config(ConstraintFile, {"constraint": stored}, source="").constraint == given


def test_a_service_that_fails_fails_for_all_bounds() -> None:
    """One text without a score has no place in a share."""

    def down(completions: Any) -> list[Failure]:
        return [Failure("down") for _ in completions]

    failing = TextConstraint("service", down, bounds=(Bound("service", 0.0, 0.5),))
    sound = TextConstraint("sound", lambda c: [1.0 for _ in c], bounds=(Bound("sound", 0.0, 0.5),))
    found = (sound & failing).score_or_missing([Completion("", "x")])
    assert found == [Failure("down")]


def test_methods_that_judge_a_text_by_itself_refuse_a_population(
    tmp_path: Path,
) -> None:
    part = {"kind": "lexicon", "words": ["x"]}
    tree = tiny.workplace(tmp_path) | {
        "constraint": {"kind": "population", "at_least": 0.5, "parts": [part]}
    }
    with pytest.raises(ConfigError, match=r"method.kind = 'tilt' judges .* 'moving-targets'"):
        config = tiny.config(tree)
        refuse(config, make_method(config.method))
    methods = [{"name": "tilt", "kind": "tilt"}]
    comparison = {"table": {"dir": "x", "control": "c", "utility": "u"}, "method": methods}
    base = {name: table for name, table in tree.items() if name not in ("run", "method")}
    config = parse_config(CompareConfig, comparison | {"base": base}, source="compare.toml")
    with pytest.raises(
        ConfigError, match=r"'tilt' constraint.kind = 'population' .* 'moving-targets'"
    ):
        plan_entries(config, source="compare.toml")


def test_a_population_is_part_of_nothing(tmp_path: Path) -> None:
    built = build_constraint(population(tmp_path))
    assert built.bounds == (Bound("lexicon constraint (require, 1 entry)", 0.4, 0.6),)
    assert built.rule() is None
    with pytest.raises(
        ConstraintError, match=r"part 1 is a population constraint .*state it alone"
    ):
        _ = ~built
    for kind, other in (("not", ""), ("all", '[[parts]]\nkind = "length"\nat_most = 3')):
        nested = f'kind = "{kind}"\n[[parts]]{HALF}{other}'
        with pytest.raises(ConfigError, match=r"`constraint.parts`: parts.0 is a population"):
            population(tmp_path, nested)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("at_least = 0.4\nat_most = 0.6", ""), "neither at_least nor at_most"),
        (("at_least = 0.4", "at_least = 0.7"), "at_least = 0.7 is above at_most = 0.6"),
        (("at_least = 0.4", "at_least = 1.4"), "`constraint.at_least` is 1.4"),
        (("at_least = 0.4", "threshold = 0.4"), "threshold is the part's"),
    ],
)
def test_bounds_that_no_share_meets(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        population(tmp_path, HALF.replace(*change))


@pytest.mark.parametrize(
    ("kind", "degrees"), [("alone", 3), ("population", 3), ("not", 0), ("all", 0)]
)
def test_a_population_has_its_part_s_degrees_of_toxicity(kind: str, degrees: int) -> None:
    part = {"kind": "profanity"}
    bounds = {"at_least": 0.5} if kind == "population" else {}
    table = part if kind == "alone" else {"kind": kind, "parts": [part]} | bounds
    tree = {"scorer": [{"name": "judge", **table}]}
    (scorer,) = parse_config(EvaluateConfig, tree, source="").scorer
    texts, scores = [["a", "b"]], [[0.9, 0.2]]
    found = control(generated(texts), scored(scores), scorer, seed=0)
    assert sum(each.key.startswith("toxicity.") for each in found) == degrees


@pytest.mark.parametrize("kind", ["tilt", "best_of_n"])
def test_a_comparison_refuses_a_population_that_a_method_states(kind: str) -> None:
    part = {"kind": "lexicon", "words": ["x"]}
    overrides = {"constraint.kind": "population", "constraint.at_least": 0.5}
    method = {"name": "m", "kind": kind, "overrides": overrides | {"constraint.parts": [part]}}
    table = {"dir": "x", "control": "c", "utility": "u"}
    base = {"model": {"path": "m"}, "constraint": {}}
    tree = {"table": table, "base": base, "method": [method]}
    config = parse_config(CompareConfig, tree, source="compare.toml")
    with pytest.raises(ConfigError, match=r"\[\[method\]\] 'm' constraint.kind = 'population'"):
        plan_entries(config, source="compare.toml")
