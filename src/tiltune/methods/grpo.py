"""`grpo`: clipped policy gradients against the other completions of a prompt.

Every token of a completion has the advantage of its completion over the others of its prompt; the
KL is a term of the loss, without what a token does to the KL of the tokens after it.
Source: arXiv 2402.03300, with corrections that `losses` names.
"""

from dataclasses import dataclass
from typing import final

import torch

from tiltune.config import GrpoSection, RunConfig
from tiltune.data.parts import by_parts
from tiltune.data.samples import Samples
from tiltune.methods.base import Losses, Models, Needs, Usual, Work, taken_log_probs
from tiltune.methods.losses import group_advantages, reference_penalty
from tiltune.methods.policy_gradient import policy_loss, refuse_other_laws, scores, usual


@final
@dataclass(frozen=True)
class Grpo:
    """Trains the policy on groups of completions.

    Attributes:
        kl_weight: of KL(policy ‖ reference), score a nat.
        ratio_clip: how far a token's ratio may move from 1.
        group_size: completions of each prompt.
        passes: over a round's samples.
    """

    kl_weight: float = 0.3
    ratio_clip: float = 0.2
    group_size: int = 8
    passes: int = 4

    @property
    def needs(self) -> Needs:
        return Needs(group_size=self.group_size, order="passes")

    @property
    def usual(self) -> Usual:
        return usual(self.passes)

    def refuse(self, config: RunConfig) -> None:
        refuse_other_laws(config)

    def prepare(self, samples: Samples, models: Models) -> Work:
        """Advantages over the group, and the reference's log-probabilities."""
        groups = group_advantages(scores(samples), samples.prompt_index)
        advantages = torch.where(samples.mask, groups[:, None], 0.0)
        reference = by_parts(
            samples, models.most_tokens, lambda part: taken_log_probs(models.reference, part)
        )
        return Work(samples, {"advantages": advantages, "reference": reference})

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        samples = work.samples
        log_probs = taken_log_probs(models.policy, samples)
        output = policy_loss(work, log_probs, clip=self.ratio_clip, count=count)
        if not self.kl_weight:
            return {"policy": output}
        old, reference = samples.proposal_logprobs, work.columns["reference"]
        penalty = reference_penalty(log_probs, old, reference, samples.mask, count=count)
        loss = output.loss + self.kl_weight * penalty.loss
        return {"policy": output._replace(loss=loss, metrics={**output.metrics, **penalty.metrics})}


def make_grpo(section: GrpoSection) -> Grpo:
    """The method that the settings describe."""
    return Grpo(section.kl_weight, section.ratio_clip, section.group_size, section.passes)
