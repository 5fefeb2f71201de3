"""What is as wide as the vocabulary, a few rows at a time.

A trunk runs once on whole rows of text, and leaves d numbers a token; logits, laws and targets are
V numbers a token. Here they are made of the trunk's states chunk by chunk, and the gradient with
regard to these is taken while a chunk's logits are still there, so that no more than a few chunks
are ever held. The result does not depend on the chunks but for rounding.
Source: the fused losses of arXiv 2410.10989, for any loss that is a sum over rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**24
"""Of a chunk on a CPU: 64 MiB in 32 bit. Fewer cost more where weights are widened, see `bfloat16`,
and save no time elsewhere."""
LOGITS_AT_ONCE_GPU = 2**26
"""Of a chunk on a GPU, which needs wide products."""

Part = Mapping[str, Tensor]
"""The same rows of several columns."""


def chunk_rows(width: int, device: torch.device) -> int:
    """Rows of a chunk whose rows are so many numbers wide."""
    most = LOGITS_AT_ONCE if device.type == "cpu" else LOGITS_AT_ONCE_GPU
    return max(1, most // width)


def sum_chunks(
    function: Callable[[Part], Tensor],
    columns: Part,
    *,
    width: int,
    weights: Sequence[nn.Parameter] = (),
) -> Tensor:
    """`Σ function(chunk)` over chunks of rows, with its gradient.

    Args:
        function: from some rows of the columns to a scalar that adds up over rows.
        columns: by name, each [M, ...]; gradient reaches those that require it.
        width: numbers that a row of what `function` makes is wide.
        weights: trained weights that `function` itself reads; no others get a gradient.
    """
    names, values = tuple(columns), tuple(columns.values())
    rows = chunk_rows(width, values[0].device)
    trained = [weight for weight in weights if weight.requires_grad]
    if not (torch.is_grad_enabled() and (trained or any(v.requires_grad for v in values))):
        parts = _parts(names, values, rows)
        return torch.stack([function(part) for part in parts]).sum()
    return _Sum.apply(function, names, rows, trained, *values, *trained)


@torch.no_grad()
def map_chunks(function: Callable[[Part], Tensor], columns: Part, *, width: int) -> Tensor:
    """`function` of all rows, a chunk at a time, without gradient: [M, ...].

    Args:
        function: from some rows of the columns to as many rows.
        columns: by name, each [M, ...], M at least 1.
        width: numbers that a row of what `function` makes on the way is wide.
    """
    values = tuple(columns.values())
    rows = chunk_rows(width, values[0].device)
    return torch.cat([function(part) for part in _parts(tuple(columns), values, rows)])


def again_chunks(function: Callable[..., Tensor], *columns: Tensor, width: int) -> Tensor:
    """`function` of all rows, a chunk at a time, which the backward pass computes once more: [M].

    For what is a number a row, with gradients that come later.

    Args:
        function: from some rows of each column to a number a row.
        columns: each [M, ...].
        width: numbers that a row of what `function` makes on the way is wide.
    """
    rows = chunk_rows(width, columns[0].device)
    parts = list(zip(*(column.split(rows) for column in columns), strict=True))
    if len(parts) == 1 or not torch.is_grad_enabled():
        return torch.cat([function(*part) for part in parts])
    return torch.cat([checkpoint(function, *part, use_reentrant=False) for part in parts])


def _parts(names: Sequence[str], values: Sequence[Tensor], rows: int) -> list[dict[str, Tensor]]:
    starts = range(0, max(1, len(values[0])), rows)  # of no rows one part, of none
    cut = [[value[first : first + rows] for value in values] for first in starts]
    return [dict(zip(names, part, strict=True)) for part in cut]


class _Sum(torch.autograd.Function):
    """The sum, and on the way its gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[[Part], Tensor],
        names: tuple[str, ...],
        rows: int,
        trained: list[nn.Parameter],
        *tensors: Tensor,
    ) -> Tensor:
        values = tensors[: len(names)]
        moved = [place for place in range(len(names)) if ctx.needs_input_grad[4 + place]]
        gradients = {place: torch.zeros_like(values[place]) for place in moved}
        sums: list[Tensor | None] = [None] * len(trained)
        losses: list[Tensor] = []
        for number, part in enumerate(_parts(names, [v.detach() for v in values], rows)):
            leaves = [part[names[place]].requires_grad_() for place in moved]
            with torch.enable_grad():
                loss = function(part)
            # its type leaves out that what is not used has none
            found: Any = torch.autograd.grad(loss, [*leaves, *trained], allow_unused=True)
            losses.append(loss.detach())
            inside = slice(number * rows, (number + 1) * rows)
            for place, gradient in zip(moved, found, strict=False):
                if gradient is not None:
                    gradients[place][inside] = gradient
            for place, gradient in enumerate(found[len(moved) :]):
                sums[place] = _added(sums[place], gradient)
        ctx.kept = [gradients.get(place) for place in range(len(names))] + sums
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        kept = [None if each is None else each * outer[0] for each in ctx.kept]
        return None, None, None, None, *kept


def _added(total: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    if total is None or gradient is None:
        return gradient if total is None else total
    return total.add_(gradient)
