"""Policy gradients with a penalty for leaving the reference: the baselines `ppo` and `grpo`.

Both maximise `E[2C - 1] - kl_weight · KL(policy ‖ reference)`, C the label, on the completions that
a round drew from the snapshot, whose log-probabilities came with them; grpo without what a token
does to the KL of the tokens after it.

- `ppo`: each token gains `-kl_weight (log p_old - log p_ref)`, the last one `2C - 1` besides;
  generalised advantages over a state value, clipped ratios token by token (arXiv 1707.06347).
  The optimum over all laws is `p_ref(y|x) e^{(2C - 1) / kl_weight} / Z`.
- `grpo`: every token of a completion has the advantage of its completion over the others of its
  prompt; the KL is a term of the loss (arXiv 2402.03300, with corrections that `losses` names).

GRPO is ours and not TRL's: TRL draws by itself, so that neither the sampling law, nor the count of
completions, nor the resume after a kill would be those of the other methods, and no maintained
library ships PPO any more.

Advantages are not divided by their standard deviation, so that the term's scale, and with it what
`method.beta` weighs against a corpus, is that of the score; Adam does not see the difference else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from tiltune.data.batches import Cursor, length_parts
from tiltune.data.samples import Samples
from tiltune.methods.losses import (
    clipped_policy_loss,
    clipped_value_loss,
    group_advantages,
    reference_penalty,
)
from tiltune.models.checkpoint import load_optimizer, optimizer_tensors
from tiltune.models.laws import gather, generalised_advantages, log_softmax
from tiltune.models.lm import LanguageModel


@dataclass(frozen=True)
class GradientSettings:
    """How samples become a policy's gradient.

    Attributes:
        kind: see the module.
        kl_weight: of KL(policy ‖ reference), score a nat.
        ratio_clip: how far a token's ratio, or a state's value, may move from where it was.
        decay: λ of the advantages, for ppo.
        value_rate: peak rate of the state values, for ppo.
    """

    kind: Literal["ppo", "grpo"]
    kl_weight: float
    ratio_clip: float
    decay: float = 1.0
    value_rate: float = 0.0


class StateValue(nn.Module):
    """`V(s)`, the gains to come: a linear read-out of a trunk of its own, all of it trained.

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

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is trained and what a checkpoint must hold."""
        for name, value in self.trunk.trunk_parameters():
            yield f"trunk.{name}", value
        for name, value in self.output.named_parameters():
            yield f"output.{name}", value


@dataclass(frozen=True)
class Estimates:
    """A round's samples and what their tokens are worth, all fixed before the first step.

    Attributes:
        samples: drawn from the snapshot by its own law.
        advantages: of each token.
        reference_log_probs: of each token, nats.
        values: V at each token, before the update; 0 for grpo.
        order: shuffled passes over the samples.
    """

    samples: Samples
    advantages: Float[Tensor, "N T"]
    reference_log_probs: Float[Tensor, "N T"]
    values: Float[Tensor, "N T"]
    order: Cursor


class PolicyGradient:
    """Turns a round's samples into gradients of the policy, and fits ppo's state values meanwhile.

    Args:
        policy: the view that is trained; its optimizer is the learner's.
        reference: the frozen base model.
        settings: see there.
        values: for ppo; None for grpo.
    """

    def __init__(
        self,
        policy: LanguageModel,
        reference: LanguageModel,
        settings: GradientSettings,
        values: StateValue | None,
    ) -> None:
        self.policy = policy
        self.reference = reference
        self.settings = settings
        self.values = values
        self.started = False
        self.parameters = [p for _, p in values.own_parameters()] if values else []
        self.optimizer = (
            torch.optim.AdamW(
                self.parameters, lr=settings.value_rate, betas=(0.9, 0.98), weight_decay=0.0
            )
            if values
            else None
        )

    @torch.no_grad()
    def estimate(
        self, samples: Samples, generator: torch.Generator, *, most_tokens: int
    ) -> Estimates:
        """Reference log-probabilities, values and advantages of a round's samples.

        Args:
            samples: labelled.
            generator: shuffles them.
            most_tokens: padded tokens of a forward pass.
        """
        samples = samples.to(self.policy.device)
        if self.values is not None and not self.started:
            nn.init.constant_(self.values.output.bias, float((2 * samples.labels - 1).mean()))
        self.started = True
        reference = torch.zeros_like(samples.proposal_logprobs)
        values = torch.zeros_like(reference)
        for rows in _parts(samples, torch.arange(len(samples)), most_tokens):
            part = samples.select(rows)
            ids, mask = part.prefixes()
            width = part.ids.shape[1]
            laws = self.reference.log_probs(ids, mask, keep=width)
            reference[rows, :width] = gather(laws, part.ids).to(reference.dtype)
            if self.values is not None:
                found = self.values.run(ids, mask, keep=width)
                values[rows, :width] = torch.where(part.mask, found.to(values.dtype), 0.0)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        advantages = self._advantages(samples, reference, values)
        return Estimates(samples, advantages, reference, values, Cursor(len(samples), seed=seed))

    def backward(
        self, estimates: Estimates, *, rows: int, most_tokens: int, weight: float
    ) -> dict[str, float]:
        """Gradients of one step on the next `rows` samples; what it measured, as step means.

        Args:
            estimates: of the round.
            rows: samples of the whole step.
            most_tokens: padded tokens of a micro-batch.
            weight: of the policy's loss.

        Returns:
            Record fields, the number of `tokens`, and `gap`: the mean of |log p_θ - log p_old|.
        """
        samples = estimates.samples
        picks = torch.tensor(estimates.order.next(rows))
        count = float(samples.mask.sum(1)[picks.to(samples.mask.device)].sum())
        totals: dict[str, float] = {"tokens": count}
        for part in _parts(samples, picks, most_tokens):
            numbers = self._state_values_backward(estimates, part, count)
            numbers |= self._policy_backward(estimates, part, count, weight)
            for name, number in numbers.items():
                totals[name] = totals.get(name, 0.0) + number
        return totals

    def step(self, share: float) -> None:
        """Move ppo's state values, at this share of their peak rate."""
        if self.optimizer is None:
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.value_rate * share
        clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint must hold."""
        if self.values is None or self.optimizer is None:
            return {}
        weights = {
            name: value.detach().to("cpu", copy=True)
            for name, value in self.values.own_parameters()
        }
        return {
            "state_values": weights,
            "state_value_optimizer": optimizer_tensors(self.optimizer),
        }

    @torch.no_grad()
    def load_state(self, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Undo `state`; a checkpoint is written after a first update."""
        self.started = True
        if self.values is None or self.optimizer is None:
            return
        for name, value in self.values.own_parameters():
            value.copy_(tensors["state_values"][name])
        load_optimizer(self.optimizer, tensors["state_value_optimizer"])

    def _advantages(self, samples: Samples, reference: Tensor, values: Tensor) -> Tensor:
        scores = 2 * samples.labels - 1
        if self.settings.kind == "grpo":
            advantages = group_advantages(scores, samples.prompt_index)
            return torch.where(samples.mask, advantages[:, None], 0.0)
        gains = token_gains(samples, reference, kl_weight=self.settings.kl_weight)
        return generalised_advantages(gains, values, samples.mask, decay=self.settings.decay)

    def _state_values_backward(
        self, estimates: Estimates, rows: Tensor, count: float
    ) -> dict[str, float]:
        """Gradients of the state values on these rows; what it measured, nothing for grpo."""
        if self.values is None:
            return {}
        part = estimates.samples.select(rows)
        ids, mask = part.prefixes()
        width = part.ids.shape[1]
        start = estimates.values[rows, :width]
        output = clipped_value_loss(
            self.values.run(ids, mask, keep=width),
            start,
            start + estimates.advantages[rows, :width],
            part.mask,
            clip=self.settings.ratio_clip,
            count=count,
        )
        output.loss.backward()
        return output.metrics

    def _policy_backward(
        self, estimates: Estimates, rows: Tensor, count: float, weight: float
    ) -> dict[str, float]:
        part = estimates.samples.select(rows)
        ids, mask = part.prefixes()
        width = part.ids.shape[1]
        logits = self.policy.forward(ids, mask, keep=width).logits
        log_probs, old = gather(log_softmax(logits), part.ids), part.proposal_logprobs
        advantages = estimates.advantages[rows, :width]
        settings = self.settings
        output = clipped_policy_loss(
            log_probs, old, advantages, part.mask, clip=settings.ratio_clip, count=count
        )
        loss, metrics = output.loss, output.metrics
        if settings.kind == "grpo" and settings.kl_weight:
            reference = estimates.reference_log_probs[rows, :width]
            penalty = reference_penalty(log_probs, old, reference, part.mask, count=count)
            loss, metrics = loss + settings.kl_weight * penalty.loss, metrics | penalty.metrics
        (weight * loss).backward()
        gap = (log_probs.detach() - old).abs()[part.mask].sum()
        return metrics | {"gap": float(gap) / count}


