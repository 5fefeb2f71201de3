"""The loop: which version trains on which pair, in every schedule and for every method."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from tiltune.records.intervals import wilson_interval
from tiltune.training.actor import Actor, Pair
from tiltune.training.assemble import Prepared, make_actor, make_learner, prepare
from tiltune.training.fit import Round, Schedule, close, fit
from tiltune.training.learner import Learner, Trained


class Watched:
    """Both sides of a run, and the rounds they made."""

    def __init__(self, folder: Path, *, max_lag: int = 0, **tables: Any) -> None:
        tree = tiny.changed(tiny.workplace(folder), **tables)
        self.prepared: Prepared = prepare(tiny.config(tree))
        self.actor: Actor = make_actor(self.prepared)
        self.learner: Learner = make_learner(self.prepared)
        method = self.prepared.config.method
        self.schedule = Schedule(method.rounds, max_lag=max_lag, method=method.kind)
        self.pairs: list[dict[str, Tensor]] = []
        self.rounds: list[Round] = []
        measure = self.prepared.measurer
        for done in fit(self.actor, self.learner, self.schedule, measure):
            self.rounds.append(done)
            self.pairs.append(pair_state(done.pair))
        self.closing = close(
            self.actor, self.learner, self.schedule, measure, number=len(self.rounds)
        )

    @property
    def records(self) -> list[Any]:
        return [done.record for done in self.rounds]


def pair_state(pair: Pair) -> dict[str, Tensor]:
    """A pair's law, values and samples, copied."""
    kept = {f"law.{name}": value for name, value in pair.law.state().items()}
    if pair.values is not None:
        kept |= {f"values.{name}": value for name, value in pair.values.state().items()}
    if pair.samples is not None:
        kept |= {f"samples.{name}": value for name, value in pair.samples.tensors().items()}
    return kept


def same(one: dict[str, Tensor], other: dict[str, Tensor], part: str = "") -> bool:
    names = [name for name in one if name.startswith(part)]
    return bool(names) and all(torch.equal(one[name], other[name]) for name in names)


@pytest.mark.parametrize(("max_lag", "versions"), [(0, [0, 1, 2, 3]), (1, [0, 0, 1, 2])])
def test_versions_and_matching_pairs(tmp_path: Path, max_lag: int, versions: list[int]) -> None:
    run = Watched(tmp_path, max_lag=max_lag, method={"rounds": 4})
    assert [record.policy_version for record in run.records] == versions
    assert [record.round for record in run.records] == [0, 1, 2, 3]
    assert run.closing.record.policy_version == run.learner.version == 4
    for done in run.rounds:
        assert done.record.logprob_gap_nats < 1e-5  # law and samples belong together
        assert done.record.satisfaction_rate is not None
    assert run.rounds[-1].pair.samples.policy_version.unique().tolist() == versions[-1:]
    assert (run.records[0].waiting_for_actor_seconds is None) == (max_lag == 0)
    assert not same(run.pairs[0], run.pairs[1], "samples.ids")
    assert not same(run.pairs[0], run.pairs[1], "values.")


def test_a_pair_of_another_version_would_show(tmp_path: Path) -> None:
    """The gap that the test above wants to be zero is not so by construction."""
    run = Watched(tmp_path, method={"rounds": 1}, learner={"learning_rate": 0.02})
    pair = run.rounds[0].pair
    pair.law.load_state(run.learner.policy.state())

    numbers = run.learner.update(Trained(pair.samples, pair.law, pair.values))
    assert numbers["logprob_gap_nats"] > 1e-3


def test_fixed_keeps_the_first_pair(tmp_path: Path) -> None:
    run = Watched(tmp_path, method={"rounds": 3, "schedule": "fixed"})
    assert same(run.pairs[0], run.pairs[1]) and same(run.pairs[0], run.pairs[2])
    assert [record.policy_version for record in run.records] == [0, 1, 2]
    assert run.records[0].value_tokens and run.records[1].value_tokens is None
    laws = [done.pair.policy.state() for done in run.rounds[-1:]]
    assert not same(laws[0], run.prepared.reference.state())
    # the rates are of the policy as it moves, on fresh samples
    assert [record.samples for record in run.records] == [32, 32, 32]
    assert run.records[2].kl_policy_reference_nats_per_token > 0


