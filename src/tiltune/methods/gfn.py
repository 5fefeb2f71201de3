"""`gfn`: the policy's probability of a completion becomes that of the reference times its score.

The target is `q(y|x) = p(y|x) max(C(y), floor) / Z(x)`, p the reference in every round, reached by
making squared imbalances of flows 0: of whole completions with a trained log Z (tb) or one fitted
to the prompt's completions (vargrad), of their stretches (subtb), or of their tokens with a trained
log R (db). Completions are the policy's, some at other temperatures, and good ones of earlier
rounds; see `flow_losses` for why none needs a weight.
Source: arXiv 2310.04363. Ours: log R, a state value whose root is log Z; flows over the reference;
vargrad's log Z once a round (the exact minimum in log Z, between steps of the policy); `_to_keep`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiltune.config import GfnSection, RunConfig
from tiltune.config.constraint import tables
from tiltune.data.parts import by_parts, columns_by_parts
from tiltune.data.samples import Samples, concatenate
from tiltune.errors import ConfigError
from tiltune.methods.base import Losses, Models, Needs, Usual, Work, taken_log_probs
from tiltune.methods.flow_losses import (
    fitted_log_z,
    stretch_imbalance,
    token_imbalances,
    whole_imbalance,
)
from tiltune.models.chunks import again_chunks
from tiltune.models.laws import LossOutput, log_softmax
from tiltune.models.lm import LanguageModel

Objective = Literal["tb", "vargrad", "subtb", "db"]
RATE = 1 / 6
"""Share of tilt's policy rate, as for the other methods of many small rounds."""
VALUE_RATE = 10.0
"""Times the policy's, of log Z and log R: at the policy's own they trail it by most of a run."""
SAMPLES = 256
"""Completions a round."""
GROUP = 8
"""Completions of a prompt that vargrad compares."""
DEAR = 2
"""Class of cost of a constraint that asks a model, a process or a network."""


