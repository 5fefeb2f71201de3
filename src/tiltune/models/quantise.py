"""Weights in a few bits: the largest of a layer are set apart, and each group has two grids.

A weight's adaptive LASSO estimate, with the weight itself as the first guess,

    argmin_x (w - x)² + λ |x / w| = sign(w) · ReLU(|w| - λ / (2 |w|)),

is not 0 exactly where |w| > √(λ / 2). To lower λ until a share of a layer's weights is not 0 is
thus to take that share by rank, ties by place, and no λ has to be looked for. These outliers and
the rest are then rounded apart: to the nearest of 2^bits - 1 levels, symmetric about 0, whose
distance is the largest magnitude of the group's outliers, or of its rest, over 2^(bits-1) - 1.
Without outliers this is plain rounding to nearest. No text is needed.

Source: AdpQ, arXiv 2405.13358.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

BITS = (2, 3, 4, 8)
"""Bits of a code that can be asked for."""
GROUP = 128
"""Weights, in the order in which they are stored, that share a scale; at most 256, since the place
of an outlier within its group is kept in a byte."""
STORED = torch.bfloat16
"""Of the scales: it has the range of float32, so no small group's scale ends at 0."""


@dataclass(frozen=True)
class Packed:
    """A layer's weights in few bits.

    Attributes:
        codes: `bits` bits a weight, 8 weights in `bits` bytes; the last group is filled up.
        scales: the distance of levels, in each group of the rest and of the outliers; [groups, 1]
            where the layer has no outliers.
        places: of each outlier within its group, group by group.
        counts: outliers of each group; empty where there are none.
        shape: of the weights.
        bits: of a code.
    """

    codes: UInt8[Tensor, " bytes"]
    scales: Float[Tensor, "groups grids"]
    places: UInt8[Tensor, " outliers"]
    counts: UInt8[Tensor, " counted"]
    shape: tuple[int, ...]
    bits: int

    @property
    def bytes(self) -> int:
        """Of all that is kept."""
        kept = (self.codes, self.scales, self.places, self.counts)
        return sum(each.numel() * each.element_size() for each in kept)

    def weights(self) -> Float[Tensor, " ..."]:
        """The weights that the codes stand for, in 32 bit, in the shape that they had."""
        levels = unpack(self.codes, self.bits).float() - top(self.bits)
        scales = self.scales.float()
        found = levels.view(-1, GROUP) * scales[:, :1]
        if len(self.counts):
            groups = torch.arange(len(scales), device=levels.device)
            group = groups.repeat_interleave(self.counts.long())
            place = group * GROUP + self.places.long()
            found.view(-1)[place] = levels[place] * scales[group, 1]
        size = torch.Size(self.shape).numel()
        return found.view(-1)[:size].view(self.shape)


def quantise(weights: Float[Tensor, " ..."], bits: int, *, share: float) -> Packed:
    """The weights in few bits, `round(share · size)` of them as outliers; share 0: to nearest.

    Raises:
        ValueError: a weight is not finite, or no such bits.
    """
    if bits not in BITS:
        raise ValueError(f"{bits} bits; give one of {BITS}")
    weights = weights.detach().float()
    if not bool(weights.isfinite().all()):
        raise ValueError("a weight is not a number, or infinite")
    wide, mask = _grouped(weights), _grouped(outliers(weights, share))
    scales = grids(wide, mask, bits).to(STORED)
    codes = nearest(wide, mask, scales.float(), bits)
    some = bool(mask.any())
    return Packed(
        codes=pack((codes + top(bits)).to(torch.uint8).view(-1), bits),
        scales=scales if some else scales[:, :1].contiguous(),
        places=mask.nonzero()[:, 1].to(torch.uint8),
        counts=mask.sum(1).to(torch.uint8) if some else mask.new_empty(0, dtype=torch.uint8),
        shape=tuple(weights.shape),
        bits=bits,
    )


def top(bits: int) -> int:
    """The largest code: codes lie in ±(2^(bits-1) - 1), so that 0 is one of them."""
    return 2 ** (bits - 1) - 1


def outliers(weights: Float[Tensor, " ..."], share: float) -> Bool[Tensor, " ..."]:
    """The `round(share · size)` weights of largest magnitude; of equal ones the first stored."""
    size = weights.abs().flatten()
    count = round(share * len(size))
    if count == 0:
        return torch.zeros_like(weights, dtype=torch.bool)
    least = size.kthvalue(len(size) - count + 1).values
    found = size > least
    found[(size == least).nonzero()[: count - int(found.sum()), 0]] = True
    return found.view(weights.shape)


def grids(
    weights: Float[Tensor, "groups members"], mask: Bool[Tensor, "groups members"], bits: int
) -> Float[Tensor, "groups 2"]:
    """The distance of levels in each group, of the rest and of the outliers; 1 where all are 0."""
    sizes = weights.abs()
    largest = (sizes.masked_fill(other, 0).amax(1) for other in (mask, ~mask))
    found = torch.stack(tuple(largest), 1) / top(bits)
    return torch.where(found == 0, 1.0, found)


def nearest(
    weights: Float[Tensor, "groups members"],
    mask: Bool[Tensor, "groups members"],
    scales: Float[Tensor, "groups 2"],
    bits: int,
) -> Int[Tensor, "groups members"]:
    """Each weight's code: the nearest level of its own grid."""
    scale = torch.where(mask, scales[:, 1:], scales[:, :1])
    return (weights / scale).round().clamp(-top(bits), top(bits)).int()


def pack(codes: UInt8[Tensor, " codes"], bits: int) -> UInt8[Tensor, " bytes"]:
    """8 codes of `bits` bits in `bits` bytes, the first in the lowest bits; they come in eights."""
    rows = codes.view(-1, 8)
    word = torch.zeros(len(rows), dtype=torch.int64, device=codes.device)
    for place in range(8):
        word |= rows[:, place].long() << (bits * place)
    return torch.stack([(word >> 8 * byte & 255).to(torch.uint8) for byte in range(bits)], 1).view(
        -1
    )


def unpack(packed: UInt8[Tensor, " bytes"], bits: int) -> UInt8[Tensor, " codes"]:
    """What `pack` was given."""
    if 8 % bits == 0:  # no code lies in two bytes
        parts = [packed >> place & 2**bits - 1 for place in range(0, 8, bits)]
        return torch.stack(parts, 1).view(-1)
    rows = packed.view(-1, bits)
    word = torch.zeros(len(rows), dtype=torch.int64, device=packed.device)
    for byte in range(bits):
        word |= rows[:, byte].long() << (8 * byte)
    found = torch.empty(len(rows), 8, dtype=torch.uint8, device=packed.device)
    for place in range(8):
        found[:, place] = word >> (bits * place) & 2**bits - 1
    return found.view(-1)


def _grouped(values: Tensor) -> Tensor:
    """In groups as they are stored, the last one filled up with zeros: [groups, GROUP]."""
    flat = values.reshape(-1)
    lacking = -len(flat) % GROUP
    return torch.nn.functional.pad(flat, (0, lacking)).view(-1, GROUP)
