"""What `tiltune check` says of bounds on shares: where samples stand, what meeting them costs."""

from collections.abc import Sequence

from tiltune.constraints.population import share_told, verdict
from tiltune.constraints.scores import Bound
from tiltune.data.samples import Samples
from tiltune.errors import counted
from tiltune.methods.master import Infeasible, nearest
from tiltune.records.alarms import EFFECTIVE_SHARE
from tiltune.training.actor import MEASURED


def share_lines(bounds: Sequence[Bound], samples: Samples) -> list[str]:
    """Each bound's share of the samples, and the KL that meeting all of them takes at least."""
    if samples.met is None:
        return []
    counts = samples.met.sum(0).tolist()
    lines = [
        f"{bound.name}: {share_told(bound, count, len(samples))}"
        for bound, count in zip(bounds, counts, strict=True)
    ]
    try:
        least = nearest(samples.met.cpu().numpy(), bounds)
    except Infeasible:
        return lines
    return [
        *lines,
        f"the least KL to the reference that meets the bounds: {least.kl:.3f} nats a completion",
    ]


def share_warnings(bounds: Sequence[Bound], samples: Samples, *, measured: int) -> list[str]:
    """Where no weights meet the bounds, or few completions would carry them; bounds that no run
    can show to be met.

    Args:
        bounds: of the constraint.
        samples: of the model.
        measured: completions that the final policy is measured on.
    """
    if samples.met is None:
        return []
    close = [line for bound in bounds for line in _too_close(bound, measured)]
    try:
        least = nearest(samples.met.cpu().numpy(), bounds)
    except Infeasible as error:
        return [str(error), *close]
    if least.effective_share >= EFFECTIVE_SHARE:
        return close
    return [
        f"few completions would carry the target: their effective number is "
        f"{least.effective_share:.1%} of the samples; raise sampler.samples_per_round, or widen "
        "the bounds",
        *close,
    ]


def _too_close(bound: Bound, measured: int) -> list[str]:
    """Where no share of so many has its interval within the bound: as of 'exactly half', or of
    'all', which a sample never shows."""
    if any(verdict(bound, satisfied, measured) == "met" for satisfied in range(measured + 1)):
        return []
    more = "raise sampler.samples_per_round, or " if measured < MEASURED else ""
    return [
        f"{bound.name}, {bound.told}: the run cannot show that this is met, since no share of "
        f"{counted(measured, 'completion')} has its whole 95 % interval within; {more}widen the "
        f"bound ({MEASURED:,} are measured at most), or read the share itself and not the verdict"
    ]


def meets_shares(bounds: Sequence[Bound], samples: Samples) -> str:
    """The verdict's first line: the share of each bound, beside it."""
    assert samples.met is not None
    shares = samples.met.double().mean(0).tolist()
    told = [f"{s:.1%} ({bound.told})" for s, bound in zip(shares, bounds, strict=True)]
    return f"shares of {len(samples)} samples of the model: {', '.join(told)}"
