"""Worlds whose completions can all be listed: exact laws, exact values, draws."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tiltune.data.samples import Samples
from tiltune.models.lm import Cache, LanguageModel
from tiltune.values.exact_ends import CERTAIN_LOGIT
from tiltune.values.model import ValueModel
from tiltune.worlds.testing import (
    EnumerableModel,
    TokenScore,
    enumerate_completions,
    exact_values,
)

TOKENS = 4


@dataclass(frozen=True)
class SmallWorld:
    """A reference whose law is a table, and what is asked of its completions.

    Attributes:
        name: for a person.
        reference: its law; a policy is a clone of it.
        prompt: the only one, a token.
        end: the token that ends a completion.
        limit: tokens at which one is cut.
        score: C of a completion's tokens, 0 or 1.
    """

    name: str
    reference: LanguageModel
    prompt: int
    end: int
    limit: int
    score: TokenScore

    def every(self, lm: LanguageModel) -> Samples:
        """Each completion that the reference can draw once, labelled, with its log-probability
        under the model; the scores of its prefixes too."""
        rows = enumerate_completions(
            lm, [self.prompt], self.score, eos_id=self.end, limit=self.limit
        )
        owned = self.reference.owned
        if owned is not None:
            rows = rows.select((owned[rows.ids] | ~rows.mask).all(1).nonzero()[:, 0])
        prefixes = [
            [self.score((*row[:t], self.end)) for t in range(self.limit)]
            for row in rows.ids.tolist()
        ]
        return replace(rows, prefix_labels=torch.tensor(prefixes, dtype=torch.float64))

    def law(self, lm: LanguageModel) -> Float[Tensor, " N"]:
        """The probability of each of `every`."""
        return self.every(lm).proposal_logprobs.sum(1).exp()

    def values(self, lm: LanguageModel) -> "TableValues":
        """Exact R under the model."""
        rows = self.every(lm)
        # a token that is never drawn leads to no completion, and its value is not asked
        width = TOKENS if lm.owned is None else int(lm.owned.sum())
        table = torch.zeros_like(lm.module.table.weight)
        found = torch.logit(exact_values(rows, width)).clamp(-CERTAIN_LOGIT, CERTAIN_LOGIT)
        place = torch.full((len(rows),), self.prompt + 1)
        for t, tokens in enumerate(rows.ids.unbind(1)):
            there = rows.mask[:, t]
            table[:width, place[there]] = found[there, t].T
            place = place * TOKENS + tokens + 1
        return TableValues(table)

    def drawn(self, lm: LanguageModel, count: int, generator: torch.Generator) -> Samples:
        """Completions by the model's own law."""
        rows = self.every(lm)
        law = rows.proposal_logprobs.sum(1).exp()
        return rows.select(torch.multinomial(law, count, replacement=True, generator=generator))

    def tilted(self, weight: float | None) -> Float[Tensor, " N"]:
        """`p e^{(2C - 1) / weight} / Z`; `p C / Z`, its limit, where the weight is None."""
        rows = self.every(self.reference)
        gain = rows.labels if weight is None else ((2 * rows.labels - 1) / weight).exp()
        mass = rows.proposal_logprobs.sum(1).exp() * gain
        return mass / mass.sum()

    def near_sighted(self, weight: float) -> Float[Tensor, " N"]:
        """Where grpo ends, which charges a token for its own divergence alone:
        `π(v|s) ∝ p(v|s) e^{E_π[2C - 1 | sv] / weight}`, solved from the ends backwards."""
        rows = self.every(self.reference)
        laws: dict[tuple[int, ...], dict[int, float]] = {}
        for row, mask, logs in zip(
            rows.ids.tolist(), rows.mask.tolist(), rows.proposal_logprobs.tolist(), strict=True
        ):
            for t in itertools.takewhile(mask.__getitem__, range(self.limit)):
                laws.setdefault(tuple(row[:t]), {})[row[t]] = math.exp(logs[t])
        own: dict[tuple[int, ...], float] = {}

        def solve(prefix: tuple[int, ...]) -> float:
            if prefix not in laws:
                return self.score(prefix)
            rates = {v: solve((*prefix, v)) for v in laws[prefix]}
            mass = {v: p * math.exp((2 * rates[v] - 1) / weight) for v, p in laws[prefix].items()}
            own.update({(*prefix, v): each / sum(mass.values()) for v, each in mass.items()})
            return sum(own[(*prefix, v)] * rate for v, rate in rates.items())

        solve(())
        lengths = rows.mask.sum(1).tolist()
        found = [
            math.prod(own[tuple(row[: t + 1])] for t in range(length))
            for row, length in zip(rows.ids.tolist(), lengths, strict=True)
        ]
        return torch.tensor(found, dtype=torch.float64)


@final
class TableValues(ValueModel):
    """Values that stand in a table, a column for every sequence as in `EnumerableModel`.

    Args:
        logits: `logit R`, [V, sequences].
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.model = EnumerableModel(TOKENS, 0)
        self.model.table = nn.Linear(logits.shape[1], TOKENS, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.model.table.weight.copy_(logits)

    @property
    def width(self) -> int:
        return TOKENS

    @torch.no_grad()
    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Float[Tensor, "N K V"]:
        return self.model(ids, mask, logits_to_keep=keep).logits

    @torch.no_grad()
    def step(
        self, ids: Tensor, mask: Tensor, cache: Cache = None
    ) -> tuple[Float[Tensor, "N V"], Cache]:
        output = self.model(ids, mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1], output.past_key_values

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(())


def abt_chain() -> SmallWorld:
    """The chain over a, b and an end, cut at four tokens: "at least one b, and never bb"."""
    b, end, start = 1, 2, 3
    lm = LanguageModel(EnumerableModel(TOKENS, 4), owned=torch.arange(TOKENS) < start)
    rows = torch.tensor([0.4, 0.4, 0.2, 1.0]).log().repeat(lm.hidden_size, 1)
    last_b = torch.arange(lm.hidden_size) % TOKENS == b + 1
    rows[last_b] = torch.tensor([0.6, 0.1, 0.3, 1.0]).log()
    with torch.no_grad():
        lm.module.table.weight.copy_(rows.T)

    def score(tokens: tuple[int, ...]) -> float:
        return float(b in tokens and (b, b) not in itertools.pairwise(tokens))

    return SmallWorld("abT chain", lm, start, end, 4, score)


def random_table() -> SmallWorld:
    """Three words and an end, four tokens at most, all laws drawn at random: an odd number of ones,
    which every token may turn."""

    def score(tokens: tuple[int, ...]) -> float:
        return float(sum(token == 1 for token in tokens) % 2)

    lm = LanguageModel(EnumerableModel(TOKENS, 4, seed=3))
    return SmallWorld("random table", lm, 0, 3, 4, score)
