"""Where the positions of a model begin, and how many tokens they reach."""

from typing import Any

from torch import nn

UNSTATED_CONTEXT = 2048
"""Tokens, where a configuration names no number."""


def first_position(module: Any) -> int:
    """Position of a text's first token.

    0, but in RoBERTa and its kin: their table of positions has a row for padding, and text begins
    behind it.
    """
    for name, part in module.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(part, nn.Embedding):
            return 0 if part.padding_idx is None else part.padding_idx + 1
    return 0


def context_of(module: Any) -> int:
    """Most tokens that the model reads at once, by its configuration."""
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
        value = getattr(module.config, name, None)
        if isinstance(value, int) and value > 0:
            return value - first_position(module)
    return UNSTATED_CONTEXT
