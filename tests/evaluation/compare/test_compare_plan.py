"""Which runs a comparison is made of, and which entry of a grid wins."""

from pathlib import Path
from typing import Any

import pytest

from tiltune.config import CompareConfig, parse_config, read_toml
from tiltune.errors import ConfigError
from tiltune.evaluation.compare.choice import check_axes, choose
from tiltune.evaluation.compare.cost import cost_of, curve_of
from tiltune.evaluation.compare.plan import ROUNDS_UNTIL_SPENT, Planned, plan_entries, with_base
from tiltune.records.measurements import Entry, Evaluation, Measurement
from tiltune.records.rounds import RoundRecord

pytestmark = pytest.mark.quick

BASE: dict[str, Any] = {
    "model": {"path": "model"},
    "constraint": {"kind": "lexicon", "words": ["bad"]},
}


def config(*methods: dict[str, Any], **tables: Any) -> CompareConfig:
    table = {"dir": "out", "control": "c", "utility": "u"} | tables.pop("table", {})
    tree = {"table": table, "base": BASE, "method": list(methods)} | tables
    return parse_config(CompareConfig, tree, source="here")


def planned(*methods: dict[str, Any], **tables: Any) -> list[Planned]:
    return plan_entries(config(*methods, **tables), source="here")


def test_every_combination_of_a_grid_under_every_budget_is_an_entry() -> None:
    entries = planned(
        {"name": "rl", "kind": "ppo", "grid": {"method.kl_weight": [0.1, 1], "run.seed": [0, 1]}},
        budget={"samples": 64, "seconds": 1.5},
    )
    stated = [
        (e.knobs["method.kl_weight"], e.knobs["run.seed"], e.budget, e.config.method.samples_max,
         e.config.method.seconds_max)
        for e in entries
    ]  # fmt: skip
    assert stated == [
        (weight, seed, budget, *limits)
        for weight in (0.1, 1)
        for seed in (0, 1)
        for budget, limits in (("samples", (64, None)), ("seconds", (None, 1.5)))
    ]
    assert {e.config.method.kl_weight for e in entries} == {0.1, 1.0}
    assert len({e.config.run.dir for e in entries}) == 8
    assert entries[0].config.run.dir == "out/runs/rl-kl_weight=0.1-seed=0-samples"


def test_dotted_keys_may_be_written_with_and_without_quotes(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        'table = {dir = "d", control = "c", utility = "u"}\n'
        'base = {model = {path = "m"}, constraint = {kind = "lexicon", words = ["x"]}}\n'
        '[[method]]\nname = "a"\nkind = "tilt"\n'
        'overrides = {method.beta = 3, "sampler.max_new_tokens" = 7}\n'
        "grid = {method.schedule = ['fixed']}\n"
    )
    (entry,) = plan_entries(
        parse_config(CompareConfig, read_toml(tmp_path / "c.toml"), source="c"), source="c"
    )
    run = entry.config
    assert (run.method.beta, run.sampler.max_new_tokens, run.method.schedule) == (3, 7, "fixed")


def test_untrained_kinds_run_once_and_train_nothing() -> None:
    entries = planned(
        {"name": "b", "kind": "base"},
        {"name": "n", "kind": "best_of_n", "grid": {"n": [2, 8]}},
        budget={"samples": 64, "seconds": 1},
    )
    assert [(e.budget, e.n, e.trains) for e in entries][1:] == [("none", n, False) for n in (2, 8)]


def test_the_base_is_measured_whether_or_not_it_is_stated() -> None:
    def methods(*stated: dict[str, Any]) -> list[tuple[str, str]]:
        return [(each.name, each.kind) for each in with_base(config(*stated)).method]

    assert methods({"name": "x", "kind": "tilt"}) == [("base", "base"), ("x", "tilt")]
    assert methods({"name": "x", "kind": "tilt"}, {"name": "raw", "kind": "base"}) == [
        *(("x", "tilt"), ("raw", "base"))
    ]
    assert methods({"name": "Base", "kind": "tilt"}) == [("the base", "base"), ("Base", "tilt")]


@pytest.mark.parametrize("kind", ["search", "robust"])
def test_search_and_robust_learn_values_and_train_no_policy(kind: str) -> None:
    [entry] = planned({"name": "it", "kind": kind, kind: {}})
    assert entry.trains and entry.config.method.kind == "tilt"
    assert entry.config.learner.steps_per_round == 0
    members = entry.config.value_model.members
    assert members == (4 if kind == "robust" else None)
    decoding = next(each for each in cost_of(entry, []) if each.key == "cost.decoding")
    assert decoding.value == (12.0 if kind == "robust" else None)
    assert decoding.missing == (kind == "search")


