"""`rce` on completions that can all be listed: what it trains on, and whom it believes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from gradient_worlds import ListedValues, chain, drawn, every, every_arm, learner, two_arms
from torch import Tensor

import tiny
from tiltune.config import RunConfig, parse_config
from tiltune.data.samples import Samples, concatenate
from tiltune.errors import ConfigError
from tiltune.methods.base import Models, Work
from tiltune.methods.kinds import make_method
from tiltune.methods.losses import weighted_likelihood_loss
from tiltune.methods.rce import Rce, groups_of, smoothed
from tiltune.methods.refusals import refuse
from tiltune.models.lm import LanguageModel
from tiltune.training.learner import Trained
from tiltune.values.model import ValueModel
from tiltune.values.outputs import Columns
from tiltune.worlds.testing import exact_values

pytestmark = pytest.mark.quick


class Together(ListedValues):
    """Tables side by side, each a member; as one model their mean."""

    def __init__(self, rows: Samples, tables: list[Tensor]) -> None:
        super().__init__(rows, torch.stack(tables).mean(0))
        self.parts = [ListedValues(rows, table) for table in tables]

    def members(self) -> Sequence[ValueModel]:
        return self.parts

    def columns(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Columns:
        logits = (part.logits(ids, mask, keep=keep) for part in self.parts)
        return {f"{place}": each for place, each in enumerate(logits)}

    def member_columns(self, columns: Columns, place: int) -> Columns:
        return {"logits": columns[f"{place}"]}


def tables(rows: Samples) -> tuple[Tensor, Tensor]:
    """The exact values, and those of a member that takes all for good."""
    exact = torch.full((*rows.ids.shape, 4), 0.5, dtype=torch.float64)
    exact[..., :3] = exact_values(rows, 3)
    return exact, torch.full_like(exact, 0.999)


def rate(lm: LanguageModel) -> float:
    rows = every(lm)
    return (rows.proposal_logprobs.sum(1).exp() * rows.labels).sum().item()


def trained(*, robust: bool) -> tuple[float, dict[str, Any]]:
    """Four rounds beside a misled member: the rate after them, and the first one's numbers."""
    lm = chain()
    reference, method = lm.clone("reference"), Rce(cost_max=0.9)
    side = learner(
        method,
        Models(lm, reference, reference, most_tokens=4000),
        steps=12,
        batch_size=64,
        learning_rate=0.1,
    )
    generator, first = torch.Generator().manual_seed(0), dict[str, Any]()
    for _ in range(4):
        law = lm.clone("snapshot")
        rows = every(law)
        both = tables(rows)
        values = Together(rows, [*both]) if robust else ListedValues(rows, (both[0] + both[1]) / 2)
        numbers = side.update(Trained(drawn(rows, 256, generator), law, values))
        first = first or numbers
    return rate(lm), first


def test_one_misled_member_costs_the_mean_its_satisfaction_and_the_worst_none() -> None:
    before = rate(chain())
    robust, seen = trained(robust=True)
    mean, believed = trained(robust=False)
    assert robust > 0.97 > before
    assert mean < before - 0.1
    assert seen["elite_satisfaction_rate"] > 0.95 > 0.5 > believed["elite_satisfaction_rate"]
    assert seen["member_disagreement"] > 0.3 and believed["member_disagreement"] == 0


def arms(*answers: int) -> Samples:
    """Answers of one token; arm 0 satisfies."""
    return every_arm(two_arms()).select(torch.tensor(answers))


def test_one_update_mixes_the_elites_with_those_before() -> None:
    """Before ½, ½; elites a, a, b; a tenth of the former: .65, .35 (the gradient is 0 there)."""
    work = Work(concatenate([arms(0, 0, 1), arms(0, 1)]), {"weights": smoothed(3, 2, 0.1)})
    lm = two_arms()
    for a, still in ((0.65, True), (2 / 3, False), (0.6, False)):
        lm.module.zero_grad()
        with torch.no_grad():
            lm.module.table.weight[:2] = torch.tensor([a, 1 - a]).double().log()[:, None]
        models = Models(lm, lm, lm)
        Rce().loss(work, models, count=5.0)["policy"].loss.backward()
        gradient = lm.module.table.weight.grad
        assert gradient is not None
        assert (gradient.abs().max() < 1e-8) == still


