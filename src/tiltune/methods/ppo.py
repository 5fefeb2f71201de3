"""`ppo`: clipped policy gradients with a state value and a KL penalty inside the gains.

Each token gains `-kl_weight (log p_old - log p_ref)`, the last one `2C - 1` besides; generalised
advantages over a state value, clipped ratios token by token. The optimum over all laws is
`p_ref(y|x) e^{(2C - 1) / kl_weight} / Z`. Source: arXiv 1707.06347.
"""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from tiltune.config import PpoSection, RunConfig
from tiltune.data.parts import by_parts
from tiltune.data.samples import Samples
from tiltune.methods.base import Losses, Models, Needs, Usual, Work, taken_log_probs
from tiltune.methods.losses import clipped_value_loss
from tiltune.methods.policy_gradient import policy_loss, refuse_other_laws, scores, usual
from tiltune.models.laws import generalised_advantages


@final
@dataclass(frozen=True)
class Ppo:
    """Trains policy and state values on a round's samples.

    Attributes:
        kl_weight: of KL(policy ‖ reference), score a nat.
        ratio_clip: how far a token's ratio, or a state's value, may move from where it was.
        decay: λ of the advantages.
        passes: over a round's samples.
    """

    kl_weight: float = 0.3
    ratio_clip: float = 0.2
    decay: float = 0.95
    passes: int = 4
    needs: ClassVar[Needs] = Needs(values="state", order="passes")

    @property
    def usual(self) -> Usual:
        return usual(self.passes)

    def refuse(self, config: RunConfig) -> None:
        refuse_other_laws(config)

    def prepare(self, samples: Samples, models: Models) -> Work:
        """Advantages, and the values that they were estimated by."""
        most = models.most_tokens
        reference = by_parts(samples, most, lambda part: taken_log_probs(models.reference, part))
        values = by_parts(samples, most, lambda part: _masked(_values(part, models), part))
        gains, numbers = token_gains(samples, reference, kl_weight=self.kl_weight), {}
        if models.shaping is not None:
            gains = gains + models.shaping.increments(samples)
            numbers = {"shaping_start_potential": models.shaping.start(samples)}
        advantages = generalised_advantages(gains, values, samples.mask, decay=self.decay)
        return Work(samples, {"advantages": advantages, "values": values}, numbers)

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        samples, start = work.samples, work.columns["values"]
        fitted = clipped_value_loss(
            _values(samples, models),
            start,
            start + work.columns["advantages"],
            samples.mask,
            clip=self.ratio_clip,
            count=count,
        )
        log_probs = taken_log_probs(models.policy, samples)
        policy = policy_loss(work, log_probs, clip=self.ratio_clip, count=count)
        return {"values": fitted, "policy": policy}


def make_ppo(section: PpoSection) -> Ppo:
    """The method that the settings describe."""
    return Ppo(section.kl_weight, section.ratio_clip, section.decay, section.passes)


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
    return torch.where(samples.mask, gains + ends * scores(samples).to(gains.dtype)[:, None], 0.0)


def _values(samples: Samples, models: Models) -> Float[Tensor, "N T"]:
    """`V` before each token."""
    assert models.state_values is not None
    ids, mask = samples.prefixes()
    return models.state_values.run(ids, mask, keep=samples.ids.shape[1])


def _masked(values: Tensor, samples: Samples) -> Tensor:
    return torch.where(samples.mask, values.to(samples.proposal_logprobs.dtype), 0.0)
