"""The one drawing loop: sampler, guided sampling and evaluation all draw here.

Prompts are left-padded, keys and values cached, and rows that have finished leave the batch and the
cache, so that they cost nothing from then on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Never

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltune.data.batches import left_padded
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.guidance import NothingAllowed, Values, shape_law
from tiltune.errors import ModelError
from tiltune.models.laws import log_softmax
from tiltune.models.lm import Cache, LanguageModel

COMPACT_BELOW = 0.9
"""Rows leave once this share of the batch or less is unfinished; sooner, copying costs more."""
WIDE = 16_384
"""Ids above which, on a CPU, a token is found by its place in the cumulative sum: torch's own way
draws a random number for every id there (`LOG.md`)."""


@dataclass(frozen=True)
class Ending:
    """How a sequence ends and what fills the rest.

    Attributes:
        eos_ids: ids of the tokenizer, each of which ends a completion.
        pad_id: fills prompts on the left and completions on the right.
    """

    eos_ids: tuple[int, ...]
    pad_id: int


@torch.no_grad()
def draw(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    law: SamplingLaw,
    ending: Ending,
    *,
    generator: torch.Generator,
    values: Values | None = None,
    told: Callable[[int], object] | None = None,
) -> Samples:
    """Complete every prompt once, side by side.

    Args:
        lm: draws the tokens.
        prompts: token ids of N prompts, none empty.
        law: temperature, top-p, token limit.
        ending: ids that end a completion; the padding.
        generator: on the LM's device.
        values: guidance, required exactly when `law.guided`.
        told: of each step, how many tokens it wrote.

    Returns:
        N samples in the order of the prompts, `policy_version` 0, `prompt_index` 0…N-1, labels NaN.

    Raises:
        ValueError: values are given and the law is not guided, or the other way round.
        ModelError: the law is not a number.
        NothingAllowed: by the values no token of a row is possible.
    """
    if (values is not None) != law.guided:
        raise ValueError(
            f"law.guided is {law.guided}, values are {'given' if values else 'not given'}"
        )
    rows = Rows.start(prompts, law.max_new_tokens, ending, lm.device)
    fresh, places = rows.prompt_ids, torch.arange(len(rows.ids), device=lm.device)
    mask, caches = rows.prompt_mask, (None, None)
    for column in range(law.max_new_tokens):
        output = lm.forward(fresh, mask, keep=1, cache=caches[0], use_cache=True)
        log_values, value_cache = None, None
        if values is not None:
            logits, value_cache = values.step(fresh, mask, caches[1])
            log_values = logsigmoid(logits)
        log_probs = shape_law(output.logits[:, -1], law, log_values)
        if log_probs[:, 0].isnan().any():  # one such logit makes its whole row so
            refuse_law(output.logits[:, -1], log_values, places, column)
        token = pick(log_probs.exp(), generator)
        written = rows.write(places, column, token[:, 0], log_probs.gather(1, token)[:, 0])
        if told is not None:
            told(int(written))
        going = ~rows.ended[places]
        if not going.any():
            break
        caches = (output.cache, value_cache)
        if going.float().mean() <= COMPACT_BELOW:
            kept = going.nonzero()[:, 0]
            places, token, mask = places[kept], token[kept], mask[kept]
            reorder(caches, kept)
        fresh, mask = token, torch.nn.functional.pad(mask, (0, 1), value=True)
    return rows.samples(law)


def reorder(caches: Sequence[Cache], rows: Tensor) -> None:
    """Keep these rows of each cache that there is."""
    for cache in caches:
        if cache is not None:
            cache.reorder_cache(rows)


def pick(probabilities: Float[Tensor, "N V"], generator: torch.Generator) -> Int[Tensor, "N 1"]:
    """One id a row, each as often as its share of the row's sum; never one of probability 0.

    Args:
        probabilities: not negative, at least one of a row above 0.
        generator: on their device.
    """
    if probabilities.shape[1] <= WIDE or probabilities.device.type != "cpu":
        return probabilities.multinomial(1, generator=generator)
    below = probabilities.double().cumsum(1)
    shares = torch.rand(
        (len(below), 1), dtype=below.dtype, device=below.device, generator=generator
    )
    total = below[:, -1:].contiguous()
    found = torch.searchsorted(below, shares * total, right=True)
    last = torch.searchsorted(below, total)  # where rounding reached the whole sum
    return torch.minimum(found, last)


def refuse_law(logits: Tensor, log_values: Tensor | None, places: Tensor, written: int) -> Never:
    """Say why the law of the token after `written` of a completion is not a number."""
    if log_values is not None:
        _refuse_dead_end(logits, log_values, places, written)
    raise ModelError(
        f"the next-token law at token {written} of a completion is not a number (NaN or infinite "
        "logits); the weights are broken, or overflow in the precision they run in"
    )


def _refuse_dead_end(logits: Tensor, log_values: Tensor, places: Tensor, written: int) -> None:
    """Stop where the model's law is sound, and the values leave nothing of it."""
    stuck = (log_softmax(logits) + log_values == -torch.inf).all(1)
    if stuck.any():
        raise NothingAllowed(int(places[stuck][0]), written)


@dataclass
class Rows:
    """The completions so far."""

    prompt_ids: Tensor
    prompt_mask: Tensor
    ids: Tensor
    mask: Tensor
    log_probs: Tensor
    ended: Tensor
    eos: Tensor

    @staticmethod
    def start(
        prompts: Sequence[Sequence[int]], limit: int, ending: Ending, device: torch.device
    ) -> "Rows":
        ids, mask = left_padded(prompts, ending.pad_id)
        shape = (len(prompts), limit)
        return Rows(
            prompt_ids=ids.to(device),
            prompt_mask=mask.to(device),
            ids=torch.full(shape, ending.pad_id, device=device),
            mask=torch.zeros(shape, dtype=torch.bool, device=device),
            log_probs=torch.zeros(shape, device=device),
            ended=torch.zeros(len(prompts), dtype=torch.bool, device=device),
            eos=torch.tensor(ending.eos_ids, device=device),
        )

    def write(self, places: Tensor, column: int, token: Tensor, log_prob: Tensor) -> Tensor:
        """Put a token where the row had not ended before; returns in how many."""
        open_rows = ~self.ended[places]
        places, token, log_prob = places[open_rows], token[open_rows], log_prob[open_rows]
        self.ids[places, column] = token
        self.mask[places, column] = True
        self.log_probs[places, column] = log_prob.float()
        self.ended[places] = torch.isin(token, self.eos)
        return open_rows.sum()

    def samples(self, law: SamplingLaw) -> Samples:
        count = len(self.ids)
        every = torch.arange(count, device=self.ids.device)
        drawn = Samples(
            prompt_ids=self.prompt_ids,
            prompt_mask=self.prompt_mask,
            ids=self.ids,
            mask=self.mask,
            written=self.mask.clone(),
            proposal_logprobs=self.log_probs,
            ended=self.ended,
            prompt_index=every,
            policy_version=torch.zeros_like(every),
            labels=torch.full((count,), float("nan"), device=self.ids.device),
            law=law,
        )
        return drawn.select(every)
