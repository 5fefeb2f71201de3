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
class Trial:
    """What every law is put to.

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


def measure_unquantised(loaded: Loaded, trial: Trial) -> tuple[Unquantised, list[Measurement]]:
    """Its completions, how many of them satisfy, and its perplexity.

    Raises:
        ConstraintError: the constraint is broken.
        ModelError: the law is not a number.
    """
    samples, measured = _drawn(loaded, trial)
    return Unquantised(loaded, samples), [*measured, *_perplexity(loaded, trial)]


def measure_quantised(loaded: Loaded, unquantised: Unquantised, trial: Trial) -> list[Measurement]:
    """The same of a law in few bits, and how far the unquantised one is from it.

    Raises:
        ConstraintError, ModelError: see `measure_unquantised`.
    """
    _, measured = _drawn(loaded, trial)
    own = unquantised.samples
    totals = completion_divergences(
        unquantised.loaded.policy, loaded.policy, own, progress=trial.progress
    )
    counts = own.mask.sum(1).tolist()
    estimate = bootstrap_ratio(totals, counts, seed=trial.settings.seed)
    kl = KL.of("", estimate, count=len(totals))
    return [*measured, kl, *_perplexity(loaded, trial)]


def _drawn(loaded: Loaded, trial: Trial) -> tuple[Samples, list[Measurement]]:
    """A completion of each prompt, and the share of them that satisfy."""
    tokens = 0

    def told(written: int) -> None:
        nonlocal tokens
        tokens += written
        trial.progress("completions", 0, len(trial.prompts), tokens=tokens)

    samples = draw_all(loaded, trial.prompts, trial.settings, told)
    trial.progress("completions", len(samples), len(samples), tokens=tokens)
    samples.prompt_index.copy_(torch.arange(len(samples)))
    if trial.constraint is None:
        return samples, []
    completions = texts(samples, trial.prompts, loaded.tokenizer)
    scores = trial.constraint.score(completions)
    satisfied = sum(bool(trial.constraint.satisfied(score)) for score in scores)
    return samples, [SATISFACTION.rate("", satisfied, len(scores))]


def _perplexity(loaded: Loaded, trial: Trial) -> list[Measurement]:
    if trial.text is None:
        return []
    return text_perplexity(loaded, trial.text, within(lambda: "perplexity", trial.progress))
