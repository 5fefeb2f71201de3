"""`tilt`: beta times KL(target || policy), in closed form over the vocabulary at every prefix.

The target is the law of the samples, tilted by its values: `q(v|s) = p(v|s) R(sv) / R(s)`.
Source: arXiv 2410.05559 (objective), `docs/concepts.md` (prefix weight).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltune.config import RunConfig, TiltSection
from tiltune.data.samples import Samples
from tiltune.errors import ConfigError
from tiltune.methods.base import Losses, Models, Needs, Usual, Work, by_parts, next_logits
from tiltune.methods.losses import target_loss
from tiltune.models.laws import (
    PrefixWeights,
    Watched,
    effective_sample_size,
    gather,
    log_softmax,
    prefix_weights,
    tilt,
)

LEAST_VALUE = 1e-4
"""A prompt whose value is below this has no target: nothing it can lead to satisfies."""


@final
@dataclass(frozen=True)
class Tilt:
    """Trains the policy on the law's target.

    Attributes:
        prefix_weight_clip: see `laws.prefix_weights`.
    """

    prefix_weight_clip: float = 10.0
    needs: ClassVar[Needs] = Needs(values="prefix")
    usual: ClassVar[Usual] = Usual()

    def refuse(self, config: RunConfig) -> None:
        """Soft scores that each round would multiply in again."""
        again = config.method.anchor != "reference" and config.method.schedule != "fixed"
        if config.constraint.threshold == "none" and again:
            raise ConfigError(
                "constraint.threshold = 'none' keeps soft scores, and each round would multiply "
                "them in again (p·C^k); set a threshold, or method.schedule = 'fixed', or "
                "method.anchor = 'reference'"
            )

    def prepare(self, samples: Samples, models: Models) -> Work:
        """Without completions of prompts from which nothing satisfies."""
        index = samples.prompt_index.tolist()
        first = {prompt: row for row, prompt in reversed(list(enumerate(index)))}
        starts = samples.select(torch.tensor(list(first.values()))).crop(0, 0)
        log_z = by_parts(starts, models.most_tokens, lambda part: _log_z(part, models))
        values = zip(starts.prompt_index.tolist(), log_z.tolist(), strict=True)
        hopeless = {prompt for prompt, z in values if z < math.log(LEAST_VALUE)}
        numbers = {"prompts_without_target": len(hopeless)}
        if not hopeless:
            return Work(samples, numbers=numbers)
        kept = [row for row, prompt in enumerate(index) if prompt not in hopeless]
        rows = torch.tensor(kept, dtype=torch.int64)
        return Work(samples.select(rows), numbers=numbers)

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        samples = work.samples
        with torch.no_grad():
            log_q, weights, watched = self._target(samples, models)
        logits = next_logits(models.policy, samples)
        output = target_loss(logits, log_q, weights.weights, samples.written, count=count)
        return {"policy": output._replace(watched=watched)}

    def _target(
        self, samples: Samples, models: Models
    ) -> tuple[Tensor, PrefixWeights, dict[str, Watched]]:
        """The target's law at every prefix, the prefixes' weights, and what is said of these."""
        assert models.values is not None
        ids, mask = samples.prefixes()
        law, values = models.values.with_law(models.law, ids, mask, keep=samples.ids.shape[1])
        log_p = log_softmax(law)
        log_q, log_z = tilt(log_p, logsigmoid(values))
        weights = prefix_weights(log_z, samples.written, clip=self.prefix_weight_clip)
        gap = gather(log_p, samples.ids) - samples.proposal_logprobs
        written = samples.written
        watched = {
            "effective_sample_size_share": Watched(weights.weights[written].cpu(), _share),
            "weight_clipped_share": Watched(weights.clipped[written], _mean),
            "logprob_gap_nats": Watched(gap[written].abs(), _mean),
        }
        return log_q, weights, watched


def make_tilt(section: TiltSection) -> Tilt:
    """The method that the settings describe."""
    return Tilt(section.prefix_weight_clip)


def _log_z(starts: Samples, models: Models) -> Tensor:
    """`log R(x)` of each prompt, [N]."""
    assert models.values is not None
    law, values = models.values.with_law(models.law, *starts.sequence(), keep=1)
    return tilt(log_softmax(law), logsigmoid(values)).log_z[:, -1]


def _share(steps: Sequence[Sequence[Tensor]]) -> float:
    """Effective sample size of a round's prefix weights, as a share of their number."""
    weights = torch.cat([part for parts in steps for part in parts]).double()
    return effective_sample_size(weights, torch.ones_like(weights)).item()


def _mean(steps: Sequence[Sequence[Tensor]]) -> float:
    """Over all tokens of a round's steps."""
    parts = [part for step in steps for part in step]
    return sum(float(part.sum()) for part in parts) / sum(map(len, parts))
