"""Log-probability algebra of the method: tensors in, tensors out, nothing remembered.

Letters: N completions, T tokens, V vocabulary. Logarithms are natural. Anything below 32 bit is
raised to 32 bit first (`1 - 1e-5` is 1 in bfloat16); 64 bit stays. Source of every formula that
names none: Tiltune's `docs/concepts.md`, after arXiv 2410.05559 and arXiv 2205.14219.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Watched(NamedTuple):
    """Numbers of a part that say something only over a whole round, and what they say.

    `summary` gets the values of every part of every step: `values[step][part]`.
    """

    values: Tensor
    summary: Callable[[Sequence[Sequence[Tensor]]], float]


class LossOutput(NamedTuple):
    """A differentiable scalar, and detached numbers about it.

    Attributes:
        loss: of a part of a step, a scalar; parts add up.
        metrics: the part's share of the step's means, by record field.
        watched: what becomes a record field at the round's end.
    """

    loss: Float[Tensor, ""]
    metrics: Mapping[str, float]
    watched: Mapping[str, Watched] = MappingProxyType({})


class TiltedLaw(NamedTuple):
    """A tilted next-token law and the logarithm of what normalised it."""

    log_q: Float[Tensor, "*batch V"]
    log_z: Float[Tensor, "*batch"]


class PrefixWeights(NamedTuple):
    """Weights of prefixes drawn from p, and how much of them the clip cut."""

    weights: Float[Tensor, "N T"]
    clipped: Bool[Tensor, "N T"]


def at_least_float32(values: Tensor) -> Tensor:
    """The same values in 32 bit, or in 64 if they were."""
    return values if values.dtype == torch.float64 else values.float()


def log_softmax(logits: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch V"]:
    """`log p(v) = logit(v) - log Σ_u exp(logit(u))`, in at least 32 bit."""
    return at_least_float32(logits).log_softmax(-1)


def gather(values: Float[Tensor, "N T V"], ids: Int[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """Each position's entry for its own token: `values[n, t, ids[n, t]]`."""
    return values.gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def token_log_probs(
    logits: Float[Tensor, "*batch V"], ids: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """`log p(id)` at each position, nats; the gradient `1[v = id] - p(v)` in one pass."""
    return _TokenLogProbs.apply(at_least_float32(logits), ids)


def kl_from(
    log_q: Float[Tensor, "*batch V"], logits: Float[Tensor, "*batch V"]
) -> Float[Tensor, "*batch"]:
    """`KL(q ‖ softmax(logits))`, nats; the gradient `p(v) - q(v)` of the logits in one pass.

    Args:
        log_q: a law, normalised; no gradient reaches it.
        logits: of the other.
    """
    return _KlFrom.apply(log_q, at_least_float32(logits))


class _TokenLogProbs(torch.autograd.Function):
    """Two passes over the vocabulary on the way back would be a tenth of a step."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor) -> Tensor:
        log_p = logits.log_softmax(-1)
        ctx.save_for_backward(log_p, ids)
        return log_p.gather(-1, ids.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        log_p, ids = ctx.saved_tensors
        weight = outer[0].unsqueeze(-1)
        gradient = log_p.exp().mul_(-weight)
        return gradient.scatter_add_(-1, ids.unsqueeze(-1), weight), None


class _KlFrom(torch.autograd.Function):
    """See `kl_from`."""

    @staticmethod
    def forward(ctx: Any, log_q: Tensor, logits: Tensor) -> Tensor:
        log_p = logits.log_softmax(-1)
        ctx.save_for_backward(log_q, log_p)
        return kl(log_q, log_p)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[None, Tensor]:
        log_q, log_p = ctx.saved_tensors
        return None, log_p.exp().sub_(log_q.exp()).mul_(outer[0].unsqueeze(-1))


def masked_mean(
    values: Float[Tensor, "*batch"], mask: Tensor, *, count: float | None = None
) -> Float[Tensor, ""]:
    """`Σ mask·values / count`; positions outside the mask are never read, not even a NaN there.

    Args:
        values: any shape.
        mask: same shape, bool or 0/1 in any dtype.
        count: denominator; by default the mask's own sum. A step that is split into micro-batches
            passes the whole step's number of tokens, which makes the split invisible.
    """
    mask = mask.bool()  # a sum of 1001 ones in bfloat16 is 1000
    kept = torch.where(mask, at_least_float32(values), 0.0)
    return kept.sum() / (mask.sum().clamp(min=1) if count is None else max(count, 1.0))


def kl(
    log_p: Float[Tensor, "*batch V"], log_q: Float[Tensor, "*batch V"]
) -> Float[Tensor, "*batch"]:
    """`KL(p ‖ q) = Σ_v p(v) (log p(v) - log q(v))`, nats; terms with p(v) = 0 are 0.

    Args:
        log_p: the law the expectation is under.
        log_q: the other law; where it is 0 and p is not, the divergence is infinite.
    """
    log_p, log_q = at_least_float32(log_p), at_least_float32(log_q)
    gap = log_p - log_q
    if log_p.numel() and not bool(log_p.min() > -torch.inf):  # rare, and a pass over all
        gap = torch.where(log_p > -torch.inf, gap, 0.0)
    return (log_p.exp() * gap).sum(-1)


def kl_bernoulli(
    log_p: Float[Tensor, "*batch"],
    log_not_p: Float[Tensor, "*batch"],
    log_q: Float[Tensor, "*batch"],
    log_not_q: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    """`KL(Bern(p) ‖ Bern(q)) = p log(p/q) + (1-p) log((1-p)/(1-q))`, nats.

    The complements come in as logarithms too, since `log(1 - p)` of a rounded p loses what matters.
    """
    return kl(torch.stack((log_p, log_not_p), -1), torch.stack((log_q, log_not_q), -1))


def tilt(log_p: Float[Tensor, "*batch V"], log_values: Float[Tensor, "*batch V"]) -> TiltedLaw:
    """`q(v|s) = p(v|s) R(sv) / Σ_u p(u|s) R(su)`, and `log_z(s)`, the logarithm of that sum.

    Args:
        log_p: next-token law at each prefix.
        log_values: `log R(sv)`; `-inf` where no completion satisfies.

    Returns:
        `log_q`, and `log_z` = `log R(s)` if the values are exact. Where `log_z` is `-inf` there is
        no target: `log_q` repeats `log_p` there, and the prefix's weight is 0.
    """
    joint = at_least_float32(log_p) + at_least_float32(log_values)
    log_z = joint.logsumexp(-1)
    hopeless = log_z == -torch.inf
    log_q = joint - torch.where(hopeless, 0.0, log_z).unsqueeze(-1)
    if bool(hopeless.any()):  # rare, and a pass over the whole vocabulary
        log_q = torch.where(hopeless.unsqueeze(-1), at_least_float32(log_p), log_q)
    return TiltedLaw(log_q, log_z)


def prefix_weights(
    log_z: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], *, clip: float = float("inf")
) -> PrefixWeights:
    """`w(s_t) = R(s_t) / R(x) = exp(log_z(s_t) - log_z(x))`, cut at `clip`.

    With completions drawn from p,
    `E_p Σ_t w(s_t) KL(q(·|s_t) ‖ p_θ(·|s_t)) = KL(q(·|x) ‖ p_θ(·|x))`.
    Exact values keep a weight within `1 / R(x)`.

    Args:
        log_z: by prefix; column 0 is the prompt alone.
        mask: prefixes that a real token follows; weights elsewhere are 0.
        clip: upper bound of a weight; it trades variance for bias, so report what it cut.
    """
    log_z = at_least_float32(log_z)
    start = log_z[:, :1]
    reachable = mask & (log_z > -torch.inf) & (start > -torch.inf)
    ratio = torch.where(reachable, log_z - torch.where(start > -torch.inf, start, 0.0), -torch.inf)
    weights = ratio.exp()
    return PrefixWeights(weights.clamp(max=clip), weights > clip)


def effective_sample_size(weights: Float[Tensor, "*batch"], mask: Tensor) -> Float[Tensor, ""]:
    """`(Σ w)² / (M Σ w²)` over the mask's M places: 1 for equal weights, 1/M if one carries all."""
    mask = mask.bool()
    kept = torch.where(mask, at_least_float32(weights), 0.0)
    worst = mask.sum().clamp(min=1) * kept.square().sum()
    return kept.sum().square() / worst.clamp(min=torch.finfo(kept.dtype).tiny)


def generalised_advantages(
    gains: Float[Tensor, "N T"],
    values: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    decay: float,
    discount: float = 1.0,
) -> Float[Tensor, "N T"]:
    """`A_t = Σ_l (γλ)^l δ_{t+l}` with `δ_t = g_t + γ V(s_{t+1}) - V(s_t)`; 0 where masked.

    λ = 0 leaves the one-step residual δ_t, λ = 1 the return minus the value. After the last real
    token there is nothing to gain, so V is 0 there. Source: arXiv 1506.02438.

    Args:
        gains: g_t, what token t earned; padding on the right.
        values: V(s_t), the expected sum of gains from token t on, said before it is written.
        mask: real tokens.
        decay: λ.
        discount: γ.
    """
    gains, values = (torch.where(mask, at_least_float32(part), 0.0) for part in (gains, values))
    after = torch.nn.functional.pad(values[:, 1:], (0, 1))
    residuals = gains + discount * after - values
    running = residuals.new_zeros(len(residuals))
    columns: list[Tensor] = []
    for residual in residuals.flip(1).unbind(1):
        running = residual + discount * decay * running
        columns.append(running)
    return torch.where(mask, torch.stack(columns, 1).flip(1), 0.0)
