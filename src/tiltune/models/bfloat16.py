"""Whether this processor's bfloat16 is quick, and frozen bfloat16 products where it is not.

Without arithmetic for it a bfloat16 product runs up to six times slower than a 32-bit one. The
weights stay in bfloat16 and are widened a block at a time, which takes 16 MiB; what is computed is
closer to the truth.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

BLOCK = 2**22
"""Weights widened at once: 16 MiB in 32 bit."""
LEAST_ROWS = 16
"""With fewer rows, widening the weights costs more than the product."""


QUICK = 1.3
"""A 32-bit product has to take so many times a bfloat16 one's time: what is near 1 may be noise,
and a choice that flips between two starts helps nobody."""
REPEATS = 9
"""Pairs of products that are timed; a tenth of a second or two."""


class _Processor:
    """What is known of this processor, for the whole process; None: not asked yet."""

    quick: bool | None = None


def quick_bfloat16() -> bool:
    """Whether bfloat16 products are clearly quicker here than 32-bit ones: measured once."""
    if _Processor.quick is None:
        _Processor.quick = speed_up() >= QUICK
    return _Processor.quick


def settle(quick: bool | None) -> None:
    """Take this for what a measurement would say; None: measure again.

    For a process that has to compute as another one does, whose measurement might differ.
    """
    _Processor.quick = quick


def speed_up(timer: Callable[[Callable[[], Any]], float] | None = None) -> float:
    """Seconds of a 32-bit product over those of a bfloat16 one, the least of `REPEATS` each.

    The least, since other work on the machine only ever adds: medians of products this short said
    anything from .2 to 2.7 on one processor. The product is of a real layer's shape: 256 states of
    width 576 by 1,536 rows of weights.

    Args:
        timer: gives the seconds that a call takes; None: by the clock.
    """
    seconds = timer or _seconds
    states, weight = torch.ones(256, 576), torch.ones(1536, 576)
    narrow = states.bfloat16(), weight.bfloat16()
    pairs = [
        (seconds(lambda: linear(states, weight)), seconds(lambda: linear(*narrow)))
        for _ in range(REPEATS)
    ]
    wide, short = (min(column) for column in zip(*pairs, strict=True))
    return wide / short


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def lacks_bfloat16() -> bool:
    """Whether this processor's bfloat16 products are no quicker than 32-bit ones."""
    return not quick_bfloat16()


def frozen_product(
    states: Float[Tensor, "*batch d"], weight: Float[Tensor, "V d"]
) -> Float[Tensor, "*batch V"]:
    """`states @ weight.T`, in the states' dtype; no gradient reaches the weight."""
    if widens(states, weight):
        return _WideProduct.apply(states, weight.detach())
    return linear(states, weight.detach())


def widens(states: Tensor, weight: Tensor) -> bool:
    """Whether this product goes through 32 bit."""
    return (
        states.dtype == weight.dtype == torch.bfloat16
        and states.device.type == "cpu"
        and states.numel() >= LEAST_ROWS * states.shape[-1]
        and lacks_bfloat16()
    )


def widen_frozen_layers(module: nn.Module) -> None:
    """Make the module's frozen bfloat16 linear layers compute by `frozen_product`."""
    for layer in module.modules():
        if type(layer) is nn.Linear and layer.weight.dtype == torch.bfloat16:
            layer.__class__ = WideLinear


class WideLinear(nn.Linear):
    """A linear layer that computes by `frozen_product` while its weight is frozen."""

    def forward(self, input: Tensor) -> Tensor:
        if self.weight.requires_grad:
            return super().forward(input)
        output = frozen_product(input, self.weight)
        bias = getattr(self, "bias", None)
        return output if bias is None else output + bias


class _WideProduct(torch.autograd.Function):
    """`x Wᵀ` and its gradient `g W` for the states alone, a block of W's rows at a time."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        wide, rows = states.float(), max(1, BLOCK // weight.shape[1])
        output = states.new_empty(*states.shape[:-1], len(weight))
        for first in range(0, len(weight), rows):
            block = weight[first : first + rows].float()
            output[..., first : first + rows] = linear(wide, block)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        (gradient,) = gradients
        rows = max(1, BLOCK // weight.shape[1])
        total = torch.zeros(*gradient.shape[:-1], weight.shape[1])
        for first in range(0, len(weight), rows):
            block = weight[first : first + rows].float()
            total += gradient[..., first : first + rows].float() @ block
        return total.to(gradient.dtype), None
