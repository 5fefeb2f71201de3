"""How many completions `tiltune check` looks at: as many as a minute allows, within bounds."""

from tiltune.data.samples import concatenate
from tiltune.models.lm import LanguageModel
from tiltune.records.progress import Progress, silent
from tiltune.training.sampler import Sampler, Scored

MOST, LEAST = 256, 64
SECONDS = 60.0
"""What drawing and scoring may take together, about."""


def draw_scored(sampler: Sampler, lm: LanguageModel, progress: Progress = silent) -> Scored:
    """`LEAST` completions, then as many more, up to `MOST`, as the time leaves room for."""
    first = sampler.draw(lm, LEAST, policy_version=0, progress=progress)
    more = affordable(first.sampling_seconds + first.scoring_seconds) - LEAST
    if more == 0:
        return first
    return _together(first, sampler.draw(lm, more, policy_version=0, progress=progress))


def affordable(seconds: float) -> int:
    """Completions to look at in all, where `LEAST` of them took so many seconds."""
    if seconds * MOST <= SECONDS * LEAST:
        return MOST
    return max(LEAST, int(SECONDS * LEAST / seconds))


def fewer_told(scored: Scored) -> str | None:
    """Why there are fewer than `MOST`, and what that costs; None: there are not."""
    count = len(scored.completions)
    if count >= MOST:
        return None
    seconds = scored.sampling_seconds + scored.scoring_seconds
    return (
        f"drew {count} completions and not {MOST}, as they took {seconds:.0f} s: intervals are "
        f"{(MOST / count) ** 0.5:.1f} times as wide"
    )


def _together(first: Scored, second: Scored) -> Scored:
    return Scored(
        concatenate([first.samples, second.samples]),
        [*first.completions, *second.completions],
        [*first.scores, *second.scores],
        first.sampling_seconds + second.sampling_seconds,
        first.scoring_seconds + second.scoring_seconds,
        [*first.earlier, *second.earlier],
    )
