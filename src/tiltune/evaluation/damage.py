"""What putting weights into few bits does to a model: to its constraint, its law and its text."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tiltune.config import PerplexityConfig
from tiltune.constraints.base import TextConstraint
from tiltune.data.encode import Prompt
from tiltune.data.samples import Samples
from tiltune.decoding.divergence import completion_divergences
from tiltune.decoding.texts import texts
from tiltune.evaluation.metrics.base import Quantity, bootstrap_ratio
from tiltune.evaluation.metrics.divergence import DrawSettings, draw_all
from tiltune.evaluation.metrics.likelihood import text_perplexity
from tiltune.models.hub import Loaded
from tiltune.records.measurements import Measurement
from tiltune.records.progress import Progress, silent, within

SATISFACTION = Quantity(
    key="satisfaction_rate",
    aspect="control",
    unit="share",
    better="higher",
    definition="Share of completions that meet the constraint, one of each prompt that was asked, "
    "drawn at T = 1 without truncation. Interval: Wilson.",
)
KL = Quantity(
    key="kl_unquantised_quantised_nats_per_token",
    aspect="utility",
    unit="nats a token",
    better="lower",
    definition="Σ_t KL(p(·|s_t) ‖ p̂(·|s_t)) / Σ tokens, of the unquantised law p and the quantised "
    "p̂, exact over the vocabulary at each prefix of completions of p. Interval: bootstrap over "
    "completions.",
)


@dataclass(frozen=True)
class Questions:
    """What every law is asked.

    Attributes:
        prompts: completed once each.
        settings: of the draws.
        constraint: that judges the completions; None: none does.
        text: whose perplexity is measured; None: of none.
        progress: told of forward passes.
    """

    prompts: Sequence[Prompt]
    settings: DrawSettings
    constraint: TextConstraint | None
    text: PerplexityConfig | None
    progress: Progress = silent


@dataclass(frozen=True)
class Unquantised:
    """The law that others are held against, and completions of it."""

    loaded: Loaded
    samples: Samples


def measure_unquantised(loaded: Loaded, asked: Questions) -> tuple[Unquantised, list[Measurement]]:
    """Its completions, how many of them satisfy, and its perplexity.

    Raises:
        ConstraintError: the constraint is broken.
        ModelError: the law is not a number.
    """
    samples, measured = _drawn(loaded, asked)
    return Unquantised(loaded, samples), [*measured, *_perplexity(loaded, asked)]


def measure_quantised(
    loaded: Loaded, unquantised: Unquantised, asked: Questions
) -> list[Measurement]:
    """The same of a law in few bits, and how far the unquantised one is from it.

    Raises:
        ConstraintError, ModelError: see `measure_unquantised`.
    """
    _, measured = _drawn(loaded, asked)
    own = unquantised.samples
    totals = completion_divergences(
        unquantised.loaded.policy, loaded.policy, own, progress=asked.progress
    )
    counts = own.mask.sum(1).tolist()
    estimate = bootstrap_ratio(totals, counts, seed=asked.settings.seed)
    kl = KL.of("", estimate, count=len(totals))
    return [*measured, kl, *_perplexity(loaded, asked)]


def _drawn(loaded: Loaded, asked: Questions) -> tuple[Samples, list[Measurement]]:
    """A completion of each prompt, and the share of them that satisfy."""
    tokens = 0

    def told(written: int) -> None:
        nonlocal tokens
        tokens += written
        asked.progress("completions", 0, len(asked.prompts), tokens=tokens)

    samples = draw_all(loaded, asked.prompts, asked.settings, told)
    asked.progress("completions", len(samples), len(samples), tokens=tokens)
    samples.prompt_index.copy_(torch.arange(len(samples)))
    if asked.constraint is None:
        return samples, []
    completions = texts(samples, asked.prompts, loaded.tokenizer)
    scores = asked.constraint.score(completions)
    satisfied = sum(bool(asked.constraint.satisfied(score)) for score in scores)
    return samples, [SATISFACTION.rate("", satisfied, len(scores))]


def _perplexity(loaded: Loaded, asked: Questions) -> list[Measurement]:
    if asked.text is None:
        return []
    return text_perplexity(loaded, asked.text, within(lambda: "perplexity", asked.progress))