def test_the_loss_by_hand() -> None:
    log_probs = torch.tensor([[-1.0, -2.0], [-0.5, -9.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    found = weighted_likelihood_loss(log_probs, torch.tensor([0.5, 2.0]), mask, count=4.0)
    assert found.loss.item() == pytest.approx((0.5 * 3 + 2 * 0.5) / 4)
    assert found.metrics == {"elite_loss_nats_per_token": pytest.approx(0.625)}


def test_weights_have_mean_one() -> None:
    weights = smoothed(6, 2, 0.1)
    assert weights.sum().item() == pytest.approx(8)
    assert weights[6:].sum().item() == pytest.approx(0.8)
    assert smoothed(3, 0, 0.1).tolist() == [1, 1, 1]


def test_groups_are_a_prompt_s_completions_in_the_order_they_were_drawn() -> None:
    found = groups_of(torch.tensor([7, 7, 3, 7, 3, 7, 7]), 2)
    assert [rows.tolist() for rows in found] == [[2, 4], [0, 1], [3, 5]]  # one is left alone
    alone = groups_of(torch.tensor([5, 4]), 8)
    assert [rows.tolist() for rows in alone] == [[1], [0]]


def prepared(method: Rce, kept: Samples | None = None) -> tuple[Samples, Work]:
    lm = chain()
    rows = every(lm)
    samples = drawn(rows, 64, torch.Generator().manual_seed(1))
    exact, _ = tables(rows)
    models = Models(lm, lm, lm, values=Together(rows, [exact, exact]), most_tokens=300)
    with torch.no_grad():
        return samples, method.prepare(samples, replace(models, kept=kept))


def test_of_each_group_the_likeliest_that_satisfy() -> None:
    """By hand: exact values, whole completions alone, the reference's own likelihood."""
    samples, work = prepared(Rce(discount=0.0))
    expected: list[list[int]] = []
    likelihood = samples.proposal_logprobs.sum(1)
    for start in range(0, 64, 8):
        group = range(start, start + 8)
        order = sorted(
            group, key=lambda row: (-samples.labels[row].item(), -likelihood[row].item())
        )
        expected += [samples.ids[row].tolist() for row in order[:2]]
    width = work.samples.ids.shape[1]
    assert work.samples.ids.tolist() == [ids[:width] for ids in expected]
    assert work.numbers["elite_cost"] == pytest.approx(1 - work.numbers["elite_satisfaction_rate"])


def test_some_of_the_elites_are_kept_for_the_next_round() -> None:
    _, first = prepared(Rce(smoothing=0.2))
    assert first.kept is not None and (len(first), len(first.kept)) == (16, 4)
    assert first.columns["weights"].tolist() == [1] * 16
    _, second = prepared(Rce(smoothing=0.2), first.kept)
    assert len(second) == 20 and second.columns["weights"].tolist() == pytest.approx([1] * 20)
    assert torch.equal(second.samples.ids[16:, : first.kept.ids.shape[1]], first.kept.ids)
    _, without = prepared(Rce(smoothing=0.0), first.kept)
    assert without.kept is None and len(without) == 16


def test_too_few_feasible_are_counted() -> None:
    assert prepared(Rce(cost_max=0.0, discount=0.4))[1].numbers["fallback_share"] == 1
    assert prepared(Rce(cost_max=2.0))[1].numbers["fallback_share"] == 0


def test_a_group_of_which_nothing_is_left_out_is_refused() -> None:
    tree: tiny.Tree = {
        "run": {"dir": "run"},
        "model": {"path": "model"},
        "constraint": {"kind": "lexicon", "words": ["rude"]},
        "method": {"kind": "rce", "group_size": 4, "elites": 4},
    }
    given = parse_config(RunConfig, tree, source="test")
    with pytest.raises(
        ConfigError, match=r"elites = 4 of method.group_size = 4 .* chooses nothing"
    ):
        refuse(given, make_method(given.method))
