"""`tilt`: beta times KL(target || policy), in closed form over the vocabulary at every prefix.

The target is the law of the samples, tilted by its values: `q(v|s) = p(v|s) R(sv) / R(s)`.
Source: arXiv 2410.05559 (objective), `docs/concepts.md` (prefix weight).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltune.config import RunConfig, TiltSection
from tiltune.data.parts import columns_by_parts
from tiltune.data.samples import Samples
from tiltune.errors import ConfigError
from tiltune.methods.base import Losses, Models, Needs, Usual, Work
from tiltune.methods.losses import target_loss
from tiltune.models.chunks import Part, map_chunks, sum_chunks
from tiltune.models.laws import (
    LossOutput,
    TiltedLaw,
    Watched,
    effective_sample_size,
    gather,
    log_softmax,
    prefix_weights,
    tilt,
)
from tiltune.values.model import ValueReader

VALUES = "values: "
"""What the names of the values' columns begin with among a work's."""
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
        """What the target is made of at every prefix, and the prefixes' weights; without
        completions of prompts from which nothing satisfies."""
        columns = columns_by_parts(
            samples, models.most_tokens, lambda part: read_prefixes(part, models)
        )
        log_z = columns.pop("log_z")
        hopeless = log_z[:, 0] < math.log(LEAST_VALUE)
        weights = prefix_weights(log_z, samples.written, clip=self.prefix_weight_clip)
        columns |= {"weights": weights.weights, "clipped": weights.clipped}
        numbers = {"prompts_without_target": len(samples.prompt_index[hopeless].unique())}
        work = Work(samples, columns, numbers)
        return work.select((~hopeless).nonzero()[:, 0]) if bool(hopeless.any()) else work

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        assert models.values is not None
        samples, policy = work.samples, models.policy
        written, (ids, mask), keep = samples.written, samples.prefixes(), samples.ids.shape[1]
        target = Tilting(models, models.values.reader(ids, mask, keep=keep))
        kept = {name: column.to(ids.device)[written] for name, column in work.columns.items()}
        columns = kept | {
            "policy": policy.states(ids, mask, keep=keep)[written],
            "place": written.flatten().nonzero()[:, 0],
        }

        def loss(part: Part) -> Tensor:
            log_q, weights = target.log_q(part)[None], part["weights"][None]
            logits = policy.unembed(part["policy"])[None]
            every = torch.ones_like(weights, dtype=torch.bool)
            return target_loss(logits, log_q, weights, every, count=count).loss

        found = sum_chunks(loss, columns, width=policy.width, weights=policy.unembedding_weights())
        metrics = {"kl_target_policy_nats_per_token": found.item()}
        return {"policy": LossOutput(found, metrics, watch(kept))}


@dataclass(frozen=True)
class Tilting:
    """The law's states and the values' columns, and what makes the target of them.

    Attributes:
        models: the law and its values.
        reader: of the values, at the prefixes in question.
        soften: from `logit R` to the logarithm of what tilts the law; `log R`, but for etpo.
    """

    models: Models
    reader: ValueReader
    soften: Callable[[Tensor], Tensor] = logsigmoid

    @torch.no_grad()
    def law_and_tilt(self, part: Part) -> tuple[Tensor, Tensor]:
        """The law at some prefixes, and what tilts it; both [M, V], nats."""
        columns = {
            name.removeprefix(VALUES): column
            for name, column in part.items()
            if name.startswith(VALUES)
        }
        log_p = log_softmax(self.models.law.unembed(part["law"]))
        return log_p, self.soften(self.reader.every(columns, part["place"]))

    def joint(self, part: Part) -> tuple[Tensor, TiltedLaw]:
        """The law at some prefixes, and the law tilted by the values; both [M, V], nats."""
        log_p, log_values = self.law_and_tilt(part)
        return log_p, tilt(log_p, log_values)

    def log_q(self, part: Part) -> Tensor:
        return self.joint(part)[1].log_q


def make_tilt(section: TiltSection) -> Tilt:
    """The method that the settings describe."""
    return Tilt(section.prefix_weight_clip)


def watch(kept: Part) -> dict[str, Watched]:
    """How far the weights and the law's numbers of some prefixes are to be trusted.

    Args:
        kept: their columns "weights", "clipped" and "gap".
    """
    return {
        "effective_sample_size_share": Watched(kept["weights"].cpu(), _share),
        "weight_clipped_share": Watched(kept["clipped"], _mean),
        "logprob_gap_nats": Watched(kept["gap"], _mean),
    }


@torch.no_grad()
def read_prefixes(
    samples: Samples, models: Models, soften: Callable[[Tensor], Tensor] = logsigmoid
) -> dict[str, Tensor]:
    """What the law and the values say at each prefix, [N, T, ...].

    "law" and those that begin with `VALUES` are what the target is made of; "log_z" is `log R(s)`,
    "gap" how far the token's log-probability is from the one it was drawn with, both nats.
    """
    assert models.values is not None
    (ids, mask), keep = samples.prefixes(), samples.ids.shape[1]
    states, columns = models.values.columns_with_law(models.law, ids, mask, keep=keep)
    target = Tilting(models, models.values.reader(ids, mask, keep=keep), soften)
    kept = {"law": states} | {VALUES + name: column for name, column in columns.items()}
    flat = {name: column.flatten(0, 1) for name, column in kept.items()}
    flat["ids"] = samples.ids.flatten()
    flat["place"] = torch.arange(len(flat["ids"]), device=ids.device)

    def numbers(part: Part) -> Tensor:
        log_p, tilted = target.joint(part)
        return torch.stack((tilted.log_z, gather(log_p[None], part["ids"][None])[0]), 1)

    found = map_chunks(numbers, flat, width=models.law.width).unflatten(0, samples.ids.shape)
    gap = torch.where(samples.written, found[..., 1] - samples.proposal_logprobs, 0.0).abs()
    return kept | {"log_z": found[..., 0], "gap": gap}


def _share(steps: Sequence[Sequence[Tensor]]) -> float:
    """Effective sample size of a round's prefix weights, as a share of their number."""
    weights = torch.cat([part for parts in steps for part in parts]).double()
    return effective_sample_size(weights, torch.ones_like(weights)).item()


def _mean(steps: Sequence[Sequence[Tensor]]) -> float:
    """Over all tokens of a round's steps."""
    parts = [part for step in steps for part in step]
    return sum(float(part.sum()) for part in parts) / sum(map(len, parts))
