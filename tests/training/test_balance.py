"""Beta where it is left open: the rule by hand, and that choosing it changes nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

import tiny
from learners import Ending, drawn, learner_with
from tiltune.data.batches import Cursor
from tiltune.models.lm import LanguageModel
from tiltune.records.rounds import RoundRecord
from tiltune.training.assemble import Prepared, make_learner, prepare
from tiltune.training.balance import Norms, balanced
from tiltune.training.learner import BetaRule, Learner, Trained

NORMS = ("corpus_gradient_norm", "samples_gradient_norm")


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return prepare(tiny.config(tiny.workplace(tmp_path)))


@pytest.mark.parametrize(
    ("norms", "bounds", "expected"),
    [
        (Norms(1.5, 0.1), (0.05, 50.0), 21.0),  # 1.4 · 1.5 / .1
        (Norms(1.0, 1.0), (0.05, 50.0), 2.0),  # never below what a corpus-free run has
        (Norms(1.5, 0.01), (0.05, 50.0), 50.0),
        (Norms(1.5, 0.0), (0.05, 50.0), 50.0),
        (Norms(0.0, 0.0), (0.05, 50.0), 50.0),
        (Norms(1.0, 0.5), (4.0, 50.0), 4.0),
        (Norms(1.5, 0.5), (0.05, 1.5), 1.5),
    ],
)
def test_the_rule_by_hand(norms: Norms, bounds: tuple[float, float], expected: float) -> None:
    assert balanced(norms, lowest=bounds[0], highest=bounds[1]) == pytest.approx(expected)


def vector(lm: LanguageModel, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, [value for _, value in lm.named_parameters()])
    return torch.cat([each.flatten() for each in found])


def corpus_gradient(prepared: Prepared, lm: LanguageModel, cursor: Cursor, rows: int) -> Tensor:
    """Of the mean over a step's trained tokens, a row at a time."""
    examples = [prepared.corpus[place] for place in cursor.next(rows)]
    count = sum(len(each.ids) - each.prompt_length for each in examples)
    total = torch.zeros(())
    for each in examples:
        ids = torch.tensor([each.ids])
        law = lm.forward(ids[:, :-1], torch.ones_like(ids[:, :-1]).bool()).logits.log_softmax(-1)
        taken = law.gather(-1, ids[:, 1:, None])[0, each.prompt_length - 1 :]
        total = total - taken.sum() / count
    return vector(lm, total)


def samples_gradient(lm: LanguageModel, picked: Any, values: Ending) -> Tensor:
    """Of `1/M Σ w KL(q ‖ p_θ)`, with `w = R(s)/R(x)` (none is as large as the clip here)."""
    (ids, mask), keep = picked.prefixes(), picked.ids.shape[1]
    law = lm.forward(ids, mask, keep=keep).logits.log_softmax(-1)
    joint = law.detach() + logsigmoid(values.logits(ids, mask, keep=keep))
    log_r = joint.logsumexp(-1)
    log_q = joint - log_r[..., None]
    weights = (log_r - log_r[:, :1]).exp()
    written = picked.written
    assert weights[written].max() < 10
    divergence = (log_q.exp() * (log_q - law)).sum(-1)
    return vector(lm, (weights * divergence)[written].sum() / written.sum())


def test_the_norms_are_those_of_the_first_steps_mean_gradients(prepared: Prepared) -> None:
    samples, law = drawn(prepared)
    learner = learner_with(prepared, beta=None, steps=1, accumulation=2, corpus_rows=0.5)
    values, lm = Ending(law.width, 0.0), learner.policy.clone("by hand")
    cursor, chance = Cursor(len(prepared.corpus), seed=7), torch.Generator().manual_seed(5)
    rows = learner.settings.rows
    corpus = [corpus_gradient(prepared, lm, cursor, rows) for _ in range(4)]
    picked = [
        samples.select(torch.randint(len(samples), (rows,), generator=chance)) for _ in range(4)
    ]
    method = [samples_gradient(lm, each, values) for each in picked]
    expected = [float(torch.stack(parts).mean(0).norm()) for parts in (corpus, method)]
    numbers = learner.update(Trained(samples, law, values))
    assert [numbers[name] for name in NORMS] == pytest.approx(expected, rel=1e-4)
    bounds = {"lowest": 0.05, "highest": 50.0}
    assert numbers["beta"] == pytest.approx(balanced(Norms(*expected), **bounds), rel=1e-4)
    assert 2.0 < numbers["beta"] < 50.0  # neither bound decided


def test_choosing_moves_nothing_but_beta(prepared: Prepared) -> None:
    samples, law = drawn(prepared)
    trained = Trained(samples, law, Ending(law.width, 0.0))
    chosen = learner_with(prepared, beta=None, steps=3)
    first = chosen.update(trained)
    stated = learner_with(prepared, beta=first["beta"], steps=3)
    second = stated.update(trained)
    for one, other in ((chosen, stated), (chosen, stated)):
        tensors, numbers = one.state()
        expected, expected_numbers = other.state()
        assert numbers == expected_numbers and same(tensors, expected)
        one.update(trained), other.update(trained)
    assert not set(NORMS) & second.keys()
    # what was read twice is counted twice
    assert first["learner_tokens"] > second["learner_tokens"]


