"""One balance for two learning rates: what each moves, its bounds, its place in runs."""

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import tiny
from conftest import ROOT
from tiltune.config import MethodConfig, load_config
from tiltune.config.method import TABLES
from tiltune.errors import ConfigError
from tiltune.methods.kinds import KINDS, make_method
from tiltune.methods.refusals import COORDINATED
from tiltune.records.rounds import RoundRecord, read_records
from tiltune.training.assemble import check_settings
from tiltune.training.coordinator import (
    EVERY,
    LEAST,
    MOST,
    Balance,
    Rates,
    Watch,
    distance,
    guided,
)


class Toy:
    """Two biases that add up to one law's logits, moved by the same gradient."""

    def __init__(self) -> None:
        chance = torch.Generator().manual_seed(0)
        self.law, self.values = torch.randn(2, 1, 8, generator=chance, dtype=torch.float64)
        target = torch.randn(1, 8, generator=chance, dtype=torch.float64).softmax(-1)
        self.gradient = 0.1 * (guided(self.law, self.values).exp() - target)  # small: d is a square

    def moves(self, rates: Rates) -> tuple[float, float]:
        """What a step of each moves the law, the other held."""
        before = guided(self.law, self.values)
        law = guided(self.law - rates.policy * self.gradient, self.values)
        values = guided(self.law, self.values - rates.values * self.gradient)
        return distance(law, before), distance(values, before)


@pytest.mark.parametrize(
    ("policy", "values", "kappa"), [(0.01, 0.01, 1.0), (0.04, 0.01, 15.995), (0.3, 0.1, 8.979)]
)
def test_kappa_is_the_square_of_the_rates_ratio_and_one_correction_levels_it(
    policy: float, values: float, kappa: float
) -> None:
    toy, balance = Toy(), Balance(Rates(policy, values), damping=1)
    one, other = toy.moves(balance.rates)
    # the toy behind these numbers had other logits
    assert one / other == pytest.approx(kappa, rel=0.01)
    balance.take(one, other)
    again = toy.moves(balance.rates)
    assert again[0] / again[1] == pytest.approx(1, abs=0.01)
    assert balance.kappa == pytest.approx(1, abs=1e-6)  # the mean is at the rates of now
    assert balance.rates.policy * balance.rates.values == pytest.approx(policy * values)


def test_without_the_rates_of_now_in_the_mean_it_would_overshoot() -> None:
    toy, balance = Toy(), Balance(Rates(0.04, 0.01))
    ratios: list[float] = []
    for _ in range(30):
        balance.take(*toy.moves(balance.rates))
        ratios.append(balance.rates.policy / balance.rates.values)
    assert min(ratios) > 0.98 and ratios[-1] == pytest.approx(1, abs=0.02)


def test_a_module_at_rest_drives_both_rates_to_their_bounds_and_they_stay() -> None:
    balance = Balance(Rates(0.01, 0.02))
    for _ in range(30):
        balance.take(balance.rates.policy**2, 0.0)
    for _ in range(3):
        assert balance.rates == Rates(pytest.approx(0.01 / MOST), pytest.approx(0.02 * MOST))
        balance.take(balance.rates.policy**2, 0.0)
    assert math.isfinite(balance.kappa or math.nan)
    still = Balance(Rates(0.01, 0.02))
    still.take(0.0, 0.0)
    assert still.rates == Rates(0.01, 0.02) and LEAST > 0


def test_a_swap_turns_kappa_over_and_swaps_the_rates() -> None:
    one, other = Balance(Rates(0.04, 0.01)), Balance(Rates(0.01, 0.04))
    for first, second in ((3e-4, 2e-5), (1e-4, 4e-5)):
        one.take(first, second)
        other.take(second, first)
    assert one.kappa == pytest.approx(1 / (other.kappa or 0))
    assert one.rates.policy == pytest.approx(other.rates.values)
    assert one.rates.values == pytest.approx(other.rates.policy)


