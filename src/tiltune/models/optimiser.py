"""One optimizer step for everything that is trained: its rate, its clip, its check.

The policy, the values and a policy gradient's state values all move by `Optimiser.step`; so none of
them can run on with a gradient that is not a number.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from tiltune.errors import RunError
from tiltune.models.checkpoint import load_optimizer, optimizer_tensors

BETAS = (0.9, 0.98)
MOST_NORM = 1.0
"""Gradients are scaled down to this norm."""


@dataclass(frozen=True)
class RateSchedule:
    """Shares of the peak rate: linear warm-up times a cosine from 1 down to `floor`.

    `share(t) = min(1, (done + t + 1) / warm_up) · (floor + (1 - floor) · ½(1 + cos πx))`, where x
    goes from 0 at step `flat` to 1 at step `steps`.

    Attributes:
        steps: of this fit.
        warm_up: steps until the peak, those `done` before this fit included.
        done: steps of earlier fits by the same optimizer.
        flat: steps before the rate begins to fall.
        floor: share that is left at the end.
    """

    steps: int
    warm_up: int
    done: int = 0
    flat: int = 0
    floor: float = 0.0

    def share(self, step: int) -> float:
        """Of the step with this number, from 0."""
        warm = min(1.0, (self.done + step + 1) / self.warm_up)
        falling = max(0, step - self.flat)
        cosine = 0.5 * (1 + math.cos(math.pi * falling / max(1, self.steps - self.flat)))
        return warm * (self.floor + (1 - self.floor) * cosine)


def one_cycle(steps: int) -> RateSchedule:
    """Of a fit by itself: warm-up over a twentieth of the steps, then cosine to zero."""
    warm_up = max(1, steps // 20)
    return RateSchedule(steps, warm_up, flat=warm_up)


@final
class Optimiser:
    """AdamW on some weights; refuses a gradient that is not finite.

    Args:
        parameters: what is trained; a checkpoint knows them by this order.
        rate: peak.
        weight_decay: AdamW's.
        fitted: what is trained, as messages call it.
        lower: the settings that make a divergence less likely, as messages name them.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        rate: float,
        weight_decay: float = 0.0,
        fitted: str,
        lower: str,
    ) -> None:
        self.parameters = [each.requires_grad_() for each in parameters]
        self.rate = rate
        self.fitted = fitted
        self.lower = lower
        self.adam = torch.optim.AdamW(
            self.parameters, lr=rate, betas=BETAS, weight_decay=weight_decay
        )

    def step(self, schedule: RateSchedule, step: int) -> None:
        """Move by the gradients that have been added up, and forget them.

        Args:
            schedule: of the rate.
            step: number of the step in the fit, from 0.

        Raises:
            RunError: a gradient is not finite; the weights are as they were before the step.
        """
        rate = self.rate * schedule.share(step)
        for group in self.adam.param_groups:
            group["lr"] = rate
        if not clip_grad_norm_(self.parameters, MOST_NORM).isfinite():
            raise self.diverged(
                f"the gradient of step {step + 1} of {schedule.steps} is not finite, at a rate of "
                f"{rate:.3g} (peak {self.rate:g})"
            )
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def take_norm(self) -> float:
        """The norm of the gradients that have been added up, which are forgotten; no step.

        Raises:
            RunError: a gradient is not finite.
        """
        gradients = [each.grad for each in self.parameters if each.grad is not None]
        norm = get_total_norm(gradients)
        self.adam.zero_grad(set_to_none=True)
        if not norm.isfinite():
            raise self.diverged("a gradient is not finite before the first step")
        return norm.item()

    def diverged(self, found: str) -> RunError:
        """What stops the run, and what a user can do.

        Args:
            found: what shows it.
        """
        return RunError(
            f"{self.fitted} diverged: {found}; start again with a lower {self.lower} (--resume "
            "keeps the settings, and would meet it again). Rounds that are saved stand"
        )

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""
        return optimizer_tensors(self.adam)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Undo `state`."""
        load_optimizer(self.adam, tensors)
