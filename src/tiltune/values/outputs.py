"""Output layers of a value model: a prefix's hidden state -> a logit for every next token.

Which one a model has is decided by the width of the vocabulary (`make_output`). All start at a
constant. Measured: `LOG.md`.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tiltune.models.bfloat16 import frozen_product
from tiltune.models.lm import LanguageModel

Columns = Mapping[str, Tensor]
"""Numbers by name, of each prefix: [*batch, ...]."""

NARROW_VOCABULARY = 1024
"""Up to so many ids each comes often enough to be learnt by itself."""
WIDE_VOCABULARY = 16_384
"""Above this many ids the output is tied alone: a full-width layer would outweigh the model."""
LEAST_SQUARE = 1e-6
"""Added to a state's mean square before it is divided by its root."""


class FullOutput(nn.Linear):
    """`hidden -> V logits`, zero weights: it starts at the constant that its bias holds."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__(hidden, width)
        nn.init.zeros_(self.weight)

    def set_constant(self, logit: float) -> None:
        nn.init.zeros_(self.weight)
        nn.init.constant_(self.bias, logit)

    def columns(self, states: Float[Tensor, "*batch h"]) -> Columns:
        return {"states": states.to(self.weight.dtype)}

    def read(self, columns: Columns, unembedding: Tensor) -> Float[Tensor, "*batch V"]:
        return self(columns["states"])

    def taken(
        self, columns: Columns, ids: Int[Tensor, "*batch"], unembedding: Tensor
    ) -> Float[Tensor, "*batch"]:
        return (columns["states"] * self.weight[ids]).sum(-1) + self.bias[ids]

    def read_weights(self) -> list[nn.Parameter]:
        return list(self.parameters())

    @torch.no_grad()
    def shift(self, logit: float) -> None:
        self.bias.add_(logit)


class TiedOutput(nn.Module):
    """`logit(s, v) = b + a·h + u_v·(W h)`: a scalar a prefix plus a projection into frozen `u`."""

    def __init__(self, hidden: int, unembedding_size: int) -> None:
        super().__init__()
        self.scalar = nn.Linear(hidden, 1)
        self.projection = nn.Linear(hidden, unembedding_size, bias=False)
        self.set_constant(0.0)

    def set_constant(self, logit: float) -> None:
        nn.init.zeros_(self.scalar.weight)
        nn.init.zeros_(self.projection.weight)
        nn.init.constant_(self.scalar.bias, logit)

    @torch.no_grad()
    def shift(self, logit: float) -> None:
        self.scalar.bias.add_(logit)

    def columns(self, states: Float[Tensor, "*batch h"]) -> Columns:
        states = states.to(self.scalar.weight.dtype)
        return {"scalar": self.scalar(states), "projected": self.projection(states)}

    def read(self, columns: Columns, unembedding: Tensor) -> Float[Tensor, "*batch V"]:
        narrow = columns["projected"].to(unembedding.dtype)
        return columns["scalar"] + frozen_product(narrow, unembedding).float()

    def taken(
        self, columns: Columns, ids: Int[Tensor, "*batch"], unembedding: Tensor
    ) -> Float[Tensor, "*batch"]:
        narrow = columns["projected"].to(unembedding.dtype).float()
        products = (narrow * unembedding.detach()[ids].float()).sum(-1)
        # rounded as `read` rounds them: consistency compares the two
        return columns["scalar"].squeeze(-1) + products.to(unembedding.dtype).float()

    def read_weights(self) -> list[nn.Parameter]:
        return []


def of_one_size(states: Float[Tensor, "*batch h"]) -> Float[Tensor, "*batch h"]:
    """Divided by the root of their mean square, in 32 bit."""
    states = states.float()
    return states * states.square().mean(-1, keepdim=True).add(LEAST_SQUARE).rsqrt()


class WideOutput(nn.Module):
    """The tied output of states brought to one size.

    A step of the optimizer moves each weight by the rate, so a logit by the rate times the sizes of
    states and unembedding and both their lengths. In a large model that is whole logits a step.
    """

    def __init__(self, hidden: int, unembedding_size: int) -> None:
        super().__init__()
        self.tied = TiedOutput(hidden, unembedding_size)

    def set_constant(self, logit: float) -> None:
        self.tied.set_constant(logit)

    def shift(self, logit: float) -> None:
        self.tied.shift(logit)

    def columns(self, states: Float[Tensor, "*batch h"]) -> Columns:
        states = of_one_size(states)
        columns = self.tied.columns(states)
        return {**columns, "projected": columns["projected"] / states.shape[-1] ** 0.5}

    def read(self, columns: Columns, unembedding: Tensor) -> Float[Tensor, "*batch V"]:
        return self.tied.read(columns, unembedding)

    def taken(
        self, columns: Columns, ids: Int[Tensor, "*batch"], unembedding: Tensor
    ) -> Float[Tensor, "*batch"]:
        return self.tied.taken(columns, ids, unembedding)

    def read_weights(self) -> list[nn.Parameter]:
        return []


class JointOutput(nn.Module):
    """The tied output plus a row for each id, `+ w_v·h + b_v`.

    What like ids have in common is learnt from all of them, what is an id's own from that one.
    Either alone guides real text less (`LOG.md`).
    """

    def __init__(self, hidden: int, width: int, unembedding_size: int) -> None:
        super().__init__()
        self.tied = TiedOutput(hidden, unembedding_size)
        self.rows = FullOutput(hidden, width)

    def set_constant(self, logit: float) -> None:
        self.tied.set_constant(logit)
        self.rows.set_constant(0.0)

    def shift(self, logit: float) -> None:
        self.tied.shift(logit)

    def columns(self, states: Float[Tensor, "*batch h"]) -> Columns:
        return {**self.tied.columns(states), **self.rows.columns(states)}

    def read(self, columns: Columns, unembedding: Tensor) -> Float[Tensor, "*batch V"]:
        return self.tied.read(columns, unembedding) + self.rows.read(columns, unembedding)

    def taken(
        self, columns: Columns, ids: Int[Tensor, "*batch"], unembedding: Tensor
    ) -> Float[Tensor, "*batch"]:
        tied = self.tied.taken(columns, ids, unembedding)
        return tied + self.rows.taken(columns, ids, unembedding)

    def read_weights(self) -> list[nn.Parameter]:
        return self.rows.read_weights()


Output = FullOutput | WideOutput | JointOutput


def make_output(hidden: int, lm: LanguageModel) -> Output:
    """The output layer for states of this size over the LM's vocabulary."""
    if lm.width <= NARROW_VOCABULARY:
        return FullOutput(hidden, lm.width)
    if lm.width <= WIDE_VOCABULARY:
        return JointOutput(hidden, lm.width, lm.hidden_size)
    return WideOutput(hidden, lm.hidden_size)