@final
@dataclass(frozen=True)
class Gfn:
    """Trains the policy on the flow of the reference times the score.

    Attributes:
        objective: what is squared; see the module.
        floor: least score, so that its logarithm is a number.
        replay: share of the completions trained on that earlier rounds drew.
        tempered: share of a round's completions that are drawn at other temperatures.
        temperatures: between which.
        group_size: completions of each prompt.
        passes: over a round's samples.
    """

    objective: Objective = "tb"
    floor: float = 1e-4
    replay: float = 0.25
    tempered: float = 0.25
    temperatures: tuple[float, float] = (0.5, 2.0)
    group_size: int = 1
    passes: int = 4

    @property
    def needs(self) -> Needs:
        return Needs(
            values="state" if self.objective in ("tb", "db") else "none",
            group_size=self.group_size,
            order="passes",
            level="log rate",
            prefix_labels=self.objective == "subtb",
            tempered=self.tempered,
            temperatures=self.temperatures,
        )

    @property
    def usual(self) -> Usual:
        return Usual(SAMPLES, self.passes, RATE, VALUE_RATE)

    def refuse(self, config: RunConfig) -> None:
        """A constraint that costs too much at every prefix, and a group without others."""
        if self.objective == "vargrad" and self.group_size < 2:
            raise ConfigError(
                "method.objective = 'vargrad' compares the completions of a prompt, and "
                f"method.group_size = {self.group_size} leaves none to compare; set 2 or more, or "
                "method.objective = 'tb', which trains log Z instead"
            )
        dear = [(key, table) for key, table in tables(config.constraint) if table.cost >= DEAR]
        if self.objective == "subtb" and dear:
            key, table = dear[0]
            raise ConfigError(
                "method.objective = 'subtb' asks the constraint at every prefix of every "
                f"completion, and {key}.kind = '{table.kind}' asks a model, a process or a network "
                "each time; set method.objective = 'tb', 'vargrad' or 'db', which ask once a "
                "completion, as every other method.kind does"
            )

    def prepare(self, samples: Samples, models: Models) -> Work | None:
        """The round's completions and those kept; what the reference says of them, and log C."""
        rows = _joined(samples, models.kept)
        fresh = torch.arange(len(rows), device=rows.ids.device) < len(samples)
        most = models.most_tokens
        reference, policy = (
            columns_by_parts(rows, most, lambda part, lm=lm: self._said(lm, part, models.ends))
            for lm in (models.reference, models.policy)
        )
        columns = {f"reference {name}": column for name, column in reference.items()}
        columns["log_score"] = self._log_score(rows.labels)
        if rows.prefix_labels is not None:
            columns["prefix_scores"] = self._log_score(rows.prefix_labels)
        likelihood, own = (_summed(said["taken"], rows) for said in (reference, policy))
        score, ratio = columns["log_score"], own - likelihood
        columns["log_z"], _ = fitted_log_z(ratio, score, rows.prompt_index)
        numbers = {
            "log_z_nats": self._log_z(Work(rows, columns), policy, models).mean().item(),
            "floor_share": _floor_share((score - ratio)[fresh], self.floor),
        }
        left = fitted_log_z(ratio[fresh], score[fresh], rows.prompt_index[fresh])[1]
        if bool((several := ~left.isnan()).any()):
            numbers["log_ratio_variance"] = left[several].mean().item()
        most_kept = round(len(samples) * self.replay / (1 - self.replay))
        kept = _best(rows, likelihood + score, most_kept)
        compared = _compared(rows) if self.objective == "vargrad" else torch.arange(len(rows))
        if not len(compared):
            return None
        numbers["replayed_share"] = 1 - fresh[compared].float().mean().item()
        kept_rows = rows.select(kept) if len(kept) else None
        return replace(Work(rows, columns, numbers).select(compared), kept=kept_rows)

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        samples, columns = work.samples, work.columns
        said = self._said(models.policy, samples, models.ends)
        ratios = torch.where(samples.written, said["taken"] - columns["reference taken"], 0.0)
        if self.objective == "subtb":
            ends = said["ends"] - columns["reference ends"]
            scores = (columns["prefix_scores"], columns["log_score"])
            rows = stretch_imbalance(ratios, ends, *scores, samples.written, samples.ended)
            return {"policy": _output(rows, count)}
        if self.objective == "vargrad":
            rows = whole_imbalance(columns["log_z"], ratios.sum(1), columns["log_score"])
            return {"policy": _output(rows, count)}
        values = self._trained(samples, models)
        policy = self._imbalance(values.detach(), ratios, work)
        fitted = self._imbalance(values, ratios.detach(), work).sum() / count
        return {"policy": _output(policy, count), "values": LossOutput(fitted, {})}

    def _imbalance(self, values: Tensor, ratios: Tensor, work: Work) -> Float[Tensor, " N"]:
        """By trained values: log Z of each row (tb), or log R before each token (db)."""
        score = work.columns["log_score"]
        if self.objective == "tb":
            return whole_imbalance(values[:, 0], ratios.sum(1), score)
        return token_imbalances(values, ratios, score, work.samples.written)

    def _trained(self, samples: Samples, models: Models) -> Float[Tensor, "N K"]:
        """The state values: of the prompts alone (tb, K = 1), or before each token (db, K = T)."""
        assert models.state_values is not None
        if self.objective == "tb":
            return models.state_values.run(samples.prompt_ids, samples.prompt_mask, keep=1)
        return models.state_values.run(*samples.prefixes(), keep=samples.ids.shape[1])

    def _log_z(self, work: Work, policy: Mapping[str, Tensor], models: Models) -> Tensor:
        """log Z of each row's prompt as the objective knows it, nats, [N]."""
        if self.objective in ("tb", "db"):
            return by_parts(
                work.samples, models.most_tokens, lambda part: self._trained(part, models)[:, 0]
            )
        if self.objective == "vargrad":
            return work.columns["log_z"]
        ends = policy["ends"] - work.columns["reference ends"]
        return (work.columns["prefix_scores"] - ends)[:, 0]

    def _log_score(self, labels: Tensor) -> Tensor:
        """`log max(C, floor)`, nats."""
        return labels.clamp(min=self.floor).log()

    def _said(self, lm: LanguageModel, samples: Samples, ends: Sequence[int]) -> dict[str, Tensor]:
        """What a model says of each token, nats, [N, T].

        "taken": the token's log-probability; for subtb also "ends", of an end in its place.
        """
        if self.objective != "subtb":
            return {"taken": taken_log_probs(lm, samples)}
        ids, mask = samples.prefixes()
        states = lm.states(ids, mask, keep=samples.ids.shape[1]).flatten(0, 1)
        ending = torch.tensor(ends, device=states.device)

        def both(states: Tensor, ids: Tensor) -> Tensor:
            log_p = log_softmax(lm.unembed(states))
            taken = log_p.gather(1, ids[:, None])
            return torch.cat((taken, log_p[:, ending].logsumexp(1, keepdim=True)), 1)

        found = again_chunks(both, states, samples.ids.flatten(), width=lm.width)
        taken, ended = found.unflatten(0, samples.ids.shape).unbind(-1)
        return {"taken": taken, "ends": ended}


