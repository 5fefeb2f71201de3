"""The losses of the value model: labels at every prefix, and agreement one step on.

Each is a mean over its own real tokens, nats a token; `count` replaces the number of tokens when a
step is split into micro-batches, so that the parts add up to the whole step's mean.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from tiltune.models.laws import LossOutput, at_least_float32, gather, kl_bernoulli, masked_mean


def value_loss(
    value_logits: Float[Tensor, "N T V"],
    ids: Int[Tensor, "N T"],
    labels: Float[Tensor, " N"],
    mask: Bool[Tensor, "N T"],
    *,
    count: float | None = None,
) -> LossOutput:
    """`label_loss` of the tokens that did follow each prefix.

    Args:
        value_logits: `R = sigmoid(logit)`; `[:, t, v]` is about the prefix s_t followed by v.
        ids: the token that did follow each prefix.
        labels: `C` in [0, 1] of each completion.
        mask: real tokens, end of sequence included.
        count: see the module.
    """
    return label_loss(gather(value_logits, ids), labels, mask, count=count)


def label_loss(
    taken: Float[Tensor, "N T"],
    labels: Float[Tensor, " N"],
    mask: Bool[Tensor, "N T"],
    *,
    count: float | None = None,
) -> LossOutput:
    """`-1/M Σ_t [C log R_φ(s_t, y_{t+1}) + (1-C) log(1 - R_φ(s_t, y_{t+1}))]`, nats a token.

    A completion's one label is the target at every one of its prefixes; the minimum over all
    functions is `R = E[C | prefix]`. Source: arXiv 2205.14219, eq. of the NADO cross-entropy.

    Args:
        taken: `logit R_φ(s_t, y_{t+1})`.
        labels: `C` in [0, 1] of each completion.
        mask: real tokens, end of sequence included.
        count: see the module.
    """
    taken = at_least_float32(taken)
    targets = labels.to(taken.dtype).unsqueeze(1).expand_as(taken)
    loss = masked_mean(
        binary_cross_entropy_with_logits(taken, targets, reduction="none"), mask, count=count
    )
    return LossOutput(loss, {"value_loss_nats_per_token": loss.item()})


def consistency_loss(
    value_logits: Float[Tensor, "N T V"],
    log_p: Float[Tensor, "N T V"],
    ids: Int[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    count: float | None = None,
) -> LossOutput:
    """The mean of `step_divergence` over the M positions at which both y_t and y_{t+1} are real.

    It is 0 at the exact R and at any constant, so it needs the label loss beside it.
    Source: arXiv 2205.14219 (regularisation), with our choice of positions, `1 ≤ t < T`.

    Args:
        value_logits: as in `value_loss`.
        log_p: the law the completions were drawn from, at the same prefixes.
        ids: the token that followed each prefix.
        mask: real tokens.
        count: see the module.
    """
    before = gather(value_logits[:, :-1], ids[:, :-1])
    divergence = step_divergence(before, value_logits[:, 1:], log_p[:, 1:])
    loss = masked_mean(divergence, mask[:, 1:] & mask[:, :-1], count=count)
    return LossOutput(loss, {"consistency_loss_nats_per_token": loss.item()})


def step_divergence(
    before: Float[Tensor, "*batch"],
    after: Float[Tensor, "*batch V"],
    log_p: Float[Tensor, "*batch V"],
) -> Float[Tensor, "*batch"]:
    """`KL(Bern(Σ_v p(v|s_t) R_φ(s_t, v)) ‖ Bern(R_φ(s_{t-1}, y_t)))`, nats.

    The mean value one step on must be the value said one step before (Bellman); gradient goes
    through both sides.

    Args:
        before: `logit R_φ(s_{t-1}, y_t)`.
        after: `logit R_φ(s_t, ·)`.
        log_p: the law's, `log p(·|s_t)`.
    """
    before, after, log_p = (at_least_float32(part) for part in (before, after, log_p))
    mean = (log_p + logsigmoid(after)).logsumexp(-1)
    not_mean = (log_p + logsigmoid(-after)).logsumexp(-1)
    return kl_bernoulli(mean, not_mean, logsigmoid(before), logsigmoid(-before))
