"""How far a policy has gone from its reference: KL both ways, exact over the vocabulary."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tiltune.data.encode import Prompt
from tiltune.data.samples import Samples, SamplingLaw, concatenate
from tiltune.decoding.divergence import completion_divergences
from tiltune.decoding.draw import Ending, draw
from tiltune.errors import ConfigError
from tiltune.evaluation.metrics.base import Quantity, bootstrap_ratio
from tiltune.models.hub import Loaded
from tiltune.records.measurements import Measurement
from tiltune.records.progress import Progress, silent

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
    progress: Progress = silent,
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
        totals = completion_divergences(
            sides[one].policy, sides[other].policy, samples, progress=progress
        )
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


def draw_all(
    loaded: Loaded,
    prompts: Sequence[Prompt],
    settings: DrawSettings,
    told: Callable[[int], object] | None = None,
) -> Samples:
    """A completion a prompt by the model's own law; `told` as `draw` has it."""
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
            told=told,
        )
        for first in range(0, len(ids), settings.batch_size)
    ]
    return concatenate(parts)
