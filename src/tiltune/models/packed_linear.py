"""Frozen linear layers whose weights stay in few bits, unpacked one at a time as they compute."""

from typing import Any

import torch
from torch import Tensor, nn

from tiltune.errors import ModelError
from tiltune.models.bfloat16 import frozen_product, widens
from tiltune.models.packed_folder import PARTS, Recipe, packed_layers
from tiltune.models.quantise import Packed

OUTLIERS = 0.05
"""Share of a layer's weights that are, here and by default in `tiltune quantise`."""


class PackedLinear(nn.Linear):
    """`x Wᵀ + b` of a weight in few bits; its gradient is of the states alone.

    `weight` is unpacked each time that it is read, and state dicts hold it as plain numbers.
    """

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The numbers that the codes stand for, in the dtype that the layer had."""
        parts = {part: getattr(self, f"packed_{part}") for part in PARTS}
        shape = (self.out_features, self.in_features)
        return Packed(**parts, shape=shape, bits=self.bits).weights().to(self.dtype)

    def forward(self, input: Tensor) -> Tensor:
        """The states' product with the weight, and the bias."""
        kind = input.device.type
        if torch.is_autocast_enabled(kind):
            input = input.to(torch.get_autocast_dtype(kind))
        output: Tensor = _PackedProduct.apply(input, self)
        bias: Tensor | None = getattr(self, "bias", None)
        return output if bias is None else output + bias.to(output.dtype)

    def hold(self, packed: Packed) -> None:
        """Take these in the place of the weight; the layer was a linear one until now."""
        weight: Any = self._parameters.pop("weight")
        self.dtype, self.bits = weight.dtype, packed.bits
        for part in PARTS:
            self.register_buffer(f"packed_{part}", getattr(packed, part), persistent=False)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight


def hold_packed(module: Any, bits: int | None) -> int:
    """Put the weights of the module's linear layers into few bits, the output embedding's not.

    Args:
        module: a model without adapters.
        bits: of a weight; None: all stays as it is.

    Returns:
        How many parameters the module has besides.

    Raises:
        ModelError: it has no linear layers of torch's own kind, or weights that are no numbers.
    """
    if bits is None:
        return module.num_parameters()
    found = packed_layers(module, Recipe(bits, OUTLIERS))
    kept: list[tuple[Any, Packed]] = [
        (layer, packed) for _, layer, packed in found if type(layer) is nn.Linear
    ]
    if not kept:
        raise ModelError(
            f"model.quantise = {bits}: the layers of a {type(module).__name__} are of a kind of "
            "its own, which cannot be held in few bits; leave it out"
        )
    for layer, packed in kept:
        layer.__class__ = PackedLinear
        layer.hold(packed)
    return module.num_parameters()


class _PackedProduct(torch.autograd.Function):
    """`x Wᵀ` and `g W`: what is kept for the way back is the layer, not its unpacked weight."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return frozen_product(states, layer.weight.to(states.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        weight = ctx.layer.weight.to(gradient.dtype)
        if widens(gradient, weight):
            return (gradient.float() @ weight.float()).to(gradient.dtype), None
        return gradient @ weight, None
