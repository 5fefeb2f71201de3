"""Values of several members that share a frozen trunk and no noise; and what they choose together.

Where members disagree, the completions did not tell. Read as one value model, an ensemble is its
members' mean, `R = 1/B Σ_b R_b`; a choice that must not rest on one member's mistake goes by the
worst of them. Source: arXiv 2010.07968 (robust cross-entropy).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from tiltune.models.lm import Cache, LanguageModel
from tiltune.models.side_by_side import joined
from tiltune.values.head_cache import OwnCache, joined_own, selected
from tiltune.values.model import HeadValue, ValueModel, ValueReader
from tiltune.values.outputs import Columns

SEEN_SHARE = 0.8
"""Of the completions, that a member is fitted to."""
COINS = 2010_07968
"""Seed of who sees what, the same in every fit."""


@final
class Ensemble(ValueModel):
    """Heads on one snapshot: one pass through its trunk serves them all.

    Args:
        heads: at least two, of one snapshot, each with weights of its own.
    """

    def __init__(self, heads: Sequence[HeadValue]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self._heads = tuple(heads)
        self.snapshot = heads[0].snapshot

    @property
    def width(self) -> int:
        return self.snapshot.width

    def members(self) -> Sequence[ValueModel]:
        return self._heads

    def member_columns(self, columns: Columns, place: int) -> Columns:
        start = f"{place}: "
        return {n.removeprefix(start): each for n, each in columns.items() if n.startswith(start)}

    def logits(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Float[Tensor, "N K V"]:
        return self.read(self.columns(ids, mask, keep=keep), ids, mask, keep)

    def columns(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> Columns:
        return self._columns(ids, mask, self._heads[0].trunk_states(ids, mask), keep)

    def columns_with_law(
        self, law: LanguageModel, ids: Tensor, mask: Tensor, *, keep: int
    ) -> tuple[Float[Tensor, "N K s"], Columns]:
        """One forward pass of the snapshot serves the law and every member."""
        assert law is self.snapshot, "heads read the hidden states of their own snapshot alone"
        if law.whole:
            return super().columns_with_law(law, ids, mask, keep=keep)
        states = self._heads[0].trunk_states(ids, mask)
        return states[:, -keep:], self._columns(ids, mask, states, keep)

    def columns_beside(
        self, law: LanguageModel, states: Tensor, ids: Tensor, mask: Tensor, *, keep: int
    ) -> Columns:
        return self._joined(
            head.columns_beside(law, states, ids, mask, keep=keep) for head in self._heads
        )

    @property
    def spares_kept_law(self) -> bool:
        return self._heads[0].spares_kept_law

    def reader(self, ids: Tensor, mask: Tensor, *, keep: int = 0) -> ValueReader:
        readers = [head.reader(ids, mask, keep=keep) for head in self._heads]

        def every(columns: Columns, places: Tensor) -> Tensor:
            each = (
                reader.every(self.member_columns(columns, place), places)
                for place, reader in enumerate(readers)
            )
            return mean_logit(each)

        def taken(columns: Columns, places: Tensor, ids: Tensor) -> Tensor:
            each = (
                reader.taken(self.member_columns(columns, place), places, ids)
                for place, reader in enumerate(readers)
            )
            return mean_logit(each)

        return ValueReader(every, taken)

    def read_weights(self) -> list[nn.Parameter]:
        return [weight for head in self._heads for weight in head.read_weights()]

    def step(
        self, ids: Tensor, mask: Tensor, cache: Cache = None
    ) -> tuple[Float[Tensor, "N V"], "_MemberCaches"]:
        trunk, own = (
            (None, [None] * len(self._heads)) if cache is None else (cache.trunk, cache.own)
        )
        with torch.no_grad():
            states, trunk = self.snapshot.trunk(ids, mask, cache=trunk, use_cache=True)
        found = [
            head.last_logits(ids, mask, states, kept)
            for head, kept in zip(self._heads, own, strict=True)
        ]
        logits = mean_logit(logits for logits, _ in found)
        return logits, _MemberCaches(trunk, [kept for _, kept in found])

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.heads.named_parameters()

    def set_constant(self, rate: float) -> None:
        for head in self._heads:
            head.set_constant(rate)

    def shift(self, logit: float) -> None:
        for head in self._heads:
            head.shift(logit)

    def _columns(self, ids: Tensor, mask: Tensor, states: Tensor, keep: int) -> Columns:
        return self._joined(head.columns_of(ids, mask, states, keep) for head in self._heads)

    def _joined(self, members: Iterable[Columns]) -> Columns:
        return {
            f"{place}: {name}": column
            for place, columns in enumerate(members)
            for name, column in columns.items()
        }


class _MemberCaches:
    """The trunk's cache, and of each head the block's keys and values."""

    def __init__(self, trunk: Any, own: list[OwnCache]) -> None:
        self.trunk = trunk
        self.own = own

    def reorder_cache(self, rows: Tensor) -> None:
        self.trunk.reorder_cache(rows)
        self.own = [selected(each, rows) for each in self.own]

    def joined(self, other: "_MemberCaches", width: int) -> "_MemberCaches":
        own = [joined_own(*pair) for pair in zip(self.own, other.own, strict=True)]
        return _MemberCaches(joined(self.trunk, other.trunk, width), own)


def mean_logit(logits: Iterator[Tensor]) -> Tensor:
    """`logit(1/B Σ_b sigmoid(l_b))`, where the B cancels."""
    yes, no = None, None
    for each in logits:
        up, down = logsigmoid(each), logsigmoid(-each)
        yes = up if yes is None else torch.logaddexp(yes, up)
        no = down if no is None else torch.logaddexp(no, down)
    assert yes is not None and no is not None, "an ensemble has members"
    return yes - no


def seen_by(members: int, count: int) -> Bool[Tensor, "B N"]:
    """Which completions each member is fitted to: four fifths of them, by a coin of its own.

    The coins depend on the completion's place alone, so that where completions pile up round by
    round what a member never saw it never sees. Without an ensemble all is seen.

    Args:
        members: B.
        count: completions, N.
    """
    if members == 1:
        return torch.ones(1, count, dtype=torch.bool)
    chance = torch.Generator().manual_seed(COINS)
    return torch.rand(count, members, generator=chance).lt(SEEN_SHARE).T


def robust_costs(
    violations: Float[Tensor, "N T B"], mask: Bool[Tensor, "N T"], *, discount: float
) -> Float[Tensor, " N"]:
    """`Σ_k discount^k max_b (1 - R_b(y_≤T-k))`, k = 0 at the completion's end.

    The worst member is asked at each prefix, as the paper's rule does (its authors' code takes the
    worst sum). Ours: k counts back from the end, since a value there is of the whole completion,
    and what comes before it only tells apart what the end leaves equal.

    Args:
        violations: `1 - R_b` after each token, by member.
        mask: real tokens, at least one a row, none after a missing one.
        discount: in [0, 1); 0: the end alone.
    """
    back = mask.sum(1, keepdim=True) - mask.cumsum(1)
    weights = torch.where(mask, discount ** back.to(violations.dtype), 0.0)
    return (weights * violations.amax(-1)).sum(1)


def elites(
    costs: Float[Tensor, " N"], likelihood: Float[Tensor, " N"], *, count: int, most: float
) -> Int[Tensor, " K"]:
    """Places of the likeliest whose cost is at most `most`; of the cheapest where these are too
    few, so that none stands twice. Among equal costs the likelier comes first.

    Args:
        costs: graded, so that those that are too dear can be told apart.
        likelihood: nats.
        count: places, at most N.
        most: cost of what is feasible.
    """
    feasible = costs <= most
    enough = int(feasible.sum()) >= count
    order = likelihood.argsort(descending=True, stable=True)
    if enough:
        return order[feasible[order]][:count]
    return order[costs[order].argsort(stable=True)][:count]