def make_gfn(section: GfnSection) -> Gfn:
    """The method that the settings describe."""
    group = section.group_size or (GROUP if section.objective == "vargrad" else 1)
    return Gfn(
        section.objective,
        section.floor,
        section.replay,
        section.tempered,
        (section.temperature_min, section.temperature_max),
        group,
        section.passes,
    )


def _joined(samples: Samples, kept: Samples | None) -> Samples:
    """The round's completions, then those that were kept."""
    if kept is None:
        return samples
    law = replace(samples.law, mixed=True)
    return concatenate([replace(samples, law=law), replace(kept, law=law)])


def _compared(rows: Samples) -> Int[Tensor, " M"]:
    """Places of the completions that are not alone of their prompt."""
    _, group, sizes = rows.prompt_index.unique(return_inverse=True, return_counts=True)
    return (sizes[group] > 1).nonzero()[:, 0]


def _best(rows: Samples, score: Float[Tensor, " N"], most: int) -> Int[Tensor, " K"]:
    """Places of the best completions that satisfy, no text twice.

    Each prompt's best come first, then each one's second best, and so on: else the prompts with
    short answers would be kept alone.

    Args:
        rows: N completions, labelled.
        score: log of what they are ranked by.
        most: places.
    """
    satisfy = (rows.labels >= 0.5).tolist()
    seen, ranks = set[tuple[int, tuple[int, ...]]](), Counter[int]()
    found: list[tuple[int, float, int]] = []
    prompts, lengths, ids = rows.prompt_index.tolist(), rows.mask.sum(1).tolist(), rows.ids.tolist()
    for place in score.argsort(descending=True, stable=True).tolist():
        prompt, text = prompts[place], tuple(ids[place][: lengths[place]])
        if satisfy[place] and (prompt, text) not in seen:
            seen.add((prompt, text))
            found.append((ranks[prompt], -score[place].item(), place))
            ranks[prompt] += 1
    return torch.tensor([place for *_, place in sorted(found)[:most]], dtype=torch.int64)


def _floor_share(log_weight: Float[Tensor, " N"], floor: float) -> float:
    """The share of the target that violates, by the floor alone: `floor (1 - R) / Z`.

    Z is the mean of `p C / π` over the policy's completions, and not what an objective knows as
    log Z: that is a mean of logarithms, which lies far below until the policy has come to the
    target. `1 - R = (1 - Z) / (1 - floor)`, where C is 0 or 1.

    Args:
        log_weight: `log p - log π + log max(C, floor)` of each, nats.
        floor: least score.
    """
    z = min(1.0, log_weight.double().exp().mean().item())
    return min(1.0, floor / (1 - floor) * (1 - z) / z) if z > 0 else 1.0


def _summed(log_probs: Tensor, rows: Samples) -> Float[Tensor, " N"]:
    return torch.where(rows.written, log_probs, 0.0).sum(1)


def _output(rows: Float[Tensor, " N"], count: float) -> LossOutput:
    """Squared nats of some completions, over the tokens of the whole step."""
    loss = rows.sum() / count
    return LossOutput(loss, {"flow_loss": loss.item()})
