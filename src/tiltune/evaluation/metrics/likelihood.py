"""How likely a model finds text: of a file, of a row, of one completion beside another."""

import math
from collections.abc import Callable
from pathlib import Path

from tiltune.config.evaluate import PerplexityConfig
from tiltune.config.text_file import read_text
from tiltune.data.encode import Example, Tokenizer, context_ids, corpus_examples, pair_example
from tiltune.data.lines import unpacked_suffix
from tiltune.data.rows import on_hub, read_rows
from tiltune.decoding.likelihood import likelihoods, nats_ratio
from tiltune.errors import DataError
from tiltune.evaluation.metrics.base import Quantity
from tiltune.models.hub import Loaded
from tiltune.records.measurements import Measurement
from tiltune.records.progress import Progress, silent

Judge = Callable[[str, str, str], float | None]
"""(prompt, first, second) -> 1 if the first is better, 0 if the second is, .5 for a draw."""


def text_perplexity(
    loaded: Loaded, section: PerplexityConfig, progress: Progress = silent
) -> list[Measurement]:
    """Perplexity of a file: `exp(-Σ log p / Σ tokens)`, and its logarithm, the nats a token.

    A file of rows is read as a corpus is, each row by itself, its end of sequence included. A
    `.txt` or `.txt.gz` file is one text, in blocks of the model's context with stride = context; a
    block begins with BOS (or EOS), so that every token of the text is predicted exactly once.

    Raises:
        DataError: the file cannot be read or holds nothing.
        ModelError: the model's law is not a number.
    """
    examples, what = _examples(loaded, section)
    rows = likelihoods(loaded.policy, examples, loaded.pad_id, progress=progress)
    impossible = sum(math.isinf(row.nats) for row in rows)
    found = None if impossible else nats_ratio(rows)
    note = "comparable among models of one tokenizer; none where a row has probability 0"
    measured: list[Measurement] = []
    for key, unit, formula, scale in (
        ("perplexity", "perplexity", "exp(-Σ log p / Σ tokens)", perplexity),
        ("nats_per_token", "nats a token", "-Σ log p / Σ tokens", float),
    ):
        quantity = Quantity(
            key=f"utility.{key}",
            aspect="utility",
            unit=unit,
            better="lower",
            definition=f"{formula} over {what}; {note}. Interval: of a ratio, over rows.",
        )
        wide = (scale(found[1][0]), scale(found[1][1])) if found and len(rows) > 1 else None
        estimate = found and (scale(found[0]), wide)
        count = len(rows) - impossible
        measured.append(quantity.of(section.name, estimate, count=count, missing=impossible))
    return measured


def perplexity(nats: float) -> float:
    """exp, infinite where a float ends."""
    return math.exp(nats) if nats < 709 else math.inf


def text_blocks(text: str, tokenizer: Tokenizer, *, context: int) -> list[Example]:
    """A long text in blocks of `context` tokens, the first of each being BOS (or EOS)."""
    start = context_ids("", tokenizer)[-1:]
    ids: list[int] = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    size = context - 1
    return [
        Example("", "", (*start, *ids[first : first + size]), 1, truncated=True)
        for first in range(0, len(ids), size)
    ]


def likelihood_judge(loaded: Loaded) -> Judge:
    """Prefers the completion of higher mean log-likelihood a token, given the prompt.

    A completion without tokens has none: nothing can be said then, and the judge answers None.
    """

    def judge(prompt: str, first: str, second: str) -> float | None:
        examples = [
            pair_example(prompt, text, loaded.tokenizer, max_tokens=loaded.context)
            for text in (first, second)
        ]
        kept = [example for example in examples if example is not None]
        if len(kept) < 2:
            return None
        one, two = (
            row.nats / row.tokens for row in likelihoods(loaded.policy, kept, loaded.pad_id)
        )
        return 0.5 if first == second or one == two else float(one < two)

    return judge


def _examples(loaded: Loaded, section: PerplexityConfig) -> tuple[list[Example], str]:
    """The file's examples, and how to call them."""
    setting, path = "utility.path", Path(section.path)
    if on_hub(section.path) or unpacked_suffix(path) != ".txt":
        rows = read_rows(section.path, setting=setting)[: section.limit]
        examples = corpus_examples(
            rows,
            loaded.tokenizer,
            ends=loaded.eos_ids,
            max_tokens=loaded.context,
            setting=setting,
        )
        return examples, f"the rows of {path.name}, EOS included"
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{setting} = {path}: cannot be read: {error}") from error
    blocks = text_blocks(text, loaded.tokenizer, context=loaded.context)[: section.limit]
    if not blocks:
        raise DataError(f"{setting} = {path}: the file is empty; it must hold some text")
    return blocks, f"{path.name} in blocks of {loaded.context} tokens, stride = context"
