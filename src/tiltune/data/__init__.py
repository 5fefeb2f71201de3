"""Data files to batches: rows, corpus examples, prompts, the order they come in, and padding."""

from tiltune.data.batches import (
    CorpusBatch,
    Cursor,
    corpus_batch,
    hold_out,
    left_padded,
    length_parts,
    micro_batches,
    unpadded,
)
from tiltune.data.encode import (
    Example,
    Prompt,
    Tokenizer,
    context_ids,
    corpus_examples,
    default_prompts,
    pair_example,
    prompt_list,
)
from tiltune.data.rows import Row, read_rows

__all__ = [
    "CorpusBatch",
    "Cursor",
    "Example",
    "Prompt",
    "Row",
    "Tokenizer",
    "context_ids",
    "corpus_batch",
    "corpus_examples",
    "default_prompts",
    "hold_out",
    "left_padded",
    "length_parts",
    "micro_batches",
    "pair_example",
    "prompt_list",
    "read_rows",
    "unpadded",
]
