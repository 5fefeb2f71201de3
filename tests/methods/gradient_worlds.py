"""Worlds of a few completions, and policy gradients that train on them."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from small_models import START, A, B, T, one_b_never_two
from tiltune.data.samples import Samples
from tiltune.methods.base import Method, Models
from tiltune.methods.grpo import Grpo
from tiltune.methods.ppo import Ppo, token_gains
from tiltune.models.laws import gather, log_softmax
from tiltune.models.lm import LanguageModel
from tiltune.training.learner import BetaRule, Learner, LearnerSettings, Trained
from tiltune.values.model import ValueModel
from tiltune.values.state import StateValue
from tiltune.worlds.testing import EnumerableModel, TokenScore, enumerate_completions

Kind = Literal["ppo", "grpo"]
METHODS: dict[Kind, Any] = {"ppo": Ppo, "grpo": Grpo}
LIMIT = 4


class ListedValues(ValueModel):
    """Values that stand in a table: those of all completions, by their rows."""

    def __init__(self, rows: Samples, values: Tensor) -> None:
        super().__init__()
        self.rows, self.values = rows, values

    @property
    def width(self) -> int:
        return self.values.shape[-1]

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Tensor:
        width = min(keep, self.rows.ids.shape[1]) - 1
        written = ids[:, -width:] if width else ids[:, :0]
        places = [int((self.rows.ids[:, :width] == row).all(1).nonzero()[0]) for row in written]
        return self.values[places, : width + 1].logit()

    def step(self, ids: Tensor, mask: Tensor, cache: Any = None) -> Any:
        raise NotImplementedError

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(())


def chain(limit: int = LIMIT) -> LanguageModel:
    """The abT chain as a table over whole sequences; START is a prompt and never drawn."""
    lm = LanguageModel(EnumerableModel(4, limit), owned=torch.arange(4) < 3)
    rows = torch.tensor([0.4, 0.4, 0.2, 1.0]).log().repeat(lm.hidden_size, 1)
    rows[torch.arange(lm.hidden_size) % 4 == B + 1] = torch.tensor([0.6, 0.1, 0.3, 1.0]).log()
    with torch.no_grad():
        lm.module.table.weight.copy_(rows.T)
    return lm


def two_arms() -> LanguageModel:
    """Answers of one token, A or B, with equal probability."""
    lm = LanguageModel(EnumerableModel(3, 1), owned=torch.arange(3) < 2)
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