def token_gains(
    samples: Samples, reference_log_probs: Float[Tensor, "N T"], *, kl_weight: float
) -> Float[Tensor, "N T"]:
    """`g_t = -kl_weight (log p_old(y_t|s_t) - log p_ref(y_t|s_t)) + [t last] (2C - 1)`.

    Summed over a completion from p_old its mean is `E[2C - 1] - kl_weight · KL(p_old ‖ p_ref)`.

    Args:
        samples: labelled; C is the label.
        reference_log_probs: of their tokens, nats.
        kl_weight: score a nat.
    """
    gains = -kl_weight * (samples.proposal_logprobs - reference_log_probs)
    last = samples.mask.sum(1, keepdim=True) - 1
    ends = torch.arange(samples.mask.shape[1], device=last.device) == last
    scores = (2 * samples.labels - 1).to(gains.dtype)
    return torch.where(samples.mask, gains + ends * scores[:, None], 0.0)


def _parts(samples: Samples, rows: Int[Tensor, " K"], most_tokens: int) -> list[Tensor]:
    """The rows in micro-batches, see `length_parts`."""
    prompt = samples.prompt_ids.shape[1]
    lengths = [prompt + n for n in samples.mask.sum(1).cpu()[rows].tolist()]
    return [rows[torch.tensor(part)] for part in length_parts(lengths, most_tokens)]
