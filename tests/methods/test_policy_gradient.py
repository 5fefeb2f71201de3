"""Policy gradients against closed forms: the exact gradient, and what must not matter."""

from dataclasses import replace

import pytest
import torch
from gradient_worlds import (
    Kind,
    chain,
    drawn,
    every,
    exact_values,
    learner,
    objective,
    sides,
)
from torch import Tensor

from small_models import A
from tiltune.data.samples import Samples
from tiltune.methods.base import Losses, Method, Models, Work, taken_log_probs
from tiltune.methods.ppo import token_gains
from tiltune.models import optimiser
from tiltune.models.laws import generalised_advantages
from tiltune.training.learner import Trained
from tiltune.values.state import StateValue


def test_gains_by_hand() -> None:
    rows = every(chain()).select(torch.tensor([1, 4]))
    old = torch.tensor([[0.1, 0.2, 9.0], [0.5, 0.0, -0.5]]).double()
    mask = torch.tensor([[True, True, False], [True, True, True]])
    rows = replace(
        rows,
        **{name: torch.zeros(2, 3, dtype=torch.int64) for name in ("ids",)},
        mask=mask,
        written=mask,
        proposal_logprobs=torch.tensor([[0.2, 0.6, 0.0], [0.5, 0.1, 0.5]]).double(),
        labels=torch.tensor([1.0, 0.0]).double(),
    )
    found = token_gains(rows, old, kl_weight=0.5)
    expected = torch.tensor([[-0.05, 0.8, 0.0], [0.0, -0.05, -1.5]]).double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("decay", [1.0, 0.95])
def test_the_expected_ppo_gradient_is_the_objective_s(decay: float) -> None:
    """Over all completions, weighted by their probability, from a policy that is no reference.

    With λ = 1 that holds whatever the state values are, with λ < 1 only for the exact ones.
    """
    lm, weight = chain(), 0.7
    reference, method, models = sides(lm, "ppo", weight, decay=decay)
    with torch.no_grad():
        table, generator = lm.module.table.weight, torch.Generator().manual_seed(1)
        table.add_(0.5 * torch.randn(table.shape, generator=generator, dtype=table.dtype))
    rows = every(lm)
    assert rows.proposal_logprobs.sum(1).exp().sum().item() == pytest.approx(1, abs=1e-9)
    objective(lm, reference, rows, weight).backward()
    assert lm.module.table.weight.grad is not None
    expected = lm.module.table.weight.grad.clone()
    assert expected.abs().max() > 0.01
    lm.module.table.weight.grad = None

    values = exact_values(rows, reference, weight) if decay < 1 else None
    per_row = row_gradients(method, models, rows, values)
    found = sum(
        p * g for p, g in zip(rows.proposal_logprobs.sum(1).exp().tolist(), per_row, strict=True)
    )
    torch.testing.assert_close(found, -expected, rtol=0, atol=1e-7)


def row_gradients(
    method: Method, models: Models, rows: Samples, values: Tensor | None
) -> list[Tensor]:
    """The table's gradient from each completion alone, summed over its tokens."""
    found: list[Tensor] = []
    if values is not None:
        models = replace(models, state_values=Known(rows, values))
    for place in range(len(rows)):
        row = rows.select(torch.tensor([place]))
        with torch.no_grad():
            work = method.prepare(row, models)
        loss = method.loss(work, models, count=1.0)["policy"].loss
        loss.backward()
        table = models.policy.module.table.weight
        assert table.grad is not None
        found.append(table.grad.clone())
        table.grad = None
    return found


