"""`rce`: robust cross-entropy; beta times the negative log-likelihood of each group's elites.

Of every `group_size` completions of a prompt those are trained on that the reference finds
likeliest, among those that cost at most `cost_max` by the worst member of an ensemble of values;
where these are too few, those that cost least. A share of the last round's elites smooths the step.
Source: arXiv 2010.07968. Ours: a step of the policy in place of a Gaussian's mean and variance;
a prefix's value as its cost, see `values.ensemble.robust_costs`; the reference's log-likelihood as
what elites are ranked by, which training does not move.
"""

from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiltune.config import RceSection, RunConfig
from tiltune.data.parts import columns_by_parts
from tiltune.data.samples import Samples, concatenate
from tiltune.errors import ConfigError
from tiltune.methods.base import Losses, Models, Needs, Usual, Work, taken_log_probs
from tiltune.methods.losses import weighted_likelihood_loss
from tiltune.values.ensemble import elites, robust_costs
from tiltune.values.read import ReadValues

MEMBERS = 4
"""Of the ensemble, where the settings do not say."""


@final
@dataclass(frozen=True)
class Rce:
    """Trains the policy on elites by the worst member's cost.

    Attributes:
        cost_max: of a completion that is feasible.
        discount: of the cost a token further from the end.
        group_size: completions of a prompt that are compared.
        elites: of them, that are trained on.
        smoothing: weight of the last round's elites.
    """

    cost_max: float = 0.5
    discount: float = 0.4
    group_size: int = 8
    elites: int = 2
    smoothing: float = 0.1

    @property
    def needs(self) -> Needs:
        return Needs(values="prefix", group_size=self.group_size, members=MEMBERS)

    @property
    def usual(self) -> Usual:
        return Usual(passes=2)

    def refuse(self, config: RunConfig) -> None:
        """Groups of which nothing is left out."""
        if self.elites >= self.group_size:
            raise ConfigError(
                f"method.elites = {self.elites} of method.group_size = {self.group_size} "
                "completions of a prompt chooses nothing; set fewer elites or a larger group, or "
                "method.kind = 'filter', which trains on all that satisfy"
            )

    def prepare(self, samples: Samples, models: Models) -> Work:
        """The elites of each group and some of the last round's, with their weights."""
        read = columns_by_parts(samples, models.most_tokens, lambda part: _read(part, models))
        mask, violations = samples.written, read["violations"]
        costs = robust_costs(violations, mask, discount=self.discount).cpu()
        likelihood = torch.where(mask, read["likelihood"], 0.0).sum(1).cpu()
        chosen, fallbacks = list[Tensor](), 0
        groups = groups_of(samples.prompt_index.cpu(), self.group_size)
        for rows in groups:
            count = max(1, len(rows) * self.elites // self.group_size)
            fallbacks += int((costs[rows] <= self.cost_max).sum()) < count
            found = elites(costs[rows], likelihood[rows], count=count, most=self.cost_max)
            chosen.append(rows[found])
        rows = torch.cat(chosen)
        fresh = samples.select(rows)
        ends = mask.sum(1, keepdim=True) - 1
        last = violations.take_along_dim(ends[..., None], 1)[:, 0]
        numbers = {
            "elite_satisfaction_rate": float((fresh.labels >= 0.5).float().mean()),
            "elite_cost": costs[rows].mean().item(),
            "fallback_share": fallbacks / len(groups),
            "member_disagreement": (last.amax(1) - last.amin(1)).mean().item(),
        }
        kept = models.kept if self.smoothing else None
        weights = {"weights": smoothed(len(fresh), len(kept) if kept else 0, self.smoothing)}
        joined = fresh if kept is None else concatenate([fresh, replace(kept, law=fresh.law)])
        weights["weights"] = weights["weights"].to(samples.ids.device)
        return Work(joined, weights, numbers, kept=self._to_keep(fresh))

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        samples = work.samples
        taken = taken_log_probs(models.policy, samples)
        weights = work.columns["weights"]
        found = weighted_likelihood_loss(taken, weights, samples.written, count=count)
        return {"policy": found}

    def _to_keep(self, fresh: Samples) -> Samples | None:
        """As many of the elites, evenly spaced, that in the next round each has about the weight
        of a fresh one."""
        count = round(len(fresh) * self.smoothing / (1 - self.smoothing))
        if not count:
            return None
        count = min(count, len(fresh))
        return fresh.select(torch.arange(count) * len(fresh) // count)


def make_rce(section: RceSection) -> Rce:
    """The method that the settings describe."""
    return Rce(
        section.cost_max, section.discount, section.group_size, section.elites, section.smoothing
    )


def groups_of(prompts: Int[Tensor, " N"], size: int) -> list[Int[Tensor, " n"]]:
    """Places of each prompt's completions, `size` at a time; the last of a prompt may be fewer.

    One that is left alone is compared with none, and left out unless all are.
    """
    places = [(prompts == prompt).nonzero()[:, 0] for prompt in prompts.unique()]
    groups = [group for each in places for group in each.split(size)]
    return [group for group in groups if len(group) > 1] or groups


def smoothed(fresh: int, kept: int, share: float) -> Float[Tensor, " N"]:
    """Weights of mean 1: `share` on the kept ones together, the rest on the fresh ones."""
    if not kept:
        return torch.ones(fresh)
    count = fresh + kept
    return torch.cat(
        (
            torch.full((fresh,), (1 - share) * count / fresh),
            torch.full((kept,), share * count / kept),
        )
    )


def _read(samples: Samples, models: Models) -> dict[str, Tensor]:
    """What each member says of each token, `1 - R_b`, and the reference's log-probability."""
    assert models.values is not None
    read = ReadValues(models.values, samples).by_member()
    violations = torch.stack([torch.sigmoid(-member.taken) for member in read], -1)
    return {
        "violations": violations,
        "likelihood": taken_log_probs(models.reference, samples),
    }
