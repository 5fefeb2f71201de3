"""Policy gradients against closed forms: the exact gradient, the optimum, what must not matter."""

import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from small_models import START, A, B, T, one_b_never_two
from tiltune.data.samples import Samples
from tiltune.methods.base import Losses, Method, Models, Work, taken_log_probs
from tiltune.methods.grpo import Grpo
from tiltune.methods.ppo import Ppo, token_gains
from tiltune.models import optimiser
from tiltune.models.laws import gather, generalised_advantages, log_softmax
from tiltune.models.lm import LanguageModel
from tiltune.training.learner import BetaRule, Learner, LearnerSettings, Trained
from tiltune.values.state import StateValue
from tiltune.worlds.testing import EnumerableModel, TokenScore, enumerate_completions

Kind = Literal["ppo", "grpo"]
METHODS: dict[Kind, Any] = {"ppo": Ppo, "grpo": Grpo}
LIMIT = 4


def chain(limit: int = LIMIT) -> LanguageModel:
    """The abT chain as a table over whole sequences; START is a prompt and never drawn."""
    lm = LanguageModel(EnumerableModel(4, limit), owned=3)
    rows = torch.tensor([0.4, 0.4, 0.2, 1.0]).log().repeat(lm.hidden_size, 1)
    rows[torch.arange(lm.hidden_size) % 4 == B + 1] = torch.tensor([0.6, 0.1, 0.3, 1.0]).log()
    with torch.no_grad():
        lm.module.table.weight.copy_(rows.T)
    return lm


def two_arms() -> LanguageModel:
    """Answers of one token, A or B, with equal probability."""
    lm = LanguageModel(EnumerableModel(3, 1), owned=2)
    with torch.no_grad():
        lm.module.table.weight.zero_()
    return lm


def every(lm: LanguageModel, limit: int = LIMIT) -> Samples:
    """All completions of the chain, one row each; drawn ids are A, B and T."""

    def label(tokens: tuple[int, ...]) -> float:
        return float(one_b_never_two(tokens))

    rows = enumerate_completions(lm, [START], label, eos_id=T, limit=limit)
    return rows.select((rows.ids * rows.mask < START).all(1).nonzero()[:, 0])


def every_arm(lm: LanguageModel) -> Samples:
    score: TokenScore = lambda tokens: float(tokens[0] == A)  # noqa: E731
    rows = enumerate_completions(lm, [2], score, eos_id=2, limit=1)
    return rows.select((rows.ids[:, 0] < 2).nonzero()[:, 0])


def drawn(rows: Samples, count: int, generator: torch.Generator) -> Samples:
    """Completions drawn by their own law."""
    law = rows.proposal_logprobs.sum(1).exp()
    return rows.select(torch.multinomial(law, count, replacement=True, generator=generator))


def sides(
    lm: LanguageModel, kind: Kind, kl_weight: float, **settings: Any
) -> tuple[LanguageModel, Method, Models]:
    """The reference, the method, and the models it trains with."""
    reference = lm.clone("reference")
    method = METHODS[kind](kl_weight=kl_weight, **settings)
    values = StateValue(lm.clone("values")) if kind == "ppo" else None
    models = Models(lm, reference, reference, state_values=values, most_tokens=1000)
    return reference, method, models


def learner(method: Method, models: Models, **settings: Any) -> Learner:
    plain: dict[str, Any] = {
        "steps": 6,
        "batch_size": 128,
        "accumulation": 1,
        "learning_rate": 0.02,
    }
    return Learner(
        method=method,
        policy=models.policy,
        reference=models.reference,
        corpus=None,
        settings=LearnerSettings(**plain | settings),
        rule=BetaRule(1.0, 0.05, 50.0),
        generator=torch.Generator().manual_seed(3),
        state_values=models.state_values,
    )


def objective(lm: LanguageModel, reference: LanguageModel, rows: Samples, weight: float) -> Tensor:
    """`E[2C - 1] - weight · KL(policy ‖ reference)`, a sum over all completions."""
    sums: list[Tensor] = []
    ids, mask = rows.prefixes()
    for model in (lm, reference):
        laws = log_softmax(model.forward(ids, mask, keep=rows.ids.shape[1]).logits)
        sums.append(torch.where(rows.mask, gather(laws, rows.ids), 0.0).sum(1))
    own, other = sums
    return (own.exp() * (2 * rows.labels - 1 - weight * (own - other.detach()))).sum()


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


def exact_values(rows: Samples, reference: LanguageModel, weight: float) -> Tensor:
    """Expected gains from each prefix on, from all completions and their probabilities."""
    ids, mask = rows.prefixes()
    laws = reference.log_probs(ids, mask, keep=rows.ids.shape[1])
    gains = token_gains(rows, gather(laws, rows.ids).detach(), kl_weight=weight)
    rest, law = gains.flip(1).cumsum(1).flip(1), rows.proposal_logprobs.sum(1).exp()
    values = torch.zeros_like(gains)
    for n, t in rows.mask.nonzero().tolist():
        same = (rows.ids[:, :t] == rows.ids[n, :t]).all(1) & rows.mask[:, t]
        values[n, t] = (law * rest[:, t])[same].sum() / law[same].sum()
    return values


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


