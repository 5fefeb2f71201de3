"""The samples term as the learner computes it, against the exact gradient of KL(q ‖ p_θ).

Snapshots draw every completion of two prompts equally often, so that the enumerated pool is the
law itself and a plain mean over it is the expectation.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiltune.data.batches import part_rows
from tiltune.data.samples import Samples, concatenate
from tiltune.methods.base import Method, Models
from tiltune.methods.filter import Filter
from tiltune.methods.tilt import Tilt
from tiltune.models.laws import gather, log_softmax
from tiltune.models.lm import LanguageModel
from tiltune.training.learner import BetaRule, Learner, LearnerSettings
from tiltune.values.fit import ValueLearner, ValueSettings
from tiltune.values.model import ValueModel
from tiltune.values.read import Law
from tiltune.worlds.testing import EnumerableModel, enumerate_completions, exact_values

EOS, V, LIMIT = 3, 4, 3
PROMPTS = ((EOS, EOS), (EOS,))
BETA = 2.0


def number(ids: Tensor, mask: Tensor) -> Tensor:
    """The enumerable model's row of each prefix, [N, L]."""
    state = ids.new_zeros(len(ids))
    columns: list[Tensor] = []
    for token, there in zip(ids.unbind(1), mask.unbind(1), strict=True):
        state = torch.where(there, state * V + token + 1, state)
        columns.append(state)
    return torch.stack(columns, 1)


class TableValues(ValueModel):
    """`logit R_φ(s, ·)` from a table with a row for every sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(2000, V, dtype=torch.float64))

    @property
    def width(self) -> int:
        return V

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Tensor:
        return self.table[number(ids, mask)[:, -keep:]]

    def step(self, ids: Tensor, mask: Tensor, cache: Any = None) -> Any:
        raise NotImplementedError

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.named_parameters()


def some_but_never_two(y: tuple[int, ...]) -> float:
    return float(1 in y and (1, 1) not in pairwise(y))


def below(depth: int) -> int:
    """Completions that go on from a prefix of so many tokens."""
    return 1 if depth == LIMIT else 1 + (V - 1) * below(depth + 1)


class World:
    """A snapshot that draws all completions alike, its exact values, and a policy that has moved.

    Args:
        prompts: of equal weight.
    """

    def __init__(self, prompts: tuple[tuple[int, ...], ...] = PROMPTS) -> None:
        self.law = LanguageModel(EnumerableModel(V))
        self.policy = LanguageModel(EnumerableModel(V, seed=1))
        self.values = TableValues()
        parts: list[Samples] = []
        for place, prompt in enumerate(prompts):
            self._even_out(prompt)
            every = enumerate_completions(
                self.law, prompt, some_but_never_two, eos_id=EOS, limit=LIMIT
            )
            probabilities = every.proposal_logprobs.sum(1).exp()
            assert torch.allclose(probabilities, torch.full_like(probabilities, 1 / len(every)))
            self._learn(every)
            parts.append(replace(every, prompt_index=torch.full((len(every),), place)))
        self.each = len(parts[0])
        # concatenated by hand of unequal prompts: the shorter ones are padded on the left
        self.pool = concatenate(parts)

    @torch.no_grad()
    def _even_out(self, prompt: tuple[int, ...]) -> None:
        """At depth t: one completion ends here, each other token leads to `below(t + 1)`."""
        open_prefixes: list[tuple[int, ...]] = [()]
        for depth in range(LIMIT):
            row = torch.tensor([below(depth + 1)] * (V - 1) + [1], dtype=torch.float64).log()
            for prefix in open_prefixes:
                ids = torch.tensor([[*prompt, *prefix]])
                place = number(ids, torch.ones_like(ids).bool())[0, -1]
                self.law.module.table.weight[:, place] = row
            open_prefixes = [(*p, v) for p in open_prefixes for v in range(V - 1)]

    @torch.no_grad()
    def _learn(self, every: Samples) -> None:
        ids, mask = every.prefixes()
        places = number(ids, mask)[:, -LIMIT:]
        exact = exact_values(every, V).logit()
        self.values.table[places[every.mask]] = exact[every.mask]

    def learner(self, **settings: Any) -> Learner:
        chosen = {
            "steps": 1,
            "batch_size": 8,
            "accumulation": 1,
            "learning_rate": 1e-3,
        } | settings
        return Learner(
            Tilt(float("inf")),
            self.policy,
            self.law,
            None,
            LearnerSettings(**chosen),  # type: ignore[arg-type]
            BetaRule(BETA, 0.1, 10.0),
            torch.Generator().manual_seed(0),
        )

    def gradient(
        self, samples: Samples, *, values: bool = True, prefix_weight_clip: float = float("inf")
    ) -> Tensor:
        """Of the samples term, in the policy's table; a few rows at a time."""
        weight = self.policy.module.table.weight
        weight.grad = None
        method: Method = Tilt(prefix_weight_clip) if values else Filter()
        models = Models(self.policy, self.law, self.law, self.values)
        count = float(samples.written.sum())
        work = method.prepare(samples, models)
        assert work is not None
        for rows in part_rows(work.samples, 40):
            loss = method.loss(work.select(rows), models, count=count)["policy"].loss
            (BETA * loss).backward()
        assert weight.grad is not None
        return weight.grad.clone()

    def log_probs(self) -> Tensor:
        """log p_θ of each completion, with gradient."""
        ids, mask = self.pool.prefixes()
        law = log_softmax(self.policy.forward(ids, mask, keep=self.pool.ids.shape[1]).logits)
        return torch.where(self.pool.mask, gather(law, self.pool.ids), 0.0).sum(1)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_the_samples_term_s_gradient_is_that_of_the_divergence(world: World) -> None:
    """`∇ Σ_x KL(q(·|x) ‖ p_θ(·|x)) = -∇ Σ_x Σ_y q(y|x) log p_θ(y|x)`."""
    assert not world.pool.prompt_mask.all()  # left-padded
    found = world.gradient(world.pool) * world.pool.tokens / BETA / world.each
    for place in range(len(PROMPTS)):
        satisfying = world.pool.labels * (world.pool.prompt_index == place)
        weight = satisfying / satisfying.sum()
        loss = -(weight * world.log_probs()).sum()
        found = found - torch.autograd.grad(loss, world.policy.module.table.weight)[0]
    assert found.abs().max() < 1e-12