def test_anchor_reference_pools_samples_of_the_reference(tmp_path: Path) -> None:
    run = Watched(tmp_path, method={"rounds": 3, "anchor": "reference"})
    reference = run.prepared.reference
    for number, (done, state) in enumerate(zip(run.rounds, run.pairs, strict=True)):
        assert len(state["samples.ids"]) == 32 * (number + 1)
        assert done.pair.law is reference
        assert done.record.logprob_gap_nats < 1e-5
        assert done.record.samples == 32
        assert done.pair.measured.samples.policy_version.unique().tolist() == [number]
        assert not state["samples.policy_version"].any()  # the reference drew them
    assert not same(run.pairs[0], run.pairs[2], "values.")
    assert [record.policy_version for record in run.records] == [0, 1, 2]
    first, last = (state["samples.ids"][:32] for state in (run.pairs[0], run.pairs[2]))
    assert torch.equal(first, last[:, : first.shape[1]])


@pytest.mark.parametrize(("kind", "drawn"), [("sft", "none"), ("filter", "snapshot")])
def test_methods_without_values_are_measured_the_same_way(
    tmp_path: Path, kind: str, drawn: str
) -> None:
    run = Watched(tmp_path, method={"kind": kind})
    assert run.actor.plan.law == drawn
    for record in [*run.records, run.closing.record]:
        count = round(record.satisfaction_rate * record.samples)
        assert record.satisfaction_rate_interval == wilson_interval(count, record.samples)
        assert record.validation_satisfying_nats_per_token > 0
        assert record.method == kind and record.value_seconds is None
    assert run.rounds[0].pair.values is None
    assert (run.rounds[0].pair.samples is None) == (kind == "sft")
    assert (run.records[0].beta is None) == (kind == "sft")
    assert run.closing.record.kl_policy_reference_nats_per_token > 0


def test_beta_moves_in_the_loop_with_a_corpus_only(tmp_path: Path) -> None:
    run = Watched(tmp_path, method={"rounds": 3, "target_rate": 1.0, "beta": 2.0})
    betas = [record.beta for record in run.records]
    assert betas[0] == 2.0 < betas[1] < betas[2]


def test_sft_has_no_beta_to_steer(tmp_path: Path) -> None:
    run = Watched(tmp_path, method={"kind": "sft", "target_rate": 1.0, "beta": 0})
    assert run.learner.beta == 0 and run.learner.version == 2


def test_control_alone_needs_no_corpus(tmp_path: Path) -> None:
    run = Watched(tmp_path, data={"corpus": None})
    assert run.records[0].corpus_loss_nats_per_token is None
    assert run.records[0].validation_satisfying_nats_per_token is None
    assert run.records[1].kl_target_policy_nats_per_token > 0
    assert run.prepared.prompts[0].ids == (0,)  # BOS


def test_equal_seeds_give_equal_runs(tmp_path: Path) -> None:
    ends = [
        Watched(
            tmp_path, run={"seed": seed}, model={"adapter": adapter}, method={"rounds": 1}
        ).learner.policy.state()
        for adapter in ("none", "lora")
        for seed in (3, 3, 4)
    ]
    for one, other, third in (ends[:3], ends[3:]):
        assert same(one, other) and not same(one, third)


def test_beta_0_through_a_whole_fit_is_sft_to_the_bit(tmp_path: Path) -> None:
    ends = [
        Watched(tmp_path, method=method).learner.policy.state()
        for method in ({"kind": "sft"}, {"kind": "tilt", "beta": 0}, {"kind": "tilt", "beta": 1.0})
    ]
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])


def test_a_fresh_adapter_comes_from_the_seed_alone(tmp_path: Path) -> None:
    tree = tiny.workplace(tmp_path, model={"adapter": "lora"})
    starts: list[dict[str, Tensor]] = []
    for noise, seed in ((1, 3), (2, 3), (1, 4)):
        torch.manual_seed(noise)
        given = tiny.config(tiny.changed(tree, run={"seed": seed}))
        starts.append(prepare(given).loaded.policy.state())
    assert same(starts[0], starts[1]) and not same(starts[0], starts[2])
