"""`etpo`: soft Q-learning token by token, with a KL to the reference, and Q read from values.

It maximises `E[2C - 1] - w KL(policy ‖ reference)`, the KL summed over a completion, as ppo does.
The soft Q of a token is the soft value of what it leads to, without a discount within a completion;
where C is 0 or 1 that is a view of R, the reference's expected score, for every w at once:

    V(s) = w log( R(s) e^{1/w} + (1 - R(s)) e^{-1/w} ),      Q(s, v) = V(sv)

and the policy's loss at a prefix is `Σ_v π(v) (w log π(v)/ρ(v) - Q(s, v))`. Prefixes are those of
the reference's completions, each weighed by how much likelier the optimum comes there.
Source: arXiv 2402.06700, rebuilt from its equations. Ours: Q read from R instead of a Q network
with a target network, which is exact where R is; the prefix weights; one turn.
"""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltune.config import EtpoSection, RunConfig
from tiltune.data.parts import columns_by_parts
from tiltune.data.samples import Samples
from tiltune.errors import ConfigError
from tiltune.methods.base import Losses, Models, Needs, Usual, Work
from tiltune.methods.losses import soft_policy_loss
from tiltune.methods.tilt import Tilting, read_prefixes, watch
from tiltune.models.chunks import Part, sum_chunks
from tiltune.models.laws import LossOutput, prefix_weights


@final
@dataclass(frozen=True)
class Etpo:
    """Trains the policy on the soft values of the reference.

    Attributes:
        kl_weight: w, of KL(policy ‖ reference), score a nat.
        prefix_weight_clip: see `laws.prefix_weights`.
    """

    kl_weight: float = 0.3
    prefix_weight_clip: float = 10.0
    needs: ClassVar[Needs] = Needs(law="reference", values="prefix")
    usual: ClassVar[Usual] = Usual()

    def refuse(self, config: RunConfig) -> None:
        """Soft scores, whose soft value is no view of their mean."""
        if config.constraint.threshold == "none":
            raise ConfigError(
                "method.kind = 'etpo' reads its soft values from the rate at which the reference "
                "satisfies; constraint.threshold = 'none' keeps soft scores. Set a threshold, or "
                "method.kind = 'ppo' or 'grpo', which take any score"
            )

    def prepare(self, samples: Samples, models: Models) -> Work:
        """What the soft policy is made of at every prefix, and the prefixes' weights."""
        columns = columns_by_parts(
            samples, models.most_tokens, lambda part: read_prefixes(part, models, self.soften)
        )
        log_z = columns.pop("log_z")  # V(s) / w
        weights = prefix_weights(log_z, samples.written, clip=self.prefix_weight_clip)
        columns |= {"weights": weights.weights, "clipped": weights.clipped}
        numbers = {"soft_value": self.kl_weight * log_z[:, 0].mean().item()}
        return Work(samples, columns, numbers)

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        assert models.values is not None
        samples, policy = work.samples, models.policy
        written, (ids, mask), keep = samples.written, samples.prefixes(), samples.ids.shape[1]
        target = Tilting(models, models.values.reader(ids, mask, keep=keep), self.soften)
        kept = {name: column.to(ids.device)[written] for name, column in work.columns.items()}
        columns = kept | {
            "policy": policy.states(ids, mask, keep=keep)[written],
            "place": written.flatten().nonzero()[:, 0],
        }

        def loss(part: Part) -> Tensor:
            log_reference, soft = target.law_and_tilt(part)
            weights = part["weights"][None]
            return soft_policy_loss(
                policy.unembed(part["policy"])[None],
                log_reference[None],
                self.kl_weight * soft[None],
                weights,
                torch.ones_like(weights, dtype=torch.bool),
                kl_weight=self.kl_weight,
                count=count,
            ).loss

        found = sum_chunks(loss, columns, width=policy.width, weights=policy.unembedding_weights())
        return {"policy": LossOutput(found, {"soft_policy_loss": found.item()}, watch(kept))}

    def soften(self, logits: Tensor) -> Tensor:
        """`log(R e^{1/w} + (1 - R) e^{-1/w})` of `logit R`: V / w."""
        reach = 1 / self.kl_weight
        return torch.logaddexp(logsigmoid(logits) + reach, logsigmoid(-logits) - reach)


def make_etpo(section: EtpoSection) -> Etpo:
    """The method that the settings describe."""
    return Etpo(section.kl_weight, section.prefix_weight_clip)
