"""How far a policy has gone from its reference: KL both ways, exact over the vocabulary."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltune.data import Prompt, micro_batches
from tiltune.decoding.draw import Ending, draw
from tiltune.errors import ConfigError, ModelError
from tiltune.functional import kl, log_softmax
from tiltune.hub import Loaded
from tiltune.lm import LanguageModel
from tiltune.measurements import Measurement
from tiltune.metrics.base import Quantity, bootstrap_ratio
from tiltune.types import Samples, SamplingLaw, concatenate

_DEFINITION = (
    "Σ_t KL({one}(·|s_t) ‖ {other}(·|s_t)) / Σ tokens, exact over the vocabulary at each prefix of "
    "the {one}'s own completions (T = 1, no truncation); none where one is infinite. Interval: "
    "bootstrap over prompts."
)


@dataclass(frozen=True)
class DrawSettings:
    """Tokens a completion at most, completions drawn side by side, seed of draws and bootstrap."""

    max_new_tokens: int
    batch_size: int
    seed: int


def divergence(
    policy: Loaded,
    reference: Loaded,
    prompts: Sequence[Prompt],
    settings: DrawSettings,
    *,
    group: str,
) -> list[Measurement]:
    """KL(policy ‖ reference) and KL(reference ‖ policy), each on completions of its first law.

    `E_{y~p} Σ_t KL(p(·|s_t) ‖ q(·|s_t)) / E_{y~p} Σ_t 1`, nats a token; one completion a prompt.
    Where a completion's is infinite there is no value, and such completions count as missing.

    Raises:
        ConfigError: the two have different tokenizers, and laws over unlike tokens.
        ModelError: a law is not a number.
    """
    require_same_tokenizer(policy, reference)
    sides = {"policy": policy, "reference": reference}
    measured: list[Measurement] = []
    for one, other in (("policy", "reference"), ("reference", "policy")):
        samples = draw_all(sides[one], prompts, settings)
        totals = completion_divergences(sides[one].policy, sides[other].policy, samples)
        counts = samples.mask.sum(1).tolist()
        quantity = Quantity(
            key=f"utility.kl_{one}_{other}_nats_per_token",
            aspect="utility",
            unit="nats a token",
            better="lower",
            definition=_DEFINITION.format(one=one, other=other),
        )
        infinite = sum(map(math.isinf, totals))
        estimate = None if infinite else bootstrap_ratio(totals, counts, seed=settings.seed)
        measured.append(
            quantity.of(group, estimate, count=len(totals) - infinite, missing=infinite)
        )
    return measured


def require_same_tokenizer(policy: Loaded, reference: Loaded) -> None:
    """Raises ConfigError unless every id means the same to both."""
    own, other = policy.tokenizer.get_vocab(), reference.tokenizer.get_vocab()
    if own == other and policy.eos_ids[0] == reference.eos_ids[0]:
        return
    differing = sum(other.get(token) != place for token, place in own.items())
    raise ConfigError(
        f"utility.reference: its tokenizer has {len(other)} tokens, the model's has {len(own)}, "
        f"and {differing} of these have another id or none there; the divergence compares laws "
        "over the same tokens: give a reference with the model's tokenizer, such as its base model"
    )


def draw_all(loaded: Loaded, prompts: Sequence[Prompt], settings: DrawSettings) -> Samples:
    """A completion a prompt by the model's own law."""
    law = SamplingLaw(settings.max_new_tokens)
    device = loaded.policy.device
    generator = torch.Generator(device).manual_seed(settings.seed)
    ids = [prompt.ids for prompt in prompts]
    parts = [
        draw(
            loaded.policy,
            ids[first : first + settings.batch_size],
            law,
            Ending(loaded.eos_ids, loaded.pad_id),
            generator=generator,
        )
        for first in range(0, len(ids), settings.batch_size)
    ]
    return concatenate(parts)


@torch.no_grad()
def completion_divergences(
    own: LanguageModel, other: LanguageModel, samples: Samples
) -> list[float]:
    """`Σ_t KL(own(·|s_t) ‖ other(·|s_t))` of each completion, nats, in the order of the samples.

    The sum over the vocabulary is exact at each prefix of completions drawn from `own`, which
    leaves less noise than the log-ratio of the tokens drawn. Logits beyond the narrower output
    belong to no token.

    Raises:
        ModelError: a law is not a number.
    """
    width = min(own.width, other.width)
    found = [0.0] * len(samples)
    numbered = _numbered(samples).to(own.device)
    for part in micro_batches(numbered, max(own.width, other.width), 2**23):
        ids, mask = (columns[:, :-1] for columns in part.sequence())
        keep = part.ids.shape[1]
        one, two = (
            log_softmax(lm.forward(ids, mask, keep=keep).logits[..., :width]) for lm in (own, other)
        )
        sums = torch.where(part.mask, kl(one, two), 0.0).sum(1)
        _refuse_nan(sums)
        for place, value in zip(part.prompt_index.tolist(), sums.tolist(), strict=True):
            found[place] = value
    return found


def _numbered(samples: Samples) -> Samples:
    """The rows with their places as `prompt_index`, to find them again in micro-batches."""
    columns = samples.tensors() | {"prompt_index": torch.arange(len(samples))}
    return Samples(**columns, law=samples.law)


def _refuse_nan(sums: Tensor) -> None:
    if bool(sums.isnan().any()):
        raise ModelError(
            "a model gives logits that are not numbers (NaN), so no divergence can be measured; "
            "its weights are broken, or overflow in the precision they are run in"
        )
