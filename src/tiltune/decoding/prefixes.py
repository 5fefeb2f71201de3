"""Next-token laws after many beginnings of one prompt's completion, one more token at a time.

A search jumps about among beginnings. What the model and the values remember of each (their caches)
is kept as long as there is room, so that a beginning which is one token longer than a kept one
costs a pass over one token; any other is read again from the prompt's end on.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltune.decoding.guidance import Values
from tiltune.errors import ModelError
from tiltune.models.laws import log_softmax
from tiltune.models.lm import Cache, LanguageModel

KEPT_TOKENS = 4096
"""Tokens whose keys and values are kept, those of the prompt counted in each beginning."""

Beginning = tuple[int, ...]


class NextLaw(NamedTuple):
    """What may follow one beginning.

    Attributes:
        log_probs: `log p(·|s)`, nats, 64 bit.
        log_values: `log R(s, ·)`; -inf where it is known that nothing satisfies. 0 without values.
    """

    log_probs: Float[Tensor, " V"]
    log_values: Float[Tensor, " V"]


@dataclass
class _KeptCaches:
    """Caches of some beginnings of one length, row by row."""

    caches: tuple[Cache, Cache]
    beginnings: list[Beginning]
    tokens: int

    def fork(self, rows: Sequence[int], device: torch.device) -> tuple[Cache, Cache]:
        """Copies of these rows, since a pass writes into what it is given."""
        places = torch.tensor(rows, device=device)
        copies = copy.deepcopy(self.caches)
        for cache in copies:
            if cache is not None:
                cache.reorder_cache(places)
        return copies


@final
class Prefixes:
    """Reads the laws after beginnings of a prompt's completion.

    Args:
        lm: p.
        values: R, or None: R = 1.
        prompt: token ids, not empty.
        most_kept: tokens of kept caches; 0: every beginning is read from the prompt's end on.

    Attributes:
        read_tokens: tokens that passed through the model so far, the prompt's among them.
    """

    def __init__(
        self,
        lm: LanguageModel,
        values: Values | None,
        prompt: Sequence[int],
        *,
        most_kept: int = KEPT_TOKENS,
    ) -> None:
        self.lm, self.values, self.most_kept = lm, values, most_kept
        self.read_tokens = 0
        self._length = len(prompt)
        self._kept: OrderedDict[int, _KeptCaches] = OrderedDict()
        self._home: dict[Beginning, tuple[int, int]] = {}
        self._made = 0
        fresh = torch.tensor([list(prompt)], device=lm.device)
        laws, caches = self._pass(fresh, (None, None))
        self._prompt, self._first = _KeptCaches(caches, [()], 0), laws[0]

    def read(self, beginnings: Sequence[Beginning]) -> list[NextLaw]:
        """The law after each, in their order.

        Raises:
            ModelError: the model's law is not a number.
        """
        found: dict[Beginning, NextLaw] = {(): self._first}
        for home, group in _grouped(beginnings, self._home):
            kept = home if home in self._kept else None  # the groups before it took its room
            found |= zip(group, self._read(kept, group), strict=True)
        return [found[beginning] for beginning in beginnings]

    def _read(self, home: int | None, group: list[Beginning]) -> list[NextLaw]:
        """Beginnings of one length, all one token longer than rows of the kept `home`, or none."""
        device = self.lm.device
        if home is None:
            caches = self._prompt.fork([0] * len(group), device)
            fresh = torch.tensor(group, device=device)
        else:
            self._kept.move_to_end(home)
            rows = [self._home[beginning[:-1]][1] for beginning in group]
            caches = self._kept[home].fork(rows, device)
            fresh = torch.tensor([beginning[-1:] for beginning in group], device=device)
        laws, caches = self._pass(fresh, caches, written=len(group[0]))
        self._keep(caches, group)
        return laws

    @torch.no_grad()
    def _pass(
        self, fresh: Tensor, caches: tuple[Cache, Cache], *, written: int = 0
    ) -> tuple[list[NextLaw], tuple[Cache, Cache]]:
        """The laws after the fresh tokens, [N, t], that the caches lack."""
        self.read_tokens += fresh.numel()
        shape = (len(fresh), self._length + written)
        mask = torch.ones(shape, dtype=torch.bool, device=fresh.device)
        output = self.lm.forward(fresh, mask, keep=1, cache=caches[0], use_cache=True)
        log_probs, value_cache = log_softmax(output.logits[:, -1]).double(), None
        if log_probs[:, 0].isnan().any():  # one such logit makes its whole row so
            raise ModelError(
                f"the next-token law at token {written} of a completion is not a number (NaN or "
                "infinite logits); the weights are broken, or overflow in the precision they run in"
            )
        log_values = torch.zeros_like(log_probs)
        if self.values is not None:
            logits, value_cache = self.values.step(fresh, mask, caches[1])
            log_values = logsigmoid(logits.double())
        laws = [NextLaw(*pair) for pair in zip(log_probs, log_values, strict=True)]
        return laws, (output.cache, value_cache)

    def _keep(self, caches: tuple[Cache, Cache], group: list[Beginning]) -> None:
        """Keep these, and forget what was not asked for the longest."""
        kept = _KeptCaches(caches, group, len(group) * (self._length + len(group[0])))
        if kept.tokens > self.most_kept:
            return
        self._kept[self._made] = kept
        self._home |= {beginning: (self._made, row) for row, beginning in enumerate(group)}
        self._made += 1
        while sum(each.tokens for each in self._kept.values()) > self.most_kept:
            number, old = self._kept.popitem(last=False)
            for beginning in old.beginnings:
                if self._home[beginning][0] == number:
                    del self._home[beginning]


def _grouped(
    beginnings: Iterable[Beginning], home: dict[Beginning, tuple[int, int]]
) -> list[tuple[int | None, list[Beginning]]]:
    """Those that are read in one pass: of one kept parent's batch, or of one length without one."""
    groups: dict[tuple[int | None, int], list[Beginning]] = {}
    for beginning in dict.fromkeys(beginnings):
        if beginning:
            place, _ = home.get(beginning[:-1], (None, 0))
            groups.setdefault((place, len(beginning)), []).append(beginning)
    return [(place, group) for (place, _), group in groups.items()]
