"""Perplexity of generations under a reference model, in both definitions that are in use."""

import math

from tiltune.data.encode import pair_example
from tiltune.decoding.likelihood import Likelihood, likelihoods
from tiltune.evaluation.metrics.base import Generated, Quantity, bootstrap_ratio
from tiltune.evaluation.metrics.likelihood import perplexity
from tiltune.models.hub import Loaded
from tiltune.records.intervals import Interval
from tiltune.records.measurements import Measurement
from tiltune.records.progress import Progress, silent

MOST_PERPLEXITY = 1e4
"""Perplexities from here on are left out of the mean of exp, as in the DExperts code."""

MEAN_OF_EXP = Quantity(
    key="fluency.perplexity_mean_of_exp",
    aspect="quality",
    unit="perplexity",
    better="lower",
    definition="Mean over completions of exp(mean NLL a token given the prompt) under the "
    "reference model; values of 1e4 and above, and completions without tokens, are missing (as in "
    "the DExperts code). Interval: bootstrap over prompts.",
)
EXP_OF_MEAN = Quantity(
    key="fluency.perplexity_exp_of_mean",
    aspect="quality",
    unit="perplexity",
    better="lower",
    definition="exp(Σ NLL / Σ tokens) over all completions given their prompts under the reference "
    "model; completions without tokens or of probability 0 are missing. Interval: bootstrap over "
    "prompts.",
)


def fluency(
    generated: Generated, reference: Loaded, *, seed: int, progress: Progress = silent
) -> list[Measurement]:
    """How likely the reference finds the completions given their prompts; lower is more fluent.

    Text goes between the models, so each may have its own tokenizer. Prompt and completion are
    encoded apart, as `{prompt, completion}` rows are; the completion's tokens are measured, without
    an end of sequence. `mean_of_exp >= exp_of_mean` where all completions have equally many tokens.

    Args:
        generated: completions; those without tokens are missing.
        reference: a model that never saw the constraint.
        seed: of the bootstrap.
        progress: told of each forward pass.

    Returns:
        `MEAN_OF_EXP` and `EXP_OF_MEAN`.

    Raises:
        ModelError: the reference's law is not a number.

    Source: Liu et al., DExperts, ACL 2021, its evaluation code, for the first.
    """
    rows = _likelihoods(generated, reference, progress)
    return [
        _mean_of_exp(generated.group, rows, seed=seed),
        _exp_of_mean(generated.group, rows, seed=seed),
    ]


def _likelihoods(
    generated: Generated, reference: Loaded, progress: Progress
) -> list[list[Likelihood | None]]:
    """Of each prompt's completions; None where there is no token, or one of probability 0."""
    examples = [
        pair_example(prompt, text, reference.tokenizer, max_tokens=reference.context)
        for prompt, texts in zip(generated.prompts, generated.texts, strict=True)
        for text in texts
    ]
    kept = [example for example in examples if example is not None]
    found = iter(likelihoods(reference.policy, kept, reference.pad_id, progress=progress))
    both = [None if example is None else next(found) for example in examples]
    flat = iter([each if each and math.isfinite(each.nats) else None for each in both])
    return [[next(flat) for _ in texts] for texts in generated.texts]


def _mean_of_exp(group: str, rows: list[list[Likelihood | None]], *, seed: int) -> Measurement:
    values = [[each and perplexity(each.nats / each.tokens) for each in row] for row in rows]
    kept = [
        [value if value and value < MOST_PERPLEXITY else None for value in row] for row in values
    ]
    return MEAN_OF_EXP.completions_mean(group, kept, seed=seed)


def _exp_of_mean(group: str, rows: list[list[Likelihood | None]], *, seed: int) -> Measurement:
    kept = [present for row in rows if (present := [each for each in row if each])]
    nats = [math.fsum(each.nats for each in row) for row in kept]
    tokens = [sum(each.tokens for each in row) for row in kept]
    found = bootstrap_ratio(nats, tokens, seed=seed)
    count = sum(map(len, kept))
    missing = sum(map(len, rows)) - count
    return EXP_OF_MEAN.of(group, found and _exp(*found), count=count, missing=missing)


def _exp(mean: float, interval: Interval | None) -> tuple[float, Interval | None]:
    return perplexity(mean), interval and (perplexity(interval[0]), perplexity(interval[1]))
