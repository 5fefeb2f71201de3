"""The losses of the methods: named tensors in, a scalar and its metrics out.

Each is a mean over its own real tokens, in nats a token where nothing else is said; `count`
replaces the number of tokens when a step is split into micro-batches, so that the parts add up to
the whole step's mean.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltune.models.laws import (
    LossOutput,
    at_least_float32,
    gather,
    kl,
    kl_from,
    log_softmax,
    masked_mean,
    tilt,
)


def corpus_loss(
    logits: Float[Tensor, "N T V"],
    ids: Int[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    count: float | None = None,
) -> LossOutput:
    """`-1/M Σ_t log p_θ(y_t | y_<t)` over the mask's M tokens, nats a token.

    Args:
        logits: `logits[:, t]` predicts `ids[:, t]` (the caller has shifted them).
        ids: the corpus's tokens.
        mask: tokens that are trained on.
        count: see the module.
    """
    loss = masked_mean(-gather(log_softmax(logits), ids), mask, count=count)
    return LossOutput(loss, {"corpus_loss_nats_per_token": loss.item()})


def target_loss(
    logits: Float[Tensor, "N T V"],
    log_q: Float[Tensor, "N T V"],
    weights: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    count: float | None = None,
) -> LossOutput:
    """`1/M Σ_t w(s_t) KL(q(·|s_t) ‖ p_θ(·|s_t))`: the KL term, closed form over the vocabulary.

    For completions drawn from p its expectation is `KL(q ‖ p_θ)` a completion over the mean number
    of tokens of a completion. Its gradient at a prefix's logits is `w (p_θ - q) / M`.
    Source: arXiv 2410.05559 (objective), `docs/concepts.md` (prefix weight).

    Args:
        logits: the policy's, at each prefix.
        log_q: the target's next-token law at the same prefixes.
        weights: `laws.prefix_weights`.
        mask: prefixes that a real token follows.
        count: see the module.
    """
    loss = masked_mean(weights.detach() * kl_from(log_q.detach(), logits), mask, count=count)
    return LossOutput(loss, {"kl_target_policy_nats_per_token": loss.item()})


def soft_policy_loss(
    logits: Float[Tensor, "N T V"],
    log_reference: Float[Tensor, "N T V"],
    action_values: Float[Tensor, "N T V"],
    weights: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    kl_weight: float,
    count: float | None = None,
) -> LossOutput:
    """`1/M Σ_t u_t (Σ_v π(v|s_t) (w log π(v|s_t)/ρ(v|s_t) - Q(s_t, v)) + V(s_t))`, score a token.

    The expectation is under π and closed: `w KL(π ‖ ρ e^{Q/w} / Z)`, 0 at the soft policy of Q,
    with `V = w log Σ_v ρ(v) e^{Q(v)/w}`. A mean over the vocabulary in its place, as in the
    official code, has a gradient in which there is no Q. Source: arXiv 2402.06700, from its
    equations; the weights are ours.

    Args:
        logits: π's, at each prefix.
        log_reference: log ρ, nats; no gradient.
        action_values: Q of every next token, score; no gradient.
        weights: u, of the prefixes.
        mask: prefixes that a real token follows.
        kl_weight: w, score a nat.
        count: see the module.
    """
    target = tilt(log_reference.detach(), action_values.detach() / kl_weight).log_q
    apart = kl_weight * kl(log_softmax(logits), target)
    loss = masked_mean(weights.detach() * apart, mask, count=count)
    return LossOutput(loss, {"soft_policy_loss": loss.item()})


def clipped_policy_loss(
    log_probs: Float[Tensor, "N T"],
    old_log_probs: Float[Tensor, "N T"],
    advantages: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    clip: float,
    count: float | None = None,
) -> LossOutput:
    """`-1/M Σ_t min(r_t A_t, clip(r_t, 1-ε, 1+ε) A_t)` with `r_t = p_θ(y_t|s_t) / p_old(y_t|s_t)`.

    In units of A a token. Where p_θ = p_old its gradient is `-1/M Σ_t A_t ∇ log p_θ(y_t|s_t)`.
    Source: arXiv 1707.06347, eq. 7.

    Args:
        log_probs: log p_θ of the tokens drawn, nats.
        old_log_probs: the same under the law that drew them.
        advantages: A_t; no gradient goes through them.
        mask: real tokens; positions outside it have no gradient.
        clip: ε.
        count: see the module.
    """
    ratio = _ratio(log_probs, old_log_probs, mask)
    advantages = advantages.detach()
    free, bounded = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    loss = masked_mean(-torch.minimum(free, bounded), mask, count=count)
    cut = masked_mean((bounded < free).float(), mask, count=count)
    return LossOutput(
        loss, {"policy_gradient_loss": loss.item(), "ratio_clipped_share": cut.item()}
    )


def corrected_policy_loss(
    log_probs: Float[Tensor, "N T"],
    old_log_probs: Float[Tensor, "N T"],
    proposal_log_probs: Float[Tensor, "N T"],
    advantages: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    clip: float,
    count: float | None = None,
) -> LossOutput:
    """`clipped_policy_loss` with `r_t = p_θ / p_old · stop_gradient(min(p_θ / p_b, 1))`.

    p_b drew the tokens, p_old is the policy as the round began; where the actor is a round ahead
    they differ, and what has become rarer than it was drawn weighs less.
    Source: arXiv 2410.02089.

    Args:
        log_probs: log p_θ of the tokens drawn, nats.
        old_log_probs: log p_old of them.
        proposal_log_probs: log p_b of them.
        advantages: A_t; no gradient goes through them.
        mask: tokens that the policy wrote; positions outside it have no gradient.
        clip: ε.
        count: see the module.
    """
    stale = _ratio(log_probs.detach(), proposal_log_probs, mask).clamp(max=1)
    ratio, advantages = _ratio(log_probs, old_log_probs, mask) * stale, advantages.detach()
    free, bounded = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    loss = masked_mean(-torch.minimum(free, bounded), mask, count=count)
    cut = masked_mean((bounded < free).float(), mask, count=count)
    return LossOutput(
        loss, {"policy_gradient_loss": loss.item(), "ratio_clipped_share": cut.item()}
    )


def clipped_value_loss(
    values: Float[Tensor, "N T"],
    old_values: Float[Tensor, "N T"],
    returns: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    clip: float,
    count: float | None = None,
) -> LossOutput:
    """`1/M Σ_t ½ max((V_t - G_t)², (clip(V_t, V_old - α, V_old + α) - G_t)²)`, squared gains.

    Source: arXiv 2410.02089, the loss L^V.

    Args:
        values: V_t, as fitted.
        old_values: V_t as the round began; no gradient.
        returns: G_t, what the values are fitted to; no gradient.
        mask: real tokens.
        clip: α.
        count: see the module.
    """
    values, start = at_least_float32(values), at_least_float32(old_values.detach())
    near = torch.clamp(values, start - clip, start + clip)
    far = torch.maximum((values - returns).square(), (near - returns).square())
    loss = masked_mean(far / 2, mask, count=count)
    return LossOutput(loss, {"state_value_loss": loss.item()})


def reference_penalty(
    log_probs: Float[Tensor, "N T"],
    old_log_probs: Float[Tensor, "N T"],
    reference_log_probs: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    count: float | None = None,
) -> LossOutput:
    """`1/M Σ_t r_t (e^d - 1 - d)`, `d = log p_ref - log p_θ`, `r_t = p_θ / p_old`, nats a token.

    The estimator k3 of `KL(p_θ(·|s_t) ‖ p_ref(·|s_t))`. Without r_t, as GRPO was published, the
    gradient of this loss is that of `KL(p_ref ‖ p_θ)`, another divergence with another optimum;
    with it the expected loss is KL(p_θ ‖ p_ref) for every θ, and so is its gradient.
    Source: arXiv 2402.03300, eq. 4 (estimator), arXiv 2512.02556 (the ratio).

    Args:
        log_probs: log p_θ of the tokens drawn, nats.
        old_log_probs: the same under the law that drew them.
        reference_log_probs: the same under the reference.
        mask: real tokens.
        count: see the module.
    """
    ratio = _ratio(log_probs, old_log_probs, mask)
    gap = torch.where(mask, at_least_float32(reference_log_probs - log_probs), 0.0)
    loss = masked_mean(ratio * (gap.exp() - 1 - gap), mask, count=count)
    return LossOutput(loss, {"kl_penalty_nats_per_token": loss.item()})


def weighted_likelihood_loss(
    log_probs: Float[Tensor, "N T"],
    weights: Float[Tensor, " N"],
    mask: Bool[Tensor, "N T"],
    *,
    count: float | None = None,
) -> LossOutput:
    """`-1/M Σ_n w_n Σ_t log p_θ(y_t|s_t)`, nats a token.

    Over completions whose weights add up by text, the law that minimises it gives each text its
    share of the weights. Source: arXiv 2010.07968 (the elites' law, mixed with the one before).

    Args:
        log_probs: log p_θ of the tokens, nats.
        weights: one a completion.
        mask: real tokens.
        count: see the module.
    """
    weighed = at_least_float32(-log_probs) * weights[:, None]
    loss = masked_mean(weighed, mask, count=count)
    return LossOutput(loss, {"elite_loss_nats_per_token": loss.item()})


def group_advantages(
    scores: Float[Tensor, " N"], prompt_index: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """`score - mean score of the other completions of the same prompt`, in units of the score.

    Of the others: a mean that holds the score itself makes the gradient of E[score] (1 - 1/G) of
    its size in groups of G, and the optimum that of kl_weight · G / (G - 1). Not divided by the
    group's standard deviation: that would weigh a prompt more the surer its outcome is, and the
    optimum would no longer be that of `E[score] - kl_weight · KL` (two answers scored ±1 would end
    at certainty instead of σ(2 / kl_weight)). Prompts that were drawn once have no group; their
    completions are one group together. A completion without others has 0.
    Source: arXiv 2402.03300 (groups), arXiv 2503.20783 (no division), arXiv 2402.14740 (others).

    Args:
        scores: one a completion.
        prompt_index: which prompt each completes.
    """
    scores = at_least_float32(scores)
    _, group, sizes = prompt_index.unique(return_inverse=True, return_counts=True)
    group = torch.where(sizes[group] > 1, group, len(sizes))
    sums, members = (
        scores.new_zeros(len(sizes) + 1).index_add(0, group, part)
        for part in (scores, torch.ones_like(scores))
    )
    others = members[group] - 1
    mean = (sums[group] - scores) / others.clamp(min=1)
    return torch.where(others > 0, scores - mean, 0.0)


def _ratio(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor) -> Tensor:
    """`p_θ / p_old` token by token; 1, without gradient, where masked."""
    return torch.where(mask, at_least_float32(log_probs - old_log_probs), 0.0).exp()
