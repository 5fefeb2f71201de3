"""One value a prefix: the gains to come, or `log R`, for methods that estimate them."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tiltune.data.samples import Samples
from tiltune.models.lm import LanguageModel


class StateValue(nn.Module):
    """`V(s)`, the gains to come or `log R`: a linear read-out of a trunk of its own, all trained.

    The trunk starts as a copy of the policy (under LoRA: another adapter), so the values can learn
    to remember what the constraint remembers, and their gradient never moves the policy. The
    read-out starts at a constant.
    """

    def __init__(self, trunk: LanguageModel) -> None:
        super().__init__()
        self.trunk = trunk
        self.output = nn.Linear(trunk.hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def run(self, ids: Tensor, mask: Tensor, *, keep: int) -> Float[Tensor, "N K"]:
        """Values of the last `keep` prefixes."""
        states, _ = self.trunk.trunk(ids, mask)
        return self.output(states[:, -keep:].to(self.output.weight.dtype)).squeeze(-1)

    def start(self, samples: Samples, level: Literal["gain", "log rate"] = "gain") -> None:
        """Begin at the samples' mean gain, `2C - 1`, or at the logarithm of their rate.

        Args:
            samples: labelled.
            level: which; a rate of 0 is taken for half a completion.
        """
        start = float((2 * samples.labels - 1).mean())
        if level == "log rate":
            start = math.log(max(float(samples.labels.mean()), 0.5 / len(samples)))
        nn.init.constant_(self.output.bias, start)

    @torch.no_grad()
    def shift(self, gain: float) -> None:
        """Add this to every value."""
        self.output.bias.add_(gain)

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is trained and what a checkpoint must hold."""
        for name, value in self.trunk.trunk_parameters():
            yield f"trunk.{name}", value
        for name, value in self.output.named_parameters():
            yield f"output.{name}", value

    def state(self) -> dict[str, Tensor]:
        """A copy of the weights, on the CPU."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self.own_parameters()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Undo `state`."""
        for name, value in self.own_parameters():
            value.copy_(state[name])
