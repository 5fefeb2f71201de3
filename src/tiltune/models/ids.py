"""Which ids of a model's output exist, and which of them end a completion.

Ids are looked at, not counted: a vocabulary may have gaps, and its highest id may stand far behind
their number. An output is often wider than its tokenizer, by rows that nothing writes.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tiltune.errors import ModelError

UNOWNED_LOGIT = -1e4
"""Logit of an id the tokenizer does not own: probability 0 in 32 bit, with a finite logarithm."""


def owned_ids(tokenizer: Any, width: int) -> Bool[Tensor, " V"]:
    """Which ids below `width` belong to a token of the tokenizer, added ones included."""
    owned = torch.zeros(width, dtype=torch.bool)
    owned[[i for i in tokenizer.get_vocab().values() if 0 <= i < width]] = True
    return owned


def check_ids(tokenizer: Any, width: int, path: str) -> None:
    """Refuse a tokenizer with ids that the model's output does not reach; raises ModelError."""
    highest = max(tokenizer.get_vocab().values())
    if highest >= width:
        raise ModelError(
            f"{path}: the tokenizer has {highest + 1} ids, the model's output only "
            f"{width}; give a folder whose tokenizer and model belong together"
        )


def end_ids(tokenizer: Any, module: Any, path: str) -> tuple[int, ...]:
    """The ids that end a completion: the tokenizer's EOS first, then the model's further ones.

    Raises:
        ModelError: the tokenizer has no EOS, or no token for one of the model's.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{path}: its tokenizer has no EOS token, so no completion could end; set "
            "`eos_token` in the folder's tokenizer_config.json"
        )
    further = module.generation_config.eos_token_id if module.generation_config else None
    listed = further if isinstance(further, list) else [further]
    ends = dict.fromkeys([tokenizer.eos_token_id, *(i for i in listed if i is not None)])
    known = set(tokenizer.get_vocab().values())
    for end in ends:
        if end not in known:
            raise ModelError(
                f"{path}: `eos_token_id` of its generation_config.json lists the id {end}, for "
                f"which the tokenizer has no token (its highest id is {max(known)}), so no "
                "completion could end with it; take it out there, or give the tokenizer that has it"
            )
    return tuple(ends)


def disown(
    logits: Float[Tensor, "*batch V"], owned: Bool[Tensor, " V"] | None
) -> Float[Tensor, "*batch V"]:
    """The logits with probability 0 for ids that are not owned; None: all are."""
    if owned is None:
        return logits
    return logits.masked_fill(~owned.to(logits.device), UNOWNED_LOGIT)