def test_a_phase_measures_one_step_in_ten_and_undoes_its_schedule() -> None:
    where = torch.zeros(1, 4, dtype=torch.float64)
    watch = Watch(lambda: where.log_softmax(-1), 40)
    for step in range(40):
        rate = 0.002 * (1 - step / 40)
        watch.step(step, rate, lambda rate=rate: where[:, 0].add_(rate))
    assert watch.moves.passes == 2 * 40 // EVERY
    # from near the uniform law of four: ½ rate² · ¼ · ¾
    assert watch.moves.at(0.002) == pytest.approx(0.5 * 0.002**2 * 3 / 16, rel=0.02)
    short = Watch(lambda: where.log_softmax(-1), 3)
    assert [short.step(step, 0.1, lambda: None) for step in range(3)] == [False, True, False]


def test_prefixes_from_which_nothing_satisfies_are_left_out() -> None:
    law = torch.zeros(2, 3, dtype=torch.float64).log_softmax(-1)
    values = torch.tensor([[0.0, -1.0, -torch.inf], [-torch.inf] * 3], dtype=torch.float64)
    before, after = guided(law, values), guided(law, values + torch.tensor([0.1, 0.0, 0.0]))
    assert 0 < distance(after, before) < 0.01
    assert distance(before[1:], before[1:]) == 0


@pytest.mark.parametrize("kind", [kind for kind in TABLES if kind != "python"])
def test_only_methods_with_values_of_every_next_token_take_it(kind: str) -> None:
    found = make_method(cast(MethodConfig, TABLES[kind].model_validate({"kind": kind})))
    assert (found.needs.values == "prefix") == (kind in COORDINATED) and kind in KINDS


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ({"kind": "ppo"}, "'ppo' values prefixes only"),
        ({"kind": "grpo"}, "'grpo' trains the policy alone"),
        ({"kind": "sft"}, "set method.kind to 'tilt', 'etpo', 'rce', 'moving-targets'"),
        ({"kind": "tilt", "schedule": "fixed"}, "'sequential' or 'parallel'"),
    ],
)
def test_others_refuse_it_before_anything_is_loaded(
    tmp_path: Path, method: dict[str, Any], told: str
) -> None:
    given = tiny.config(tiny.workplace(tmp_path, method=method | {"coordinate": True}))
    with pytest.raises(ConfigError, match=told):
        check_settings(given)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[tiny.Tree, dict[str, Any]]:
    """Three coordinated rounds that nothing stopped."""
    folder = tmp_path_factory.mktemp("coordinated")
    tree = tiny.workplace(folder, method={"coordinate": True, "rounds": 3})
    tiny.finish(tree)
    return tree, tiny.outcome(folder / "run")


def rounds(tree: tiny.Tree) -> list[RoundRecord]:
    return read_records(Path(tree["run"]["dir"]) / "records.jsonl")[:-1]


def test_the_next_fit_has_the_rate_and_the_record_tells_what_it_cost(
    whole: tuple[tiny.Tree, dict[str, Any]],
) -> None:
    first, second, third = rounds(whole[0])
    assert first.values_rate_next == second.values_rate != first.values_rate
    assert second.values_rate_next == third.values_rate
    assert first.policy_rate != second.policy_rate
    assert first.coordinating_passes == 2 * (1 + 2)  # a step of each phase, and what is held
    assert (first.coordinating_seconds or 0) > 0


@pytest.mark.parametrize("rounds", [1, 2])
def test_resumed_it_goes_on_to_the_bit(
    tmp_path: Path, whole: tuple[tiny.Tree, dict[str, Any]], rounds: int
) -> None:
    tree, expected = whole
    here = tiny.changed(tree, run={"dir": str(tmp_path / "run")}, method={"rounds": rounds})
    tiny.finish(here)
    tiny.finish(tiny.changed(here, method={"rounds": 3}), resume=True)
    assert tiny.outcome(tmp_path / "run") == expected


def test_in_parallel_a_fit_is_at_the_rate_of_when_it_began(tmp_path: Path) -> None:
    tree = tiny.workplace(
        tmp_path, method={"coordinate": True, "rounds": 3, "schedule": "parallel"}
    )
    tiny.finish(tree)
    first, second, third = rounds(tree)
    assert first.values_rate == second.values_rate  # submitted before the first update ended
    assert third.values_rate == first.values_rate_next != first.values_rate


def test_the_example_is_coordinated() -> None:
    assert load_config(ROOT / "examples" / "methods" / "coordinate.toml").method.coordinate
