"""What a head remembers of the tokens before: its trunk's cache, its block's keys and values."""

from typing import Any, final

from torch import Tensor

from tiltune.models.side_by_side import joined, stacked

OwnCache = tuple[Tensor, Tensor, Tensor]
"""Keys and values of a head's block, [N, heads, S, size], and which of the tokens are real, [N, S].
"""


def selected(cache: OwnCache, rows: Tensor) -> OwnCache:
    """The rows of a head's cache."""
    keys, values, mask = cache
    return keys[rows], values[rows], mask[rows]


def joined_own(first: OwnCache, second: OwnCache) -> OwnCache:
    """The rows of both; over a wide vocabulary a head's tokens are fewer than its trunk's."""
    width = int(max(first[2].sum(1).max(), second[2].sum(1).max()))
    keys = stacked(first[0], second[0], width, dim=2)
    values = stacked(first[1], second[1], width, dim=2)
    return keys, values, stacked(first[2], second[2], width, dim=1)


@final
class HeadCache:
    """The trunk's cache and the block's keys and values."""

    def __init__(self, trunk: Any, own: OwnCache) -> None:
        self.trunk = trunk
        self.own = own

    def reorder_cache(self, rows: Tensor) -> None:
        self.trunk.reorder_cache(rows)
        self.own = selected(self.own, rows)

    def joined(self, other: "HeadCache", width: int) -> "HeadCache":
        trunk = joined(self.trunk, other.trunk, width)
        return HeadCache(trunk, joined_own(self.own, other.own))
