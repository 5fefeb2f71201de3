"""How likely a model finds rows of text: what validation and every perplexity are made of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tiltune.data.batches import CorpusBatch, corpus_batch, length_parts
from tiltune.data.encode import Example
from tiltune.errors import ModelError
from tiltune.models.chunks import Part, map_chunks
from tiltune.models.laws import log_softmax
from tiltune.models.lm import LanguageModel
from tiltune.records.intervals import Interval, ratio_interval
from tiltune.records.progress import Progress, silent

READING = "likelihood of given text"


class Likelihood(NamedTuple):
    """`-log p` of a row's trained tokens given those before them, and how many there are."""

    nats: float
    tokens: int


class ForwardPass(NamedTuple):
    """Rows of one forward pass.

    Attributes:
        places: of the rows among the examples.
        log_probs: of the rows' last K tokens, each given those before it, nats, [N, K]; 0 where
            masked.
        likeliest: whether no token was likelier, [N, K]; True where masked.
        mask: which of them are trained tokens, [N, K].
    """

    places: list[int]
    log_probs: Tensor
    likeliest: Tensor
    mask: Tensor


@torch.no_grad()
def predicted(
    lm: LanguageModel,
    examples: Sequence[Example],
    pad_id: int,
    *,
    most_tokens: int | None = None,
    progress: Progress = silent,
) -> Iterator[ForwardPass]:
    """Next-token laws where the examples have trained tokens, rows of like length together.

    Raises:
        ModelError: the model's law is not a number.
    """
    order = sorted(range(len(examples)), key=lambda place: len(examples[place].ids))
    lengths = [len(examples[place].ids) for place in order]
    done, tokens = 0, 0
    for part in length_parts(lengths, most_tokens or lm.most_read) if examples else []:
        progress(READING, done, len(examples), tokens=tokens)
        places = [order[n] for n in part]
        batch = corpus_batch([examples[place] for place in places], pad_id).to(lm.device)
        yield _part(lm, places, batch, first=min(examples[p].first_trained for p in places))
        done, tokens = done + len(places), tokens + sum(lengths[n] for n in part)
    progress(READING, done, len(examples), tokens=tokens)


def likelihoods(
    lm: LanguageModel,
    examples: Sequence[Example],
    pad_id: int,
    *,
    most_tokens: int | None = None,
    progress: Progress = silent,
) -> list[Likelihood]:
    """`-Σ_t log p(y_t | y_<t)` over each example's trained tokens, in the order of the examples."""
    found = [Likelihood(0.0, 0)] * len(examples)
    parts = predicted(lm, examples, pad_id, most_tokens=most_tokens, progress=progress)
    for places, log_probs, _, mask in parts:
        nats = -log_probs.double().sum(1)
        for place, row, count in zip(places, nats.tolist(), mask.sum(1).tolist(), strict=True):
            found[place] = Likelihood(row, count)
    return found


def nats_per_token(
    lm: LanguageModel,
    examples: Sequence[Example],
    pad_id: int,
    *,
    most_tokens: int | None = None,
    progress: Progress = silent,
) -> tuple[float, Interval]:
    """`-Σ log p / Σ tokens` over the examples' trained tokens, with a 95 % interval over examples.

    The interval is that of a ratio of means, see `records.ratio_interval`.
    """
    rows = likelihoods(lm, examples, pad_id, most_tokens=most_tokens, progress=progress)
    return nats_ratio(rows)


def nats_ratio(rows: Sequence[Likelihood]) -> tuple[float, Interval]:
    found = ratio_interval([row.nats for row in rows], [row.tokens for row in rows])
    assert found is not None  # an example has at least one trained token
    return found


def _part(lm: LanguageModel, places: list[int], batch: CorpusBatch, *, first: int) -> ForwardPass:
    ids, mask = batch.ids[:, first:], batch.loss_mask[:, first:]
    every: list[Tensor] = []
    place = 0
    for columns, read in lm.readings(batch.ids[:, :-1], batch.mask[:, :-1], keep=ids.shape[1]):
        piece = slice(place, place + next(iter(columns.values())).shape[1])
        place = piece.stop
        every.append(_numbers(columns, read, ids[:, piece], mask[:, piece], width=lm.width))
    found = torch.cat(every, 1)
    if bool(found.isnan().any()):
        raise ModelError(
            "the model gives logits that are not numbers (NaN), so no likelihood can be measured; "
            "its weights are broken, or overflow in the precision they are run in"
        )
    return ForwardPass(places, found[..., 0], found[..., 1].bool() | ~mask, mask)


def _numbers(
    columns: Mapping[str, Tensor],
    read: Callable[[Part], Tensor],
    ids: Tensor,
    mask: Tensor,
    *,
    width: int,
) -> Tensor:
    """Log-probability of each token, and whether none was likelier: [N, K, 2]; 0 where masked."""

    def numbers(part: Part) -> Tensor:
        law, taken = log_softmax(read(part)), part["ids"][:, None]
        return torch.stack((law.gather(1, taken)[:, 0], (law.argmax(1) == part["ids"]).to(law)), 1)

    rows = {name: column[mask] for name, column in columns.items()} | {"ids": ids[mask]}
    found = map_chunks(numbers, rows, width=width)
    places = mask[..., None].expand(*mask.shape, 2)
    return found.new_zeros(places.shape).masked_scatter(places, found)
