"""The order that examples come in, what is held out of them, padding, and batches by length."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tiltune.data.encode import Example
from tiltune.data.samples import Samples


@dataclass(frozen=True)
class CorpusBatch:
    """N right-padded examples of T tokens.

    Attributes:
        ids: padding holds the pad id, which may be a real token too: only masks tell.
        mask: real tokens.
        loss_mask: True at t when token t is trained on, predicted from those before it.
    """

    ids: Int[Tensor, "N T"]
    mask: Bool[Tensor, "N T"]
    loss_mask: Bool[Tensor, "N T"]

    def to(self, device: torch.device) -> "CorpusBatch":
        return CorpusBatch(self.ids.to(device), self.mask.to(device), self.loss_mask.to(device))


def hold_out(
    examples: Sequence[Example], *, share: float = 0.1, most: int = 512
) -> tuple[list[Example], list[Example]]:
    """Split examples into (train, valid), each in the order given.

    The `min(most, ⌊share·n⌋)` rows of lowest hash are held out, so the split depends on what the
    rows say and not on their order. Equal rows stay together; `train` is never left empty.
    """
    hashes = [hashlib.sha256(f"{e.prompt}\0{e.text}".encode()).digest() for e in examples]
    count = min(most, int(share * len(examples)), len(examples) - 1)
    if count < 1:
        return list(examples), []
    first_kept = sorted(hashes)[count]
    pairs = list(zip(examples, hashes, strict=True))
    return [e for e, h in pairs if h >= first_kept], [e for e, h in pairs if h < first_kept]


def corpus_batch(examples: Sequence[Example], pad_id: int) -> CorpusBatch:
    """Examples side by side, padded on the right to the longest; `pad_id` may equal EOS."""
    lengths = torch.tensor([len(e.ids) for e in examples])[:, None]
    prompt_lengths = torch.tensor([e.prompt_length for e in examples])[:, None]
    width = int(lengths.max())
    ids = [[*e.ids, *[pad_id] * (width - len(e.ids))] for e in examples]
    column = torch.arange(width)
    mask = column < lengths
    trained = mask & (column >= prompt_lengths)
    for row, example in enumerate(examples):
        for turn in example.earlier:
            trained[row, turn.start : turn.end] = True
    return CorpusBatch(torch.tensor(ids), mask, trained)


def left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int
) -> tuple[Int[Tensor, "N P"], Bool[Tensor, "N P"]]:
    """Prompts side by side, padded on the left: ids, and a mask of the real tokens."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])[:, None]
    width = int(lengths.max())
    ids = [[*[pad_id] * (width - len(prompt)), *prompt] for prompt in prompts]
    return torch.tensor(ids, dtype=torch.int64), torch.arange(width) >= width - lengths


def unpadded(
    prompt_ids: Int[Tensor, "N P"], prompt_mask: Bool[Tensor, "N P"]
) -> list[tuple[int, ...]]:
    """The ids of each prompt without its padding."""
    rows = zip(prompt_ids.tolist(), prompt_mask.tolist(), strict=True)
    return [tuple(i for i, real in zip(ids, there, strict=True) if real) for ids, there in rows]


def micro_batches(samples: Samples, most_tokens: int) -> list[Samples]:
    """The samples in parts, see `part_rows`."""
    return [samples.select(rows) for rows in part_rows(samples, most_tokens)]


def part_rows(samples: Samples, most_tokens: int) -> list[Int[Tensor, " rows"]]:
    """Rows of the samples in parts: sorted by length where that saves padding, see `length_parts`.

    Args:
        samples: any number.
        most_tokens: padded tokens of a part, prompts included; one row at least.
    """
    prompts, completions = samples.prompt_mask.sum(1).tolist(), samples.mask.sum(1).tolist()
    parts = _parts(list(zip(prompts, completions, strict=True)), most_tokens)
    return [torch.tensor(part) for part in parts]


def length_parts(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Places of rows, grouped so that rows padded to their group's longest waste little.

    Rows are cut into quarters by length if that saves a fifth of the padded tokens, and into parts
    of at most `most_tokens` padded tokens (one row at least) in any case.
    """
    return _parts([(length,) for length in lengths], most_tokens)


def _parts(lengths: Sequence[tuple[int, ...]], most_tokens: int) -> list[list[int]]:
    """`length_parts` of rows whose pieces, such as prompt and completion, are padded each apart."""

    def padded(places: Sequence[int]) -> int:
        columns = zip(*(lengths[place] for place in places), strict=True)
        return len(places) * sum(map(max, columns))

    order = sorted(range(len(lengths)), key=lambda place: (sum(lengths[place]), lengths[place]))
    size = -(-len(order) // 4)
    quarters = [order[first : first + size] for first in range(0, len(order), size)]
    whole = list(range(len(lengths)))
    groups = quarters if sum(map(padded, quarters)) <= 0.8 * padded(whole) else [whole]
    parts: list[list[int]] = []
    for group in groups:
        rows = max(1, most_tokens * len(group) // padded(group))
        parts += [group[first : first + rows] for first in range(0, len(group), rows)]
    return parts


@final
class Cursor:
    """Endless shuffled epochs over `size` places, each place once an epoch.

    The order of an epoch depends on (seed, epoch, size) alone: two integers are all the state.
    """

    def __init__(self, size: int, *, seed: int) -> None:
        if size < 1:
            raise ValueError(f"a cursor needs at least one row to go over, not {size}")
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def next(self, count: int) -> list[int]:
        """The next `count` places."""
        picks: list[int] = []
        while len(picks) < count:
            taken = self._order()[self.position : self.position + count - len(picks)]
            picks += taken
            self.position += len(taken)
            if self.position == self.size:
                self.epoch, self.position = self.epoch + 1, 0
        return picks

    @property
    def passes(self) -> float:
        """Epochs so far; the part of this one counts by its share of the places."""
        return self.epoch + self.position / self.size

    def state(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state(self, state: Mapping[str, int]) -> None:
        if not 0 <= state["position"] < self.size:
            raise ValueError(f"{dict(state)} is no place among {self.size} rows")
        self.epoch, self.position = state["epoch"], state["position"]

    def _order(self) -> list[int]:
        if self._shuffled[0] != self.epoch:
            # hashed, so that (seed 0, epoch 1) and (seed 1, epoch 0) are two orders
            digest = hashlib.sha256(f"{self.seed} {self.epoch}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            order = torch.randperm(self.size, generator=generator)
            self._shuffled = (self.epoch, order.tolist())
        return self._shuffled[1]