def same(one: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> bool:
    return all(
        torch.equal(value, other[group][name])
        for group, values in one.items()
        for name, value in values.items()
    )


def test_beta_is_chosen_once_and_kept_in_the_checkpoint(prepared: Prepared) -> None:
    samples, law = drawn(prepared)
    trained = Trained(samples, law, Ending(law.width, 0.0))
    learner = learner_with(prepared, beta=None, steps=2)
    beta = learner.update(trained)["beta"]
    live, numbers = learner.state()
    tensors = {group: {k: v.clone() for k, v in each.items()} for group, each in live.items()}
    resumed = learner_with(prepared, beta=None, steps=2)
    resumed.load_state(tensors, json.loads(json.dumps(numbers)))
    for each in (learner, resumed):
        again = each.update(trained)
        assert again["beta"] == beta and not set(NORMS) & again.keys()
    assert same(learner.state()[0], resumed.state()[0])


def test_without_a_target_beta_is_chosen_later(prepared: Prepared) -> None:
    samples, law = drawn(prepared)
    learner = learner_with(prepared, beta=None, steps=1)
    hopeless = Trained(samples, law, Ending(law.width, -30.0))
    hopeless.values.logits = (
        lambda ids, mask, *, keep=0: torch.full(  # type: ignore[union-attr]
            (*ids[:, -keep:].shape, law.width), -30.0
        )
    )
    assert learner.update(hopeless)["beta"] is None
    learner.adapt_beta(0.1, (0.0, 0.2))  # there is nothing to steer yet
    assert learner.beta is None
    assert learner.update(Trained(samples, law, Ending(law.width, 0.0)))["beta"] >= 2.0


def records(folder: Path, **tables: Any) -> list[RoundRecord]:
    return tiny.finish(tiny.workplace(folder, run={"overwrite": True}, **tables))


def test_a_run_records_both_norms_once(tmp_path: Path) -> None:
    rounds = records(tmp_path)
    first, second, closing = ([getattr(each, name) for name in NORMS] for each in rounds)
    corpus, samples = first
    assert corpus > 0 and samples > 0 and second == closing == [None, None]
    expected = balanced(Norms(corpus, samples), lowest=0.05, highest=50.0)
    assert rounds[0].beta == rounds[1].beta == pytest.approx(expected)


def test_an_actor_of_its_own_finds_the_same_beta(tmp_path: Path) -> None:
    here = records(tmp_path)[0]
    apart = records(tmp_path, method={"schedule": "parallel"})[0]
    assert [getattr(here, name) for name in ("beta", *NORMS)] == [
        getattr(apart, name) for name in ("beta", *NORMS)
    ]


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"method": {"beta": 1.25}}, 1.25),
        ({"data": {"corpus": None}}, 2.0),
        ({"method": {"kind": "filter"}}, 2.0),
        ({"method": {"kind": "sft"}}, None),
    ],
)
def test_what_is_stated_or_has_nothing_to_weigh_against_is_not_chosen(
    tmp_path: Path, tables: dict[str, Any], expected: float | None
) -> None:
    tables = tables | {"method": {"rounds": 1} | tables.get("method", {})}
    first = records(tmp_path, **tables)[0]
    assert first.beta == expected and [getattr(first, name) for name in NORMS] == [None, None]


def test_steering_starts_from_the_chosen_beta(tmp_path: Path) -> None:
    bounds = {"beta_max": 1000.0}
    plain = records(tmp_path, method=bounds)
    steered = records(tmp_path, method=bounds | {"target_rate": 1.0})
    assert plain[1].beta == plain[0].beta == steered[0].beta
    assert steered[1].beta > steered[0].beta


def test_a_gradient_that_is_none_stops_the_run(prepared: Prepared) -> None:
    samples, law = drawn(prepared)
    learner: Learner = learner_with(prepared, beta=None, steps=1)
    with torch.no_grad():
        next(iter(learner.optimiser.parameters)).fill_(float("nan"))
    with pytest.raises(Exception, match="the policy diverged: a gradient is not finite before"):
        learner.update(Trained(samples, law, Ending(law.width, 0.0)))


def test_the_default_is_open_for_tilt_alone(tmp_path: Path) -> None:
    for kind, beta in (("tilt", None), ("grpo", 2.0), ("ppo", 2.0), ("filter", 2.0)):
        tree = tiny.workplace(tmp_path, method={"kind": kind})
        assert make_learner(prepare(tiny.config(tree))).rule.beta == beta


def test_bounds_hold_for_a_beta_that_moves() -> None:
    assert BetaRule(2.0, 0.05, 50.0).bounds is None
    assert BetaRule(None, 0.05, 50.0).bounds == (0.05, 50.0)
    assert BetaRule(2.0, 0.05, 50.0, target_rate=0.9).bounds == (0.05, 50.0)
