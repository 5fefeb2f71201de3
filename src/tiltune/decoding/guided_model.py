"""The guided law as a language model, for everything that measures laws: perplexity, KL, tasks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltune.decoding.guidance import Values
from tiltune.models.chunks import Part
from tiltune.models.laws import log_softmax
from tiltune.models.lm import Cache, LanguageModel, Output


class WholeValues(Values, Protocol):
    """Values one token at a time, and at every prefix at once."""

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Tensor: ...

    def columns(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Part: ...

    def reader(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Any: ...


@final
class GuidedModel(LanguageModel):
    """`log q(v|s) = log p(v|s) + log R(s, v) - log Σ_u p(u|s) R(s, u)`: what guidance draws from.

    Args:
        lm: p.
        values: R, fitted to p. They were learnt on completions of a prompt; on other text they
            say what the guided decoder would do there.
    """

    def __init__(self, lm: LanguageModel, values: WholeValues) -> None:
        super().__init__(
            lm.module,
            adapter=lm.adapter,
            owned=lm.owned,
            autocast=lm.autocast,
            whole=True,
            cached=lm.cached,
            pieces=lm.pieces,
        )
        self.values = values
        self.own = lm

    def readings(
        self, ids: Tensor, mask: Tensor, *, keep: int
    ) -> Iterator[tuple[dict[str, Tensor], Callable[[Part], Tensor]]]:
        """See `LanguageModel.readings`: the model's states, the values' columns, in one piece."""
        columns = self.values.columns(ids, mask, keep=keep)
        reader = self.values.reader(ids, mask, keep=keep)
        places = torch.arange(len(ids) * keep, device=ids.device).view(len(ids), keep)
        own = {"states": self.own.states(ids, mask, keep=keep), "place": places}

        def read(part: Part) -> Tensor:
            logits = reader.every({name: part[f"value.{name}"] for name in columns}, part["place"])
            return log_softmax(self.own.unembed(part["states"])) + logsigmoid(logits)

        yield own | {f"value.{name}": column for name, column in columns.items()}, read

    @torch.no_grad()
    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        *,
        keep: int = 0,
        cache: Cache = None,
        use_cache: bool = False,
        hidden: bool = False,
    ) -> Output:
        """See `LanguageModel.forward`; with a cache `keep` must be 1, and there are no gradients.

        Raises:
            ValueError: a cache and another `keep`.
        """
        if use_cache and keep != 1:
            raise ValueError(
                f"with a cache values are known at the last prefix only, keep = {keep}"
            )
        own, further = (None, None) if cache is None else (cache.own, cache.values)
        output = super().forward(
            ids, mask, keep=keep, cache=own, use_cache=use_cache, hidden=hidden
        )
        if use_cache:
            logits, further = self.values.step(ids, mask, further)
            logits = logits[:, None]
        else:
            logits = self.values.logits(ids, mask, keep=keep)
        law = log_softmax(output.logits) + logsigmoid(logits)
        return Output(law, output.hidden, _Caches(output.cache, further) if use_cache else None)


@dataclass
class _Caches:
    """The model's cache and the values'."""

    own: Cache
    values: Cache

    def reorder_cache(self, rows: Tensor) -> None:
        self.own.reorder_cache(rows)
        self.values.reorder_cache(rows)
