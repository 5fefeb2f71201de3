"""Caches of rows that began at different times, brought side by side.

Rows of a batch end at the same column, so the shorter ones are padded on the left; their masks say
where they begin. What every row leaves empty is cut off, or a batch that new rows keep joining
would grow for ever.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from tiltune.models.lm import Cache, Written

PLAIN = "DynamicLayer"
"""The layer of transformers' caches that holds a key and a value of every token, and no more."""


class NotSideBySide(Exception):
    """These caches cannot be brought side by side; their rows go on apart."""


def fitted(values: Tensor, width: int, *, dim: int) -> Tensor:
    """The last `width` columns along a dimension, zeros on the left where there are fewer."""
    here = values.shape[dim]
    if here >= width:
        return values.narrow(dim, here - width, width)
    shape = list(values.shape)
    shape[dim] = width - here
    return torch.cat((values.new_zeros(shape), values), dim)


def stacked(first: Tensor, second: Tensor, width: int, *, dim: int) -> Tensor:
    """The rows of both, each `fitted` along a dimension."""
    return torch.cat((fitted(first, width, dim=dim), fitted(second, width, dim=dim)))


def joined(first: Cache, second: Cache, width: int) -> Cache:
    """One cache of the rows of both; neither is changed.

    Args:
        first: of some rows.
        second: of others, of the same model.
        width: columns to keep: the most tokens that any of the rows has in its cache.

    Raises:
        NotSideBySide: a kind of cache whose columns are not a token each, such as that of a
            sliding window or a recurrent state.
    """
    if isinstance(first, Written):
        return Written(stacked(first.ids, second.ids, width, dim=1))
    own: Any = getattr(first, "joined", None)
    if own is not None:
        return own(second, width)
    layers: Any = getattr(first, "layers", None)
    if not layers or not all(map(_is_plain, (*layers, *second.layers))):
        raise NotSideBySide
    found: Any = copy.copy(first)
    found.layers = [_layer(*pair, width) for pair in zip(layers, second.layers, strict=True)]
    return found


def _is_plain(layer: Any) -> bool:
    return type(layer).__name__ == PLAIN and layer.keys is not None


def _layer(first: Any, second: Any, width: int) -> Any:
    found = copy.copy(first)
    found.keys = stacked(first.keys, second.keys, width, dim=2)
    found.values = stacked(first.values, second.values, width, dim=2)
    return found
