"""How far one law is from another on completions: KL, exact over the vocabulary at every prefix."""

import torch
from torch import Tensor

from tiltune.data.batches import micro_batches
from tiltune.data.samples import Samples
from tiltune.errors import ModelError
from tiltune.models.chunks import Part, map_chunks
from tiltune.models.laws import kl, log_softmax
from tiltune.models.lm import LanguageModel
from tiltune.records.progress import Progress, silent


@torch.no_grad()
def completion_divergences(
    own: LanguageModel, other: LanguageModel, samples: Samples, *, progress: Progress = silent
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
    numbered, done, tokens = _numbered(samples).to(own.device), 0, 0
    for part in micro_batches(numbered, min(own.most_read, other.most_read)):
        progress("distance to the reference", done, len(samples), tokens=tokens)
        (ids, mask), keep = part.prefixes(), part.ids.shape[1]
        one, two = (lm.states(ids, mask, keep=keep)[part.written] for lm in (own, other))

        def divergence(part: Part) -> Tensor:
            laws = (own.unembed(part["one"]), other.unembed(part["two"]))
            return kl(*(log_softmax(law[..., :width]) for law in laws))

        wide = max(own.width, other.width)
        nats = map_chunks(divergence, {"one": one, "two": two}, width=wide)
        sums = nats.new_zeros(part.mask.shape).masked_scatter(part.written, nats).sum(1)
        _refuse_nan(sums)
        for place, value in zip(part.prompt_index.tolist(), sums.tolist(), strict=True):
            found[place] = value
        done, tokens = done + len(part), tokens + part.tokens
    progress("distance to the reference", done, len(samples), tokens=tokens)
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