def test_a_clip_reaches_the_samples_term(world: World) -> None:
    assert not torch.allclose(
        world.gradient(world.pool), world.gradient(world.pool, prefix_weight_clip=1.0)
    )


def unwritten(samples: Samples, depth: int) -> Samples:
    written = samples.written.clone()
    written[:, depth] = False
    return replace(samples, written=written)


def reached(samples: Samples, depth: int) -> Tensor:
    """Table rows of the prefixes with so many tokens."""
    ids, mask = samples.prefixes()
    return number(ids, mask)[:, depth - LIMIT][samples.mask[:, depth]].unique()


@pytest.mark.parametrize("values", [True, False], ids=["tilt", "filter"])
def test_tokens_that_the_policy_did_not_write_give_it_no_gradient(
    world: World, values: bool
) -> None:
    places = reached(world.pool, 1)
    whole = world.gradient(world.pool, values=values)
    found = world.gradient(unwritten(world.pool, 1), values=values)
    assert whole[:, places].abs().max() > 1e-4 and (found[:, places] == 0).all()
    others = reached(world.pool, 2)
    share = int(world.pool.mask.sum()) / int(unwritten(world.pool, 1).written.sum())
    assert torch.allclose(found[:, others], whole[:, others] * share)  # nor are they counted


@pytest.mark.parametrize("consistency", [0.0, 0.5])
def test_tokens_that_the_policy_did_not_write_give_values_no_gradient(
    world: World, consistency: float
) -> None:
    values = TableValues()
    with torch.no_grad():  # at a constant the consistency loss has no gradient anywhere
        values.table.normal_(generator=torch.Generator().manual_seed(0))
    settings = ValueSettings(1, 8, 1e-3, consistency)
    fitter = ValueLearner(values, settings, torch.Generator().manual_seed(0))
    fitter._backward(unwritten(world.pool, 0), Law(world.law) if consistency else None)
    assert values.table.grad is not None
    places, others = reached(world.pool, 0), reached(world.pool, 2)
    assert (values.table.grad[places] == 0).all() and values.table.grad[others].abs().max() > 1e-4
    measured = fitter.calibration(unwritten(world.pool, 0), 0.5)
    assert sum(b.count for b in measured.bins) == int(unwritten(world.pool, 0).written.sum())