def test_ways_of_decoding_are_stated_beside_their_kind() -> None:
    with pytest.raises(ConfigError, match="`search` is read by kind = 'search' only, not by"):
        planned({"name": "it", "kind": "guided", "search": {}})
    with pytest.raises(ConfigError, match=r"\[evaluate.robust\] is not read here"):
        planned({"name": "it", "kind": "robust"}, evaluate={"robust": {"chunk": 2}})


def test_guided_is_tilt_without_a_step() -> None:
    (entry,) = planned({"name": "g", "kind": "guided"})
    assert entry.config.method.kind == "tilt" and entry.config.learner.steps_per_round == 0


@pytest.mark.parametrize(
    ("kind", "overrides", "budget", "rounds"),
    [
        ("tilt", {}, {"samples": 9}, ROUNDS_UNTIL_SPENT),
        ("tilt", {"method.rounds": 5}, {"samples": 9}, 5),
        ("tilt", {"method.schedule": "fixed"}, {"samples": 9}, 3),  # draws in round 0 only
        ("tilt", {"method.schedule": "fixed"}, {"seconds": 9}, ROUNDS_UNTIL_SPENT),
        ("sft", {}, {"samples": 9}, 3),  # draws nothing to train on
        ("sft", {}, {"seconds": 9}, ROUNDS_UNTIL_SPENT),
        ("ppo", {}, {}, 64),
    ],
)
def test_the_budget_ends_a_run_whose_rounds_are_not_stated(
    kind: str, overrides: dict[str, Any], budget: dict[str, Any], rounds: int
) -> None:
    method = {"name": "x", "kind": kind, "overrides": overrides}
    (entry,) = planned(method, budget=budget)
    assert entry.config.method.rounds == rounds


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"overrides": {"method.betta": 1}}, r"\[\[method\]\] 'x'.*betta.*did you mean `beta`"),
        ({"grid": {"learner.rate": [1]}}, r"\[\[method\]\] 'x'.*unknown key `learner.rate`"),
        ({"overrides": {"run.dir": "a"}}, r"'x': run.dir is given by the comparison"),
        ({"overrides": {"method.kind": "sft"}}, r"'x': method.kind is given by the comparison"),
        ({"overrides": {"beta": 1}}, r"'x': beta is no setting; write table.key"),
        ({"grid": {"method.beta": 1}}, r"method.beta = 1; give a list of values"),
        ({"grid": {"method.beta": []}}, r"give a list of values that is not empty"),
        ({"n": 3}, r"n is read by kind = 'best_of_n' only, not by 'tilt'"),
        ({"kind": "best_of_n", "grid": {"n": [0]}}, r"grid n = 0; .* 2 or more"),
        ({"kind": "best_of_n", "grid": {"n": ["4"]}}, r"grid n = '4'"),
        ({"kind": "best_of_n", "grid": {"n": [2.5]}}, r"grid n = 2.5"),
        ({"kind": "best_of_n", "overrides": {"n": 8}}, r"n is no setting of run.toml"),
        ({"kind": "dpo"}, r"^[^\n]*`method.0.kind` is 'dpo'[^\n]*$"),
    ],
)
def test_a_wrong_method_is_named(method: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned({"name": "x", "kind": "tilt"} | method)


def test_the_comparison_s_own_settings_are_refused_in_base() -> None:
    base = BASE | {"run": {"dir": "mine"}}
    with pytest.raises(ConfigError, match=r"here: \[base\] sets run.dir"):
        planned({"name": "x", "kind": "tilt"}, base=base)


def test_two_entries_never_share_a_folder() -> None:
    with pytest.raises(ConfigError, match="'a b' and 'a/b' would both write runs/a_b"):
        planned({"name": "a b", "kind": "base"}, {"name": "a/b", "kind": "base"})
    (entry,) = planned({"name": "../../etc", "kind": "base"})
    assert entry.config.run.dir == "out/runs/_.._etc"


def entry(method: str, control: float | None, utility: float | None, **changes: Any) -> Entry:
    fields = {"method": method, "kind": "ppo", "budget": "samples"} | changes
    return Entry(**fields, evaluation=evaluation(control, utility))


def evaluation(control: float | None, utility: float | None) -> Evaluation:
    made = [
        Measurement(
            key="c", aspect="control", value=control, unit="share", better="higher", count=9
        ),
        Measurement(key="u", aspect="utility", value=utility, unit="nats", better="lower", count=9),
    ]
    return Evaluation(name="", model="", digest="", protocol={}, measurements=tuple(made))


def chosen(entries: list[Entry], **table: Any) -> list[int]:
    table_ = config({"name": "x", "kind": "base"}, table=table).table
    return [n for n, each in enumerate(choose(entries, table_)) if each.chosen]


def test_the_winner_has_the_best_utility_among_those_with_enough_control() -> None:
    grid = [entry("a", 0.99, 3.0), entry("a", 0.95, 1.0), entry("a", 0.80, 0.1)]
    assert chosen(grid, least_control=0.9) == [1]
    assert chosen(grid, least_control=0.95) == [1]  # reaching it is enough
    assert chosen(grid) == [0]  # without a limit: best control
    assert chosen(grid, least_control=0.999) == [0]  # none reaches it: best control


def test_what_is_missing_never_wins() -> None:
    assert chosen([entry("a", None, 0.0), entry("a", 0.1, 9.0)]) == [1]
    assert chosen([entry("a", 0.9, None), entry("a", 0.9, 9.0)], least_control=0.5) == [1]


def test_each_budget_and_method_has_a_winner_of_its_own() -> None:
    entries = [
        entry("a", 0.9, 1.0),
        entry("a", 0.8, 1.0, budget="seconds"),
        entry("b", 0.1, 1.0),
        entry("a", 0.7, 1.0),
    ]
    assert chosen(entries) == [0, 1, 2]


def test_lower_may_be_better_on_the_control_axis() -> None:
    grid = [entry("a", 0.5, 2.0), entry("a", 0.5, 1.0)]
    table = config({"name": "x", "kind": "base"}, table={"control": "u", "utility": "c"}).table
    table = table.model_copy(update={"least_control": 1.5})
    assert [each.chosen for each in choose(grid, table)] == [False, True]


def test_an_axis_that_was_not_measured_is_told_with_what_was() -> None:
    table = config({"name": "x", "kind": "base"}, table={"control": "cc"}).table
    with pytest.raises(ConfigError, match=r"control = 'cc'.*did you mean 'c'.*measured: c, u"):
        check_axes(table, evaluation(1, 1), source="here")
    costs = {"columns": ["cost.decoding", "cost.sampled_tokns"]}
    table = config({"name": "x", "kind": "base"}, table=costs).table
    with pytest.raises(ConfigError, match=r"'cost.sampled_tokns'.*mean 'cost.sampled_tokens'"):
        check_axes(table, evaluation(1, 1), source="here")


def test_an_axis_of_several_groups_must_name_one() -> None:
    measurements = [
        Measurement(
            key="c", aspect="control", group=group, value=1, unit="", better="higher", count=1
        )
        for group in ("one", "two")
    ]
    both = evaluation(1, 1).model_copy(update={"measurements": tuple(measurements)})
    table = config({"name": "x", "kind": "base"}, table={"utility": "c@two"}).table
    with pytest.raises(ConfigError, match="several groups; name one: c@one, c@two"):
        check_axes(table, both, source="here")


def test_a_point_of_the_curve_knows_what_had_been_spent_by_then() -> None:
    def row(number: int, **numbers: Any) -> RoundRecord:
        return RoundRecord(
            round=number, policy_version=number, method="tilt", schedule="sequential", **numbers
        )

    spent = {
        "sampling_seconds": 1.0,
        "scoring_seconds": 0.5,
        "value_seconds": 2.0,
        "learning_seconds": 4.0,
    }
    records = [
        row(0, samples_drawn=10, sampled_tokens=70, satisfaction_rate=0.5, **spent),
        row(1, samples_drawn=0, sampled_tokens=33, satisfaction_rate=0.6, learning_seconds=4.0),
        row(2, closing=True, sampled_tokens=99, satisfaction_rate=0.7),
    ]
    points = curve_of(records)
    assert [(p.samples, p.sampled_tokens, p.seconds) for p in points] == [
        (0, 0, 0.0),
        (10, 70, 7.5),
        (10, 70, 11.5),  # what is drawn to measure costs nothing
    ]
    (planned_entry,) = planned({"name": "g", "kind": "guided"})
    assert [each.value for each in cost_of(planned_entry, records)] == [10, 70, 11.5, 2]
    (best,) = planned({"name": "g", "kind": "best_of_n", "n": 6})
    assert [each.value for each in cost_of(best, [])] == [0, 0, 0, 6]


def test_a_value_model_of_another_size_has_no_known_decoding_cost() -> None:
    other = {"value_model.kind": "separate", "value_model.path": "smaller"}
    (small,) = planned({"name": "g", "kind": "guided", "overrides": other})
    found = cost_of(small, [])[-1]
    assert found.value is None and found.missing == 1
