"""Tensors that cross a border: completions with everything that was true when they were drawn."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tiltune.errors import RunError, counted


@dataclass(frozen=True)
class SamplingLaw:
    """The law that completions were drawn from, seen from the policy's own.

    The order is guidance, then temperature, then top-p. The policy's own law is
    `SamplingLaw(max_new_tokens)`; the token limit is part of it.

    Attributes:
        max_new_tokens: tokens at which a completion is cut, at least 1.
        temperature: above 0; logits are divided by it.
        top_p: in (0, 1]; the probability of the smallest set of tokens that is kept.
        guided: whether values reweigh each token.
        mixed: rows of several laws side by side, such as other temperatures or earlier policies;
            only `Samples.proposal_logprobs` says what a row was drawn with.

    Raises:
        ValueError: a field is out of its range.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    guided: bool = False
    mixed: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"{self}: max_new_tokens must be at least 1, temperature above 0 and top_p in "
                "(0, 1]"
            )

    @property
    def own(self) -> bool:
        """Whether this is the model's own law; values and targets come from no other."""
        plain = self.temperature == 1.0 and self.top_p == 1.0
        return plain and not self.guided and not self.mixed


@dataclass(frozen=True)
class Samples:
    """N completions of left-padded prompts (P columns) by right-padded tokens (T columns).

    Attributes:
        prompt_ids, prompt_mask: the prompts; padding on the left.
        ids, mask: the completions, end of sequence included; padding on the right.
        written: tokens that the policy itself wrote, which the losses are about; equals `mask` as
            long as there is one turn.
        proposal_logprobs: log-probability of each token under `law`, nats; 0 where masked.
        ended: True with an end of sequence, False where the token limit cut.
        prompt_index: which prompt of the data each row completes.
        policy_version: the version that drew each row.
        labels: `C` of each row; NaN until scored.
        law: what all rows were drawn from.
        prefix_labels: `C` of the text before each token, as if it ended there; None where nothing
            asked for it.
        met: of a population of M bounds, which of them count each row; None: of anything else.
        unparsed: the last token of each answer that was told that it does not parse; None where
            there is one turn.
    """

    prompt_ids: Int[Tensor, "N P"]
    prompt_mask: Bool[Tensor, "N P"]
    ids: Int[Tensor, "N T"]
    mask: Bool[Tensor, "N T"]
    written: Bool[Tensor, "N T"]
    proposal_logprobs: Float[Tensor, "N T"]
    ended: Bool[Tensor, " N"]
    prompt_index: Int[Tensor, " N"]
    policy_version: Int[Tensor, " N"]
    labels: Float[Tensor, " N"]
    law: SamplingLaw
    prefix_labels: Float[Tensor, "N T"] | None = None
    met: Bool[Tensor, "N M"] | None = None
    unparsed: Bool[Tensor, "N T"] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """Number of real completion tokens."""
        return int(self.mask.sum())

    def sequence(self) -> tuple[Tensor, Tensor]:
        """Prompt and completion side by side: ids and mask, each [N, P + T]."""
        ids = torch.cat((self.prompt_ids, self.ids), 1)
        return ids, torch.cat((self.prompt_mask, self.mask), 1)

    def prefixes(self) -> tuple[Tensor, Tensor]:
        """What the tokens were drawn after: `sequence()` without its last column.

        The last T of its P + T - 1 positions are those that the T completion tokens follow.
        """
        ids, mask = self.sequence()
        return ids[:, :-1], mask[:, :-1]

    def select(self, rows: Tensor) -> "Samples":
        """These rows, without columns that are padding in all of them."""
        picked = self._map(lambda value: value[rows.to(value.device)])
        if not len(picked):
            return picked
        width = int(picked.mask.sum(1).max())
        first = int(picked.prompt_mask.int().argmax(1).min()) if picked.prompt_mask.numel() else 0
        return picked.crop(first, width)

    def crop(self, first: int, width: int) -> "Samples":
        """Prompts from column `first` on, completions up to column `width`."""
        prompts = {name: getattr(self, name)[:, first:] for name in ("prompt_ids", "prompt_mask")}
        names = {"ids", "mask", "written", "proposal_logprobs", "prefix_labels", "unparsed"}
        columns = {n: column[:, :width] for n, column in self.tensors().items() if n in names}
        return replace(self, **prompts, **columns)

    def require_labels(self) -> None:
        """Refuse rows whose label is no number in [0, 1].

        Raises:
            RunError: says how many there are, and the first.
        """
        wrong = self.labels[~((self.labels >= 0) & (self.labels <= 1))]  # a NaN is neither
        if len(wrong):
            raise RunError(
                f"{len(wrong)} of {counted(len(self), 'completion')} have a label that is no number"
                f" in [0, 1], such as {wrong[0].item():g}, from which nothing can be learnt; it is "
                "what the constraint's `label` gives"
            )

    def to(self, device: torch.device) -> "Samples":
        """The same on a device."""
        return self._map(lambda value: value.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that there is by name, for a file or a pipe; `law` apart."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "law"}
        return {name: value for name, value in named.items() if value is not None}

    def _map(self, change: Any) -> "Samples":
        return replace(self, **{name: change(value) for name, value in self.tensors().items()})


def concatenate(parts: list[Samples]) -> Samples:
    """The rows of all parts, padded to common widths; the parts must share one law."""
    laws = {part.law for part in parts}
    if len(laws) != 1:
        raise ValueError(f"samples of {len(laws)} sampling laws cannot be one pool: {laws}")
    prompt_width = max(part.prompt_ids.shape[1] for part in parts)
    width = max(part.ids.shape[1] for part in parts)
    columns: dict[str, Tensor] = {}
    for name in parts[0].tensors():
        values = [getattr(part, name) for part in parts]
        if name.startswith("prompt_") and values[0].dim() == 2:
            values = [_pad(value, prompt_width - value.shape[1], 0) for value in values]
        elif values[0].dim() == 2 and name != "met":
            values = [_pad(value, 0, width - value.shape[1]) for value in values]
        columns[name] = torch.cat(values)
    return Samples(**columns, law=parts[0].law)


def _pad(value: Tensor, left: int, right: int) -> Tensor:
    return torch.nn.functional.pad(value, (left, right))
