"""A sequence classifier as it reads each text alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from tiltune.errors import ConstraintError
from tiltune.models.positions import context_of

SIDE_BY_SIDE = 64
"""Most texts of one forward pass."""


@dataclass(frozen=True)
class SequenceClassifier:
    """A Hugging Face sequence classifier: its labels, and their probabilities of texts."""

    labels: tuple[str, ...]
    module: Any
    tokenizer: Any

    @torch.no_grad()
    def probabilities(self, texts: Sequence[str]) -> list[list[float]]:
        """P(label | text), a row a text; longer texts are cut at the classifier's context.

        Texts of as many tokens are read side by side. So there is no padding, and a text's
        neighbours cannot matter: not by the padding's side, not by the positions after it, not by
        the token that a model takes for the last one.
        """
        read = self._tokens(texts)
        lengths = [len(text["input_ids"]) for text in read]
        order = sorted(range(len(read)), key=lengths.__getitem__)
        rows: list[list[float]] = [[]] * len(read)
        for _, group in groupby(order, key=lengths.__getitem__):
            places = list(group)
            for first in range(0, len(places), SIDE_BY_SIDE):
                part = places[first : first + SIDE_BY_SIDE]
                found = self._read([read[place] for place in part])
                for place, row in zip(part, found, strict=True):
                    rows[place] = row
        return rows

    def _tokens(self, texts: Sequence[str]) -> list[dict[str, list[int]]]:
        """What the tokenizer makes of each text; of an empty one at least one token."""
        tokenizer, read = self.tokenizer, list[dict[str, list[int]]]()
        for text in texts:
            found = dict(tokenizer(text, truncation=True, max_length=context_of(self.module)))
            if not found["input_ids"]:
                starts = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
                start = next((i for i in starts if i is not None), 0)
                found = {name: [0] for name in found}
                found |= {"input_ids": [start], "attention_mask": [1]}
            read.append(found)
        return read

    def _read(self, texts: list[dict[str, list[int]]]) -> list[list[float]]:
        """The probabilities of texts of as many tokens."""
        batch = {name: torch.tensor([text[name] for text in texts]) for name in texts[0]}
        config = self.module.config
        logits = self.module(**batch).logits.float()
        several = config.problem_type == "multi_label_classification"
        return (logits.sigmoid() if several else logits.softmax(-1)).tolist()


def label_names(config: Any, path: str) -> tuple[str, ...]:
    """The names of a classifier's outputs, in their order; ConstraintError for a regressor."""
    names: dict[int, str] = config.id2label
    several = config.problem_type == "multi_label_classification"
    if config.problem_type == "regression" or (len(names) < 2 and not several):
        raise ConstraintError(
            f"constraint.path = {path}: a model of {len(names)} outputs that is a regressor, it "
            "has no label probabilities; give a classifier"
        )
    if sorted(names) != list(range(len(names))) or len({*names.values()}) < len(names):
        raise ConstraintError(
            f"constraint.path = {path}: `id2label` of its config.json names its outputs {names}; "
            f"it must name each from 0 to {len(names) - 1}, by a name of its own"
        )
    return tuple(names[place] for place in range(len(names)))
