"""How likely a model finds rows of text: what validation and every perplexity are made of."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tiltune.data.batches import CorpusBatch, corpus_batch, length_parts
from tiltune.data.encode import Example
from tiltune.errors import ModelError
from tiltune.models.laws import gather
from tiltune.models.lm import LanguageModel
from tiltune.records.intervals import Interval, ratio_interval


class Likelihood(NamedTuple):
    """`-log p` of a row's trained tokens given those before them, and how many there are."""

    nats: float
    tokens: int


class ForwardPass(NamedTuple):
    """Rows of one forward pass.

    Attributes:
        places: of the rows among the examples.
        log_probs: [N, K, V], predictions of the last K columns of `ids`.
        ids, mask: those K columns, and which of them are trained tokens.
    """

    places: list[int]
    log_probs: Tensor
    ids: Tensor
    mask: Tensor


@torch.no_grad()
def predicted(
    lm: LanguageModel, examples: Sequence[Example], pad_id: int, *, most_logits: int = 2**23
) -> Iterator[ForwardPass]:
    """Next-token laws where the examples have trained tokens, rows of like length together.

    Raises:
        ModelError: the model's law is not a number.
    """
    order = sorted(range(len(examples)), key=lambda place: len(examples[place].ids))
    lengths = [len(examples[place].ids) for place in order]
    for part in length_parts(lengths, most_logits // lm.width) if examples else []:
        places = [order[n] for n in part]
        batch = corpus_batch([examples[place] for place in places], pad_id).to(lm.device)
        yield _part(lm, places, batch, first=min(examples[p].prompt_length for p in places))


def likelihoods(
    lm: LanguageModel, examples: Sequence[Example], pad_id: int, *, most_logits: int = 2**23
) -> list[Likelihood]:
    """`-Σ_t log p(y_t | y_<t)` over each example's trained tokens, in the order of the examples."""
    found = [Likelihood(0.0, 0)] * len(examples)
    for places, log_probs, ids, mask in predicted(lm, examples, pad_id, most_logits=most_logits):
        nats = torch.where(mask, -gather(log_probs, ids), 0.0).double().sum(1)
        for place, row, count in zip(places, nats.tolist(), mask.sum(1).tolist(), strict=True):
            found[place] = Likelihood(row, count)
    return found


def nats_per_token(
    lm: LanguageModel, examples: Sequence[Example], pad_id: int, *, most_logits: int = 2**23
) -> tuple[float, Interval]:
    """`-Σ log p / Σ tokens` over the examples' trained tokens, with a 95 % interval over examples.

    The interval is that of a ratio of means, see `records.ratio_interval`.
    """
    return nats_ratio(likelihoods(lm, examples, pad_id, most_logits=most_logits))


def nats_ratio(rows: Sequence[Likelihood]) -> tuple[float, Interval]:
    found = ratio_interval([row.nats for row in rows], [row.tokens for row in rows])
    assert found is not None  # an example has at least one trained token
    return found


def _part(lm: LanguageModel, places: list[int], batch: CorpusBatch, *, first: int) -> ForwardPass:
    keep = batch.ids.shape[1] - first
    log_probs = lm.log_probs(batch.ids[:, :-1], batch.mask[:, :-1], keep=keep)
    ids, mask = batch.ids[:, first:], batch.loss_mask[:, first:]
    if bool((gather(log_probs, ids).isnan() & mask).any()):
        raise ModelError(
            "the model gives logits that are not numbers (NaN), so no likelihood can be measured; "
            "its weights are broken, or overflow in the precision they are run in"
        )
    return ForwardPass(places, log_probs, ids, mask)