class Known(StateValue):
    """State values that stand in a table."""

    def __init__(self, rows: Samples, values: Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.rows, self.values = rows, values

    def run(self, ids: Tensor, mask: Tensor, *, keep: int) -> Tensor:
        places = [self._place(row[-keep + 1 :] if keep > 1 else row[:0]) for row in ids]
        return self.values[places, :keep].clone().requires_grad_()

    def _place(self, written: Tensor) -> int:
        width = len(written)
        return int((self.rows.ids[:, :width] == written).all(1).nonzero()[0])


class Prepares:
    """Remembers the values that its method's rounds began with.

    Args:
        method: does the work.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self.needs = method.needs
        self.seen: list[Tensor] = []

    def prepare(self, samples: Samples, models: Models) -> Work:
        work = self.method.prepare(samples, models)
        self.seen.append(work.columns["values"])
        return work

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        return self.method.loss(work, models, count=count)


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_micro_batches_and_accumulation_do_not_matter(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Tensor] = []
    for split in ({}, {"batch_size": 8, "accumulation": 8}, {"most_tokens": 20}):
        lm, grads = chain(), []
        _, method, models = sides(lm, kind, 0.3)
        side = learner(method, models, steps=1, **({"batch_size": 64} | split))
        samples = drawn(every(lm), 96, torch.Generator().manual_seed(1))
        with torch.no_grad():
            lm.module.table.weight[A] += 0.3  # ratios other than 1

        def keep(parameters: list[Tensor], _: float, kept: list[Tensor] = grads) -> Tensor:
            kept += [p.grad.flatten().clone() for p in parameters if p.grad is not None]
            return torch.ones(())

        monkeypatch.setattr(optimiser, "clip_grad_norm_", keep)
        numbers = side.update(Trained(samples, lm.clone("law"), None))
        assert numbers["logprob_gap_nats"] > 0.01  # ratios are to the law that drew
        said = [name for name, value in numbers.items() if isinstance(value, float)]
        measured = [numbers[name] for name in sorted(said) if not name.endswith("_seconds")]
        found.append(torch.cat([*grads, torch.tensor(measured).double()]))
    assert found[0].norm() > 0.01
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_what_is_recorded(kind: Kind) -> None:
    lm = chain()
    _, method, models = sides(lm, kind, 0.3)
    side = learner(method, models, steps=4, value_rate=0.01)
    samples = drawn(every(lm), 256, torch.Generator().manual_seed(1))
    numbers = side.update(Trained(samples, lm.clone("law"), None))
    assert numbers["logprob_gap_nats"] < 1e-6  # before the first step
    assert 0 <= numbers["ratio_clipped_share"] < 1 and numbers["beta"] == 1.0
    assert ("state_value_loss" in numbers) == (kind == "ppo")
    assert ("kl_penalty_nats_per_token" in numbers) == (kind == "grpo")
    assert numbers["learner_tokens"] == pytest.approx(4 * 128 * samples.tokens / 256, rel=0.1)


def test_the_values_start_at_the_first_round_s_mean_score() -> None:
    lm = chain()
    _, method, models = sides(lm, "ppo", 0.3)
    watched = Prepares(method)
    side = learner(watched, models, steps=0)
    samples = drawn(every(lm), 64, torch.Generator().manual_seed(1))
    worse = replace(samples, labels=torch.zeros_like(samples.labels))
    for each in (samples, worse):
        side.update(Trained(each, lm, None))
    found, again = watched.seen
    mean = (2 * samples.labels - 1).mean().item()
    assert found[samples.mask].tolist() == pytest.approx([mean] * samples.tokens)
    assert not found[~samples.mask].any()
    assert torch.equal(again, found)


def test_the_decay_is_the_setting_s() -> None:
    lm = chain()
    reference, method, models = sides(lm, "ppo", 0.3, decay=0.5)
    samples = drawn(every(lm), 64, torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = method.prepare(samples, models).columns
        gains = token_gains(samples, taken_log_probs(reference, samples), kl_weight=0.3)
    expected = generalised_advantages(gains, found["values"], samples.mask, decay=0.5)
    torch.testing.assert_close(found["advantages"], expected, rtol=0, atol=1e-12)


def test_beta_0_pays_nothing() -> None:
    lm = chain()
    _, method, models = sides(lm, "grpo", 0.3)
    side = learner(method, models)
    side.beta = 0.0
    before = lm.state()
    numbers = side.update(Trained(drawn(every(lm), 64, torch.Generator()), lm, None))
    assert "policy_gradient_loss" not in numbers
    assert all(torch.equal(value, before[name]) for name, value in lm.state().items())
