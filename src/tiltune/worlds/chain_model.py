"""A world's chain as a language model, and its exact values as a value model: nothing learnt.

Tokens are the world's symbols 0…V-1, then the end, then the beginning, which stands first in every
prompt and is never drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tiltune.models.lm import Cache, LanguageModel
from tiltune.values.model import ValueModel
from tiltune.worlds.exact import Chain, ExactTarget
from tiltune.worlds.testing import TableCache, TableOutput


@dataclass
class _Walk:
    """Where each row stands in a table of successors, [S, V]."""

    successor: Int[Tensor, "S V"]
    start: int

    def along(self, ids: Tensor, mask: Tensor, states: Tensor | None) -> Int[Tensor, "N L"]:
        """The state after each token; padding, the beginning and an end change none."""
        at = ids.new_full((len(ids),), self.start) if states is None else states
        symbols = self.successor.shape[1]
        columns: list[Tensor] = []
        fresh = mask[:, -ids.shape[1] :].bool()
        for token, real in zip(ids.unbind(1), fresh.unbind(1), strict=True):
            moves = real & (token < symbols)
            at = torch.where(moves, self.successor[at, token.clamp(max=symbols - 1)], at)
            columns.append(at)
        return torch.stack(columns, 1)


@final
class ChainModel(nn.Module):
    """A causal language model in 64 bit whose law is a chain's.

    Args:
        chain: over V symbols; the model has V + 2 tokens.
    """

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        states, symbols = chain.successor.shape
        self.table = nn.Linear(states, symbols + 2, bias=False, dtype=torch.float64)
        with np.errstate(divide="ignore"):
            log_p = torch.from_numpy(np.log(chain.probabilities))
        with torch.no_grad():  # finite, so that a probability of 0 times 0 is no NaN
            self.table.weight.fill_(-1e9)
            self.table.weight[:-1] = log_p.T.clamp(min=-1e9)
        self._walk = _Walk(torch.from_numpy(chain.successor), chain.start)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        past_key_values: TableCache | None = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
    ) -> TableOutput:
        """See `transformers`."""
        before = None if past_key_values is None else past_key_values.states
        states = self._walk.along(input_ids, attention_mask, before)
        hidden = nn.functional.one_hot(states, self.table.in_features).to(self.table.weight.dtype)
        logits = self.table.weight.T[states[:, -logits_to_keep:]]
        cache = TableCache(states[:, -1]) if use_cache else None
        return TableOutput(logits, cache, None, hidden)

    def get_input_embeddings(self) -> None:
        """None: tokens are read by the walk."""

    def get_output_embeddings(self) -> nn.Linear:
        return self.table


@final
class ChainValues(ValueModel):
    """Exact R of "the DFA accepts" under the chain's law, for tokens as of `ChainModel`."""

    def __init__(self, target: ExactTarget) -> None:
        super().__init__()
        values, accepting = target.values, target.dfa.accepting
        states, deterministic = values.shape
        symbols = target.chain.successor.shape[1]
        pairs = target.chain.successor[:, None] * deterministic + target.dfa.transitions
        successor = torch.from_numpy(pairs.reshape(-1, symbols))
        ends = torch.from_numpy(np.tile(accepting, states).astype(np.float64))
        after = torch.from_numpy(values.ravel())[successor]
        rates = torch.cat((after, ends[:, None], torch.zeros_like(ends)[:, None]), 1)
        self._logits = rates.logit()
        start = target.chain.start * deterministic + target.dfa.start
        self._walk = _Walk(successor, start)

    @property
    def width(self) -> int:
        return self._logits.shape[1]

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Float[Tensor, "N K V"]:
        return self._logits[self._walk.along(ids, mask, None)[:, -keep:]]

    def step(
        self, ids: Tensor, mask: Tensor, cache: Cache = None
    ) -> tuple[Float[Tensor, "N V"], Cache]:
        before = None if cache is None else cache.states
        last = self._walk.along(ids, mask, before)[:, -1]
        return self._logits[last], TableCache(last)

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(())


def chain_lm(chain: Chain) -> LanguageModel:
    """The chain as a `LanguageModel`."""
    owned: Bool[Tensor, " V"] = torch.arange(chain.successor.shape[1] + 2) <= len(
        chain.successor[0]
    )
    return LanguageModel(ChainModel(chain), owned=owned)
