"""How varied, how long and how repetitive completions are; no model looks at them."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from tiltune.evaluation.metrics.base import Generated, Quantity
from tiltune.records.measurements import Better, Measurement

bleu: Any
try:
    bleu = import_module("sacrebleu.metrics.bleu")
except ImportError:  # the extra `eval`; self-BLEU is missing without it, and says so
    bleu = None

SELF_BLEU_PROMPTS = 200
"""Each costs k² comparisons: about 10 seconds for 200 prompts of 25 completions."""
REPETITION_ORDER = 4


def diversity(
    generated: Generated, *, seed: int, self_bleu_prompts: int = SELF_BLEU_PROMPTS
) -> list[Measurement]:
    """dist-1/2/3, self-BLEU, repetition, distinct and empty share, length, clipped share.

    Every interval is over prompts.

    Args:
        generated: one group of prompts.
        seed: of the bootstrap.
        self_bleu_prompts: self-BLEU reads the first so many prompts.
    """
    return [
        *(_distinct_ngrams(generated, order, seed) for order in (1, 2, 3)),
        _self_bleu(generated, seed, self_bleu_prompts),
        _repetition(generated, seed),
        _distinct_share(generated, seed),
        *_lengths(generated, seed),
        *_shares(generated, seed),
    ]


def dist(texts: Sequence[str], order: int) -> float | None:
    """Distinct n-grams of a prompt's completions over their number of words.

        dist-n = |∪_i ngrams_n(y_i)| / Σ_i |y_i|

    As the reference code of DExperts counts: words are what lies between single spaces, so that an
    empty text is one (empty) word; the denominator is the number of words, not of n-grams, for
    every n; an n-gram is its words joined by "_".

    Returns:
        None for no texts.

    Source: Li et al., A Diversity-Promoting Objective Function, NAACL 2016; Liu et al., DExperts,
    ACL 2021.
    """
    words = [text.split(" ") for text in texts]
    ngrams = {
        "_".join(row[start : start + order])
        for row in words
        for start in range(len(row) - order + 1)
    }
    return len(ngrams) / sum(map(len, words)) if words else None


def self_bleu(texts: Sequence[str]) -> float | None:
    """Mean sentence BLEU, 0 to 100, of each completion of a prompt against the others.

    Empty completions are left out: BLEU gives them 0, as if they were varied.

    Returns:
        None for fewer than two completions with text, or without sacrebleu.

    Source: Zhu et al., Texygen, SIGIR 2018; Post, A Call for Clarity in Reporting BLEU Scores,
    WMT 2018.
    """
    there = [text for text in texts if text.strip()]
    if bleu is None or len(there) < 2:
        return None
    metric = bleu.BLEU(tokenize="13a", smooth_method="exp", effective_order=True)
    found = [
        metric.sentence_score(text, [*there[:place], *there[place + 1 :]]).score
        for place, text in enumerate(there)
    ]
    return math.fsum(found) / len(found)


def repetition(text: str) -> float | None:
    """Share of a completion's 4-grams of words that it has said before.

        1 - |distinct 4-grams| / |4-grams|

    Returns:
        None for fewer than four words.

    Source: Welleck et al., Neural Text Generation with Unlikelihood Training, ICLR 2020, seq-rep-4.
    """
    words = text.split()
    count = len(words) - REPETITION_ORDER + 1
    if count < 1:
        return None
    ngrams = {tuple(words[start : start + REPETITION_ORDER]) for start in range(count)}
    return 1 - len(ngrams) / count


def _distinct_ngrams(generated: Generated, order: int, seed: int) -> Measurement:
    quantity = _quantity(
        f"dist_{order}",
        "share",
        "higher",
        f"Distinct {order}-grams over words, pooled over a prompt's completions, as in DExperts' "
        "code: split on single spaces, divided by words for every n; mean and bootstrap over "
        "prompts.",
    )
    values = [dist(row, order) for row in generated.texts]
    return quantity.mean(generated.group, values, seed=seed)


def _self_bleu(generated: Generated, seed: int, limit: int) -> Measurement:
    hint = "" if bleu else " Missing: needs sacrebleu (pip install 'tiltune[eval]')."
    quantity = _quantity(
        "self_bleu",
        "BLEU, 0 to 100",
        "lower",
        "sacreBLEU sentence BLEU (up to 4-grams, tokenize 13a, smoothing exp, effective order) of "
        "each completion against the prompt's others, empty ones left out; mean and bootstrap "
        f"over the first {limit} prompts; prompts with fewer than two are missing.{hint}",
    )
    values = [self_bleu(row) for row in generated.texts[:limit]]
    return quantity.mean(generated.group, values, seed=seed)


def _repetition(generated: Generated, seed: int) -> Measurement:
    quantity = _quantity(
        "repetition_share",
        "share",
        "lower",
        "1 - distinct 4-grams / 4-grams of whitespace-separated words within a completion "
        "(seq-rep-4); mean over completions of four words or more, the others are missing; "
        "bootstrap over prompts.",
    )
    return _over_completions(quantity, generated, repetition, seed)


def _distinct_share(generated: Generated, seed: int) -> Measurement:
    """`distinct / all` is the mean of 1 / (how often the completion occurs in the group)."""
    times = Counter(text for row in generated.texts for text in row)
    quantity = _quantity(
        "distinct_share",
        "share",
        "higher",
        "Distinct completions over completions, pooled over the group's prompts; bootstrap over "
        "prompts of 1 / (occurrences in the group).",
    )
    return _over_completions(quantity, generated, lambda text: 1 / times[text], seed)


def _lengths(generated: Generated, seed: int) -> list[Measurement]:
    tokens = _quantity(
        "length_tokens",
        "tokens",
        "neither",
        "Mean number of tokens of a completion; bootstrap over prompts.",
    )
    words = _quantity(
        "length_words",
        "words",
        "neither",
        "Mean number of whitespace-separated words of a completion; bootstrap over prompts.",
    )
    return [
        tokens.completions_mean(generated.group, generated.tokens, seed=seed),
        _over_completions(words, generated, lambda text: len(text.split()), seed),
    ]


def _shares(generated: Generated, seed: int) -> list[Measurement]:
    clipped = _quantity(
        "clipped_share",
        "share",
        "neither",
        "Share of completions cut at the token limit; bootstrap over prompts (Wilson over prompts "
        "where all agree).",
    )
    empty = _quantity(
        "empty_share",
        "share",
        "lower",
        "Share of completions that are empty or white space; bootstrap over prompts (Wilson over "
        "prompts where all agree).",
    )
    cut = [[not ended for ended in row] for row in generated.ended]
    silent = [[not text.strip() for text in row] for row in generated.texts]
    return [
        clipped.completions_share(generated.group, cut, seed=seed),
        empty.completions_share(generated.group, silent, seed=seed),
    ]


def _quantity(name: str, unit: str, better: Better, definition: str) -> Quantity:
    return Quantity(f"diversity.{name}", "quality", unit, better, definition)


def _over_completions(
    quantity: Quantity, generated: Generated, number: Callable[[str], float | None], seed: int
) -> Measurement:
    """Mean over all completions that have the number."""
    rows = [[number(text) for text in row] for row in generated.texts]
    return quantity.completions_mean(generated.group, rows, seed=seed)
