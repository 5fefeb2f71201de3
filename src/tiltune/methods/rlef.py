"""`rlef`: policy gradients over several turns, with what the constraint says of an answer between.

Each turn earns `r - kl_weight · mean over its tokens of (log π - log ρ)`: r is `2C - 1` of the last
answer, `-unparsed_penalty` of an earlier one that does not parse, else 0. One value a turn, read
where its answer begins; every token of an answer shares the turn's advantage.
Source: arXiv 2410.02089. Ours: any constraint that says why an answer fails, not code alone; r of
the last turn is ±1 alone, whether or not it parses (the paper's cases overlap there).
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltune.config import RlefSection, RunConfig
from tiltune.data.parts import by_parts
from tiltune.data.samples import Samples
from tiltune.methods.base import Losses, Models, Needs, Usual, Work, taken_log_probs
from tiltune.methods.losses import clipped_value_loss, corrected_policy_loss
from tiltune.methods.policy_gradient import refuse_other_laws, scores, usual, with_gap
from tiltune.models.laws import at_least_float32

SMALLEST_SPREAD = 1e-6
"""Below it advantages are all alike, and are not divided by their spread."""


@final
@dataclass(frozen=True)
class Rlef:
    """Trains policy and state values on a round's episodes.

    Attributes:
        turns: answers of a prompt at most.
        feedback_tokens: tokens between two answers at most.
        kl_weight: of a turn's mean log-ratio to the reference, score a nat.
        unparsed_penalty: what an answer loses that is not the last one and does not parse.
        ratio_clip: how far a token's ratio, or a turn's value, may move from where it was.
        passes: over a round's samples.
    """

    turns: int = 3
    feedback_tokens: int = 128
    kl_weight: float = 0.05
    unparsed_penalty: float = 0.2
    ratio_clip: float = 0.2
    passes: int = 4

    @property
    def needs(self) -> Needs:
        return Needs(
            values="state",
            order="passes",
            turns=self.turns,
            feedback_tokens=self.feedback_tokens,
        )

    @property
    def usual(self) -> Usual:
        return usual(self.passes)

    def refuse(self, config: RunConfig) -> None:
        refuse_other_laws(config)

    def prepare(self, samples: Samples, models: Models) -> Work:
        """What each turn gained, what its value said, and what the policy said of each token."""
        most, turn = models.most_tokens, turn_numbers(samples.written)
        reference, old = (
            by_parts(samples, most, lambda part, lm=lm: taken_log_probs(lm, part))
            for lm in (models.reference, models.policy)
        )
        values = by_parts(samples, most, lambda part: at_least_float32(_values(part, models)))
        gains = turn_gains(old - reference, self.earned(samples, turn), turn, self.kl_weight)
        returns = gains.flip(1).cumsum(1).flip(1)
        starts = turn_starts(samples.written)
        before = at_turns(values, starts, turn)
        there = at_turns(torch.ones_like(values), starts, turn) > 0
        advantages = normalised(returns - before, there)
        return Work(
            samples,
            {
                "old": old,
                "advantages": at_tokens(advantages, turn),
                "returns": at_tokens(returns, turn),
                "values": at_tokens(before, turn),
            },
        )

    def loss(self, work: Work, models: Models, *, count: float) -> Losses:
        samples, columns = work.samples, work.columns
        fitted = clipped_value_loss(
            _values(samples, models),
            columns["values"],
            columns["returns"],
            turn_starts(samples.written),
            clip=self.ratio_clip,
            count=count,
        )
        log_probs = taken_log_probs(models.policy, samples)
        policy = corrected_policy_loss(
            log_probs,
            columns["old"],
            samples.proposal_logprobs,
            columns["advantages"],
            samples.written,
            clip=self.ratio_clip,
            count=count,
        )
        return {"values": fitted, "policy": with_gap(policy, samples, log_probs, count=count)}

    def earned(self, samples: Samples, turn: Int[Tensor, "N T"]) -> Float[Tensor, "N K"]:
        """r of each turn: `2C - 1` of the last, the penalty of earlier ones that do not parse."""
        last = turn.amax(1, keepdim=True)
        numbers = torch.arange(int(turn.max()) + 1, device=turn.device)
        final_score = (numbers == last) * scores(samples)[:, None]
        if samples.unparsed is None:
            return final_score
        broken = at_turns(samples.unparsed.to(final_score.dtype), samples.written, turn)
        return final_score - self.unparsed_penalty * broken


def make_rlef(section: RlefSection) -> Rlef:
    """The method that the settings describe."""
    return Rlef(
        section.turns,
        section.feedback_tokens,
        section.kl_weight,
        section.unparsed_penalty,
        section.ratio_clip,
        section.passes,
    )


def turn_starts(written: Bool[Tensor, "N T"]) -> Bool[Tensor, "N T"]:
    """The first token of each answer."""
    return written & ~torch.nn.functional.pad(written[:, :-1], (1, 0))


def turn_numbers(written: Bool[Tensor, "N T"]) -> Int[Tensor, "N T"]:
    """The number, from 0, of the answer that each written token is of; -1 where none is."""
    return torch.where(written, turn_starts(written).cumsum(1) - 1, -1)


def at_turns(
    values: Float[Tensor, "N T"], where: Bool[Tensor, "N T"], turn: Int[Tensor, "N T"]
) -> Float[Tensor, "N K"]:
    """The sum of each turn's values over the places `where`."""
    sums = values.new_zeros(len(values), int(turn.max()) + 1)
    return sums.scatter_add(1, turn.clamp(min=0), torch.where(where, values, 0.0))


def at_tokens(values: Float[Tensor, "N K"], turn: Int[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """Each written token's turn's value; 0 elsewhere."""
    return torch.where(turn >= 0, values.gather(1, turn.clamp(min=0)), 0.0)


def turn_gains(
    log_ratios: Float[Tensor, "N T"],
    earned: Float[Tensor, "N K"],
    turn: Int[Tensor, "N T"],
    kl_weight: float,
) -> Float[Tensor, "N K"]:
    """`R_t = r_t - kl_weight · 1/L_t Σ_j (log π - log ρ)`, over the L_t tokens of turn t.

    The mean, not the sum: a sum would prefer short answers, above all where they are not the last.

    Args:
        log_ratios: log π - log ρ of each token, nats.
        earned: r of each turn.
        turn: see `turn_numbers`.
        kl_weight: score a nat.
    """
    where = turn >= 0
    lengths = at_turns(torch.ones_like(log_ratios), where, turn)
    return earned - kl_weight * at_turns(log_ratios, where, turn) / lengths.clamp(min=1)


def normalised(
    advantages: Float[Tensor, "N K"], there: Bool[Tensor, "N K"]
) -> Float[Tensor, "N K"]:
    """`(A - mean A) / spread of A` over all turns that there are; 0 elsewhere."""
    found = advantages[there]
    spread = found.std(correction=0).clamp(min=SMALLEST_SPREAD)
    return torch.where(there, (advantages - found.mean()) / spread, 0.0)


def _values(samples: Samples, models: Models) -> Float[Tensor, "N T"]:
    """`V` before each token; read where an answer begins."""
    assert models.state_values is not None
    ids, mask = samples.prefixes()
    return models.state_values.run(ids, mask, keep=samples.ids.shape[1])
