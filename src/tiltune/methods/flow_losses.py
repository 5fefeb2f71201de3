"""The squared imbalances of `gfn`: tensors in, one number a completion out.

A completion's states are its prefixes s_0 … s_n, and its flow is `F(s) = p(s) R(s)`, p the
reference. Between two of its states the policy π is in balance where

    log R(s_i) + Σ_{i < k ≤ j} log π(y_k|s_{k-1}) - log p(y_k|s_{k-1}) = log R(s_j)

and in balance everywhere exactly where π(v|s) = p(v|s) R(sv) / R(s), R the expected score. The loss
may be of completions that any law drew, without weights: it is 0 at that policy alone, whatever
the draws, as long as they can be all completions. Its log-probabilities are the policy's own, at
temperature 1, and never those of the law that drew.
Source: arXiv 2310.04363 (flows of texts, whose backward policy is 1), arXiv 2201.13259 (tb).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tiltune.models.laws import at_least_float32


def whole_imbalance(
    log_z: Float[Tensor, " N"], log_ratio: Float[Tensor, " N"], log_score: Float[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """`(log Z(x) + log π(y|x) - log p(y|x) - log C(y))²`, squared nats: tb, and vargrad.

    A sum of logarithms over the completion, not the logarithm of a sum and not a mean a token.

    Args:
        log_z: of each one's prompt, as trained (tb) or `fitted_log_z` (vargrad).
        log_ratio: `Σ_t log π(y_t|s_t) - log p(y_t|s_t)`.
        log_score: log C of the completion, nats.
    """
    log_z, log_ratio = at_least_float32(log_z), at_least_float32(log_ratio)
    return (log_z + log_ratio - log_score).square()


def fitted_log_z(
    log_ratio: Float[Tensor, " N"], log_score: Float[Tensor, " N"], group: Tensor
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """The log Z of each group that makes its `whole_imbalance` least, and what is left of that.

    `log Z = mean of (log C - log_ratio)`; what is left is the variance of that in the group, NaN of
    one alone. Source: arXiv 2302.05446 (VarGrad for trajectory balance).

    Args:
        log_ratio, log_score: see `whole_imbalance`.
        group: number of each completion's group, int [N].

    Returns:
        Of each completion its group's log Z and variance, both [N].
    """
    wanted = at_least_float32(log_score) - at_least_float32(log_ratio)
    _, group, sizes = group.unique(return_inverse=True, return_counts=True)
    sums = wanted.new_zeros(len(sizes)).index_add(0, group, wanted)
    log_z = (sums / sizes)[group]
    spread = wanted.new_zeros(len(sizes)).index_add(0, group, (wanted - log_z).square())
    return log_z, torch.where(sizes > 1, spread / sizes, torch.nan)[group]


def token_imbalances(
    log_values: Float[Tensor, "N T"],
    log_ratios: Float[Tensor, "N T"],
    log_score: Float[Tensor, " N"],
    mask: Bool[Tensor, "N T"],
) -> Float[Tensor, " N"]:
    """`Σ_t (log R(s_{t-1}) + log π(y_t|s_{t-1}) - log p(y_t|s_{t-1}) - log R(s_t))²`: db.

    `R(s_n)` of a whole completion is its score. Squared nats, summed over a completion's tokens.

    Args:
        log_values: log R before each token, as trained.
        log_ratios: `log π - log p` of each token.
        log_score: log C of the completion, nats.
        mask: real tokens, padding on the right.
    """
    log_values = torch.where(mask, at_least_float32(log_values), 0.0)
    last = mask & ~torch.nn.functional.pad(mask[:, 1:], (0, 1))
    after = torch.nn.functional.pad(log_values[:, 1:], (0, 1))
    after = torch.where(last, log_score[:, None].to(after.dtype), after)
    residual = torch.where(mask, log_values + at_least_float32(log_ratios) - after, 0.0)
    return residual.square().sum(1)


def stretch_imbalance(
    log_ratios: Float[Tensor, "N T"],
    end_ratios: Float[Tensor, "N T"],
    prefix_scores: Float[Tensor, "N T"],
    log_score: Float[Tensor, " N"],
    mask: Bool[Tensor, "N T"],
    ended: Bool[Tensor, " N"],
) -> Float[Tensor, " N"]:
    """The mean over all stretches i < j of a completion of its squared imbalance: subtb.

    R is not trained but read from the policy: where a text could end as it stands,
    `R(s) = C(s) p(end|s) / π(end|s)`. With `x_k = Σ_{t ≤ k} log π(y_t) - log p(y_t) - log R(s_k)`
    the stretch (i, j) is out of balance by x_j - x_i, so the mean over the m (m - 1) / 2 pairs of m
    states is twice the sample variance of x; 0 where there is one state. A completion that the
    token limit cut ends there with certainty under both laws, so it has a state more, whose R is
    its score (ours; the official code leaves it to the policy).
    Source: arXiv 2310.04363, its modified SubTB with λ = 1.

    Args:
        log_ratios: `log π - log p` of each token.
        end_ratios: the same of the event that the completion ends in place of that token.
        prefix_scores: log C of the text before each token, nats.
        log_score: log C of the completion, nats.
        mask: real tokens, padding on the right.
        ended: with an end of sequence; False where the limit cut.
    """
    ratios = torch.where(mask, at_least_float32(log_ratios), 0.0)
    written = torch.nn.functional.pad(ratios.cumsum(1), (1, 0))
    ends = at_least_float32(end_ratios) - prefix_scores
    ends = torch.nn.functional.pad(torch.where(mask, ends, 0.0), (0, 1))
    length = mask.sum(1, keepdim=True)
    place = torch.arange(mask.shape[1] + 1, device=mask.device)
    cut = (place == length) & ~ended[:, None]
    ends = torch.where(cut, -log_score[:, None].to(ends.dtype), ends)
    states = (place < length) | cut
    count = states.sum(1)
    imbalance = torch.where(states, written + ends, 0.0)
    mean = imbalance.sum(1, keepdim=True) / count.clamp(min=1)[:, None]
    squares = torch.where(states, imbalance - mean, 0.0).square().sum(1)
    return 2 * squares / (count - 1).clamp(min=1)