def train(
    side: Learner, rows_of: Any, *, rounds: int, count: int, rate: float, seed: int = 0
) -> None:
    """Rounds of the policy's own samples, at a rate that falls to nothing."""
    generator = torch.Generator().manual_seed(seed)
    for number in range(rounds):
        share = 1 - number / rounds
        side.optimiser.rate = rate * share
        law = side.policy.clone("snapshot")
        samples = drawn(rows_of(law), count, generator)
        side.update(Trained(samples, law, None))


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_two_arms_end_at_the_closed_form(kind: Kind, weight: float) -> None:
    """p_ref = (½, ½) and scores ±1: the optimum gives the good one σ(2 / weight)."""
    lm = two_arms()
    _, method, models = sides(lm, kind, weight)
    train(learner(method, models, value_rate=0.02), every_arm, rounds=30, count=256, rate=0.3)
    good = every_arm(lm).proposal_logprobs[0].exp().item()
    assert every_arm(lm).ids[0, 0] == A
    optimum = 1 / (1 + math.exp(-2 / weight))
    assert optimum == pytest.approx({0.5: 0.982014, 1.0: 0.880797}[weight], abs=1e-6)
    assert good == pytest.approx(optimum, abs=0.01)


def test_the_size_of_a_group_does_not_move_the_optimum() -> None:
    """Pairs: with their own score in the mean the good one would end at σ(1 / weight) = .731."""
    lm = two_arms()
    _, method, models = sides(lm, "grpo", 1.0)
    side, generator = learner(method, models), torch.Generator().manual_seed(0)
    for number in range(30):
        side.optimiser.rate = 0.3 * (1 - number / 30)
        law = lm.clone("snapshot")
        samples = drawn(every_arm(law), 512, generator)
        samples = replace(samples, prompt_index=torch.arange(512) // 2)
        side.update(Trained(samples, law, None))
    good = every_arm(lm).proposal_logprobs[0].exp().item()
    assert good == pytest.approx(0.880797, abs=0.015)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_ppo_ends_at_the_tilted_rate_of_the_chain(weight: float) -> None:
    """`R e^{1/β} / (R e^{1/β} + (1 - R) e^{-1/β})` with the KL summed over tokens."""
    lm = chain()
    rows = every(lm)
    rate = (rows.proposal_logprobs.sum(1).exp() * rows.labels).sum().item()
    optimum = tilted(rate, weight)
    assert tilted(5 / 9, weight) == pytest.approx({1.0: 0.902309, 0.5: 0.985559}[weight], abs=1e-6)
    reference, method, models = sides(lm, "ppo", weight)
    best = math.log(rate * math.exp(1 / weight) + (1 - rate) * math.exp(-1 / weight)) * weight
    train(learner(method, models, value_rate=0.02), every, rounds=30, count=512, rate=0.2)
    rows = every(lm)
    found = (rows.proposal_logprobs.sum(1).exp() * rows.labels).sum().item()
    assert found == pytest.approx(optimum, abs=0.01)
    reached = objective(lm, reference, rows, weight).item()
    assert best - 0.005 < reached < best + 1e-9  # the whole law, not its rate alone


def tilted(rate: float, weight: float) -> float:
    good, bad = rate * math.exp(1 / weight), (1 - rate) * math.exp(-1 / weight)
    return good / (good + bad)


def test_grpo_ends_where_a_token_pays_for_its_own_divergence_alone() -> None:
    """At the fixed point without the KL of later tokens: ppo's optimum has .9099 and J = .5455."""
    lm, weight = chain(), 1.0
    reference, method, models = sides(lm, "grpo", weight)
    train(learner(method, models), every, rounds=30, count=512, rate=0.2)
    rows = every(lm)
    rate, reached = near_sighted((), weight)
    assert (rate, reached) == pytest.approx((0.9116, 0.5340), abs=1e-4)
    found = (rows.proposal_logprobs.sum(1).exp() * rows.labels).sum().item()
    assert found == pytest.approx(rate, abs=0.01)
    assert objective(lm, reference, rows, weight).item() == pytest.approx(reached, abs=0.005)


def near_sighted(prefix: tuple[int, ...], weight: float) -> tuple[float, float]:
    """Rate and J from a prefix on, under `p(v|s) ∝ p_ref(v|s) e^{E_p[2C - 1 | sv] / weight}`."""
    if len(prefix) == LIMIT or prefix[-1:] == (T,):
        met = float(one_b_never_two(prefix))
        return met, 2 * met - 1
    law = torch.tensor((0.6, 0.1, 0.3) if prefix[-1:] == (B,) else (0.4, 0.4, 0.2)).double()
    after = torch.tensor([near_sighted((*prefix, v), weight) for v in (A, B, T)]).double()
    own = (law.log() + (2 * after[:, 0] - 1) / weight).softmax(0)
    paid = weight * (own / law).log()
    return float(own @ after[:, 0]), float(own @ (after[:, 1] - paid))


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_micro_batches_and_accumulation_do_not_matter(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Tensor] = []
    for split in ({}, {"batch_size": 8, "accumulation": 8}, {"most_logits": 200}):
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


def test_the_values_learn_the_gains_to_come() -> None:
    """With a policy that stands still, `V(s_t)` goes to the mean of the gains from token t on."""
    lm = chain()
    reference, method, models = sides(lm, "ppo", 0.3)
    side = learner(method, models, value_rate=0.05)
    train(side, every, rounds=20, count=512, rate=0.0)
    rows = every(lm)
    exact = exact_values(rows, reference, 0.3)
    assert models.state_values is not None
    ids, mask = rows.prefixes()
    with torch.no_grad():
        found = models.state_values.run(ids, mask, keep=rows.ids.shape[1])
    law = rows.proposal_logprobs.sum(1).exp()[:, None] * rows.mask
    error = (law * (found - exact).abs()).sum() / law.sum()
    spread = (law * (exact - exact[0, 0]).abs()).sum() / law.sum()
    assert spread > 0.3 and error < 0.1, (spread, error)
